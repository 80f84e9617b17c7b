"""Weights of the parts of a stacked fusion: the best there are, whatever the order of labels, parts and rows."""

from __future__ import annotations

import numpy as np
import pandas as pd
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import log_softmax

from benchmark.methods.classifiers.stacking import RIDGE, Pool, fit_pool, stacking_columns

LABELS = ["x", "y", "z"]


def drawn(rows: int, seed: int, knows: tuple[float, ...] = (2.0, 0.5)) -> tuple[pd.DataFrame, list[str]]:
    """Log-probabilities of parts that know the truth more or less."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 3, rows)
    parts = {}
    for name, much in zip("ab", knows, strict=True):
        scores = rng.normal(size=(rows, 3))
        scores[np.arange(rows), truth] += much
        parts |= dict(zip(stacking_columns(name, LABELS), log_softmax(scores, axis=1).T, strict=True))
    return pd.DataFrame(parts), [LABELS[i] for i in truth]


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), rows=st.integers(3, 60))
def test_weights_hang_on_no_order_and_rows_sum_to_one(seed, rows):
    X, truth = drawn(rows, seed)
    pool = fit_pool(X, truth, ["a", "b"], LABELS)
    p = pool.probabilities(X, LABELS)
    assert np.allclose(p.sum(axis=1), 1) and all(0 <= w <= 20 for w in pool.weights.values())
    order = np.random.default_rng(seed).permutation(rows)
    other = fit_pool(X.iloc[order], [truth[i] for i in order], ["b", "a"], LABELS[::-1])
    assert np.allclose([other.weights[n] for n in "ab"], [pool.weights[n] for n in "ab"], atol=0.02)
    assert np.allclose(other.probabilities(X, LABELS[::-1])[:, ::-1], p, atol=0.02)


def test_the_weights_are_those_of_the_smallest_loss():
    X, truth = drawn(300, 0)
    pool = fit_pool(X, truth, ["a", "b"], LABELS)
    assert pool.weights["a"] > 2 * pool.weights["b"]

    def loss(a: float, b: float) -> float:
        p = Pool({"a": a, "b": b}).probabilities(X, LABELS)
        own = -np.log(p[np.arange(len(p)), [LABELS.index(t) for t in truth]])
        means = [own[np.array(truth) == label].mean() for label in LABELS]
        return float(np.mean(means) + RIDGE * ((a - 0.5) ** 2 + (b - 0.5) ** 2))

    best = loss(*pool.weights.values())
    assert np.isclose(best, pool.scores["log_loss"], atol=1e-6)
    for da, db in ((0.05, 0), (-0.05, 0), (0, 0.05), (0, -0.05)):
        assert loss(pool.weights["a"] + da, pool.weights["b"] + db) > best


def test_a_part_that_is_always_wrong_is_not_turned_round():
    X, truth = drawn(100, 1, knows=(2.0, -3.0))
    assert fit_pool(X, truth, ["a", "b"], LABELS).weights["b"] == 0


def test_two_parts_alike_are_believed_alike_and_without_rows_all_are():
    X, truth = drawn(50, 2)
    X[stacking_columns("b", LABELS)] = X[stacking_columns("a", LABELS)].to_numpy()
    weights = fit_pool(X, truth, ["a", "b"], LABELS).weights
    assert np.isclose(weights["a"], weights["b"], atol=1e-3)
    none = fit_pool(X.iloc[:0], [], ["a", "b"], LABELS)
    assert none.weights == {"a": 0.5, "b": 0.5} and none.name == "equal weights"


def test_a_label_that_was_never_shown_can_be_given():
    """Of a label with two compounds a fold leaves one, which no inner fold can show rightly."""
    X, truth = drawn(200, 3)
    seen = np.array(truth) != "z"
    pool = fit_pool(X[seen], [t for t in truth if t != "z"], ["a", "b"], LABELS)
    p = pool.probabilities(X[~seen], LABELS)
    assert (p.argmax(axis=1) == 2).mean() > 0.6
