"""Calibration: one temperature, which never changes what is predicted."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.special import log_softmax
from sklearn.metrics import log_loss

from benchmark.base.errors import MorphobenchError
from benchmark.methods.classifiers.calibration import COLDEST, HOTTEST, fit_temperature, heated


def overconfident(rng: np.random.Generator, n: int = 4000, sharper: float = 3.0) -> tuple[np.ndarray, np.ndarray]:
    """Labels drawn from softmax(z), and the scores ``sharper * z`` of a model too sure of itself."""
    z = rng.normal(size=(n, 4)) * 1.5
    p = heated(z, 1.0)
    truth = np.array([rng.choice(4, p=row) for row in p])
    return sharper * z, truth


def test_the_temperature_that_made_the_scores_is_found_and_calibrates():
    scores, truth = overconfident(np.random.default_rng(0))
    temperature = fit_temperature(scores, truth)
    assert temperature == pytest.approx(3.0, rel=0.1)
    fresh, answers = overconfident(np.random.default_rng(1))
    before, after = (heated(fresh, t) for t in (1.0, temperature))
    too_sure = [abs(p.max(axis=1).mean() - (p.argmax(axis=1) == answers).mean()) for p in (after, before)]
    assert too_sure[0] < 0.03 < 0.1 < too_sure[1] and log_loss(answers, after) < log_loss(answers, before)


def test_the_temperature_is_the_maximum_likelihood_one_of_another_optimiser():
    scores, truth = overconfident(np.random.default_rng(2), 200)
    rows = np.arange(len(truth))
    other = minimize(lambda b: -log_softmax(scores * b[0], axis=1)[rows, truth].mean(), [1.0], method="Nelder-Mead",
                     options={"xatol": 1e-6, "fatol": 1e-12})
    assert fit_temperature(scores, truth) == pytest.approx(1 / other.x[0], rel=1e-3)


def test_a_model_that_is_always_right_or_knows_nothing_stops_at_the_bounds():
    truth = np.array([0, 1, 2, 1])
    assert fit_temperature(np.eye(3)[truth], truth) == pytest.approx(COLDEST, rel=0.01)
    assert fit_temperature(-np.eye(3)[truth] * 5, truth) == pytest.approx(HOTTEST, rel=0.01)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.floats(COLDEST, HOTTEST), st.integers(2, 6))
def test_a_temperature_keeps_the_order_and_what_a_model_does_not_know(seed, temperature, classes):
    rng = np.random.default_rng(seed)
    scores = rng.integers(-8, 9, (20, classes)) / 2.0
    scores[:, 1:][rng.random((20, classes - 1)) < 0.2] = -np.inf
    p = heated(scores, temperature)
    assert (p.argmax(axis=1) == scores.argmax(axis=1)).all()  # the first of equals, too
    assert p.sum(axis=1) == pytest.approx(1) and (p[np.isinf(scores)] == 0).all()


def test_nothing_to_calibrate_on_is_an_error():
    with pytest.raises(MorphobenchError, match="a temperature needs rows"):
        fit_temperature(np.zeros((0, 2)), np.zeros(0, int))
    with pytest.raises(MorphobenchError, match="the model knows"):
        fit_temperature(np.array([[0.0, -np.inf]]), np.array([1]))
