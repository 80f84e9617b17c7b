"""Probabilities that mean what they say: one temperature, fitted on predictions of rows that were held out."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax

from benchmark.base.errors import MorphobenchError

#: Probability that stands for zero where a logarithm is taken: forests and neighbours give exact zeros, and a smaller
#: number would let the few rows where they are wrong rule the temperature.
FLOOR = 1e-6
#: Bounds of the temperature: a model that is right on every row would sharpen without end.
COLDEST, HOTTEST = 0.05, 20.0
#: Bins of the expected calibration error (Guo et al. 2017, section 2: M = 15).
BINS = 15


class Calibration(NamedTuple):
    """How far confidence lies from accuracy (0 to 1), and the mean negative log-likelihood in nats."""

    expected_error: float
    log_loss: float


def heated(scores: np.ndarray, temperature: float) -> np.ndarray:
    """Probabilities of log-scores at a temperature: ``softmax(scores / temperature)``.

    Guo et al. 2017 (ICML, "On calibration of modern neural networks"), section 4.2, equation 9. The order of the
    classes in a row stays, and so does what is predicted.

    Parameters
    ----------
    scores : ndarray of float64, shape (rows, classes)
        Logits, decision values or logarithms of probabilities; -inf for a class that the model does not have.

    Returns
    -------
    ndarray of float64, shape (rows, classes)
        Rows sum to 1; 0 where the score is -inf.
    """
    return np.asarray(softmax(np.asarray(scores, np.float64) / temperature, axis=1))


def fit_temperature(scores: np.ndarray, truth: np.ndarray) -> float:
    """The temperature of the smallest negative log-likelihood, between `COLDEST` and `HOTTEST`.

    Convex in 1/T, so that one number is found safely. To be fitted on rows that the model was not fitted on.

    Parameters
    ----------
    scores : ndarray, shape (rows, classes)
        See `heated`.
    truth : ndarray of int, shape (rows,)
        Column of the true class of each row; its score is finite.

    Raises
    ------
    MorphobenchError
        There is no row, or a true class has no score.
    """
    scores, truth = np.asarray(scores, np.float64), np.asarray(truth)
    if not len(truth) or not np.isfinite(scores[np.arange(len(truth)), truth]).all():
        raise MorphobenchError("a temperature needs rows whose true class the model knows", "calibration")

    def loss(log_temperature: float) -> float:
        p = log_softmax(scores / np.exp(log_temperature), axis=1)
        return -float(p[np.arange(len(truth)), truth].mean())

    found = minimize_scalar(loss, bounds=(np.log(COLDEST), np.log(HOTTEST)), method="bounded",
                            options={"xatol": 1e-4})
    return float(np.exp(found.x))


def calibration_error(p: np.ndarray, truth: np.ndarray) -> Calibration:
    """Expected calibration error and log loss of predicted probabilities.

    The error is the mean over rows of |accuracy - confidence| of the row's bin, in `BINS` bins of equal width of the
    confidence, which is the highest probability of a row (Guo et al. 2017, equations 2 to 5; bins open below).

    Parameters
    ----------
    p : ndarray, shape (rows, classes)
        Rows sum to 1.
    truth : ndarray of int, shape (rows,)
        Column of the true class of each row.

    Raises
    ------
    MorphobenchError
        There is no row, or rows and true classes differ in number.
    """
    p, truth = np.asarray(p, np.float64), np.asarray(truth)
    if not len(p) or len(p) != len(truth):
        raise MorphobenchError(f"{len(p)} rows of probabilities, {len(truth)} true classes", "calibration")
    confidence, right = p.max(axis=1), p.argmax(axis=1) == truth
    bins = np.clip(np.ceil(confidence * BINS).astype(int) - 1, 0, BINS - 1)
    # |sum of (right - confidence)| of a bin is its number of rows times |accuracy - confidence|.
    gaps = np.abs(np.bincount(bins, weights=right - confidence, minlength=BINS))
    loss = -np.log(np.clip(p[np.arange(len(p)), truth], FLOOR, None))
    return Calibration(float(gaps.sum() / len(p)), float(loss.mean()))
