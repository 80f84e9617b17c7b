"""Profiles in a latent space fitted on reference cells: shares of a Gaussian mixture, means of latent factors.

After Ljosa et al. 2013 (J Biomol Screen 18:1321). Reference cells are drawn once, from negative controls of all
plates or from a fold's training wells; only they are fitted on.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
import pandas as pd
import scipy.linalg
from scipy.linalg.lapack import dpstrf
from sklearn.base import BaseEstimator
from sklearn.decomposition import PCA, FactorAnalysis
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture
from sklearn.utils.validation import check_is_fitted

from benchmark.base.errors import MorphobenchError
from benchmark.cells.table import SingleCells
from benchmark.profiles.scaling import Standardiser
from benchmark.profiles.wells import (
    FEWEST_CELLS,
    count_cells,
    finite,
    floats,
    negative_controls,
    unit_cells,
    unit_table,
    well_list,
)

#: Cells transformed at once (float64).
ROWS = 4096
#: The mixture is fitted on this share of the reference cells (Ljosa et al. 2013), within these bounds.
SHARE, FEWEST, MOST = 0.1, 5_000, 20_000
#: Largest number of reference cells of the factor analysis.
FACTOR_CELLS = 50_000
#: Variance of the reference cells that the principal components keep.
VARIANCE = 0.8
#: Fewest cells per component or factor.
CELLS_EACH = 5
#: A feature is left out if the others leave less than this share of its variance unexplained.
INDEPENDENT = 1e-6
#: Largest number of steps of the factor analysis, and the gain in a cell's log-likelihood at which it has converged.
STEPS, GAIN = 200, 1e-3


def reference_cells(
    cells: SingleCells, wells: pd.DataFrame, reference: str, features: Sequence[str], seed: int, share: float,
    fewest: int, most: int,
) -> np.ndarray:
    """Cells to fit on, the same share of each well: (cells, features) float32, NaN where missing.

    Parameters
    ----------
    wells : DataFrame
        Wells that may be fitted on, with metadata.
    reference : str
        ``controls``: only the negative controls among them are used. ``training``: all are.
    share, fewest, most : float, int, int
        The share of cells drawn, and the least and the greatest number of cells.

    Raises
    ------
    MorphobenchError
        There are fewer than ten.
    """
    if reference == "controls":
        wells = negative_controls(wells)
    chosen = well_list(wells)
    number = int(np.clip(count_cells(cells, chosen) * share, fewest, most))
    table = cells.sample(chosen, number, seed, columns=list(features)) if chosen else pd.DataFrame()
    if len(table) < FEWEST_CELLS:
        other = {"controls": "training", "training": "controls"}[reference]
        raise MorphobenchError(f"there are {len(table)} reference cells, {FEWEST_CELLS} or more are needed",
                               f"profile.reference: {reference}", f"Set profile.reference to {other}.")
    return finite(floats(table[list(features)]))


def _standardiser(reference: np.ndarray, features: Sequence[str]) -> Standardiser:
    """A standardiser with at least one feature."""
    scale = Standardiser(reference)
    if not scale.used.any():
        raise MorphobenchError("no feature varies over the reference cells and is present in them",
                               f"{features[0]}, …", "Look at the single cells; choose other profile.features.")
    return scale


class MixtureCounts(BaseEstimator):
    """Shares of a well's cells in the components of a Gaussian mixture fitted on reference cells.

    Slack et al. 2008 (PNAS 105:19306); Ljosa et al. 2013. Cells are standardised by the reference and reduced to the
    principal components that keep 80 % of its variance; the mixture has diagonal covariances, as in the authors'
    code. A profile is the mean over cells of the posterior probability of each component.

    Parameters
    ----------
    components : int
        Gaussians; fewer where there are fewer than five reference cells for each (see ``facts_``).
    reference : str
        See `reference_cells`.
    seed : int
    features : sequence of str, optional
        All features of the cells where None.

    Attributes
    ----------
    facts_ : dict
        Reference cells, features, principal components, components requested and fitted, whether it converged.
    """

    def __init__(self, components: int = 25, reference: str = "controls", seed: int = 0,
                 features: Sequence[str] | None = None) -> None:
        self.components = components
        self.reference = reference
        self.seed = seed
        self.features = features

    def fit(self, cells: SingleCells, wells: pd.DataFrame) -> MixtureCounts:
        """Fit on reference cells of ``wells`` (``WELL_COLUMNS``, those that may be fitted on)."""
        self.features_ = list(cells.features if self.features is None else self.features)
        drawn = reference_cells(cells, wells, self.reference, self.features_, self.seed, SHARE, FEWEST, MOST)
        self.scale_ = _standardiser(drawn, self.features_)
        x = self.scale_(drawn)
        self.pca_ = PCA(VARIANCE, svd_solver="covariance_eigh" if len(x) > x.shape[1] else "full").fit(x)
        number = max(1, min(self.components, len(x) // CELLS_EACH))
        self.mixture_ = GaussianMixture(number, covariance_type="diag", random_state=self.seed, reg_covar=1e-3)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # reported in facts_
            self.mixture_.fit(self.pca_.transform(x))
        # The largest component first, so that names have a meaning.
        self.order_ = np.argsort(-self.mixture_.weights_, kind="stable")
        self.facts_ = {
            "reference": self.reference, "reference cells": len(x), "features used": x.shape[1],
            "principal components": int(self.pca_.n_components_), "components asked for": self.components,
            "components": number, "converged": bool(self.mixture_.converged_),
        }
        return self

    def transform(self, cells: SingleCells, wells: pd.DataFrame) -> pd.DataFrame:
        """Profiles of the wells that have cells: key and a share (0 to 1) for each component, which sum to 1."""
        check_is_fitted(self)
        units, rows = [], []
        for unit, values in unit_cells(cells, wells, self.features_):
            total = sum(self._shares(values[i : i + ROWS]) for i in range(0, len(values), ROWS))
            units.append(unit)
            rows.append(np.asarray(total)[self.order_] / len(values))
        return unit_table(units, rows, [f"Mixture_{i + 1:03d}" for i in range(len(self.order_))])

    def _shares(self, values: np.ndarray) -> np.ndarray:
        """Posterior probabilities, summed over cells."""
        return self.mixture_.predict_proba(self.pca_.transform(self.scale_(values))).sum(axis=0)


class FactorMeans(BaseEstimator):
    """Mean score of a well's cells on latent factors of reference cells.

    Young et al. 2008 (Nat Chem Biol 4:59); Ljosa et al. 2013. Cells are standardised by the reference. Of features
    that determine each other exactly, as few as possible are left out, as in the authors' code: they would leave no
    variance for the noise of the model.

    Parameters
    ----------
    factors : int
        Fewer where there are fewer independent features, or fewer than five reference cells for each.
    reference : str
        See `reference_cells`.
    seed : int
    features : sequence of str, optional
        All features of the cells where None.

    Attributes
    ----------
    facts_ : dict
        Reference cells, features with spread, independent ones, factors asked for and fitted, steps, whether it
        converged.
    """

    def __init__(self, factors: int = 50, reference: str = "controls", seed: int = 0,
                 features: Sequence[str] | None = None) -> None:
        self.factors = factors
        self.reference = reference
        self.seed = seed
        self.features = features

    def fit(self, cells: SingleCells, wells: pd.DataFrame) -> FactorMeans:
        """Fit on reference cells of ``wells`` (``WELL_COLUMNS``, those that may be fitted on)."""
        self.features_ = list(cells.features if self.features is None else self.features)
        drawn = reference_cells(cells, wells, self.reference, self.features_, self.seed, 1.0, 1, FACTOR_CELLS)
        self.scale_ = _standardiser(drawn, self.features_)
        self.centre_, covariance = _mean_and_covariance(drawn, self.scale_)
        self.kept_ = independent_features(covariance)
        number = max(1, min(self.factors, len(self.kept_), len(drawn) // CELLS_EACH))
        self.model_, self.facts_ = fit_factors(covariance[np.ix_(self.kept_, self.kept_)], number, self.seed)
        explained = (self.model_.components_**2).sum(axis=1)
        self.order_ = np.argsort(-explained, kind="stable")
        largest = np.abs(self.model_.components_).argmax(axis=1)
        self.signs_ = np.sign(self.model_.components_[np.arange(number), largest])
        self.facts_ |= {
            "reference": self.reference, "reference cells": len(drawn), "features used": int(self.scale_.used.sum()),
            "independent features": len(self.kept_), "factors asked for": self.factors, "factors": number,
        }
        return self

    def transform(self, cells: SingleCells, wells: pd.DataFrame) -> pd.DataFrame:
        """Profiles of the wells that have cells: key and the mean score on each factor, most variance first."""
        check_is_fitted(self)
        units, rows = [], [np.zeros((0, len(self.kept_)))]
        for unit, values in unit_cells(cells, wells, self.features_):
            total = sum(self.scale_(values[i : i + ROWS]).sum(axis=0) for i in range(0, len(values), ROWS))
            units.append(unit)
            rows.append((np.asarray(total) / len(values) - self.centre_)[None, self.kept_])
        # Scores are linear in the features: the mean score is the score of the mean cell.
        means = np.concatenate(rows)
        scores = self.model_.transform(means) * self.signs_ if len(means) else np.zeros((0, len(self.order_)))
        return unit_table(units, list(scores[:, self.order_]), [f"Factor_{i + 1:03d}" for i in range(len(self.order_))])


def _mean_and_covariance(values: np.ndarray, scale: Standardiser) -> tuple[np.ndarray, np.ndarray]:
    """Mean and covariance of standardised cells, some rows in memory at a time: (features,) and square, float64."""
    number, width = len(values), int(scale.used.sum())
    mean, square = np.zeros(width), np.zeros((width, width))
    for start in range(0, number, ROWS):
        x = scale(values[start : start + ROWS])
        mean += x.sum(axis=0) / number
        square += x.T @ x / number
    return mean, square - np.outer(mean, mean)


def independent_features(covariance: np.ndarray) -> np.ndarray:
    """Features (indices, sorted) that the others do not explain completely.

    By pivoted Cholesky decomposition: the feature with the most remaining variance comes next, until less than
    `INDEPENDENT` of its (standardised) variance remains of every other.
    """
    _, pivots, rank, _ = dpstrf(covariance, tol=INDEPENDENT, lower=1)
    return np.sort(pivots[:rank] - 1)


def fit_factors(covariance: np.ndarray, number: int, seed: int) -> tuple[FactorAnalysis, dict[str, object]]:
    """Factor analysis of cells whose covariance is known.

    scikit-learn's is fitted on cells, but uses only their covariance. It is given a few rows with exactly that
    covariance, so that its steps cost the same for any number of cells: a triangular factor of the covariance, rotated
    by Helmert's matrix, so that the rows have mean zero.

    Parameters
    ----------
    covariance : ndarray
        (features, features) float64, of full rank.
    number : int
        Factors.
    seed : int

    Returns
    -------
    FactorAnalysis, dict
        The fitted model, for cells minus their mean; its steps, and whether it converged.
    """
    width = len(covariance)
    root = scipy.linalg.cholesky(covariance)
    rows = np.sqrt(width + 1) * (scipy.linalg.helmert(width + 1).T @ root)
    # scikit-learn's tolerance is of the log-likelihood of all rows together. With few power iterations the error of
    # its randomised decomposition is larger than a step's gain, and it stops at the first step that appears to be a
    # loss.
    model = FactorAnalysis(number, max_iter=STEPS, tol=GAIN * (width + 1), random_state=seed, iterated_power=15)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # reported in facts
        model.fit(rows)
    gain = abs(float(np.diff(model.loglike_[-2:])[0])) / (width + 1)
    return model, {"steps": int(model.n_iter_), "converged": gain < GAIN}
