"""How the learning rate changes from step to step."""

from __future__ import annotations

import math

from benchmark.networks.settings import TrainingSettings


def one_cycle(step: int, steps: int, warmup: float) -> float:
    """Factor on the peak learning rate: linear warm-up, then cosine decay to zero (Loshchilov & Hutter 2017)."""
    rise = max(1, round(warmup * steps))
    if step < rise:
        return (step + 1) / rise
    return 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1, steps - rise)))


def averaged_from(settings: TrainingSettings) -> int:
    """The first epoch (from 0) at whose end weights count for ``average: swa``; never later than the last."""
    return min(round(settings.average_from * settings.epochs), settings.epochs - 1)


def rate_factor(settings: TrainingSettings, step: int, per_epoch: int) -> float:
    """Factor on the peak learning rate in a step.

    Parameters
    ----------
    step : int
        Counted from 0 over all epochs.
    per_epoch : int
        Steps of an epoch.
    """
    steps = settings.epochs * per_epoch
    if settings.schedule == "constant":
        rise = round(settings.warmup * steps)
        return (step + 1) / rise if step < rise else 1.0
    if settings.average == "swa":  # the rate stays where averaging begins, so that weights keep moving
        step = min(step, averaged_from(settings) * per_epoch)
    cycle = steps // settings.snapshots
    return one_cycle(step % cycle, cycle, settings.warmup)
