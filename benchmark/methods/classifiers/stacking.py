"""The weight of each part of a fusion: one number per part, the same for every label."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax

from benchmark.base.errors import MorphobenchError

#: Largest weight of a part: on rows that are all correct, weights would grow without bound.
MOST = 20.0
#: Penalty on the distance from equal weights, in nats per squared unit: it decides where rows are uninformative.
RIDGE = 0.01


def stacking_columns(part: str, labels: Sequence[str]) -> list[str]:
    """Columns with the logarithms of a part's probabilities, in the order of ``labels``."""
    return [f"{part}: {label}" for label in labels]


@dataclass(frozen=True)
class Pool:
    """A logarithmic opinion pool: a label's probability is the product of the parts', each to the power of its weight.

    It is a logistic regression with a single coefficient for each part (conditional logit; McFadden
    1974), stacked as Wolpert 1992 (Neural Netw 5:241), weights non-negative as in Breiman 1996 (Mach Learn 24:49). A
    classifier with coefficients for each label would need examples of every label from parts that could recognise it:
    where a label has two compounds and a fold holds out one, no inner fold can show the other correctly, and such a
    classifier learns never to predict that label. (On `bbbc021-fields` with one field per well that cost 17 of 55
    treatments.)

    Attributes
    ----------
    weights : dict of str to float
        Part to weight, 0 to `MOST`.
    scores : dict
        ``log_loss``: on the rows that it was fitted on, classes balanced; empty where there were none.
    """

    weights: Mapping[str, float]
    scores: dict[str, float] = field(default_factory=dict)
    name: str = "pool of the parts"

    def probabilities(self, X: pd.DataFrame, labels: list[str]) -> np.ndarray:
        """(rows, labels) float64, rows sum to 1."""
        weights = np.array(list(self.weights.values()))
        return np.asarray(softmax(np.einsum("rpl,p->rl", _cube(X, list(self.weights), labels), weights), axis=1))


def fit_pool(X: pd.DataFrame, truth: Sequence[str], parts: Sequence[str], labels: list[str]) -> Pool:
    """The weights of the smallest log loss, classes weighted to balance; convex, so that there is one minimum.

    Parameters
    ----------
    X : DataFrame
        `stacking_columns` of each part, for rows that no part was fitted on.
    truth : sequence of str
        Label of each row. Rows must have labels that the parts could have predicted; see
        `benchmark.methods.workers.fusion`.

    Returns
    -------
    Pool
        Equal weights (the geometric mean) where there is no row.
    """
    equal = np.full(len(parts), 1 / len(parts))
    if not len(X):
        return Pool(dict(zip(parts, equal.tolist(), strict=True)), name="equal weights")
    cube = _cube(X, parts, labels)
    number = np.array([labels.index(label) for label in truth])
    counts = np.bincount(number, minlength=len(labels))
    balance = 1 / counts[number] / (counts > 0).sum()
    rows = np.arange(len(number))

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        log_p = log_softmax(np.einsum("rpl,p->rl", cube, weights), axis=1)
        excess = cube[rows, :, number] - np.einsum("rpl,rl->rp", cube, np.exp(log_p))
        value = -(balance * log_p[rows, number]).sum() + RIDGE * ((weights - equal) ** 2).sum()
        return float(value), 2 * RIDGE * (weights - equal) - (balance[:, None] * excess).sum(axis=0)

    optimum = minimize(loss, equal, jac=True, method="L-BFGS-B", bounds=[(0.0, MOST)] * len(parts))
    if not np.isfinite(optimum.x).all():
        raise MorphobenchError("the weights of the parts are not finite", "fusion")
    weights = [round(float(w), 6) for w in optimum.x]
    return Pool(dict(zip(parts, weights, strict=True)), {"log_loss": float(optimum.fun)})


def _cube(X: pd.DataFrame, parts: Sequence[str], labels: list[str]) -> np.ndarray:
    """Log-probabilities as (rows, parts, labels)."""
    return np.stack([X[stacking_columns(part, labels)].to_numpy(np.float64) for part in parts], axis=1)
