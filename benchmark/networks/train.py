"""The training loop, top to bottom, and prediction. One path for every device."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from benchmark.errors import MorphobenchError
from benchmark.networks.augment import augment, scaled
from benchmark.networks.settings import NetworkSettings, TrainingSettings
from benchmark.networks.source import CropSource, read_ahead
from benchmark.networks.weights import Backbone, load_backbone


@dataclass(frozen=True)
class Trained:
    """A fine-tuned network and what its training looked like.

    ``losses`` and ``accuracies`` hold one mean over the training crops an epoch (augmented views, as seen
    while training).
    """

    backbone: Backbone
    losses: tuple[float, ...]
    accuracies: tuple[float, ...]
    images: int


def resolve_device(device: str) -> torch.device:
    """``auto`` is a CUDA GPU if there is one, else the CPU; anything else is PyTorch's name of a device."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except RuntimeError as error:
        raise MorphobenchError(f"{device!r} is no device", "DEVICE", "Use auto, cpu or cuda.") from error
    if chosen.type == "cuda" and not torch.cuda.is_available():
        raise MorphobenchError("PyTorch finds no CUDA GPU here", f"device {device}", "Use DEVICE=cpu, or auto.")
    return chosen


def class_weights(targets: Tensor, classes: int) -> Tensor:
    """Balanced weights n / (classes x count), from the training crops given; 0 for an absent class."""
    counts = torch.bincount(targets, minlength=classes).float()
    return torch.where(counts > 0, len(targets) / (classes * counts.clamp(min=1)), 0.0)


def one_cycle(step: int, steps: int, warmup: float) -> float:
    """Factor on the peak learning rate: linear warm-up, then cosine decay to zero (Loshchilov & Hutter 2017)."""
    rise = max(1, round(warmup * steps))
    if step < rise:
        return (step + 1) / rise
    return 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1, steps - rise)))


def _forward(backbone: Backbone, pixels: Tensor, bfloat16: bool) -> Tensor:
    """Normalise pixels in 0…1 and run the model; float32 outputs."""
    device = pixels.device
    mean, std = backbone.mean.to(device).view(1, -1, 1, 1), backbone.std.to(device).view(1, -1, 1, 1)
    pixels = ((pixels - mean) / std).contiguous(memory_format=torch.channels_last)
    with torch.autocast(device.type, torch.bfloat16, enabled=bfloat16 or device.type == "cuda"):
        return backbone.model(pixels).float()


def _parameter_groups(model: nn.Module, settings: TrainingSettings) -> list[dict[str, object]]:
    """Classifier at its own rate; no weight decay on biases and normalisation."""
    head = {id(p) for p in model.get_classifier().parameters()}  # type: ignore[operator]
    groups: dict[tuple[bool, bool], list[Tensor]] = {}
    for parameter in model.parameters():
        groups.setdefault((id(parameter) in head, parameter.ndim > 1), []).append(parameter)
    return [
        {"params": parameters, "peak": settings.learning_rate * (settings.head_rate if is_head else 1),
         "weight_decay": settings.weight_decay if decays else 0.0}
        for (is_head, decays), parameters in groups.items()
    ]


def fine_tune(
    source: CropSource,
    rows: np.ndarray,
    targets: np.ndarray,
    classes: int,
    network: NetworkSettings,
    settings: TrainingSettings,
    device: torch.device,
    seed: int,
    on_epoch: Callable[[int, float], None] = lambda epoch, loss: None,
) -> Trained:
    """Fine-tune all layers on training crops. There is no validation set and no early stopping.

    Crops are read batch by batch, the next while the device computes; no more than a few batches are ever held.

    Parameters
    ----------
    source : CropSource
        Where crops are read from.
    rows : ndarray
        (N,) numbers of the training crops in ``source``.
    targets : ndarray
        (N,) int64 class numbers, aligned with ``rows``.
    seed : int
        Sets the classifier's start, the crop order, the augmentation and dropout.

    Returns
    -------
    Trained
        The network, on ``device``.

    Raises
    ------
    MorphobenchError
        The loss is no longer finite, or weights or crops cannot be read.
    """
    backbone = load_backbone(network, source.shape[0], classes, seed)
    model = backbone.model.to(device).train()
    labels = torch.from_numpy(targets)
    weights = class_weights(labels, classes).to(device)
    optimizer = torch.optim.AdamW(_parameter_groups(model, settings), lr=settings.learning_rate)
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)  # dropout and drop-path draw from the global generator
    per_epoch = max(1, len(rows) // settings.batch)
    losses, accuracies = [], []
    for epoch in range(settings.epochs):
        total, right, seen = 0.0, 0, 0
        # The last, short batch is spread over the others, so that batch normalisation never sees one crop.
        batches = torch.randperm(len(rows), generator=generator).tensor_split(per_epoch)
        with closing(read_ahead(source, (rows[b.numpy()] for b in batches), device)) as read:
            for i, (batch, pixels) in enumerate(zip(batches, read, strict=True)):
                factor = one_cycle(epoch * per_epoch + i, settings.epochs * per_epoch, settings.warmup)
                for group in optimizer.param_groups:
                    group["lr"] = group["peak"] * factor
                goal = labels[batch].to(device)
                scores = _forward(backbone, augment(pixels, settings, generator), settings.bfloat16)
                loss = cross_entropy(scores, goal, weights, label_smoothing=settings.label_smoothing)
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                optimizer.step()
                total += float(loss.detach()) * len(batch)
                right += int((scores.detach().argmax(1) == goal).sum())
                seen += len(batch)
        if not math.isfinite(total):
            raise MorphobenchError("the training loss is no longer finite", f"epoch {epoch + 1}",
                                   "Lower training.learning_rate.")
        losses.append(total / seen)
        accuracies.append(right / seen)
        on_epoch(epoch, losses[-1])
    return Trained(backbone, tuple(losses), tuple(accuracies), settings.epochs * len(rows))


def outputs(backbone: Backbone, source: CropSource, rows: np.ndarray, device: torch.device, bfloat16: bool = False,
            batch: int = 64, separately: bool = False) -> Generator[np.ndarray, None, None]:
    """Outputs of the network in evaluation mode, batch by batch in the order of ``rows``.

    Parameters
    ----------
    separately : bool
        Each channel is passed alone, as grey over the network's three colours, and what comes out is joined.

    Yields
    ------
    ndarray
        (n, K) or (n, C * K) float32 with n ≤ ``batch``.
    """
    backbone.model.to(device).eval()
    parts = (rows[start : start + batch] for start in range(0, len(rows), batch))
    with closing(read_ahead(source, parts, device)) as read:
        for pixels in read:
            with torch.inference_mode():  # not across the yield: the caller's own work is none of its business
                part = scaled(pixels)
                views = [c.repeat(1, 3, 1, 1) for c in part.split(1, dim=1)] if separately else [part]
                out = torch.cat([_forward(backbone, view, bfloat16) for view in views], dim=1).cpu().numpy()
            yield out


def run_model(backbone: Backbone, source: CropSource, rows: np.ndarray, device: torch.device, bfloat16: bool = False,
              batch: int = 64) -> np.ndarray:
    """Outputs of the network in evaluation mode for the crops ``rows``: (N, K) float32.

    Raises
    ------
    ValueError
        There are no rows.
    """
    return np.concatenate(list(outputs(backbone, source, rows, device, bfloat16, batch)))


def probabilities(backbone: Backbone, source: CropSource, rows: np.ndarray, device: torch.device,
                  bfloat16: bool = False) -> np.ndarray:
    """Class probabilities (softmax) of the crops ``rows``: (N, classes) float64, rows summing to 1."""
    scores = run_model(backbone, source, rows, device, bfloat16).astype(np.float64)
    scores -= scores.max(axis=1, keepdims=True)
    p = np.exp(scores)
    return p / p.sum(axis=1, keepdims=True)
