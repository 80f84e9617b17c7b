"""One training step: forward, loss, backward, update; in smaller pieces where memory is short."""

from __future__ import annotations

import time
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, field, replace
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from benchmark.base.errors import MorphobenchError
from benchmark.networks.device import Graphed, autocast, give_back_memory, optimiser_options, set_rate
from benchmark.networks.settings import TrainingSettings
from benchmark.networks.training.learn import parameter_groups, train_mode
from benchmark.networks.weights.weights import Backbone


def on_device(backbone: Backbone, device: torch.device) -> Backbone:
    """A network and its normalisation on a device."""
    return replace(backbone, model=backbone.model.to(device), mean=backbone.mean.to(device),
                   std=backbone.std.to(device))


def forward(backbone: Backbone, pixels: Tensor, bfloat16: bool) -> Tensor:
    """Normalise pixels in 0…1 and run the model; float32 outputs. Activations go in as they are."""
    inputs = normalised(backbone, pixels) if len(backbone.mean) else pixels
    if inputs.ndim == 4:
        inputs = inputs.contiguous(memory_format=torch.channels_last)
    with autocast(pixels.device, bfloat16):
        return cast(Tensor, backbone.model(inputs)).float()


def normalised(backbone: Backbone, pixels: Tensor) -> Tensor:
    """Pixels in 0…1, (…, C, S, S) float32, less the mean and over the deviation that the weights were trained with."""
    mean, std = (v.to(pixels.device).view(-1, 1, 1) for v in (backbone.mean, backbone.std))
    return (pixels - mean) / std


def class_weights(targets: Tensor, classes: int) -> Tensor:
    """Balanced weights n / (classes x count), from the training crops given; 0 for an absent class."""
    counts = torch.bincount(targets, minlength=classes).float()
    return torch.where(counts > 0, len(targets) / (classes * counts.clamp(min=1)), 0.0)


def make_optimizer(model: nn.Module, settings: TrainingSettings, device: torch.device) -> torch.optim.Optimizer:
    """The settings' optimiser over what is learnt of a model."""
    groups = parameter_groups(model, settings)
    options = optimiser_options(device, settings.graphs, settings.learning_rate)
    if isinstance(options["lr"], Tensor):  # each group's own, since each is set by itself
        groups = [{**group, "lr": options["lr"].clone()} for group in groups]
    if settings.optimizer == "sgd":
        return torch.optim.SGD(groups, momentum=settings.momentum, **options)
    return torch.optim.AdamW(groups, capturable=isinstance(options["lr"], Tensor), **options)


@dataclass
class Stepper:
    """Training steps of a network on a device.

    Attributes
    ----------
    backbone : Backbone
        On the device.
    weights : Tensor
        (classes,) of the loss, on the device.
    pieces : int
        Pieces that a batch is cut into, whose gradients are summed. Doubled for good whenever memory is short: the
        update is that of the whole batch, but batch normalisation sees the smaller pieces.
    """

    backbone: Backbone
    optimizer: torch.optim.Optimizer
    weights: Tensor
    settings: TrainingSettings
    bfloat16: bool
    pieces: int = 1
    _run: Backbone = field(init=False)
    _graphed: Graphed | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        model = self.backbone.model
        # The compiled network shares its parameters with the plain one, which is what is kept and predicted with.
        self._run = replace(self.backbone, model=cast(nn.Module, torch.compile(model))) if self.settings.compile \
            else self.backbone
        if self.settings.graphs and self.weights.device.type == "cuda":
            self._graphed = Graphed(self._whole, self.weights.device)

    def __call__(self, pixels: Tensor, goals: Tensor, shares: Tensor | None, factor: float) -> Tensor:
        """Update the network.

        Parameters
        ----------
        pixels : Tensor
            (n, C, S, S) float32 in 0…1; or (n, T, C, S, S), n bags of T crops, each with one label.
        goals : Tensor
            (n,) int64 class numbers.
        shares : Tensor, optional
            (n,) float32: how much of each crop has its own label, the rest its partner's
            (`benchmark.networks.feed.mixing`).
        factor : float
            On the peak learning rates.

        Returns
        -------
        Tensor
            (2,) float32 on the device, not yet waited for: the sum of the loss over the crops, and how many were
            classified correctly. The next step overwrites it.

        Raises
        ------
        MorphobenchError
            Memory is too short for two crops (or bags).
        """
        for group in self.optimizer.param_groups:
            set_rate(group, group["peak"] * factor)
        if self._graphed is not None and self.pieces == 1:
            try:
                return self._graphed(pixels, goals, shares)
            except torch.OutOfMemoryError:
                self._graphed = None  # capturing needs memory of its own
            give_back_memory(self.weights.device)
        while True:
            try:
                sums = self._gradients(pixels, goals, shares)
                break
            except torch.OutOfMemoryError:
                if self.pieces * 2 > len(pixels) // 2:
                    what, less = ("bags", "smaller bags (bag_size), ") if pixels.ndim == 5 else ("crops", "")
                    raise MorphobenchError(
                        f"does not suffice to train on {len(pixels) // self.pieces} {what} at once",
                        f"memory of {self.weights.device}", f"Use {less}smaller crops or a smaller network."
                    ) from None
                self.pieces *= 2
            # Only now: while the error was handled, its frames held on to what is to be freed.
            self.optimizer.zero_grad(set_to_none=True)
            give_back_memory(self.weights.device)
        self.optimizer.step()
        return sums

    def _whole(self, pixels: Tensor, goals: Tensor, shares: Tensor | None) -> Tensor:
        """What is captured as a graph."""
        sums = self._gradients(pixels, goals, shares)
        self.optimizer.step()
        return sums

    def _gradients(self, pixels: Tensor, goals: Tensor, shares: Tensor | None) -> Tensor:
        """Gradients of the batch's mean loss, weighted by class, and what `__call__` gives."""
        self.optimizer.zero_grad(set_to_none=True)
        others = goals.flip(0)
        weight = self._mean(self.weights[goals], self.weights[others], shares).sum()
        sums = torch.zeros(2, device=pixels.device)
        count = min(self.pieces, max(1, len(pixels) // 2))  # no piece of one crop: batch normalisation needs two
        part = [t.tensor_split(count) for t in (pixels, goals, others)]
        own = [None] * count if shares is None else shares.tensor_split(count)
        for crops, goal, other, share in zip(*part, own, strict=True):
            scores = forward(self._run, crops, self.bfloat16)
            each = self._mean(self._loss(scores, goal), None if share is None else self._loss(scores, other), share)
            loss = each.sum() / weight
            loss.backward()
            with torch.no_grad():
                sums += torch.stack([loss * len(pixels), (scores.argmax(1) == goal).sum()])
        return sums

    def _loss(self, scores: Tensor, goals: Tensor) -> Tensor:
        return cross_entropy(scores, goals, self.weights, label_smoothing=self.settings.label_smoothing,
                             reduction="none")

    @staticmethod
    def _mean(own: Tensor, other: Tensor | None, share: Tensor | None) -> Tensor:
        return own if share is None or other is None else share * own + (1 - share) * other


def in_halves(function: Callable[[Tensor], Tensor], pixels: Tensor) -> Tensor:
    """``function`` of a batch, by halves where memory is short; each output depends on one crop only."""
    try:
        return function(pixels)
    except torch.OutOfMemoryError:
        if len(pixels) == 1:
            raise
    give_back_memory(pixels.device)  # not before the error is done with: its frames hold what is to be freed
    return torch.cat([in_halves(function, half) for half in pixels.tensor_split(2)])


def faster_in_bfloat16(backbone: Backbone, shape: tuple[int, ...], batch: int, repeats: int = 2) -> bool:
    """Whether forward and backward of this network and batch are faster in bfloat16 on this CPU, by trying both.

    A copy is tried, so that nothing of the network changes.
    """
    trial = replace(backbone, model=deepcopy(backbone.model))
    train_mode(trial.model)
    with torch.random.fork_rng(devices=[]):
        pixels = torch.rand(batch, *shape)
        best = {True: float("inf"), False: float("inf")}
        for _ in range(repeats + 1):  # the first calls set kernels up
            for bfloat16 in best:
                start = time.perf_counter()
                forward(trial, pixels, bfloat16).sum().backward()
                best[bfloat16] = min(best[bfloat16], time.perf_counter() - start)
    return best[True] < best[False]
