"""Reading a profile file: parquet, CSV or gzipped CSV, and which of its columns are features.

Features are the columns that start with a compartment (``Cells_``, ``Cytoplasm_``, ``Nuclei_``), less those that
say where or which and not what: positions (``Location``, ``AreaShape_Center``, ``AreaShape_BoundingBox``) and
numbers of objects (``Number``, ``Parent``, ``Children``, closest neighbours). A classifier could learn the plate map
from them. One rule holds for these and for what CellProfiler measures here: `benchmark.cells.objects`. What else is no
measurement says `benchmark.assays.profiles.feature_columns`.
"""

from __future__ import annotations

import csv
import gzip
import zlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
import pandas as pd
import pyarrow
import pyarrow.csv
import pyarrow.parquet as pq

from benchmark.assays.columns import open_text, refuse_other_separator
from benchmark.assays.profiles.feature_columns import (
    aside_by_name,
    aside_by_values,
    left_out,
    named,
    of_other_objects,
)
from benchmark.assays.profiles.profile_numbers import as_numbers, clean, empty_fault
from benchmark.base.account import Loss
from benchmark.base.errors import Fault, FaultsError, MorphobenchError
from benchmark.base.tables import SITE, WELL_KEY
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
            return next(filter(None, csv.reader(handle, delimiter=separator, strict=True)), [])  # no blank line

    if not path.is_file():
        raise MorphobenchError("does not exist", str(path), "Correct assay.profiles in the study.")
    if not path.name.lower().endswith((*PARQUET, *CSV)):
        raise MorphobenchError("is neither parquet nor CSV by its name", str(path),
                               f"Use {', '.join((*PARQUET, '.csv', '.csv.gz'))}.")
    header = guarded(path, read)
    if not header:
        raise MorphobenchError("is empty", str(path), "Copy or export it again.")
    if path.suffix not in PARQUET:
        refuse_other_separator(header, separator, path)
    # Columns without a name are left out later, however many they are.
    faults = [Fault(f"the column {c!r} appears {n} times", path.name, "Give each column its own name.")
              for c, n in Counter(c.strip() for c in header if c.strip()).items() if n > 1]
    if faults:
        raise FaultsError(faults, f"{path} cannot be read as a table:")
    return header


def read_text(path: Path, separator: str, columns: Sequence[str]) -> pd.DataFrame:
    """Some columns of the file, and only those, as text, without blanks around it; index 0…n-1.

    A missing value is ``''``.

    Raises
    ------
    MorphobenchError
        The file is broken, has no rows, or has a row of another length than the header.
    """
    table = _checked(path, lambda: _read(path, separator, columns, pyarrow.string())).to_pandas(ignore_metadata=True)
    return guarded(path, lambda: table.apply(  # a column of bytes need be no text
        lambda column: column.astype(object).where(column.notna(), "").astype(str).str.strip()))


def read_numbers(path: Path, separator: str, columns: Sequence[str]) -> pyarrow.Table:
    """Some columns of the file, and only those: those of a CSV as float64, or all as text where one holds text.

    Raises
    ------
    MorphobenchError
        As `read_text`.
    """
    def read() -> pyarrow.Table:
        try:
            return _read(path, separator, columns, pyarrow.float64())
        except pyarrow.ArrowInvalid as error:
            if "conversion error" not in str(error):
                raise
        return _read(path, separator, columns, pyarrow.string())

    return _checked(path, read)


def _checked(path: Path, read: Callable[[], pyarrow.Table]) -> pyarrow.Table:
    table = guarded(path, read)
    if not table.num_rows:
        raise MorphobenchError("has no rows", str(path))
    return table


def _read(path: Path, separator: str, columns: Sequence[str], kind: pyarrow.DataType) -> pyarrow.Table:
    """Columns of the file; those of a CSV of one type. pyarrow refuses rows that are too short, as a file cut off in
    the middle has."""
    if path.suffix in PARQUET:
        # The file's own notes for pandas are passed over: they could turn columns into an index.
        return pq.read_table(path, columns=list(columns)).select(list(columns))
    options = pyarrow.csv.ConvertOptions(include_columns=list(columns), column_types=dict.fromkeys(columns, kind))
    return pyarrow.csv.read_csv(path, parse_options=pyarrow.csv.ParseOptions(delimiter=separator),
                                convert_options=options)


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
    """Whether a column measures what a cell looks like: by its start, and not where or which it is.

    A column whose whole name is among the prefixes is a feature whatever its name says (``Cells_Children_Foci_Count``).
    """
    if column in prefixes:
        return True
    start = column.startswith(tuple(prefixes)) if prefixes else not column.startswith(("Metadata_", "Image_"))
    return start and not BOOKKEEPING_COLUMN.fullmatch(column)


def read_features(
    path: Path, separator: str, header: Sequence[str], plate: str, well: str, prefixes: Sequence[str],
    used: set[str] | frozenset[str] = frozenset(),
) -> tuple[pd.DataFrame, list[Fault], list[Loss]]:
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
    losses : list of Loss
        The same with counts.

    Raises
    ------
    FaultsError
        There is no feature, or one of them holds text.
    """
    candidates = [c for c in header if c not in used and c not in (plate, well)]
    features = [c for c in candidates if is_feature(c, prefixes)]
    odd = aside_by_name(features, prefixes)
    features = _without(features, odd)
    if not features:
        _refuse_none(path, candidates, prefixes, odd)
    total = len(features) + sum(map(len, odd.values()))
    notes = []
    aside = [c for c in candidates if BOOKKEEPING_COLUMN.fullmatch(c) and c.startswith(tuple(prefixes))
             and c not in prefixes]
    if aside:
        notes.append(Fault(f"{len(aside)} of {len(aside) + total} columns of {path.name} left out: they give "
                           f"positions or numbers of objects ({named(aside)})",
                           remedy="To use one as a feature, give its whole name in assay.prefixes."))
    names = dict(zip((plate, well), WELL_KEY, strict=True))
    site = next((c for c in SITES if c in header and c not in names), None)
    if site is not None:
        names[site] = SITE
    keys = read_text(path, separator, list(names))[list(names)].set_axis(list(names.values()), axis=1)
    faults = [empty_fault(c, keys.index[keys[column] == ""], path.name)
              for c, column in zip((plate, well), WELL_KEY, strict=True) if (keys[column] == "").any()]
    values, flags, wrong = as_numbers(read_numbers(path, separator, features), path.name,
                                      path.suffix not in PARQUET)
    faults += wrong
    if faults:
        raise FaultsError(faults, f"{path} has {len(faults)} fault(s):")
    if flags:
        odd["they are yes or no"] = flags
    odd |= aside_by_values(values, keys, prefixes)
    features = _without(features, odd)
    if not features:
        _refuse_none(path, candidates, prefixes, odd)
    said, losses = left_out(odd, total, path.name)
    losses += of_other_objects(candidates, prefixes, total, path.name)
    values = values[features]
    narrow = all(d == np.float32 for d in values.dtypes)
    numbers = values.to_numpy(np.float32 if narrow else np.float64, na_value=np.nan, copy=True)
    table, notes, more = clean(keys, numbers, features, path.name, [*notes, *said])
    return table, notes, [*losses, *more]


def _without(columns: Sequence[str], odd: Mapping[str, Sequence[str]]) -> list[str]:
    gone = {c for named in odd.values() for c in named}
    return [c for c in columns if c not in gone]


def _refuse_none(
    path: Path, candidates: Sequence[str], prefixes: Sequence[str], odd: Mapping[str, Sequence[str]]
) -> None:
    """No column is a feature: what columns there are instead."""
    starts = list(dict.fromkeys(c.split("_")[0] + "_" for c in candidates if "_" in c))[:8]
    none = "".join(f"; {named(columns)}: {why}" for why, columns in odd.items())
    raise MorphobenchError(f"has no feature: no column that starts with {', '.join(prefixes) or 'anything'} and "
                           f"measures something{none}", str(path),
                           f"Set assay.prefixes; columns start with {', '.join(starts) or 'no prefix'}.")
