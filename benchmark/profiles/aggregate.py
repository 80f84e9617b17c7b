"""The cells of a well (or field) to its profile: moments, and all kinds of profile by their settings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator

from benchmark.base.errors import MorphobenchError
from benchmark.base.tables import FIELD_COLUMNS, FIELD_KEY, PLATE, WELL_COLUMNS, WELL_KEY
from benchmark.cells.table import SingleCells
from benchmark.profiles.against import KolmogorovSmirnov, SvmNormal
from benchmark.profiles.latent import FactorMeans, MixtureCounts
from benchmark.profiles.scaling import CellScaler
from benchmark.profiles.settings import ProfileSettings
from benchmark.profiles.wells import _wanted_features, unit_cells, unit_table

Kind = Literal["mean", "median", "median_mad", "deciles"]
#: Percentages of the deciles.
DECILES = tuple(range(10, 100, 10))


class Moments(BaseEstimator):
    """Mean, median, median and MAD, or deciles of each feature over the cells of a unit.

    Missing values of cells (NaN, infinite) are left out; a unit without any value of a feature has NaN. Mean and
    median equal pycytominer's ``aggregate``. Nothing is fitted.

    Parameters
    ----------
    kind : str
        ``mean``; ``median``; ``median_mad``: ``<feature>`` is the median and ``<feature>_MAD`` the median absolute
        deviation (unscaled); ``deciles``: ``<feature>_D10`` to ``<feature>_D90``, interpolated linearly.
    unit : str
        ``well`` or ``field``.
    features : sequence of str, optional
        All features of the cells where None.
    """

    def __init__(self, kind: Kind = "median", unit: str = "well", features: Sequence[str] | None = None) -> None:
        self.kind = kind
        self.unit = unit
        self.features = features

    def fit(self, cells: SingleCells, wells: pd.DataFrame) -> Moments:
        """Nothing to learn."""
        return self

    def transform(self, cells: SingleCells, wells: pd.DataFrame) -> pd.DataFrame:
        """Profiles of the units of ``wells`` (one row a well or field) that have cells: key and float64 features."""
        names = list(cells.features if self.features is None else self.features)
        key = WELL_KEY if self.unit == "well" else FIELD_KEY
        units, rows = [], []
        for unit, values in unit_cells(cells, wells, names, key):
            units.append(unit)
            rows.append(moments(values, self.kind).ravel())
        return unit_table(units, rows, _moment_names(names, self.kind), key)


def _moment_names(names: list[str], kind: Kind) -> list[str]:
    """Names of the profile's features, in the order of `moments`."""
    if kind == "median_mad":
        return [*names, *(f"{n}_MAD" for n in names)]
    if kind == "deciles":
        return [f"{n}_D{d}" for d in DECILES for n in names]
    return names


def moments(values: np.ndarray, kind: Kind) -> np.ndarray:
    """Moments of each feature over cells.

    Parameters
    ----------
    values : ndarray
        (cells, features) float, NaN where missing.
    kind : str
        See `Moments`.

    Returns
    -------
    ndarray
        (moments, features) float64: 1 moment for mean and median, 2 for ``median_mad``, 9 for ``deciles``.
    """
    if kind == "mean":
        known = np.isfinite(values)
        sums = np.sum(values, axis=0, dtype=np.float64, where=known)
        counts = known.sum(axis=0)
        return np.divide(sums, counts, out=np.full(values.shape[1], np.nan), where=counts > 0)[None]
    if kind == "deciles":
        return _quantiles(values, DECILES)
    median = _quantiles(values, (50,))
    if kind == "median":
        return median
    # deviations in float64, in which the median of two float32 is exact
    return np.concatenate([median, _quantiles(np.abs(values.astype(np.float64) - median), (50,))])


def _quantiles(values: np.ndarray, percentages: Sequence[int]) -> np.ndarray:
    """Percentiles of each column, NaN left out, interpolated linearly: (percentages, features) float64."""
    ordered = np.sort(np.ascontiguousarray(values.T), axis=1)  # NaN last
    counts = np.isfinite(ordered).sum(axis=1)
    each = np.arange(len(ordered))
    percentiles = []
    for percentage in percentages:
        place = np.maximum(counts - 1, 0) * (percentage / 100)
        low = np.floor(place).astype(int)
        high = np.minimum(low + 1, np.maximum(counts - 1, 0))
        below, above = ordered[each, low].astype(np.float64), ordered[each, high].astype(np.float64)
        # half-way, both values are averaged as pandas does, so that medians agree to the last bit
        share = place - low
        percentiles.append(np.where(share == 0.5, (below + above) / 2, below + (above - below) * share))
    return np.stack(percentiles)


def make_profiler(
    settings: ProfileSettings, seed: int, features: Sequence[str] | None = None
) -> Moments | KolmogorovSmirnov | SvmNormal | MixtureCounts | FactorMeans:
    """The unfitted transformer of some settings.

    Parameters
    ----------
    settings : ProfileSettings
    seed : int
        Seed of every random choice.
    features : sequence of str, optional
        Features of the cells to use; all where None.
    """
    match settings.aggregate:
        case "ks":
            return KolmogorovSmirnov(settings.reference, seed, features)
        case "svm":
            return SvmNormal(settings.reference, seed, features)
        case "gmm":
            return MixtureCounts(settings.components or 25, settings.reference, seed, features)
        case "factor_analysis":
            return FactorMeans(settings.components or 50, settings.reference, seed, features)
        case kind:
            return Moments(kind, settings.unit, features)


def make_well_profiles(
    cells: SingleCells, wells: pd.DataFrame, settings: ProfileSettings, reference: pd.DataFrame, seed: int
) -> pd.DataFrame:
    """Profiles of all wells (or fields) that have cells, before any normalisation of profiles.

    Parameters
    ----------
    cells : SingleCells
        Unscaled cells.
    wells : DataFrame
        Metadata of all wells, negative controls among them (``WELL_COLUMNS``); of all fields (``FIELD_COLUMNS``)
        where ``settings.unit`` is ``field``.
    settings : ProfileSettings
        ``level: cells`` scales the cells per plate first (``method``, ``normalise``; ``normalise: training`` uses
        no plate and scales none).
    reference : DataFrame
        Rows of ``wells`` to refer to: a fold's training wells with ``reference: training``; with ``controls`` the
        negative controls among them. Nothing is fitted on other rows. Mean, median and the like need none.
    seed : int
        Seed of every random choice.

    Returns
    -------
    DataFrame
        Metadata and float64 features, one row per unit with cells, sorted by key. ``attrs['facts']`` says what was
        fitted (numbers of factors, reference cells …), empty where nothing was.

    Raises
    ------
    MorphobenchError
        A plate has too few control cells where its controls are the reference; there are no reference cells at all; a
        requested feature does not exist; or there are no cells, or no features.
    """
    by_field = settings.unit == "field"
    key, columns = (FIELD_KEY, FIELD_COLUMNS) if by_field else (WELL_KEY, WELL_COLUMNS)
    if not len(cells) or not cells.features:
        raise MorphobenchError("there is not one cell to make profiles of" if not len(cells) else
                               "the cells have no features to make profiles of", "single cells",
                               "Look at what the pipeline finds in an image, or at the columns of the table.")
    features = _wanted_features(list(cells.features), settings.features)
    wells = wells[columns].drop_duplicates(key)
    strange = sorted(set(cells.plates) - set(wells[PLATE]))
    if len(strange) == len(cells.plates):
        raise MorphobenchError("the single cells are of other plates than the wells", f"plate {strange[0]}, …",
                               "Measure the assay again.")
    if settings.level == "cells" and settings.normalise != "training":
        cells = CellScaler(settings.method, settings.normalise).fit(cells, wells).transform(cells)
    profiler = make_profiler(settings, seed, features).fit(cells, reference)
    profiles = profiler.transform(cells, wells)
    table = wells.merge(profiles, on=key, how="inner", validate="one_to_one")
    table = table.sort_values(key).reset_index(drop=True)
    table.attrs["facts"] = dict(getattr(profiler, "facts_", {}))
    return table
