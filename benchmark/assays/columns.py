"""Reading tables of metadata: CSV as text, and the study's rules for which column is what."""

from __future__ import annotations

import csv
import gzip
import math
import os
import re
import zlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TextIO, cast

import pandas as pd

from benchmark.assays.settings import ColumnRule, Key, Mapped
from benchmark.base.errors import Fault, FaultsError, MorphobenchError, sheet_row
from benchmark.base.files import usable
from benchmark.base.tables import (
    BATCH,
    CELL_LINE,
    COMPOUND,
    CONCENTRATION,
    CONTROL,
    LABEL,
    PLATE,
    REPLICATE,
    SITE,
    WELL,
    typed,
)

_COLUMN_OF: dict[Key, str] = {
    "batch": BATCH, "plate": PLATE, "well": WELL, "site": SITE, "replicate": REPLICATE, "compound": COMPOUND,
    "concentration": CONCENTRATION, "label": LABEL, "cell_line": CELL_LINE,
}
#: Values of keys that the mapping leaves out; sites are left to the caller.
_DEFAULTS: dict[Key, str] = {"batch": "1", "replicate": "1", "cell_line": ""}
#: What tables are split at, the likely ones first.
SEPARATORS = (";", "\t", ",", "|")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_VARIABLE = re.compile(r"\$\{(\w+)\}")


def expand(text: str, base: Path) -> Path:
    """A path of the study file: ``${VARIABLE}`` filled in, relative ones below ``base``.

    Raises
    ------
    MorphobenchError
        A variable is not set, or what comes out is no path that can be used.
    """
    def value(match: re.Match[str]) -> str:
        setting = os.environ.get(match[1])
        if not setting:
            raise MorphobenchError(f"the environment variable {match[1]} is not set", text,
                                   f"Set it to the folder with the data, for example `export {match[1]}=/data`.")
        return setting

    try:
        path = Path(_VARIABLE.sub(value, text)).expanduser()
    except RuntimeError as error:  # ~somebody
        raise MorphobenchError("names the home folder of a user who is not known here", text,
                               "Write the path in full.") from error
    return usable(base / path, text)


def read_text_table(path: Path, separator: str = ",") -> pd.DataFrame:
    """Cells of a CSV or gzipped CSV as text, exactly as they are; index 0…n-1, the header not counted.

    Raises
    ------
    MorphobenchError
        The file is missing, truncated, not UTF-8 or not CSV, or has no rows.
    FaultsError
        Header names are repeated, or rows are longer or shorter than the header.
    """
    if not path.is_file():
        raise MorphobenchError("does not exist", str(path), "Correct its path in the study.")
    try:
        with open_text(path) as handle:
            rows = [row for row in csv.reader(handle, delimiter=separator, strict=True) if row]
    except UnicodeDecodeError as error:
        raise MorphobenchError(f"is not UTF-8 text (byte {error.start})", str(path),
                               "Save it as `CSV UTF-8`; µ and accents differ between encodings.") from error
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise MorphobenchError(f"is no whole gzip file ({error})", str(path), "Fetch or copy it again.") from error
    except csv.Error as error:
        raise MorphobenchError(f"is not CSV ({error})", str(path), "Check quotes and separators.") from error
    except OSError as error:
        raise MorphobenchError(f"cannot be read ({error.strerror})", str(path)) from error
    if len(rows) < 2:
        raise MorphobenchError("has no rows below its header" if rows else "is empty", str(path))
    header, body = rows[0], rows[1:]
    refuse_other_separator(header, separator, path)
    _refuse_nul(rows, path)
    faults = [Fault(f"the column {c!r} appears {header.count(c)} times in the header", path.name,
                    "Give each column its own name.") for c in dict.fromkeys(header) if header.count(c) > 1]
    ragged: dict[int, list[int]] = defaultdict(list)
    for i, row in enumerate(body):
        if len(row) != len(header):
            ragged[len(row)].append(i)
    faults += [Fault(f"has {cells} cells where the header has {len(header)}", f"{path.name}, {_rows(indices)}",
                     "Quote cells that hold the separator; check assay.separator.")
               for cells, indices in ragged.items()]
    if faults:
        raise FaultsError(faults, f"{path} cannot be read as a table:")
    return pd.DataFrame(body, columns=header, dtype=str)


def refuse_other_separator(header: Sequence[str], separator: str, path: Path) -> None:
    """MorphobenchError where a header is one cell and holds another separator: every column would be missing."""
    other = next((s for s in SEPARATORS if s != separator and s in header[0]), None) if len(header) == 1 else None
    if other is not None:
        shown = header[0] if len(header[0]) <= 60 else f"{header[0][:60]}…"
        raise MorphobenchError(f"has a single column, {shown!r}, when split at {separator!r}", str(path),
                               f"Set assay.separator to {other!r}.")


def _refuse_nul(rows: Sequence[Sequence[str]], path: Path) -> None:
    """MorphobenchError where a cell holds a NUL, as every second character of a UTF-16 file is one."""
    for i, row in enumerate(rows):
        if any("\0" in cell for cell in row):
            raise MorphobenchError("holds a NUL character, so that it is no UTF-8 text", f"{path}, {sheet_row(i - 1)}",
                                   "Save it as `CSV UTF-8`.")


def open_text(path: Path) -> TextIO:
    """A text file, gzipped or not, for reading."""
    if path.suffix == ".gz":
        return cast(TextIO, gzip.open(path, "rt", encoding="utf-8-sig", newline=""))
    return path.open(encoding="utf-8-sig", newline="")


def metadata_of(settings: Mapped, cells: pd.DataFrame, where: str,
                faults: list[Fault]) -> tuple[pd.DataFrame, set[int]]:
    """Metadata as a study's mapping of columns says, and controls by their compounds' names.

    Blanks around a cell are dropped, so that ``taxol`` and ``taxol `` are one compound.

    Parameters
    ----------
    settings : Mapped
        The mapping, and the names of controls.
    cells : DataFrame
        Text, with every column that the mapping names.
    where : str
        How messages name the table.
    faults : list of Fault
        What is wrong is added here.

    Returns
    -------
    table : DataFrame
        One row per row of ``cells``: ``Metadata_*`` of the mapping and of the defaults (batch and replicate 1, no cell
        line), the concentration in µM, with types as `benchmark.base.tables.typed` gives them.
    bad : set of int
        Rows that have a fault.
    """
    table = pd.DataFrame(index=cells.index)
    bad: set[int] = set()
    for key, column in _COLUMN_OF.items():
        source = settings.columns.get(key, ColumnRule(value=_DEFAULTS[key]) if key in _DEFAULTS else None)
        if source is not None:
            table[column] = values_of(rule_of(source), key, cells, where, faults, bad)
            _refuse_control_characters(table[column], rule_of(source).column or key, where, faults, bad)
    # The rules of the settings keep a compound from being both.
    kinds = {c: "negative" for c in settings.negative_controls} | {c: "positive" for c in settings.positive_controls}
    table[CONTROL] = [kinds.get(c, "") for c in table[COMPOUND]]
    table[CONCENTRATION] = concentrations_of(table, where, faults, bad)
    return typed(table), bad


def rule_of(source: str | ColumnRule) -> ColumnRule:
    """The rule of a key; a bare name is a column taken unchanged."""
    return ColumnRule(column=source) if isinstance(source, str) else source


def values_of(rule: ColumnRule, key: str, cells: pd.DataFrame, where: str, faults: list[Fault],
              bad: set[int]) -> list[str]:
    """Text of one key in every row."""
    if rule.column is None:
        return [str(rule.value).strip()] * len(cells)
    texts = [str(v).strip() for v in cells[rule.column]]
    if rule.pattern is None:
        return texts
    matches = [re.search(rule.pattern, t) for t in texts]
    values = [(m[1] or "").strip() if m else "" for m in matches]
    misses = {i: texts[i] for i, value in enumerate(values) if not value}
    faults += [Fault(f"{rule.column} is {text!r}, in which the pattern of assay.columns.{key} finds nothing "
                     f"({rule.pattern})", f"{where}, {rows}") for text, rows in _grouped(misses)]
    bad.update(misses)
    return values


def _refuse_control_characters(values: pd.Series, name: str, where: str, faults: list[Fault], bad: set[int]) -> None:
    """Names with line ends, escape sequences of terminals and the like: nobody sees that they differ from others."""
    odd = {i: text for i, text in enumerate(values) if not text.isprintable() and _CONTROL.search(text)}
    faults += [Fault(f"{name} is {text[:40]!r}, which holds control characters", f"{where}, {rows}",
                     "Type the name again.") for text, rows in _grouped(odd)]
    bad.update(odd)


def concentrations_of(table: pd.DataFrame, where: str, faults: list[Fault], bad: set[int]) -> list[float]:
    """Concentrations in µM; an empty cell is 0 for a negative control and a fault otherwise."""
    numbers, wrong = [], {}
    for i, (text, control) in enumerate(zip(table[CONCENTRATION], table[CONTROL], strict=True)):
        try:
            number = 0.0 if text == "" and control == "negative" else float(text)
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            wrong[i] = text
        numbers.append(number)
    for text, rows in _grouped(wrong):
        comma = " Write decimals with a point." if "," in text else ""
        faults.append(Fault(f"the concentration is {text[:40]!r}, not a number", f"{where}, {rows}",
                            f"Give µM as a plain number.{comma}"))
    bad.update(wrong)
    return numbers


def _grouped(wrong: Mapping[int, str]) -> list[tuple[str, str]]:
    """Wrong texts by row → each distinct text with its rows, in words."""
    rows: dict[str, list[int]] = defaultdict(list)
    for i, text in wrong.items():
        rows[text].append(i)
    return [(text, _rows(indices)) for text, indices in rows.items()]


def _rows(rows: Sequence[int]) -> str:
    """``row 3``, ``rows 3, 5, 8``, or the first ten and how many more, from indices; see `sheet_row`."""
    if len(rows) == 1:
        return sheet_row(rows[0])
    more = f" and {len(rows) - 10} more" if len(rows) > 10 else ""
    return f"rows {', '.join(sheet_row(i).removeprefix('row ') for i in rows[:10])}{more}"
