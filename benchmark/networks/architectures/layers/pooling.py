"""Pooling of instances into bags: the positions of one field's feature map, or the crops of a field or a well.

Pure functions on (B, N, …), to which the order of instances does not matter.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

#: Slope of noisy-AND's activation, fixed as in Kraus et al. 2016.
SLOPE = 10.0
#: Mean probabilities below this count as this: the logarithm of a class that no instance shows stays finite.
LEAST = 1e-12


def log_noisy_and(scores: Tensor, threshold: Tensor, slope: float = SLOPE) -> Tensor:
    """Logarithm of noisy-AND (Kraus, Ba & Frey 2016, Bioinformatics 32:i52).

    A bag is of class c once the mean p̄ of its instances' probabilities exceeds the class's threshold b, softly::

        P = (σ(a (p̄ − b)) − σ(−a b)) / (σ(a (1 − b)) − σ(−a b))

    which is 0 at p̄ = 0 and 1 at p̄ = 1. As σ(x) − σ(y) = σ(x) σ(−y) (1 − exp(y − x)), that equals::

        σ(a (p̄ − b)) / σ(a (1 − b)) · (1 − exp(−a p̄)) / (1 − exp(−a))

    where nothing cancels, so its logarithm is exact for rare classes too.

    Parameters
    ----------
    scores : Tensor
        (B, N, C) float: logits of each class in each instance.
    threshold : Tensor
        (C,) float: b of each class, learnt.
    slope : float
        a > 0.

    Returns
    -------
    Tensor
        (B, C), at most 0.
    """
    p = scores.sigmoid().mean(1).clamp(LEAST, 1)
    rise = logsigmoid(slope * (p - threshold)) - logsigmoid(slope * (1 - threshold))
    return rise + torch.log(-torch.expm1(-slope * p)) - math.log(-math.expm1(-slope))


def attend(values: Tensor, weights: Tensor) -> Tensor:
    """Weighted sum over instances, (B, N, K) by (B, N): (B, K)."""
    return (weights[..., None] * values).sum(1)
