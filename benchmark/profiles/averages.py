"""Fields averaged to wells, wells to treatments."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from benchmark.base.tables import CELL_LINE, LABEL, TREATMENT_KEY, WELL_COLUMNS, WELL_KEY
from benchmark.profiles.wells import feature_columns


def well_means(fields: pd.DataFrame) -> pd.DataFrame:
    """Mean of each feature over the fields of each well, so that every field counts alike.

    Parameters
    ----------
    fields : DataFrame
        ``WELL_COLUMNS`` and features, one row a field.

    Returns
    -------
    DataFrame
        ``WELL_COLUMNS`` and float32 features (averaged in float64), one row a well, sorted by plate and well.
    """
    features = feature_columns(fields)
    values = fields[features].astype(np.float64).groupby([fields[k] for k in WELL_KEY], sort=True).mean()
    metadata = fields[WELL_COLUMNS].drop_duplicates(WELL_KEY).set_index(WELL_KEY).loc[values.index].reset_index()
    return pd.concat([metadata[WELL_COLUMNS], values.astype(np.float32).reset_index(drop=True)], axis=1)


def treatment_medians(wells: pd.DataFrame, more: Sequence[str] = ()) -> pd.DataFrame:
    """One profile a treatment: the median of each feature over its wells.

    Ljosa et al.'s own programs take the median (CellProfiler Analyst, ``cpa.profiling.median_profiles``, called on
    their tables of well means with the group CompoundConcentration).

    Parameters
    ----------
    wells : DataFrame
        Metadata and features, one row a well (or field).
    more : sequence of str
        Further metadata to keep; wells that differ in them are different rows.

    Returns
    -------
    DataFrame
        `TREATMENT_KEY`, label, ``more`` and features of the type that they have in ``wells``, sorted by these keys.
        Wells of one treatment that carry different labels (permuted ones) are different rows.
    """
    if CELL_LINE not in wells:
        wells = wells.assign(**{CELL_LINE: ""})
    groups = wells.groupby([*TREATMENT_KEY, LABEL, *more], sort=True, dropna=False)[feature_columns(wells)]
    return groups.median().reset_index()
