"""One classifier for every table of features, chosen by cross-validation inside the training wells.

Shared by CellProfiler profiles, cell counts and frozen network features, so that these differ only in their
features. The classifiers themselves are in `benchmark.methods.classifiers.models`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import pandas as pd
from sklearn.base import clone
from sklearn.decomposition import PCA
from sklearn.dummy import DummyClassifier
from sklearn.metrics import log_loss, recall_score
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

from benchmark.base.errors import MorphobenchError
from benchmark.folds.inner import inner_folds
from benchmark.methods.classifiers.calibration import fit_temperature, heated
from benchmark.methods.classifiers.models import AXES, Candidate, Space, candidates, log_scores, probabilities
from benchmark.methods.classifiers.settings import ClassifierName, ClassifierSettings
from benchmark.profiles.transformers import Clip
from benchmark.profiles.wells import feature_columns


class Selector(Protocol):
    """A transformer of profile tables (metadata and features), such as `benchmark.profiles.select.ProfileSelector`."""

    def fit(self, X: pd.DataFrame) -> Any:
        """Fit on training rows."""

    def transform(self, X: pd.DataFrame) -> pd.DataFrame:
        """Rows with the features that are kept, without missing values."""


@dataclass(frozen=True)
class Chosen:
    """A classifier fitted on training rows, and how it was chosen.

    Attributes
    ----------
    scores : dict
        For each candidate, the best first, the balanced accuracy over the inner folds; empty where there was nothing
        to choose and nothing to calibrate, or nothing could be held out.
    temperature : float or None
        Of its probabilities, fitted on the inner folds' predictions; None where they are as the model gives them.
    """

    preparation: Preparation
    model: Any
    name: str
    scores: dict[str, float]
    space: Space
    temperature: float | None = None

    def probabilities(self, X: pd.DataFrame, labels: list[str]) -> np.ndarray:
        """(rows, labels) float64, rows sum to 1; 0 for a label that training did not have."""
        ready = self.preparation.transform(X)[self.space]
        if self.temperature is None:
            return probabilities(self.model, ready, labels)
        return heated(log_scores(self.model, ready, labels), self.temperature)


class Preparation:
    """Steps between features and classifier, all fitted on training rows.

    Selection (where a selector is given), standardisation and clipping; then a rotation to principal axes. The
    rotation keeps every dimension that the rows span, so it changes no distance between them and no model with an L2
    penalty (which is invariant to rotations); thousands of features then cost only as much as there are rows.
    """

    def __init__(self, selector: Selector | None) -> None:
        self._selector = None if selector is None else clone(selector)
        self._steps = Pipeline([("scale", StandardScaler()), ("clip", Clip())])
        self._rotation = PCA(svd_solver="full")

    @property
    def selector(self) -> Any:
        """The fitted selector; None where every feature is used."""
        return self._selector

    def fit_transform(self, X: pd.DataFrame) -> dict[Space, np.ndarray]:
        """Fit on training rows; the prepared rows in each space, float64."""
        if self._selector is not None:
            self._selector.fit(X)
        plain = self._steps.fit_transform(self._values(X))
        return self._spaces(plain, self._rotation.fit_transform(plain))

    def transform(self, X: pd.DataFrame) -> dict[Space, np.ndarray]:
        """Other rows, prepared in the same way."""
        plain = self._steps.transform(self._values(X))
        return self._spaces(plain, self._rotation.transform(plain))

    def _spaces(self, plain: np.ndarray, rotated: np.ndarray) -> dict[Space, np.ndarray]:
        # Centred rows span one dimension less than there are rows; the last axis has an arbitrary direction and no
        # variance.
        variance = self._rotation.explained_variance_
        rank = max(1, int((variance > 1e-12 * variance[0]).sum()))
        return {"plain": plain, "rotated": rotated[:, :rank], "leading": rotated[:, : min(rank, AXES)]}

    def _values(self, X: pd.DataFrame) -> np.ndarray:
        table = X if self._selector is None else self._selector.transform(X)
        columns = feature_columns(table)
        if not columns:
            raise MorphobenchError("no feature is left to classify by", "profile table", "Select less strictly.")
        values = table[columns].to_numpy(np.float64)
        missing = ~np.isfinite(values)
        if missing.any():
            raise MorphobenchError(f"{int(missing.any(axis=1).sum())} row(s) lack values, of the feature "
                                   f"{columns[int(missing.any(axis=0).argmax())]} for one", "profile table",
                                   "Let profile.select contain `missing`.")
        return values


@dataclass(frozen=True)
class _Inner:
    """Predictions of all inner test rows: their true labels and, for each candidate, log-scores of ``labels``."""

    labels: list[str]
    truth: list[str]
    scores: dict[str, np.ndarray]

    def temperature(self, name: str) -> float | None:
        """Of a candidate; None where it predicted no inner test row."""
        if name not in self.scores:
            return None
        return fit_temperature(self.scores[name], np.array([self.labels.index(t) for t in self.truth]))


def choose_and_fit(
    X: pd.DataFrame,
    labels: pd.Series,
    groups: pd.Series,
    settings: ClassifierSettings,
    selector: Selector | None,
    seed: int,
) -> Chosen:
    """Choose a classifier by inner cross-validation of groups (compounds), and fit it on all rows given.

    Selection and preparation are fitted anew in each inner fold. Where the table was corrected before, or its
    reference cells are those of the training wells, selection, scaling and correction have seen the features (never the
    labels) of inner test rows: the inner scores are then slightly optimistic; the fold's own test wells are unaffected.

    Parameters
    ----------
    X : DataFrame
        Training rows only: metadata, which no model sees, and features.
    labels : Series
        Of the same rows.
    groups : Series
        Groups that no inner fold has on both sides; see `benchmark.folds.inner.inner_groups`.
    selector : transformer or None
        Unfitted; it is cloned, never fitted itself.

    Raises
    ------
    MorphobenchError
        A value is missing where nothing fills it, or a classifier cannot be fitted on so few rows.

    Notes
    -----
    The winner has the highest balanced accuracy over the pooled inner test rows; ties go to the lower log
    loss. Rows whose label no training group of the inner fold has cannot be predicted and are not counted.
    Calibration does not affect the choice; a support vector machine, which has no probabilities, gets them from its
    temperature first.
    """
    return _fit_best(X, labels, groups, settings, selector, seed, [list(candidates(settings, seed))])[0]


def choose_each(
    X: pd.DataFrame,
    labels: pd.Series,
    groups: pd.Series,
    settings: ClassifierSettings,
    selector: Selector | None,
    seed: int,
) -> dict[ClassifierName, Chosen]:
    """For each kind of classifier its best settings, fitted on all rows; the inner folds are prepared only once.

    Each is what `choose_and_fit` gives with this kind as the only candidate.
    """
    every = list(candidates(settings, seed))
    kinds = list(dict.fromkeys(settings.candidates))
    families = [[c for c in every if c.family == kind] for kind in kinds]
    return dict(zip(kinds, _fit_best(X, labels, groups, settings, selector, seed, families), strict=True))


def _fit_best(
    X: pd.DataFrame, labels: pd.Series, groups: pd.Series, settings: ClassifierSettings, selector: Selector | None,
    seed: int, rivals: Sequence[Sequence[Candidate]],
) -> list[Chosen]:
    """The best candidate of each group, fitted on all rows."""
    # A single candidate that has probabilities of its own needs no inner folds.
    asked = [c for group in rivals for c in group
             if len(group) > 1 or c.decides or settings.calibrate == "temperature"]
    inner = _inner_predictions(X, labels, groups, settings.inner_folds, selector, seed, asked)
    preparation = Preparation(selector)
    ready = preparation.fit_transform(X)
    chosen = []
    for group in rivals:
        ranked = _ranking(inner, [c for c in group if c.name in inner.scores])
        best = next(c for c in group if c.name == ranked[0][2]) if ranked else group[0]
        scores = {name: -negative for negative, _, name in ranked}
        if labels.nunique() < 2:  # permuted labels may leave a fold with a single one
            chosen.append(Chosen(preparation, DummyClassifier(strategy="prior").fit(ready["plain"], labels),
                                 "the only label", scores, "plain"))
            continue
        temperature = inner.temperature(best.name) if best.decides or settings.calibrate == "temperature" else None
        if best.decides and temperature is None:
            temperature = 1.0
        chosen.append(Chosen(preparation, clone(best.model).fit(ready[best.space], labels), best.name, scores,
                             best.space, temperature))
    return chosen


def _inner_predictions(
    X: pd.DataFrame, labels: pd.Series, groups: pd.Series, folds: int, selector: Selector | None, seed: int,
    rivals: Sequence[Candidate],
) -> _Inner:
    """What each candidate predicts for the rows that inner folds hold out."""
    names = sorted(labels.unique())
    truth: list[str] = []
    parts: dict[str, list[np.ndarray]] = {c.name: [] for c in rivals}
    for train, test in inner_folds(groups.tolist(), labels.tolist(), folds, seed) if rivals else ():
        known = labels.iloc[test].isin(labels.iloc[train].unique()).to_numpy()
        if not known.any() or labels.iloc[train].nunique() < 2:
            continue
        preparation = Preparation(selector)
        inside = preparation.fit_transform(X.iloc[train])
        outside = preparation.transform(X.iloc[test[known]])
        truth += labels.iloc[test[known]].tolist()
        for c in rivals:
            fitted = clone(c.model).fit(inside[c.space], labels.iloc[train])
            parts[c.name].append(log_scores(fitted, outside[c.space], names))
    return _Inner(names, truth, {name: np.concatenate(p) for name, p in parts.items() if p})


def _ranking(inner: _Inner, rivals: Sequence[Candidate]) -> list[tuple[float, float, str]]:
    """Candidates as (-balanced accuracy, log loss, name), best first; empty without inner test rows."""
    ranked = []
    for c in rivals:
        temperature = inner.temperature(c.name) if c.decides else None
        p = heated(inner.scores[c.name], temperature or 1.0)
        predicted = [inner.labels[i] for i in p.argmax(axis=1)]
        p = np.clip(p, 1e-6, None)
        p /= p.sum(axis=1, keepdims=True)
        loss = float(log_loss(inner.truth, p, labels=inner.labels))
        balanced = recall_score(inner.truth, predicted, labels=sorted(set(inner.truth)), average="macro",
                                zero_division=0.0)
        ranked.append((-float(balanced), loss, c.name))
    order = {c.name: i for i, c in enumerate(rivals)}
    return sorted(ranked, key=lambda r: (r[0], r[1], order[r[2]]))


def summarise_choices(choices: list[str]) -> dict[str, int]:
    """How often each classifier was chosen over the folds, the most frequent first."""
    return dict(Counter(choices).most_common())
