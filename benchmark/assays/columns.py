"""Reading a CSV as text, and paths of the study file."""

from __future__ import annotations

import csv
import gzip
import os
import re
import zlib
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO, cast

import pandas as pd

from benchmark.assays.places import rows_named
from benchmark.base.errors import Fault, FaultsError, MorphobenchError, sheet_row
from benchmark.base.files import usable

#: What tables are split at, the likely ones first.
SEPARATORS = (";", "\t", ",", "|")
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
    faults += [Fault(f"has {cells} cells where the header has {len(header)}", f"{path.name}, {rows_named(indices)}",
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
