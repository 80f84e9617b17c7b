"""Classifiers that compete: each is found where it is the right one, and none sees what it must not."""

from __future__ import annotations

from typing import ClassVar, get_args

import numpy as np
import pandas as pd
import pytest
from scipy.spatial.distance import pdist
from sklearn.base import BaseEstimator, clone
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from benchmark.base.errors import MorphobenchError
from benchmark.folds.inner import inner_folds
from benchmark.methods.classifiers.classifier import Preparation, choose_and_fit, choose_each
from benchmark.methods.classifiers.models import BalancedLDA, CosineNeighbours, MedianGammaSVC, candidates, log_scores
from benchmark.methods.classifiers.settings import ClassifierName, ClassifierSettings

ALL: tuple[ClassifierName, ...] = get_args(ClassifierName)


def table(effect: float, seed: int = 0, labels: int = 3, compounds: int = 4, rows: int = 4, features: int = 20):
    """Rows of compounds; each label has a direction of its own, each compound a shift of its own."""
    rng = np.random.default_rng(seed)
    label = np.repeat(np.arange(labels), compounds * rows)
    compound = np.repeat(np.arange(labels * compounds), rows)
    X = rng.normal(size=(len(label), features)) + rng.normal(0, 0.5, (labels * compounds, features))[compound]
    X[np.arange(len(label)), label] += effect
    frame = pd.DataFrame(X, columns=[f"f{i}" for i in range(features)])
    # Metadata that would give the answer away, were it a feature.
    frame.insert(0, "Metadata_Plate", label.astype(float))
    return frame, pd.Series([f"l{i}" for i in label]), pd.Series([f"c{i:02d}" for i in compound])


class FirstColumns(BaseEstimator):
    """A selector that keeps ``n`` features and notes the rows it was fitted on."""

    seen: ClassVar[list[frozenset[int]]] = []

    def __init__(self, n: int = 5) -> None:
        self.n = n

    def fit(self, X: pd.DataFrame) -> FirstColumns:
        assert "Metadata_Plate" in X  # tables come whole
        self.columns_ = [c for c in X if c.startswith("f")][: self.n]
        self.seen.append(frozenset(X.index))
        return self

    def transform(self, X: pd.DataFrame) -> pd.DataFrame:
        return X[["Metadata_Plate", *self.columns_]]


@pytest.fixture(scope="module")
def fitted():
    X, labels, groups = table(5.0)
    return choose_each(X, labels, groups, ClassifierSettings(candidates=ALL, inner_folds=3), None, 1)


def test_every_kind_finds_real_structure_and_gives_sound_probabilities(fitted):
    X, labels, _ = table(5.0, seed=1)
    assert list(fitted) == list(ALL)
    for name, chosen in fitted.items():
        p = chosen.probabilities(X, ["l0", "l1", "l2", "other"])
        assert p.sum(axis=1) == pytest.approx(1) and (p[:, 3] == 0).all() and (p >= 0).all(), name
        assert (np.array(["l0", "l1", "l2"])[p[:, :3].argmax(axis=1)] == labels).mean() > 0.7, name
        assert chosen.name.startswith(name) and all(s.startswith(name) for s in chosen.scores)
        if name in ("random_forest", "gradient_boosting"):  # one setting: nothing to choose
            assert not chosen.scores
        else:
            assert max(chosen.scores.values()) == chosen.scores[chosen.name]
    assert fitted["linear_svm"].temperature and fitted["rbf_svm"].temperature
    assert fitted["knn"].temperature is fitted["logistic_regression"].temperature is None


def test_no_kind_finds_anything_in_noise():
    X, labels, groups = table(0.0, compounds=6)
    new, truth, _ = table(0.0, seed=9, compounds=6)
    settings = ClassifierSettings(candidates=("logistic_regression", "linear_svm", "rbf_svm", "lda", "knn"))
    for name, chosen in choose_each(X, labels, groups, settings, None, 1).items():
        p = chosen.probabilities(new, ["l0", "l1", "l2"])
        assert (np.array(["l0", "l1", "l2"])[p.argmax(axis=1)] == truth).mean() < 0.55, name


def test_each_is_what_it_is_alone_and_the_best_of_all_is_chosen(fitted):
    X, labels, groups = table(5.0)
    few = ("logistic_regression", "linear_svm", "lda", "knn")
    for name in few:
        alone = choose_and_fit(X, labels, groups, ClassifierSettings(candidates=(name,), inner_folds=3), None, 1)
        assert alone.name == fitted[name].name and alone.scores == fitted[name].scores
        assert np.array_equal(alone.probabilities(X, ["l0", "l1", "l2"]),
                              fitted[name].probabilities(X, ["l0", "l1", "l2"]))
    best = choose_and_fit(X, labels, groups, ClassifierSettings(candidates=few, inner_folds=3), None, 1)
    assert best.scores[best.name] == max(max(fitted[name].scores.values()) for name in few)
    assert set(best.scores) == {s for name in few for s in fitted[name].scores}


def test_the_selector_is_fitted_anew_on_each_inner_training_part_and_never_itself():
    X, labels, groups = table(4.0)
    FirstColumns.seen.clear()
    selector = FirstColumns()
    chosen = choose_each(X, labels, groups, ClassifierSettings(candidates=("lda", "knn"), inner_folds=3), selector, 1)
    parts = [frozenset(train) for train, _ in inner_folds(groups.tolist(), labels.tolist(), 3, 1)]
    assert FirstColumns.seen == [*parts, frozenset(X.index)]  # once a fold, whatever the number of classifiers
    assert not hasattr(selector, "columns_")
    blind = X.assign(**{f"f{i}": np.nan for i in range(5, 20)})  # what is not selected is not looked at
    assert np.array_equal(chosen["lda"].probabilities(X, ["l0", "l1", "l2"]),
                          chosen["lda"].probabilities(blind, ["l0", "l1", "l2"]))


def test_metadata_are_no_features(fitted):
    X, _, _ = table(5.0)
    lied = X.assign(Metadata_Plate=7.0)
    for chosen in fitted.values():
        p, q = (chosen.probabilities(t, ["l0", "l1", "l2"]) for t in (X, lied))
        assert np.array_equal(p, q)


@pytest.mark.parametrize("name", ["logistic_regression", "knn", "linear_svm"])
def test_calibration_changes_neither_choice_nor_prediction(name):
    X, labels, groups = table(1.5, compounds=25, rows=2)
    new, truth, _ = table(1.5, seed=5, compounds=60, rows=2)
    raw, calibrated = (choose_and_fit(X, labels, groups, ClassifierSettings(candidates=(name,), calibrate=how), None, 1)
                       for how in ("none", "temperature"))
    assert raw.name == calibrated.name and raw.scores == calibrated.scores and calibrated.temperature
    p, q = (c.probabilities(new, ["l0", "l1", "l2"]) for c in (raw, calibrated))
    assert (p.argmax(axis=1) == q.argmax(axis=1)).all()
    if name == "linear_svm":  # always calibrated: it has decision values only
        assert np.array_equal(p, q)
    elif name == "knn":  # its shares of ten neighbours are the farthest from probabilities
        rows, own = np.arange(len(truth)), truth.str[1:].astype(int).to_numpy()
        loss = [-np.log(np.clip(x[rows, own], 1e-12, None)).mean() for x in (p, q)]
        assert loss[1] < loss[0]


def test_a_missing_value_that_nothing_fills_is_named():
    X, labels, groups = table(4.0)
    X.loc[3, "f7"] = np.nan
    with pytest.raises(MorphobenchError, match=r"1 row\(s\) lack values, of the feature f7"):
        choose_and_fit(X, labels, groups, ClassifierSettings(), None, 1)
    with pytest.raises(MorphobenchError, match="no feature is left"):
        choose_and_fit(X, labels, groups, ClassifierSettings(), FirstColumns(0), 1)


def test_too_few_rows_for_lda_are_named_and_a_single_label_is_a_constant():
    X, labels, groups = table(4.0, compounds=2, rows=1)
    with pytest.raises(MorphobenchError, match="Leave lda out"):
        choose_and_fit(X, labels, groups, ClassifierSettings(candidates=("lda",)), None, 1)
    one = choose_and_fit(X, pd.Series(["l1"] * len(X)), groups, ClassifierSettings(), None, 1)
    assert one.probabilities(X, ["l0", "l1"]).tolist() == [[0, 1]] * len(X)


def test_two_labels_and_no_inner_folds():
    X, labels, _ = table(5.0, labels=2)
    chosen = choose_each(X, labels, pd.Series(["c"] * len(X)), ClassifierSettings(candidates=ALL), None, 1)
    assert {c.name for c in chosen.values()} >= {"logistic_regression(C=0.001)", "linear_svm(C=0.0001)"}
    for name, c in chosen.items():
        assert not c.scores
        p = c.probabilities(X, ["l0", "l1"])
        assert p.sum(axis=1) == pytest.approx(1) and ((p[:, 1] > 0.5) == (labels == "l1")).mean() > 0.9, name


def test_a_rotation_changes_no_ridge_model_and_drops_axes_that_rows_do_not_span():
    X, labels, _ = table(2.0, compounds=2, rows=2, features=60)
    ready = Preparation(None).fit_transform(X)
    assert ready["rotated"].shape == (12, 11) and ready["plain"].shape == (12, 60)
    plain, rotated = (LogisticRegression(C=0.1, tol=1e-8, max_iter=5000).fit(ready[s], labels).predict_proba(ready[s])
                      for s in ("plain", "rotated"))
    assert plain == pytest.approx(rotated, abs=1e-5)
    assert pdist(ready["plain"]) == pytest.approx(pdist(ready["rotated"]))


def test_models_do_what_they_say():
    X, labels, _ = table(3.0)
    values = StandardScaler().fit_transform(X.filter(like="f"))
    svm = MedianGammaSVC(1.0, 2.0).fit(values, labels)
    assert svm.gamma_ == pytest.approx(2 / np.median(pdist(values) ** 2))
    assert clone(svm).get_params() == {"C": 1.0, "factor": 2.0}
    assert np.array_equal(MedianGammaSVC(1.0, 2.0).fit(10 * values, labels).decision_function(10 * values).argmax(1),
                          svm.decision_function(values).argmax(1))  # the width follows the scale
    few = CosineNeighbours(10).fit(values[:4], ["a", "b", "a", "b"])
    assert few.predict_proba(values).shape == (len(X), 2)
    rare = np.r_[0:16, 16:20]  # 16 rows of one label, 4 of another
    assert BalancedLDA("lsqr", shrinkage=0.5).fit(values[rare], labels[rare]).priors_.tolist() == [0.5, 0.5]
    scores = log_scores(svm, values, ["l0", "none", "l1", "l2"])
    assert np.isneginf(scores[:, 1]).all() and np.isfinite(scores[:, [0, 2, 3]]).all()


def test_names_are_unique_and_those_of_earlier_runs_stay():
    names = [c.name for c in candidates(ClassifierSettings(candidates=ALL), 0)]
    assert len(set(names)) == len(names)
    old = [c.name for c in candidates(ClassifierSettings(), 0)]
    assert old == [*(f"logistic_regression(C={c})" for c in ("0.001", "0.01", "0.1", "1")), "random_forest"]
