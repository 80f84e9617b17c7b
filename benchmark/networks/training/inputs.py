"""Inputs of a training: what it is trained on, how, and where it runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch

from benchmark.networks.feed.feeding import Source
from benchmark.networks.settings import NetworkSettings, TrainingSettings
from benchmark.networks.training.checkpoint import Checkpoint
from benchmark.networks.training.presets import resolved
from benchmark.networks.training.shared import Phase


@dataclass(frozen=True, eq=False)
class Examples:
    """What a network is trained on.

    Attributes
    ----------
    source : CropSource, Activations or Bags
        Where crops are read from. Given activations, only the layers above them are run. Given bags, everything
        here that refers to crops applies to bags.
    rows : ndarray
        (N,) numbers of the training crops in ``source``.
    targets : ndarray
        (N,) int64 class numbers, aligned with ``rows``.
    classes : int
        How many classes there are.
    validation : ndarray, optional
        (N,) bool: crops that early stopping watches. They are not trained on, and nothing is fitted on them.
    """

    source: Source
    rows: np.ndarray
    targets: np.ndarray
    classes: int
    validation: np.ndarray | None = None

    def held_out(self, settings: TrainingSettings) -> np.ndarray:
        """Which crops are not trained on: (N,) bool.

        Raises
        ------
        ValueError
            ``early_stopping`` has nothing to watch, or nothing is left to train on.
        """
        validation = self.validation
        if not settings.early_stopping:
            return np.zeros(len(self.rows), bool)
        if validation is None or validation.all() or not validation.any():
            raise ValueError("early_stopping needs crops to watch, and crops to train on")
        return validation


@dataclass(frozen=True, eq=False)
class Recipe:
    """How a network is trained.

    Attributes
    ----------
    network : NetworkSettings
    training : TrainingSettings
    seed : int
        Sets the classifier's start, the order of crops, augmentation and dropout.
    phase : Phase, optional
        Where folds share trainings: which part of one this is.
    """

    network: NetworkSettings
    training: TrainingSettings
    seed: int = 0
    phase: Phase | None = None

    def resolved(self) -> Recipe:
        """The same, its training settings completed from their preset and the phase.

        Raises
        ------
        ValueError
            Settings contradict each other.
        """
        training = resolved(self.training, self.network.backbone)
        if self.phase is not None:
            training = training.model_copy(update={"epochs": self.phase.epochs})
        return replace(self, training=training)


@dataclass(frozen=True)
class Session:
    """Where a training runs, and where its state is kept.

    Attributes
    ----------
    device : device
    checkpoint : Checkpoint, optional
        Written after each epoch; a training of the same inputs resumes from it. The caller removes it.
    on_epoch : callable
        Called after each epoch with its number (from 0) and its loss.
    """

    device: torch.device
    checkpoint: Checkpoint | None = None
    on_epoch: Callable[[int, float], None] = lambda epoch, loss: None
