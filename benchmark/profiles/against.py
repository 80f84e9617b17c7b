"""Profiles that compare a well's cells with reference cells: Kolmogorov-Smirnov statistics, SVM normal vectors.

After Ljosa et al. 2013 (J Biomol Screen 18:1321), who compared each well with the negative controls of its plate.
A well is never compared with its own cells: where it is a reference well itself, its cells are removed from the
reference first, so that controls (and training wells) are treated like any other well.
"""

from __future__ import annotations

import warnings
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import StratifiedKFold
from sklearn.svm import LinearSVC
from sklearn.utils.validation import check_is_fitted

from benchmark.base.errors import MorphobenchError
from benchmark.base.tables import PLATE, WELL_KEY
from benchmark.cells.table import SingleCells
from benchmark.profiles.scaling import Standardiser
from benchmark.profiles.wells import (
    FEWEST_CELLS,
    check_references,
    finite,
    floats,
    negative_controls,
    unit_cells,
    unit_table,
    well_list,
)

#: Largest number of reference cells (of a plate's controls; of all training wells together).
REFERENCE_CELLS = 10_000
#: With fewer cells in a well no feature is eliminated: accuracy cannot be estimated.
FEWEST_TO_ELIMINATE = 6
FOLDS = 3


@dataclass
class Reference:
    """Reference cells.

    Parameters
    ----------
    values : ndarray
        (cells, features) float32, NaN where missing.
    wells : ndarray
        (cells,) int: index into `names` of each cell's well.
    names : list of tuple
        (plate, well).
    """

    values: np.ndarray
    wells: np.ndarray
    names: list[tuple[str, str]]

    def own(self, plate: str, well: str) -> np.ndarray:
        """(cells,) bool: which cells are of one well."""
        name = (plate, well)
        if name not in self.names:
            return np.zeros(len(self.values), bool)
        return self.wells == self.names.index(name)


def draw_reference(cells: SingleCells, wells: pd.DataFrame, features: Sequence[str], seed: int) -> Reference:
    """Cells of some wells, the same share of each, at most `REFERENCE_CELLS`.

    Raises
    ------
    MorphobenchError
        They have fewer than ten cells in total.
    """
    columns = list(features)
    table = cells.sample(well_list(wells), REFERENCE_CELLS, seed, columns=columns)
    if len(table) < FEWEST_CELLS:
        raise MorphobenchError(f"there are {len(table)} reference cells, {FEWEST_CELLS} or more are needed",
                               "profile.reference", "Choose the other reference (controls or training).")
    keys = pd.MultiIndex.from_frame(table[WELL_KEY])
    codes, names = pd.factorize(keys, sort=True)
    return Reference(finite(floats(table[columns])), np.asarray(codes), [tuple(n) for n in names])


class _Against(BaseEstimator):
    """Base of both kinds of profile: where reference cells come from.

    Parameters
    ----------
    reference : str
        ``controls``: of each plate, the negative controls among the wells given to `fit`. ``training``: a sample of
        all cells of those wells, for all plates.
    seed : int
    features : sequence of str, optional
        All features of the cells where None.
    """

    def __init__(self, reference: str = "controls", seed: int = 0, features: Sequence[str] | None = None) -> None:
        self.reference = reference
        self.seed = seed
        self.features = features

    def fit(self, cells: SingleCells, wells: pd.DataFrame) -> _Against:
        """Use ``wells`` (``WELL_COLUMNS``) as possible reference wells."""
        self.features_ = list(cells.features if self.features is None else self.features)
        self.facts_: dict[str, object] = {"reference": self.reference}
        if self.reference == "training":
            self.drawn_ = draw_reference(cells, wells, self.features_, self.seed)
            self.facts_ |= {"reference cells": len(self.drawn_.values)}
        else:
            # A plate's control cells are read when the plate is processed: those of all plates would not fit in memory.
            self.controls_ = negative_controls(wells)
        return self

    def transform(self, cells: SingleCells, wells: pd.DataFrame) -> pd.DataFrame:
        """Profiles of the wells that have cells: key and float64 features, sorted.

        Raises
        ------
        MorphobenchError
            A plate has too few control cells, where its controls are the reference.
        """
        check_is_fitted(self)
        plates = sorted(set(wells[PLATE]) & set(cells.plates))
        if self.reference == "controls":
            check_references(cells, plates, self.controls_, "Set profile.reference to training.")
        units, rows = [], []
        for plate in plates:
            for unit, row in self._plate(cells, wells[wells[PLATE] == plate], str(plate)):
                units.append(unit)
                rows.append(row)
        return unit_table(units, rows, self.features_)

    def _plate(self, cells: SingleCells, wells: pd.DataFrame, plate: str) -> Iterator[tuple[tuple, np.ndarray]]:
        """Each well of a plate with its profile."""
        if self.reference == "training":
            reference = self.drawn_
        else:
            own = self.controls_[self.controls_[PLATE] == plate]
            reference = draw_reference(cells, own, self.features_, self.seed)
        prepared = self._prepare(reference)
        for unit, values in unit_cells(cells, wells, self.features_):
            own_cells = reference.own(*unit)
            if len(own_cells) - own_cells.sum() < FEWEST_CELLS:
                # The well is the whole reference: it does not differ from itself.
                yield unit, np.where(np.isfinite(values).any(axis=0), 0.0, np.nan)
            else:
                yield unit, self._profile(prepared, values, own_cells, unit)

    def _prepare(self, reference: Reference) -> Any:
        raise NotImplementedError

    def _profile(self, prepared: Any, values: np.ndarray, own: np.ndarray, unit: tuple) -> np.ndarray:
        raise NotImplementedError


def signed_ks(well: np.ndarray, ordered: np.ndarray, own: np.ndarray | None = None) -> np.ndarray:
    """Signed two-sample Kolmogorov-Smirnov statistic of each feature.

    The largest difference of the two empirical distribution functions, reference minus well: positive where the
    well's values are larger. Equal to ``scipy.stats.ks_2samp(reference, well)`` with its sign, also with ties; ours,
    since SciPy's sorts the reference anew for every well and feature.

    Parameters
    ----------
    well : ndarray
        (cells, features), NaN where missing.
    ordered : ndarray
        (features, reference cells), each row sorted, NaN last (as `numpy.sort` does).
    own : ndarray, optional
        (cells, features): reference cells to be left out of ``ordered``.

    Returns
    -------
    ndarray
        (features,) float64 in [-1, 1]; NaN where either side has no value.
    """
    well = np.sort(np.ascontiguousarray(well.T), axis=1)
    own = np.sort(np.ascontiguousarray(own.T), axis=1) if own is not None and len(own) else None
    in_well, in_reference = (np.isfinite(v).sum(axis=1) for v in (well, ordered))
    in_own = np.zeros_like(in_reference) if own is None else np.isfinite(own).sum(axis=1)
    statistic = np.full(len(well), np.nan)
    for j in range(len(well)):
        m, n = in_well[j], in_reference[j] - in_own[j]
        if m == 0 or n <= 0:
            continue
        x, column = well[j, :m], ordered[j, : in_reference[j]]
        below, up_to = np.searchsorted(column, x, "left"), np.searchsorted(column, x, "right")
        if own is not None:
            mine = own[j, : in_own[j]]
            below, up_to = below - np.searchsorted(mine, x, "left"), up_to - np.searchsorted(mine, x, "right")
        # Between two values of the well only the reference's function rises: the difference is largest just before
        # a value of the well, and smallest at one.
        above = max(0.0, float(np.max(below / n - np.arange(m) / m)))
        under = max(0.0, float(np.max(np.arange(1, m + 1) / m - up_to / n)))
        statistic[j] = -under if under > above else above
    return statistic


class KolmogorovSmirnov(_Against):
    """Signed Kolmogorov-Smirnov statistic of each feature, the well's cells against reference cells.

    Perlman et al. 2004 (Science 306:1194); Ljosa et al. 2013. See `signed_ks` and `_Against`.
    """

    def _prepare(self, reference: Reference) -> Any:
        return reference.values, np.sort(np.ascontiguousarray(reference.values.T), axis=1)

    def _profile(self, prepared: Any, values: np.ndarray, own: np.ndarray, unit: tuple) -> np.ndarray:
        raw, ordered = prepared
        return signed_ks(values, ordered, raw[own])


class SvmNormal(_Against):
    """Normal vector of the linear SVM that separates the well's cells from reference cells.

    Loo et al. 2007 (Nat Methods 4:445); Ljosa et al. 2013. Cells are standardised by the reference, missing values
    are its median. Features are eliminated recursively (`eliminate`); the vector of the SVM on those that remain
    has unit length and is 0 elsewhere. A feature that is constant over the reference cells, or missing in more than
    5 % of them, is NaN.

    Parameters
    ----------
    reference, seed, features
        See `_Against`.
    most : int
        Largest number of cells on either side; classes are weighted equally.
    """

    def __init__(
        self, reference: str = "controls", seed: int = 0, features: Sequence[str] | None = None, most: int = 500
    ) -> None:
        super().__init__(reference, seed, features)
        self.most = most

    def _prepare(self, reference: Reference) -> Any:
        return Standardiser(reference.values), reference.values

    def _profile(self, prepared: Any, values: np.ndarray, own: np.ndarray, unit: tuple) -> np.ndarray:
        scale, reference = prepared
        # The draw depends on the well alone, not on which wells are requested or in which order.
        rng = np.random.default_rng([self.seed, zlib.crc32("\t".join(map(str, unit)).encode())])
        here = np.sort(rng.permutation(len(values))[: self.most])
        there = np.sort(rng.permutation(np.flatnonzero(~own))[: self.most])
        x = np.concatenate([scale(values[here]), scale(reference[there])])
        y = np.r_[np.ones(len(here), int), np.zeros(len(there), int)]
        normal = np.full(len(self.features_), np.nan)
        normal[scale.used] = normal_vector(x, y, int(rng.integers(2**31)))
        return normal


def _separate(x: np.ndarray, y: np.ndarray) -> LinearSVC:
    """A linear SVM whose two classes weigh the same; solved in the primal, where nothing is drawn."""
    with warnings.catch_warnings():
        # A few features that separate perfectly leave the last digits of the weights open.
        warnings.simplefilter("ignore", ConvergenceWarning)
        return LinearSVC(C=1.0, class_weight="balanced", dual=False, tol=1e-2, max_iter=200).fit(x, y)


def halvings(features: int) -> list[int]:
    """Numbers of features tried, from all down to one, each half of the one before (rounded up)."""
    sizes = [features]
    while sizes[-1] > 1:
        sizes.append(-(-sizes[-1] // 2))
    return sizes


def eliminate(x: np.ndarray, y: np.ndarray, sizes: Sequence[int]) -> Iterator[tuple[np.ndarray, LinearSVC]]:
    """Recursive feature elimination (Guyon et al. 2002): SVMs on fewer and fewer features, those of largest weight.

    Yields
    ------
    ndarray, LinearSVC
        Features kept (indices, sorted) and the SVM fitted on them, for each of ``sizes``.
    """
    kept = np.arange(x.shape[1])
    svm = None
    for size in sizes:
        if svm is not None:
            # Ties go to the feature that comes first: the sort is stable.
            order = np.argsort(-np.abs(svm.coef_[0]), kind="stable")[:size]
            kept = np.sort(kept[order])
        svm = _separate(x[:, kept], y)
        yield kept, svm


def _balanced_accuracy(svm: LinearSVC, x: np.ndarray, y: np.ndarray) -> float:
    """Mean of the shares of either class that are told rightly."""
    right = (x @ svm.coef_[0] + svm.intercept_[0] > 0) == (y == 1)
    return float(right[y == 1].mean() + right[y == 0].mean()) / 2


def normal_vector(x: np.ndarray, y: np.ndarray, seed: int) -> np.ndarray:
    """Unit normal vector of the SVM on as few features as separate best.

    The number of features is the smallest whose balanced accuracy, by cross-validation with the elimination done
    anew inside each fold, is the best there is (as the code of Ljosa et al. 2013 chooses it).

    Parameters
    ----------
    x : ndarray
        (cells, features), standardised.
    y : ndarray
        (cells,) 1 for the well, 0 for the reference.
    seed : int
        Of the folds.

    Returns
    -------
    ndarray
        (features,) float64, pointing from the reference to the well; 0 for features eliminated.
    """
    vector = np.zeros(x.shape[1])
    if not x.shape[1]:
        return vector
    sizes = halvings(x.shape[1])
    best = sizes[0]
    if np.bincount(y).min() >= FEWEST_TO_ELIMINATE:
        accuracy = np.zeros(len(sizes))
        for train, test in StratifiedKFold(FOLDS, shuffle=True, random_state=seed).split(x, y):
            for i, (kept, svm) in enumerate(eliminate(x[train], y[train], sizes)):
                accuracy[i] += _balanced_accuracy(svm, x[test][:, kept], y[test]) / FOLDS
        best = min(s for s, a in zip(sizes, accuracy, strict=True) if a >= accuracy.max() - 1e-9)
    for kept, svm in eliminate(x, y, sizes[: sizes.index(best) + 1]):
        weights, places = svm.coef_[0], kept
    length = np.linalg.norm(weights)
    vector[places] = weights / length if length > 0 else 0.0
    return vector
