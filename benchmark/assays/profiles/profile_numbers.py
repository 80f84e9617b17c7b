"""Columns of a profile table as numbers: what is none, what is missing, and rows and features without any value."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import pandas as pd
import pyarrow
import pyarrow.compute
from pyarrow import types

from benchmark.assays.places import rows_named
from benchmark.base.account import Loss
from benchmark.base.errors import Fault, MorphobenchError, sheet_row
from benchmark.base.tables import WELL_KEY, typed
from benchmark.cells.coverage import lacks_most

#: A larger number is no measurement but a failed division: the square of one already leaves float64. Single cells are
#: kept as float32 throughout.
LARGEST = float(np.finfo(np.float32).max)
_WRITTEN_NUMBER = re.compile(r"[+-]?\d[\d.,' \u00a0]*")
_FLAGS = frozenset({"true", "false"})


def as_numbers(table: pyarrow.Table, where: str, written: bool) -> tuple[pd.DataFrame, list[str], list[Fault]]:
    """Columns of a table as floats.

    Whole numbers, decimals and categories of numbers are numbers; text that is a number is one too in a CSV, which
    knows no types, and none in a parquet file.

    Parameters
    ----------
    table : pyarrow.Table
        What would be features.
    where : str
        How messages name the table.
    written : bool
        Whether the file knows no types, as a CSV: text that is a number is one.

    Returns
    -------
    values : DataFrame
        Columns that are numbers: float32 where the file has that, else float64; NaN where empty.
    flags : list of str
        Columns of yes and no, which are not among them.
    faults : list of Fault
        One for all columns that are neither.
    """
    numbers, flags, texts = {}, [], []
    for name in table.column_names:
        column = table.column(name)
        if types.is_dictionary(column.type):
            column = column.cast(column.type.value_type)
        kind = column.type
        if types.is_boolean(kind) or _is_yes_or_no(column):
            flags.append(name)
        elif types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind) or types.is_null(kind):
            wide = column if types.is_float32(kind) else column.cast(pyarrow.float64(), safe=False)
            numbers[name] = wide.to_numpy()
        elif written and (found := _from_text(column)) is not None:
            numbers[name] = found
        else:
            texts.append(_text_fault(name, column, where))
    return pd.DataFrame(numbers, copy=False), flags, _one_fault(texts)


def _is_text(kind: pyarrow.DataType) -> bool:
    return bool(types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind))


def _is_yes_or_no(column: pyarrow.ChunkedArray) -> bool:
    """Whether text says nothing but ``true`` and ``false``."""
    if not _is_text(column.type):
        return False
    words = {str(v).strip().lower() for v in column.slice(0, 100).to_pylist() if v not in (None, "")}
    if not words or not words <= _FLAGS:
        return False
    every = column.unique().to_pylist()
    return {str(v).strip().lower() for v in every if v not in (None, "")} <= _FLAGS


def _from_text(column: pyarrow.ChunkedArray) -> np.ndarray | None:
    """Numbers of a CSV's column, read as text since another column is text; None where it is none itself."""
    try:
        empty = pyarrow.compute.equal(column, "")
        cells = pyarrow.compute.if_else(empty, pyarrow.scalar(None, pyarrow.string()), column)
        return np.asarray(cells.cast(pyarrow.float64()).to_numpy())
    except pyarrow.ArrowInvalid:
        return None


def _text_fault(name: str, column: pyarrow.ChunkedArray, where: str) -> Fault:
    """A column that is no number: cells that are none, or that all are stored as something else."""
    remedy = "Correct it, or narrow assay.prefixes."
    if not _is_text(column.type):
        return Fault(f"{name} is stored as {column.type}, and features are numbers", where, remedy)
    cells = pd.Series(column.to_pandas(), dtype=object)
    there = cells.notna() & (cells.astype(str).str.strip() != "")
    wrong = np.flatnonzero((pd.to_numeric(cells, errors="coerce").isna() & there).to_numpy())
    if not len(wrong):
        return Fault(f"{name} is stored as text, and features are numbers", where, remedy)
    first = str(cells.iloc[wrong[0]])
    if _WRITTEN_NUMBER.fullmatch(first.strip()):
        remedy = "Write decimals with a point, and no separator of thousands."
    rows = f" ({len(wrong)} rows)" if len(wrong) > 1 else ""
    return Fault(f"{name} holds {first[:40]!r}, and features are numbers{rows}", f"{where}, {first_rows(wrong)}",
                 remedy)


def _one_fault(texts: Sequence[Fault]) -> list[Fault]:
    """One fault for all columns that are text: the first, and how many there are besides."""
    if len(texts) < 2:
        return list(texts)
    others = ", ".join(f.what.split(" ")[0] for f in texts[1:3]) + (", …" if len(texts) > 3 else "")
    return [Fault(f"{texts[0].what}; {len(texts) - 1} more columns are no numbers ({others})", texts[0].where,
                  texts[0].remedy)]


def first_rows(rows: Sequence[int] | np.ndarray | pd.Index) -> str:
    """The first three rows as a spreadsheet counts: ``row 3, row 5, row 8, …``."""
    return ", ".join(sheet_row(int(i)) for i in rows[:3]) + (", …" if len(rows) > 3 else "")


def empty_fault(column: str, rows: Sequence[int] | pd.Index, where: str, remedy: str = "") -> Fault:
    """One fault for all rows in which a column is empty that must not be."""
    return Fault(f"{column} is empty", f"{where}, {rows_named(list(rows))}", remedy)


def clean(
    keys: pd.DataFrame, numbers: np.ndarray, features: Sequence[str], where: str, notes: Sequence[Fault]
) -> tuple[pd.DataFrame, list[Fault], list[Loss]]:
    """Keys and features as one table: what is no finite number is missing; features and rows without any value go.

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

    Returns
    -------
    table : DataFrame
        What is left.
    notes : list of Fault
        ``notes`` and what was left out here.
    losses : list of Loss
        What was left out here.

    Raises
    ------
    MorphobenchError
        Nothing is left.
    """
    endless, huge, columns, rows = 0, 0, np.zeros(len(features), bool), np.zeros(len(numbers), bool)
    for j in range(len(features)):  # a column at a time: the table may fill half the memory
        column = numbers[:, j]
        wrong = np.isinf(column)
        endless += int(wrong.sum())
        column[wrong] = np.nan
        with np.errstate(invalid="ignore"):
            large = np.abs(column) > LARGEST
        huge += int(large.sum())
        column[large] = np.nan
        there = ~np.isnan(column)
        columns[j] = there.any()
        rows |= there
    notes, losses = list(notes), []
    bare, empty = int((~columns).sum()), int((~rows).sum())
    for count, what in ((endless, "infinite values treated as missing"),
                        (huge, f"values beyond {LARGEST:.2g} treated as missing"),
                        (bare, "features left out: they have no value in any row"),
                        (empty, "rows left out: they have no value of any feature")):
        if count:
            notes.append(Fault(f"{count} {what}", where))
    if not rows.any():
        raise MorphobenchError("has no value of any feature", where)
    if bare:
        losses.append(Loss("features", bare, len(features), "they have no value in any row", where))
    if empty:
        losses.append(Loss("rows", empty, len(rows), "they have no value of any feature", where))
    if bare or empty:
        numbers = numbers[np.ix_(rows, columns)]
    table = pd.DataFrame(numbers, columns=np.asarray(features, object)[columns], copy=False)
    kept = typed(keys[rows].reset_index(drop=True))
    for i, key in enumerate(kept.columns):
        table.insert(i, key, kept[key])
    return table, notes, losses


def known_by_well(features: pd.DataFrame) -> pd.DataFrame:
    """Which features (columns) have a value in any row of each well (rows), bool, by plate and well."""
    names = [c for c in features if not str(c).startswith("Metadata_")]
    return features[names].notna().groupby([features[k] for k in WELL_KEY], sort=False).any()


def gaps(features: pd.DataFrame, where: str) -> tuple[list[Fault], list[Loss]]:
    """What is missing in a table of features, and what becomes of it, in words: before any fold is run."""
    known = known_by_well(features)
    missing = ~known.to_numpy()
    if not missing.any():
        return [], []
    rows, columns = (int(missing.any(axis=axis).sum()) for axis in (1, 0))
    notes = [Fault(f"{int(missing.sum())} of {missing.size} values are missing, in {rows} of {len(known)} wells and "
                   f"{columns} of {missing.shape[1]} features: where more than 5 % of training wells (and more than "
                   "one) lack a feature, select: missing drops it; other gaps become the median of the training wells",
                   where)]
    poor = lacks_most(~missing)
    if not poor.any():
        return notes, []
    examples = ", ".join(f"{p} {w}" for p, w in known.index[poor][:3])
    why = "they lack more than half of the features; none is trained on, and each is predicted as a well without cells"
    notes.append(Fault(f"{int(poor.sum())} of {len(known)} wells are not used: {why} ({examples}"
                       f"{', …' if poor.sum() > 3 else ''})", where))
    return notes, [Loss("wells", int(poor.sum()), len(known), why, where, remedy="Measure or export them again.")]
