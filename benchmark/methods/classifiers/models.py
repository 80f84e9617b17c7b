"""The candidate classifiers, each with its own small grid of settings."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

import numpy as np
from scipy.spatial.distance import pdist
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.svm import SVC, LinearSVC

from benchmark.base.errors import MorphobenchError
from benchmark.methods.classifiers.calibration import FLOOR
from benchmark.methods.classifiers.settings import ClassifierName, ClassifierSettings

#: ``plain``: prepared features. ``rotated``: rotated to their principal axes, all that the training rows span, which
#: does not affect a model with an L2 penalty and costs only as much as there are rows; distances to other rows lose the
#: part outside the span, which is the same for every training row. ``leading``: the first `AXES` of these.
Space = Literal["plain", "rotated", "leading"]
AXES = 50


class Candidate(NamedTuple):
    """A classifier with its settings, unfitted."""

    name: str
    family: ClassifierName
    model: Any
    space: Space

    @property
    def decides(self) -> bool:
        """Whether it gives decision values rather than probabilities, which a temperature then makes from them."""
        return not hasattr(self.model, "predict_proba")


class MedianGammaSVC(ClassifierMixin, BaseEstimator):
    """RBF support vectors whose kernel width follows the data: gamma = ``factor`` / median squared distance of rows.

    The median heuristic (Gretton et al. 2012, J Mach Learn Res 13:723, section 8; Caputo et al. 2002).

    Parameters
    ----------
    C : float
        Cost of an error; classes are weighted to balance.
    factor : float
        Factor of the reciprocal of the median squared distance.
    """

    def __init__(self, C: float = 1.0, factor: float = 1.0) -> None:
        self.C = C
        self.factor = factor

    def fit(self, X: np.ndarray, y: np.ndarray) -> MedianGammaSVC:
        """Fit on rows ``X`` (rows, features)."""
        median = float(np.median(pdist(X, "sqeuclidean")))
        self.gamma_ = self.factor / median if median > 0 else self.factor
        self.svc_ = SVC(C=self.C, gamma=self.gamma_, class_weight="balanced", decision_function_shape="ovr").fit(X, y)
        self.classes_ = self.svc_.classes_
        return self

    def decision_function(self, X: np.ndarray) -> np.ndarray:
        """Votes of the pairs of classes with their confidence: (rows, classes), or (rows,) for two."""
        return np.asarray(self.svc_.decision_function(X))


class CosineNeighbours(ClassifierMixin, BaseEstimator):
    """k nearest rows by cosine distance, weighted by its reciprocal; all rows where there are fewer than ``k``."""

    def __init__(self, k: int = 5) -> None:
        self.k = k

    def fit(self, X: np.ndarray, y: np.ndarray) -> CosineNeighbours:
        """Keep the rows ``X`` (rows, features)."""
        self.neighbours_ = KNeighborsClassifier(min(self.k, len(X)), metric="cosine", algorithm="brute",
                                                weights="distance").fit(X, y)
        self.classes_ = self.neighbours_.classes_
        return self

    def predict_proba(self, X: np.ndarray) -> np.ndarray:
        """Shares of the neighbours' weights: (rows, classes)."""
        return np.asarray(self.neighbours_.predict_proba(X))


class BalancedLDA(LinearDiscriminantAnalysis):
    """Linear discriminant analysis with equal priors, whatever the classes' numbers of rows."""

    def fit(self, X: np.ndarray, y: np.ndarray) -> BalancedLDA:
        """Fit on rows ``X`` (rows, features).

        Raises
        ------
        MorphobenchError
            There are no more rows than classes, so that no spread within classes can be estimated.
        """
        classes = len(np.unique(y))
        if len(X) <= classes:
            raise MorphobenchError(f"lda needs more training rows than labels, and has {len(X)} of {classes}",
                                   "classifier.candidates", "Leave lda out, or have fewer inner folds.")
        self.priors = np.full(classes, 1 / classes)
        super().fit(X, y)
        return self


def candidates(settings: ClassifierSettings, seed: int) -> Iterator[Candidate]:
    """Classifiers to choose from, the simplest setting of each first (a tie goes to the earlier one).

    All weight classes to balance, except neighbours, which cannot. Trees split along single features, so they use
    plain ones; boosting uses 50 principal axes, since it looks at every feature in every tree.
    """
    for family in dict.fromkeys(settings.candidates):
        yield from _GRIDS[family](seed)


def _logistic_regression(seed: int) -> Iterator[Candidate]:
    for c in (0.001, 0.01, 0.1, 1.0):
        yield Candidate(f"logistic_regression(C={c:g})", "logistic_regression",
                        LogisticRegression(C=c, class_weight="balanced", max_iter=500, tol=1e-3), "rotated")


def _linear_svm(seed: int) -> Iterator[Candidate]:
    for c in (1e-4, 1e-3, 1e-2, 1e-1):
        yield Candidate(f"linear_svm(C={c:g})", "linear_svm",
                        LinearSVC(C=c, class_weight="balanced", tol=1e-3, max_iter=5000, random_state=seed), "rotated")


def _rbf_svm(seed: int) -> Iterator[Candidate]:
    for c in (1.0, 10.0):
        for factor in (0.3, 1.0, 3.0):
            yield Candidate(f"rbf_svm(C={c:g},gamma={factor:g})", "rbf_svm", MedianGammaSVC(c, factor), "rotated")


def _lda(seed: int) -> Iterator[Candidate]:
    for shrinkage in ("auto", 0.1, 0.5, 0.9):
        yield Candidate(f"lda(shrinkage={shrinkage})", "lda", BalancedLDA("lsqr", shrinkage=shrinkage), "rotated")


def _knn(seed: int) -> Iterator[Candidate]:
    for k in (1, 3, 5, 10):
        yield Candidate(f"knn(k={k})", "knn", CosineNeighbours(k), "rotated")


def _random_forest(seed: int) -> Iterator[Candidate]:
    yield Candidate("random_forest", "random_forest",
                    RandomForestClassifier(200, class_weight="balanced_subsample", min_samples_leaf=2,
                                           random_state=seed), "plain")


def _gradient_boosting(seed: int) -> Iterator[Candidate]:
    yield Candidate("gradient_boosting", "gradient_boosting",
                    HistGradientBoostingClassifier(max_iter=30, learning_rate=0.2, max_leaf_nodes=6,
                                                   min_samples_leaf=3, max_bins=32, max_features=0.3,
                                                   early_stopping=False, class_weight="balanced",
                                                   random_state=seed), "leading")


_GRIDS = {
    "logistic_regression": _logistic_regression,
    "linear_svm": _linear_svm,
    "rbf_svm": _rbf_svm,
    "lda": _lda,
    "knn": _knn,
    "random_forest": _random_forest,
    "gradient_boosting": _gradient_boosting,
}


def log_scores(model: Any, X: np.ndarray, labels: list[str]) -> np.ndarray:
    """Log-probabilities or decision values of a fitted model, one column per label.

    Returns
    -------
    ndarray of float64, shape (rows, labels)
        -inf for a label that the model does not have; probabilities below `FLOOR` count as that.
    """
    if hasattr(model, "predict_proba"):
        own = np.log(np.clip(model.predict_proba(X), FLOOR, None))
    else:
        own = np.asarray(model.decision_function(X), np.float64)
        if own.ndim == 1:  # two classes: positive values are for the second
            own = np.column_stack([-own / 2, own / 2])
    return _columns(model, own, labels, -np.inf)


def probabilities(model: Any, X: np.ndarray, labels: list[str]) -> np.ndarray:
    """(rows, labels) float64 of a fitted model that has probabilities; 0 for a label that it does not have."""
    return _columns(model, model.predict_proba(X), labels, 0.0)


def _columns(model: Any, own: np.ndarray, labels: list[str], absent: float) -> np.ndarray:
    scores = np.full((len(own), len(labels)), absent)
    scores[:, [labels.index(c) for c in model.classes_]] = own
    return scores
