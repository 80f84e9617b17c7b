"""Wells and their cells: features by name, the cells of one well after another, reference wells, cell counts."""

from __future__ import annotations

import difflib
import fnmatch
from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd

from benchmark.base.errors import MorphobenchError
from benchmark.base.tables import CONTROL, FIELD_COLUMNS, FIELD_KEY, PLATE, WELL, WELL_COLUMNS, WELL_KEY
from benchmark.cells.table import SingleCells

#: Column of the image table with the number of segmented cells of a field.
COUNT = "Count_Cells"
#: Fewer reference cells than this are not enough for a plate.
FEWEST_CELLS = 10


def feature_columns(table: pd.DataFrame) -> list[str]:
    """Columns that are features: all but those named ``Metadata_…``."""
    return [c for c in table.columns if not c.startswith("Metadata_")]


def well_list(wells: pd.DataFrame) -> list[tuple[str, str]]:
    """(plate, well) of each well of a table with one row per well or field, sorted, each once."""
    return sorted(set(zip(wells[PLATE], wells[WELL], strict=True)))


def finite(values: np.ndarray) -> np.ndarray:
    """A copy of ``values`` in which values that are not finite are missing (NaN)."""
    return np.where(np.isfinite(values), values, values.dtype.type(np.nan))


def floats(table: pd.DataFrame) -> np.ndarray:
    """Values of a table of features: float32 where all are, as single cells on disk are; else float64."""
    narrow = all(t == np.float32 for t in table.dtypes)
    return table.to_numpy(np.float32 if narrow else np.float64)


def _indices(block: pd.DataFrame, key: Sequence[str]) -> Iterator[tuple[tuple, np.ndarray]]:
    """Each unit of a block with the indices of its rows."""
    for unit, index in block.groupby(list(key), sort=True).indices.items():
        assert isinstance(unit, tuple)
        yield unit, np.asarray(index)


def unit_cells(
    cells: SingleCells, wells: pd.DataFrame, columns: Sequence[str], key: Sequence[str] = WELL_KEY
) -> Iterator[tuple[tuple, np.ndarray]]:
    """The cells of each unit of ``wells``, plate by plate, a block in memory at a time.

    Parameters
    ----------
    cells : SingleCells
    wells : DataFrame
        One row per well (or field): its plate and well.
    columns : sequence of str
        Features.
    key : sequence of str
        Key of a unit: ``WELL_KEY`` or ``FIELD_KEY``.

    Yields
    ------
    tuple, ndarray
        The unit's key, and its (cells, features) values, NaN where missing or not finite, float32 where the cells
        are. Units without cells are not yielded.
    """
    columns = list(columns)
    for plate, rows in wells.groupby(PLATE, sort=True):
        if plate not in cells.plates:
            continue
        for block in cells.blocks(str(plate), columns=columns, wells=set(rows[WELL])):
            values = floats(block[columns])
            for unit, index in _indices(block, key):
                first, last = index[0], index[-1]
                whole = last - first + 1 == len(index)  # rows of a unit are usually contiguous: a view, not a copy
                yield unit, finite(values[first : last + 1] if whole else values[index])


def unit_table(
    units: Sequence[tuple], rows: Sequence[np.ndarray], features: Sequence[str], key: Sequence[str] = WELL_KEY
) -> pd.DataFrame:
    """Profiles as a table: the key of each unit and float64 features, sorted by key."""
    index = pd.DataFrame(list(units), columns=list(key))
    values = np.asarray(rows, dtype=np.float64).reshape(len(index), len(features))
    table = pd.concat([index, pd.DataFrame(values, columns=list(features))], axis=1)
    return table.sort_values(list(key)).reset_index(drop=True)


def negative_controls(wells: pd.DataFrame) -> pd.DataFrame:
    """Rows of ``wells`` that are negative controls."""
    return wells[wells[CONTROL] == "negative"]


def count_cells(cells: SingleCells, wells: Sequence[tuple[str, str]]) -> int:
    """Number of cells in some wells."""
    keys = pd.DataFrame(list(wells), columns=WELL_KEY, dtype=object)
    return int(cells.counts.merge(keys, on=WELL_KEY)["cells"].sum())


def check_references(cells: SingleCells, plates: Sequence[str], reference: pd.DataFrame, remedy: str) -> None:
    """Refuse plates whose reference wells have too few cells.

    Parameters
    ----------
    plates : sequence of str
        Plates that need reference cells of their own.
    reference : DataFrame
        Reference wells (of any plates).
    remedy : str
        What the user can do.

    Raises
    ------
    MorphobenchError
        A plate has fewer than `FEWEST_CELLS` cells in its reference wells; all such plates are named.
    """
    counts = {p: count_cells(cells, well_list(reference[reference[PLATE] == p])) for p in sorted(plates)}
    few = {p: n for p, n in counts.items() if n < FEWEST_CELLS}
    if few:
        each = ", ".join(f"{p}: {n}" for p, n in list(few.items())[:10]) + (", …" if len(few) > 10 else "")
        raise MorphobenchError(
            f"too few cells of negative controls, {FEWEST_CELLS} or more are needed on each plate ({each})",
            f"plate {', '.join(list(few)[:10])}", remedy)


def _wanted_features(names: list[str], patterns: tuple[str, ...]) -> list[str]:
    """Names that match any of the patterns, all if there are none; a pattern without a match is an error."""
    for pattern in patterns:
        if not fnmatch.filter(names, pattern):
            close = difflib.get_close_matches(pattern.replace("*", ""), names, 3, 0.3) or names[:3]
            raise MorphobenchError(f"no feature is called {pattern!r}", "profile.features",
                                   f"There are {', '.join(close)}, …")
    return [n for n in names if not patterns or any(fnmatch.fnmatchcase(n, p) for p in patterns)]


def cell_counts(images: pd.DataFrame, fields: pd.DataFrame, unit: str) -> pd.DataFrame:
    """Cell count alone, as a profile of one feature: the mean number of cells per field.

    Parameters
    ----------
    images : DataFrame
        One row per field with its keys and ``Count_Cells``.
    fields : DataFrame
        Field table of the assay.
    unit : {'well', 'field'}
        Unit of a row.
    """
    key = WELL_KEY if unit == "well" else FIELD_KEY
    columns = WELL_COLUMNS if unit == "well" else FIELD_COLUMNS
    counts = images.groupby(key, as_index=False)[COUNT].mean()
    table = fields[columns].drop_duplicates(key).merge(counts, on=key, how="inner", validate="one_to_one")
    # log(1 + count): counts vary multiplicatively (dilution, growth), and a linear model then sees ratios
    table[COUNT] = np.log1p(table[COUNT].astype(float))
    return table.sort_values(key).reset_index(drop=True)


def without_cells(profiles: pd.DataFrame, fields: pd.DataFrame, unit: str) -> pd.DataFrame:
    """Wells (or fields) of some predicted ``fields`` that have no profile, because no cell was found in them."""
    key = WELL_KEY if unit == "well" else FIELD_KEY
    wanted = fields[FIELD_COLUMNS if unit == "field" else WELL_COLUMNS].drop_duplicates(key)
    merged = wanted.merge(profiles[key], on=key, how="left", indicator=True)
    return merged[merged["_merge"] == "left_only"].drop(columns="_merge")
