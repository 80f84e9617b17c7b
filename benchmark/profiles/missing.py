"""Missing values in a table of profiles: rows that lack most features, and features that a plate or many rows lack.

A missing value costs, in this order: its row, where the row lacks most features; its feature, where a plate has no
value of it or more than a few per cent of rows lack it; else the value, which becomes the training median.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from benchmark.base.tables import PLATE
from benchmark.cells.coverage import lacks_most
from benchmark.profiles.transformers import with_features
from benchmark.profiles.wells import feature_columns

#: Share of rows in which a feature may be missing: ``na_cutoff`` of pycytominer's ``feature_select`` (Serrano et al.
#: 2025, Nat Methods 22:677). A single row may lack it in any case: one well must not cost all others a feature.
CUTOFF = 0.05


def usable_rows(table: pd.DataFrame) -> pd.DataFrame:
    """Rows of a table of profiles that do not lack most features (see `lacks_most`); index 0…n-1.

    The others are treated as wells without cells: neither fitted on nor trained on, and predicted as such.
    """
    features = feature_columns(table)
    if not features or table.empty:
        return table
    gone = lacks_most(np.isfinite(table[features].to_numpy(np.float64)))
    if not gone.any():
        return table
    kept = table[~gone].reset_index(drop=True)
    kept.attrs = dict(table.attrs)
    return kept


def marked_by_plate(table: pd.DataFrame) -> pd.DataFrame:
    """The table with infinity in place of what a whole plate lacks, which `too_often_missing` tells from other gaps.

    A plate has no value of a feature where its normalisation is undefined (no spread over the plate's controls), or
    where it was not measured there. A median in its place would make all wells of the plate look like controls.

    Parameters
    ----------
    table : DataFrame
        All rows of all plates: training, test and controls.
    """
    features = feature_columns(table)
    values = table[features].to_numpy(np.float64, copy=True)
    known = np.isfinite(values)
    if known.all():
        return table
    for rows in table.groupby(PLATE, sort=False).indices.values():
        if len(rows) > 1:
            values[np.ix_(rows, ~known[rows].any(axis=0))] = np.inf
    return with_features(table, values, features)


def undefined(values: pd.DataFrame) -> list[str]:
    """Features that `marked_by_plate` marked in any of these rows."""
    return list(values.columns[np.isinf(values.to_numpy(np.float64)).any(axis=0)])


def too_often_missing(values: pd.DataFrame) -> list[str]:
    """Features that lack a value in more than `CUTOFF` of these rows, and in more than one of them."""
    missing = ~np.isfinite(values.to_numpy(np.float64))
    return list(values.columns[missing.sum(axis=0) > max(1.0, CUTOFF * len(values))])
