"""Calibrated probabilities: one temperature, fitted on predictions of rows that were held out."""

from __future__ import annotations

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax

from benchmark.base.errors import MorphobenchError

#: Smallest probability where a logarithm is taken: forests and neighbours give exact zeros, and with a smaller
#: number the few rows where they are wrong would dominate the temperature.
FLOOR = 1e-6
#: Bounds of the temperature: a model that is correct on every row would sharpen without bound.
COLDEST, HOTTEST = 0.05, 20.0


def heated(scores: np.ndarray, temperature: float) -> np.ndarray:
    """Probabilities of log-scores at a temperature: ``softmax(scores / temperature)``.

    Guo et al. 2017 (ICML, "On calibration of modern neural networks"), section 4.2, equation 9. The order of the
    classes in a row is kept, and so is the prediction.

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

    The loss is convex in 1/T, so that it has one minimum. To be fitted on rows that the model was not fitted on.

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

    minimum = minimize_scalar(loss, bounds=(np.log(COLDEST), np.log(HOTTEST)), method="bounded",
                              options={"xatol": 1e-4})
    return float(np.exp(minimum.x))
