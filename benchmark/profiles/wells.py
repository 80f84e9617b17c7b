"""Single cells to profiles, and per-plate normalisation, both by pycytominer."""

from __future__ import annotations

import difflib
import fnmatch

import numpy as np
import pandas as pd
import pycytominer

from benchmark.assays.fieldtable import Assay
from benchmark.errors import MorphobenchError
from benchmark.profiles.settings import ProfileSettings
from benchmark.tables import CONTROL, FIELD_COLUMNS, FIELD_KEY, PLATE, WELL_COLUMNS, WELL_KEY

#: Column of the image table with the number of segmented cells of a field.
COUNT = "Count_Cells"


def feature_columns(table: pd.DataFrame) -> list[str]:
    """Columns that are features: all but ``Metadata_``."""
    return [c for c in table.columns if not c.startswith("Metadata_")]


def make_profiles(cells: pd.DataFrame, assay: Assay, settings: ProfileSettings) -> pd.DataFrame:
    """Aggregate single cells to one profile a well or field, and normalise per plate where asked.

    Parameters
    ----------
    cells : DataFrame
        One row a cell: the field's keys and float features.
    assay : Assay
        For the wells' metadata. A well or field without a cell has no row here; see `without_cells`.

    Returns
    -------
    DataFrame
        Metadata columns and float64 features, sorted by key. Units of negative controls are included.

    Raises
    ------
    MorphobenchError
        Controls are wanted for normalisation and a plate has none (or one only); or no feature has a name that
        is asked for.
    """
    key = WELL_KEY if settings.unit == "well" else FIELD_KEY
    columns = WELL_COLUMNS if settings.unit == "well" else FIELD_COLUMNS
    features = _wanted_features(feature_columns(cells), settings.features)
    profiles = pycytominer.aggregate(cells[[*key, *features]], strata=key, features=features,
                                     operation=settings.aggregate)
    metadata = assay.fields[columns].drop_duplicates(key)
    profiles = metadata.merge(profiles, on=key, how="inner", validate="one_to_one")
    profiles[features] = profiles[features].astype(np.float64).replace([np.inf, -np.inf], np.nan)
    if settings.normalise != "training":
        profiles = _per_plate(profiles, features, settings)
    return profiles.sort_values(key).reset_index(drop=True)


def _wanted_features(names: list[str], patterns: tuple[str, ...]) -> list[str]:
    """Names that match any of the patterns, all where there is none; a pattern without a match is a mistake."""
    for pattern in patterns:
        if not fnmatch.filter(names, pattern):
            close = difflib.get_close_matches(pattern.replace("*", ""), names, 3, 0.3) or names[:3]
            raise MorphobenchError(f"no feature is called {pattern!r}", "profile.features",
                                   f"There are {', '.join(close)}, …")
    return [n for n in names if not patterns or any(fnmatch.fnmatchcase(n, p) for p in patterns)]


def _per_plate(profiles: pd.DataFrame, features: list[str], settings: ProfileSettings) -> pd.DataFrame:
    """Centre and scale each plate by its own controls (or by all its units)."""
    metadata = [c for c in profiles.columns if c not in features]
    parts = []
    for plate, rows in profiles.groupby(PLATE):
        samples = "all"
        if settings.normalise == "controls":
            samples = f"{CONTROL} == 'negative'"
            n = int((rows[CONTROL] == "negative").sum())
            if n < 2:
                raise MorphobenchError(
                    f"has {n} negative controls with cells, and normalise: controls needs two or more",
                    f"plate {plate}", "Set normalise to plate or training.")
        # Without epsilon: a deviation of nothing must not become a division by 1e-18, which gives numbers.
        parts.append(pycytominer.normalize(rows, features=features, meta_features=metadata, samples=samples,
                                           method=settings.method, mad_robustize_epsilon=0))
    table = pd.concat(parts, ignore_index=True)
    # A feature constant over a plate's controls divides by nothing there; the selection of a fold drops it.
    table[features] = table[features].replace([np.inf, -np.inf], np.nan)
    return table


def cell_counts(images: pd.DataFrame, assay: Assay, unit: str) -> pd.DataFrame:
    """Cell count alone, as a profile of one feature: the mean number of cells a field.

    Parameters
    ----------
    images : DataFrame
        One row a field with its keys and ``Count_Cells``.
    """
    key = WELL_KEY if unit == "well" else FIELD_KEY
    columns = WELL_COLUMNS if unit == "well" else FIELD_COLUMNS
    counts = images.groupby(key, as_index=False)[COUNT].mean()
    table = assay.fields[columns].drop_duplicates(key).merge(counts, on=key, how="inner", validate="one_to_one")
    # log(1 + count): counts are multiplicative (dilution, growth), and a linear model then sees ratios
    table[COUNT] = np.log1p(table[COUNT].astype(float))
    return table.sort_values(key).reset_index(drop=True)


def without_cells(profiles: pd.DataFrame, assay: Assay, unit: str) -> pd.DataFrame:
    """Predicted wells (or fields) that have no profile because no cell was found in them."""
    key = WELL_KEY if unit == "well" else FIELD_KEY
    wanted = assay.predicted[FIELD_COLUMNS if unit == "field" else WELL_COLUMNS].drop_duplicates(key)
    merged = wanted.merge(profiles[key], on=key, how="left", indicator=True)
    return merged[merged["_merge"] == "left_only"].drop(columns="_merge")
