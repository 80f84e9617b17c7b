"""Single cells normalised per plate, before they become profiles."""

from __future__ import annotations

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from benchmark.base.errors import MorphobenchError
from benchmark.base.tables import PLATE
from benchmark.cells.table import SingleCells
from benchmark.profiles.settings import Scaling
from benchmark.profiles.wells import (
    check_references,
    count_cells,
    feature_columns,
    finite,
    floats,
    negative_controls,
    well_list,
)

#: Values in memory at once while centre and scale are computed (float64: 128 MiB), and rows scaled at once.
CHUNK = 2**24
ROWS = 4096
#: Cells are float32: a spread below this share of the largest value is rounding, not spread.
ROUNDING = 1e-6
#: A feature missing in more than this share of the reference cells is not used.
MISSING = 0.05
#: Standardised cells are clipped at this many deviations: one broken cell must not dominate a well's mean.
CLIP = 20.0


def centre_and_scale(values: np.ndarray, method: Scaling) -> tuple[np.ndarray, np.ndarray]:
    """What is subtracted from each feature, and what it is then divided by.

    Parameters
    ----------
    values : ndarray
        (cells, features) float64; NaN is left out.
    method : str
        ``standardize``: mean and standard deviation (of the population). ``mad_robustize``: median and 1.4826 times
        the median absolute deviation, a standard deviation where the values are normal. ``ljosa``: 1st percentile,
        and its distance to the 99th (Ljosa et al. 2013, Methods).

    Returns
    -------
    ndarray, ndarray
        (features,) float64. The scale is NaN where a feature is constant or missing, or its scale is zero.
    """
    centre, scale = (np.full(values.shape[1], np.nan) for _ in range(2))
    known = np.isfinite(values).any(axis=0)
    if known.any():
        values = values[:, known]
        low, high = np.nanmin(values, axis=0), np.nanmax(values, axis=0)
        middle, spread = _location_and_spread(values, method)
        flat = high - low <= ROUNDING * np.maximum(np.abs(low), np.abs(high))
        spread[flat | ~(spread > ROUNDING * np.abs(middle))] = np.nan
        centre[known], scale[known] = middle, spread
    return centre, scale


def _location_and_spread(values: np.ndarray, method: Scaling) -> tuple[np.ndarray, np.ndarray]:
    """Centre and scale of features with at least one value."""
    if method == "standardize":
        return np.nanmean(values, axis=0), np.nanstd(values, axis=0)
    if method == "mad_robustize":
        median = np.nanmedian(values, axis=0)
        return median, 1.4826 * np.nanmedian(np.abs(values - median), axis=0)
    low, high = np.nanpercentile(values, [1, 99], axis=0)
    return low, high - low


class CellScaler(BaseEstimator):
    """Centre and scale single cells plate by plate.

    A feature that is constant over the cells a plate is fitted on is missing (NaN) in all of that plate's cells.

    Parameters
    ----------
    method : str
        See `centre_and_scale`.
    samples : str
        ``controls``: fitted on the cells of each plate's negative controls. ``plate``: on all its cells.
    """

    def __init__(self, method: Scaling = "ljosa", samples: str = "controls") -> None:
        self.method = method
        self.samples = samples

    def fit(self, cells: SingleCells, wells: pd.DataFrame) -> CellScaler:
        """Compute each plate's centre and scale.

        Parameters
        ----------
        cells : SingleCells
        wells : DataFrame
            One row a well (or field) with metadata; all plates to be scaled must be there.

        Raises
        ------
        MorphobenchError
            ``samples`` is ``controls`` and a plate has too few cells of negative controls.
        """
        plates = sorted(set(wells[PLATE]) & set(cells.plates))
        if self.samples == "controls":
            wells = negative_controls(wells)
            check_references(cells, plates, wells, "Set profile.normalise to plate or training.")
        self.scales_ = {}
        for plate in plates:
            own = well_list(wells[wells[PLATE] == plate])
            self.scales_[str(plate)] = self._scale_of(cells, own)
        return self

    def _scale_of(self, cells: SingleCells, wells: list[tuple[str, str]]) -> pd.DataFrame:
        """Centre and scale (rows) of each feature over the cells of some wells, some features at a time."""
        features = list(cells.features)
        step = max(1, CHUNK // max(1, count_cells(cells, wells)))
        parts = []
        for start in range(0, len(features), step):
            columns = features[start : start + step]
            values = finite(cells.read(wells, columns=columns)[columns].to_numpy(np.float64))
            parts.append(pd.DataFrame(centre_and_scale(values, self.method), columns=columns))
        return pd.concat(parts, axis=1)

    def transform(self, cells: SingleCells) -> SingleCells:
        """The same cells, scaled as they are read."""
        check_is_fitted(self)
        return cells.mapped(self._scaled, by_feature=True)

    def _scaled(self, plate: str, block: pd.DataFrame) -> pd.DataFrame:
        """A block of a plate's cells, scaled."""
        if plate not in self.scales_:
            raise MorphobenchError("its cells cannot be normalised: the plate was not among those fitted on",
                                   f"plate {plate}")
        columns = feature_columns(block)
        centre, scale = self.scales_[plate][columns].to_numpy()
        values = floats(block[columns]).copy()
        for start in range(0, len(values), ROWS):
            # computed in float64: centre and value may be large and close
            values[start : start + ROWS] = (values[start : start + ROWS] - centre) / scale
        keys = block.drop(columns=columns)
        return pd.concat([keys, pd.DataFrame(values, index=block.index, columns=columns)], axis=1)


class Standardiser:
    """Cells standardised by reference cells, missing values filled, for methods that need both.

    Parameters
    ----------
    reference : ndarray
        (cells, features) float, NaN where missing.

    Attributes
    ----------
    used : ndarray
        (features,) bool: not constant over the reference, and missing in at most 5 % of it.
    """

    def __init__(self, reference: np.ndarray) -> None:
        gaps = 1 - np.isfinite(reference).mean(axis=0)
        self.used = gaps <= MISSING
        parts = [np.zeros((3, 0))]
        for start in range(0, reference.shape[1], 256):
            values = reference[:, start : start + 256].astype(np.float64)
            centre, scale = centre_and_scale(values, "standardize")
            parts.append(np.stack([np.full(len(centre), np.nan), centre, scale]))
            known = np.isfinite(centre)
            if known.any():
                parts[-1][0, known] = np.nanmedian(values[:, known], axis=0)
        median, centre, scale = np.concatenate(parts, axis=1)
        self.used &= np.isfinite(scale)
        self._median, self._centre, self._scale = (v[self.used] for v in (median, centre, scale))

    def __call__(self, values: np.ndarray) -> np.ndarray:
        """(cells, features used) float64: filled with the reference's median, standardised, clipped at `CLIP`."""
        values = values[:, self.used].astype(np.float64)
        values = np.where(np.isfinite(values), values, self._median)
        return np.clip((values - self._centre) / self._scale, -CLIP, CLIP)
