"""Weights averaged over training, and batch normalisation's statistics recomputed."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim.swa_utils import AveragedModel

from benchmark.networks.settings import TrainingSettings
from benchmark.networks.training.learn import train_mode

#: Most training crops that statistics are taken over: those of 1,000 pixels and more hardly move beyond.
RECALIBRATION_CROPS = 2048


def averaged_model(model: nn.Module, settings: TrainingSettings) -> AveragedModel | None:
    """What averages the weights of a model as ``settings.average`` says; None for none.

    The moving average begins with the share 1 − (1 + t) / (10 + t) of each new step, so that a short training does not
    keep its start.
    """
    if settings.average == "none":
        return None
    averaged = AveragedModel(model)
    # Counted on the CPU: otherwise each update would wait for the GPU to know whether it is the first.
    averaged.n_averaged = averaged.n_averaged.cpu()
    if settings.average == "ema":
        averaged.multi_avg_fn = _moving(averaged, settings.ema_decay)
    return averaged


Averages = tuple[Tensor, ...] | list[Tensor]


def _moving(averaged: AveragedModel, most: float) -> Callable[[Averages, Averages, Tensor | int], None]:
    @torch.no_grad()
    def update(averages: Averages, values: Averages, _: Tensor | int) -> None:
        t = int(averaged.n_averaged)  # the argument is on the GPU
        torch._foreach_lerp_(averages, values, 1 - min(most, (1 + t) / (10 + t)))

    return update


@torch.no_grad()
def recalibrate(model: nn.Module, batches: Iterable[Tensor], run: Callable[[Tensor], object]) -> None:
    """Recompute the running statistics of a model's batch normalisation, as their mean over batches.

    The step that Izmailov et al. 2018 (UAI) take after averaging weights. PyTorch's `update_bn` would also
    recompute the statistics of frozen layers, and would run with dropout.

    Parameters
    ----------
    batches : iterable of Tensor
        What ``run`` takes.
    run : callable
        Runs the model on a batch.
    """
    train_mode(model)
    layers = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.training and m.track_running_stats]
    model.eval()
    if not layers:
        return
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # for PyTorch, the plain mean over batches
        layer.train()
    for batch in batches:
        run(batch)
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum
    model.eval()
