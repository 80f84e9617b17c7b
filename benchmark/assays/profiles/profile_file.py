"""Reading a profile file: parquet, CSV or gzipped CSV, which of its columns are features, and what can be wrong.

Features are the columns that start with a compartment (``Cells_``, ``Cytoplasm_``, ``Nuclei_``), less those that
say where or which and not what: positions (``Location``, ``AreaShape_Center``, ``AreaShape_BoundingBox``) and
numbers of objects (``Number``, ``Parent``, ``Children``, closest neighbours). A classifier could learn the plate map
from them. One rule holds for these and for what CellProfiler measures here: `benchmark.cells.objects`.
"""

from __future__ import annotations

import csv
import gzip
import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
import pandas as pd
import pyarrow
import pyarrow.csv
import pyarrow.parquet as pq

from benchmark.assays.columns import open_text, refuse_other_separator
from benchmark.base.errors import Fault, FaultsError, MorphobenchError, sheet_row
from benchmark.base.tables import SITE, WELL_KEY, typed
from benchmark.cells.objects import BOOKKEEPING_COLUMN

A = TypeVar("A")
PREFIXES = ("Cells_", "Cytoplasm_", "Nuclei_")
SITES = ("Metadata_Site", "Image_Metadata_Site")
PARQUET = (".parquet", ".pq")
CSV = (".csv", ".csv.gz", ".tsv", ".tsv.gz", ".txt", ".txt.gz")
_BROKEN = (OSError, EOFError, ValueError, zlib.error, gzip.BadGzipFile, csv.Error, pyarrow.ArrowException)


def read_header(path: Path, separator: str) -> list[str]:
    """Names of the columns.

    Raises
    ------
    MorphobenchError
        The file is missing, of another kind, or broken.
    FaultsError
        A name appears twice.
    """
    def read() -> list[str]:
        if path.suffix in PARQUET:
            return [str(c) for c in pq.read_schema(path).names]
        with open_text(path) as handle:
            return next(csv.reader(handle, delimiter=separator, strict=True), [])

    if not path.is_file():
        raise MorphobenchError("does not exist", str(path), "Correct assay.profiles in the study.")
    if not path.name.lower().endswith((*PARQUET, *CSV)):
        raise MorphobenchError("is neither parquet nor CSV by its name", str(path),
                               f"Use {', '.join((*PARQUET, '.csv', '.csv.gz'))}.")
    header = guarded(path, read)
    if path.suffix not in PARQUET:
        refuse_other_separator(header, separator, path)
    faults = [Fault(f"the column {c!r} appears {n} times", path.name, "Give each column its own name.")
              for c, n in Counter(header).items() if n > 1]
    if faults:
        raise FaultsError(faults, f"{path} cannot be read as a table:")
    return header


def read_columns(path: Path, separator: str, columns: Sequence[str], text: bool = False) -> pd.DataFrame:
    """Some columns of the file, and only those; index 0…n-1.

    Parameters
    ----------
    text : bool
        As text, exactly as the cells are written (a missing value is ``''``); else as the numbers they are, with empty
        cells as NaN. A column of a CSV stays text where a cell of it holds something else, those of parquet always.

    Raises
    ------
    MorphobenchError
        The file is broken, has no rows, or has a row of another length than the header.
    """
    def read() -> pd.DataFrame:
        if path.suffix in PARQUET:
            # The file's own notes for pandas are passed over: they could turn columns into an index.
            return pq.read_table(path, columns=list(columns)).to_pandas(ignore_metadata=True)
        try:
            return _read_csv(path, separator, columns, pyarrow.string() if text else pyarrow.float64())
        except pyarrow.ArrowInvalid as error:
            if text or "conversion error" not in str(error):
                raise
        # Some column holds text: the caller shall see which, and what.
        table = _read_csv(path, separator, columns, pyarrow.string())
        return table.apply(_numbers_or_text)

    table = guarded(path, read)
    if table.empty:
        raise MorphobenchError("has no rows", str(path))
    if text:
        table = guarded(path, lambda: table.apply(
            lambda column: column.astype(object).where(column.notna(), "").astype(str).str.strip()))
    return table


def _numbers_or_text(column: pd.Series) -> pd.Series:
    """A column of a CSV that was read as text: numbers where every cell is one or empty, else as it is."""
    given = column.where(column != "", None)
    numbers = pd.to_numeric(given, errors="coerce")
    return numbers.astype(np.float64) if numbers.isna().equals(given.isna()) else given


def _read_csv(path: Path, separator: str, columns: Sequence[str], kind: pyarrow.DataType) -> pd.DataFrame:
    """Columns of one type. pyarrow refuses rows that are too short, as a file cut off in the middle has."""
    options = pyarrow.csv.ConvertOptions(include_columns=list(columns), column_types=dict.fromkeys(columns, kind))
    return pyarrow.csv.read_csv(path, parse_options=pyarrow.csv.ParseOptions(delimiter=separator),
                                convert_options=options).to_pandas()


def guarded(path: Path, read: Callable[[], A]) -> A:
    """The result of a reader, or an error that names the file."""
    try:
        return read()
    except UnicodeDecodeError as error:
        raise MorphobenchError(f"is not UTF-8 text (byte {error.start})", str(path),
                               "Save it as `CSV UTF-8`.") from error
    except _BROKEN as error:
        what = " ".join(str(error).split())[:200] or type(error).__name__
        raise MorphobenchError(f"cannot be read: truncated, corrupt or not a table ({what})", str(path),
                               "Copy or export it again.") from error


def is_feature(column: str, prefixes: Sequence[str]) -> bool:
    """Whether a column measures what a cell looks like: by its start, and not where or which it is."""
    start = column.startswith(tuple(prefixes)) if prefixes else not column.startswith(("Metadata_", "Image_"))
    return start and not BOOKKEEPING_COLUMN.fullmatch(column)


def read_features(
    path: Path, separator: str, header: Sequence[str], plate: str, well: str, prefixes: Sequence[str],
    used: set[str] | frozenset[str] = frozenset(),
) -> tuple[pd.DataFrame, list[Fault]]:
    """Plate, well and features of a profile file; no other column is read.

    Parameters
    ----------
    path, separator, header
        The file, and its columns as `read_header` gives them.
    plate, well : str
        Columns with the keys.
    prefixes : sequence of str
        What features start with; empty for every column but metadata and ``used``.
    used : set of str
        Columns that are metadata.

    Returns
    -------
    table : DataFrame
        ``Metadata_Plate, Metadata_Well`` (text), ``Metadata_Site`` where the file has it, and features as they are
        named, float64 (float32 where the file has that). Infinities are missing values, as are empty cells.
    notes : list of Fault
        What was left out.

    Raises
    ------
    FaultsError
        There is no feature, or one of them holds text.
    """
    candidates = [c for c in header if c not in used and c not in (plate, well)]
    features = [c for c in candidates if is_feature(c, prefixes)]
    if not features:
        starts = list(dict.fromkeys(c.split("_")[0] + "_" for c in candidates if "_" in c))[:8]
        raise MorphobenchError(f"has no feature: no column that starts with {', '.join(prefixes) or 'anything'} and "
                               "measures something", str(path),
                               f"Set assay.prefixes; columns start with {', '.join(starts) or 'no prefix'}.")
    notes = []
    aside = [c for c in candidates if BOOKKEEPING_COLUMN.fullmatch(c) and c.startswith(tuple(prefixes))]
    if aside:
        notes.append(Fault(f"{len(aside)} of {len(aside) + len(features)} columns of {path.name} left out: they give "
                           f"positions or numbers of objects ({', '.join(aside[:2])}, …)"))
    names = dict(zip((plate, well), WELL_KEY, strict=True))
    site = next((c for c in SITES if c in header and c not in names), None)
    if site is not None:
        names[site] = SITE
    keys = read_columns(path, separator, list(names), text=True)[list(names)].set_axis(list(names.values()), axis=1)
    faults = [Fault(f"{c} is empty", f"{path.name}, {sheet_row(i)}")
              for c, column in zip((plate, well), WELL_KEY, strict=True) for i in keys.index[keys[column] == ""]]
    values = read_columns(path, separator, features)[features]
    faults += [fault for column in features if (fault := _text_fault(values[column], path.name)) is not None]
    if faults:
        raise FaultsError(faults, f"{path} has {len(faults)} fault(s):")
    narrow = all(d == np.float32 for d in values.dtypes)
    numbers = values.to_numpy(np.float32 if narrow else np.float64, na_value=np.nan, copy=True)
    return clean(keys, numbers, features, path.name, notes)


def _text_fault(values: pd.Series, where: str) -> Fault | None:
    """A feature that is no number: the first cell that is none, or that all are written as text."""
    if pd.api.types.is_numeric_dtype(values) or values.isna().all():
        return None
    remedy = "Correct it, or narrow assay.prefixes."
    wrong = pd.to_numeric(values, errors="coerce").isna() & values.notna() & (values.astype(str).str.strip() != "")
    if not wrong.any():
        return Fault(f"{values.name} is stored as {values.dtype}, and features are numbers", where, remedy)
    i = int(wrong.to_numpy().argmax())
    return Fault(f"{values.name} holds {str(values.iloc[i])[:40]!r}, and features are numbers",
                 f"{where}, {sheet_row(i)}", remedy)


def clean(
    keys: pd.DataFrame, numbers: np.ndarray, features: Sequence[str], where: str, notes: Sequence[Fault]
) -> tuple[pd.DataFrame, list[Fault]]:
    """Keys and features as one table: infinities are missing values; features and rows without any value go.

    Parameters
    ----------
    keys : DataFrame
        Metadata of each row, text; they come out as `benchmark.base.tables.typed` has them.
    numbers : array of float, shape (rows, features)
        Changed in place, and copied only where rows or columns are dropped.
    features : sequence of str
        Names of its columns.
    where : str
        How messages name the table.
    notes : sequence of Fault
        What was left out so far.

    Raises
    ------
    MorphobenchError
        Nothing is left.
    """
    endless, columns, rows = 0, np.zeros(len(features), bool), np.zeros(len(numbers), bool)
    for j in range(len(features)):  # a column at a time: the table may fill half the memory
        column = numbers[:, j]
        wrong = np.isinf(column)
        endless += int(wrong.sum())
        column[wrong] = np.nan
        there = ~np.isnan(column)
        columns[j] = there.any()
        rows |= there
    notes = list(notes)
    for count, what in ((endless, "infinite values treated as missing"),
                        (int((~columns).sum()), "features left out: they have no value in any row"),
                        (int((~rows).sum()), "rows left out: they have no value of any feature")):
        if count:
            notes.append(Fault(f"{count} {what}", where))
    if not rows.any():
        raise MorphobenchError("has no value of any feature", where)
    if not (rows.all() and columns.all()):
        numbers = numbers[np.ix_(rows, columns)]
    table = pd.DataFrame(numbers, columns=np.asarray(features, object)[columns], copy=False)
    kept = typed(keys[rows].reset_index(drop=True))
    for i, key in enumerate(kept.columns):
        table.insert(i, key, kept[key])
    return table, notes
