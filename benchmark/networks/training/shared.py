"""Trainings that folds share: a trunk on what several of them may see, then a short training of each fold's own.

The trunk warms up and holds its rate, as schedules do that can be branched anywhere (warm-up, stable, decay: Hu et al.
2024, arXiv:2404.06395; Hägele et al. 2024, NeurIPS); each fold branches off, sees once what the trunk has not seen
(compounds that other folds of the trunk hold out), mixed with equally many crops that it has seen, while the rate falls
to zero.
`benchmark.folds.trunks` says which folds share a trunk, and audits that none of them holds out what it was trained on.

With 660 fields of BBBC021 at 128 px (18 compounds, EfficientNet-Lite0, 5 epochs, one seed, on a CPU): exact folds 563
fields and 55 of 55 treatments right; shared ones 583 and 54, with 0.26 of the crops shown. The trunks alone, without
what follows (on a GPU): 552, where exact folds had 559, 559 and 565 with three seeds. Trees of folds, and trunks that
are trained to their end, lose more (64.9 and 72.6 % of fields, where exact folds had 80.0 %).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor

from benchmark.networks.settings import TrainingSettings
from benchmark.networks.training.step import class_weights

#: Crops that the trunk has seen for each that it has not, in a fold's own training.
REPLAY = 1.0


@dataclass(frozen=True)
class Phase:
    """A part of a training.

    Attributes
    ----------
    name : str
        ``trunk`` or ``own``.
    epochs : int
    start : mapping
        What it starts from: `Trained.end` of the trunk; empty for a trunk.
    new : ndarray or None
        (N,) bool: which training crops the trunk has not seen.
    """

    name: str
    epochs: int
    start: Mapping[str, Any] = field(default_factory=dict, repr=False)
    new: np.ndarray | None = field(default=None, repr=False)

    def factor(self, progress: float, settings: TrainingSettings) -> float:
        """Factor on the peak rate at a share of the phase's steps: 0 at its start, 1 at its end."""
        if self.name == "trunk":
            return min(1.0, max(progress, 1e-3) / settings.warmup) if settings.warmup else 1.0
        return 0.5 * (1 + math.cos(math.pi * progress))


def trunk_phase(settings: TrainingSettings) -> Phase:
    """All epochs of the settings."""
    return Phase("trunk", settings.epochs)


def own_phase(start: Mapping[str, Any], new: np.ndarray) -> Phase:
    """One pass over what is new to the fold, and as much again."""
    return Phase("own", 1, start, new)


def seen(labels: Tensor, new: np.ndarray | None, generator: Generator) -> Tensor:
    """Order of the crops of one epoch.

    Parameters
    ----------
    labels : Tensor
        (N,) class numbers.
    new : ndarray or None
        Where given, all of these are seen, and among them as many others, drawn so that labels are equally frequent.

    Returns
    -------
    Tensor
        (n,) int64 positions.
    """
    if new is None:
        return torch.randperm(len(labels), generator=generator)
    fresh, old = (torch.from_numpy(np.flatnonzero(mask)) for mask in (new, ~new))
    count = min(len(old), round(REPLAY * len(fresh)))
    again = old[:0]
    if count:
        weights = (1 / torch.bincount(labels[old]).clamp(min=1).float())[labels[old]]
        again = old[torch.multinomial(weights, count, generator=generator)]
    both = torch.cat([fresh, again])
    return both[torch.randperm(len(both), generator=generator)]


def loss_weights(labels: Tensor, classes: int, new: np.ndarray | None) -> Tensor:
    """Balanced weights of the loss, from how often each label is seen: (classes,) float32."""
    if new is None:
        return class_weights(labels, classes)
    fresh, old = (torch.bincount(labels[torch.from_numpy(mask)], minlength=classes).float() for mask in (new, ~new))
    there = (old > 0).float()
    counts = fresh + there * REPLAY * fresh.sum() / there.sum().clamp(min=1)
    return torch.where(counts > 0, counts.sum() / (classes * counts.clamp(min=1)), 0.0)
