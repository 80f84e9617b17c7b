"""Profiles without any information on what cells look like: a well's position, and its batch.

A credible method must beat them; where they score well, the layout of the plates gives the answer away.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from benchmark.base.errors import MorphobenchError
from benchmark.base.tables import BATCH, PLATE, WELL, WELL_KEY
from benchmark.base.wells import well_places


def well_positions(names: pd.Series) -> pd.DataFrame:
    """Row and column of wells, int64, both from 1; see `benchmark.base.wells.well_places`.

    Raises
    ------
    MorphobenchError
        A name gives no place, or can be read in two ways.
    """
    places = well_places(names.astype(str)).of
    found = [places[str(name)] for name in names]
    return pd.DataFrame({"row": [row for row, _ in found], "column": [column for _, column in found]},
                        index=names.index)


def position_profiles(wells: pd.DataFrame) -> pd.DataFrame:
    """Row and column of each well, as numbers and as one indicator each.

    Parameters
    ----------
    wells : DataFrame
        Metadata, one row per well.

    Returns
    -------
    DataFrame
        ``wells`` with float64 features ``Position_*``, sorted by key.
    """
    position = well_positions(wells[WELL])
    features = {"Position_Row": position["row"], "Position_Column": position["column"]}
    for axis in ("row", "column"):
        for value in sorted(position[axis].unique()):
            features[f"Position_{axis.capitalize()}{value}"] = position[axis] == value
    return _with(wells, features)


def batch_profiles(wells: pd.DataFrame) -> pd.DataFrame:
    """An indicator for each batch (for each plate, where there is a single batch), as `position_profiles`.

    Raises
    ------
    MorphobenchError
        There is one batch with one plate: nothing can be learnt from it.
    """
    column = BATCH if wells[BATCH].nunique() > 1 else PLATE
    if wells[column].nunique() < 2:
        raise MorphobenchError("there is one batch with one plate, from which nothing can be learnt", "baseline: batch",
                               "Remove the method from the study.")
    return _with(wells, {f"Batch_{i}": wells[column] == value
                         for i, value in enumerate(sorted(wells[column].unique()), 1)})


def intensity_profiles(wells: pd.DataFrame, means: pd.DataFrame) -> pd.DataFrame:
    """Mean intensities of fields, averaged over each well, as `position_profiles`.

    Parameters
    ----------
    means : DataFrame
        One row per field: its key and ``Image_Mean_<channel>``.
    """
    features = [str(c) for c in means.columns if str(c).startswith("Image_Mean_")]
    by_well = means.groupby(WELL_KEY, as_index=False)[features].mean()
    table = wells.merge(by_well, on=WELL_KEY, how="inner", validate="one_to_one")
    return table.sort_values(WELL_KEY).reset_index(drop=True)


def _with(wells: pd.DataFrame, features: dict[str, pd.Series]) -> pd.DataFrame:
    values = pd.DataFrame({name: np.asarray(column, np.float64) for name, column in features.items()},
                          index=wells.index)
    return pd.concat([wells, values], axis=1).sort_values(WELL_KEY).reset_index(drop=True)
