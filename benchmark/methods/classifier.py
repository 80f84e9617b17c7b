"""One classifier for every table of features, chosen by cross-validation inside the training wells.

Used alike by CellProfiler profiles, cell counts and frozen network features, so that these differ in their
features and in nothing else.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator, clone
from sklearn.decomposition import PCA
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss, recall_score
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

from benchmark.methods.settings import ClassifierSettings
from benchmark.profiles.transformers import Clip, ProfileSelector
from benchmark.splits import inner_folds


@dataclass(frozen=True)
class Chosen:
    """A classifier fitted on training rows, and how it was chosen.

    ``scores`` holds, for each candidate, the balanced accuracy over the inner folds.
    """

    preparation: Preparation
    model: BaseEstimator
    name: str
    scores: dict[str, float]

    def probabilities(self, X: pd.DataFrame, labels: list[str]) -> np.ndarray:
        """(rows, labels) float64; 0 for a label that training did not have."""
        return _probabilities(self.model, self.preparation.transform(X)[_rotated(self.name)], labels)


def candidates(settings: ClassifierSettings, seed: int) -> Iterator[tuple[str, BaseEstimator]]:
    """Classifiers to choose from, the simplest first (a tie goes to the earlier one)."""
    for name in settings.candidates:
        if name == "logistic_regression":
            for c in (0.001, 0.01, 0.1, 1.0):
                yield f"{name}(C={c:g})", LogisticRegression(C=c, class_weight="balanced", max_iter=500, tol=1e-3)
        else:
            yield name, RandomForestClassifier(200, class_weight="balanced_subsample", min_samples_leaf=2,
                                               random_state=seed)


class Preparation:
    """Steps between features and classifier, all fitted on training rows.

    Selection (where ``correlation`` is given), standardisation and clipping; then, for linear models, a rotation
    to principal axes. The rotation keeps every dimension that the rows span, so it changes no model with an L2
    penalty (the penalty does not see rotations); it makes thousands of features as cheap as there are rows.
    """

    def __init__(self, correlation: float | None) -> None:
        steps: list[tuple[str, BaseEstimator]] = [("select", ProfileSelector(correlation))] if correlation else []
        self._steps = Pipeline([*steps, ("scale", StandardScaler()), ("clip", Clip())])
        self._rotation = PCA(svd_solver="full")

    def fit_transform(self, X: pd.DataFrame) -> dict[bool, np.ndarray]:
        """Fit on training rows; the prepared rows, plain (False) and rotated (True)."""
        plain = self._steps.fit_transform(X)
        return {False: plain, True: self._rotation.fit_transform(plain)}

    def transform(self, X: pd.DataFrame) -> dict[bool, np.ndarray]:
        """Other rows, prepared alike."""
        plain = self._steps.transform(X)
        return {False: plain, True: self._rotation.transform(plain)}


def _rotated(name: str) -> bool:
    """Whether a candidate takes rotated features; trees split along single features, so they do not."""
    return name.startswith("logistic_regression")


def choose_and_fit(
    X: pd.DataFrame,
    labels: pd.Series,
    groups: pd.Series,
    settings: ClassifierSettings,
    correlation: float | None,
    seed: int,
) -> Chosen:
    """Choose a classifier by inner cross-validation of groups (compounds), and fit it on all rows given.

    The preparation is fitted anew in each inner fold, so that the choice itself does not leak.

    Parameters
    ----------
    X : DataFrame
        Training rows only, features as columns.
    labels : Series
        Of the same rows.
    groups : Series
        What no inner fold has on both sides; see `benchmark.splits.inner_groups`.

    Notes
    -----
    The winner has the highest balanced accuracy over the pooled inner test rows; ties go to the lower log
    loss. Rows whose label no other training group of the inner fold has cannot be right and are not counted.
    """
    names = sorted(labels.unique())
    models = dict(candidates(settings, seed))
    truth: list[str] = []
    guesses: dict[str, list[np.ndarray]] = {name: [] for name in models}
    for train, test in inner_folds(groups.tolist(), labels.tolist(), settings.inner_folds, seed):
        known = labels.iloc[test].isin(labels.iloc[train].unique()).to_numpy()
        if not known.any() or labels.iloc[train].nunique() < 2:
            continue
        prepared = Preparation(correlation)
        inside = prepared.fit_transform(X.iloc[train])
        outside = prepared.transform(X.iloc[test[known]])
        truth += labels.iloc[test[known]].tolist()
        for name, model in models.items():
            fitted = clone(model).fit(inside[_rotated(name)], labels.iloc[train])
            guesses[name].append(_probabilities(fitted, outside[_rotated(name)], names))
    ranked = _ranking(truth, guesses, names)
    best = ranked[0][2] if ranked else next(iter(models))
    prepared = Preparation(correlation)
    model = clone(models[best]).fit(prepared.fit_transform(X)[_rotated(best)], labels)
    return Chosen(prepared, model, best, {name: -negative for negative, _, name in ranked})


def _ranking(
    truth: list[str], guesses: dict[str, list[np.ndarray]], names: list[str]
) -> list[tuple[float, float, str]]:
    """Candidates as (-balanced accuracy, log loss, name), best first; empty without inner test rows."""
    if not truth:
        return []
    ranked = []
    for name, parts in guesses.items():
        p = np.clip(np.concatenate(parts), 1e-6, None)
        p /= p.sum(axis=1, keepdims=True)
        predicted = [names[i] for i in p.argmax(axis=1)]
        loss = float(log_loss(truth, p, labels=names))
        balanced = recall_score(truth, predicted, labels=sorted(set(truth)), average="macro", zero_division=0.0)
        ranked.append((-float(balanced), loss, name))
    order = {name: i for i, name in enumerate(guesses)}
    return sorted(ranked, key=lambda r: (r[0], r[1], order[r[2]]))


def _probabilities(model: BaseEstimator, X: np.ndarray, labels: list[str]) -> np.ndarray:
    p = np.zeros((len(X), len(labels)))
    columns = [labels.index(c) for c in model.classes_]
    p[:, columns] = model.predict_proba(X)
    return p


def summarise_choices(choices: list[str]) -> dict[str, int]:
    """How often each classifier was chosen over the folds, the most frequent first."""
    return dict(Counter(choices).most_common())
