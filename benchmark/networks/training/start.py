"""What a training starts from and what its folds share, by its settings alone: nothing here loads PyTorch."""

from __future__ import annotations

from benchmark.networks.settings import NetworkSettings, TrainingSettings


def start_of(network: NetworkSettings, training: TrainingSettings) -> NetworkSettings:
    """The network as training starts from it: with ``learn: scratch`` its weights are random, on purpose."""
    return network.model_copy(update={"weights": "none"}) if training.learn == "scratch" else network


def sharable(network: NetworkSettings, settings: TrainingSettings) -> bool:
    """Whether folds see each crop in its plain views alone, and learn only a part of a network that is the same in all.

    Layers that start from random numbers are those of each seed.
    """
    if network.scratch or network.bagged:
        return False
    return settings.partial and settings.augmentation in ("views", "none") and settings.mix == "none"


def views_of(settings: TrainingSettings) -> int:
    """How many views of each crop training or prediction looks at."""
    return 8 if settings.augmentation == "views" or settings.tta else 1
