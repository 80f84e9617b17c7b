"""The training loop, top to bottom, and prediction. One path for every device."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from benchmark.errors import MorphobenchError
from benchmark.networks.augment import augment
from benchmark.networks.settings import NetworkSettings, TrainingSettings
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
    pixels: np.ndarray,
    targets: np.ndarray,
    classes: int,
    network: NetworkSettings,
    settings: TrainingSettings,
    device: torch.device,
    seed: int,
    on_epoch: Callable[[int, float], None] = lambda epoch, loss: None,
) -> Trained:
    """Fine-tune all layers on training crops. There is no validation set and no early stopping.

    Parameters
    ----------
    pixels : ndarray
        (N, C, S, S) uint8, training crops only.
    targets : ndarray
        (N,) int64 class numbers.
    seed : int
        Sets the classifier's start, the crop order, the augmentation and dropout.

    Returns
    -------
    Trained
        The network, on ``device``.
    """
    backbone = load_backbone(network, pixels.shape[1], classes, seed)
    model = backbone.model.to(device).train()
    data, labels = torch.from_numpy(pixels), torch.from_numpy(targets)
    if device.type == "cuda":
        data = data.to(device)
    weights = class_weights(labels, classes).to(device)
    optimizer = torch.optim.AdamW(_parameter_groups(model, settings), lr=settings.learning_rate)
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)  # dropout and drop-path draw from the global generator
    per_epoch = max(1, len(data) // settings.batch)
    losses, accuracies = [], []
    for epoch in range(settings.epochs):
        total, right, seen = 0.0, 0, 0
        # The last, short batch is spread over the others, so that batch normalisation never sees one crop.
        batches = torch.randperm(len(data), generator=generator).tensor_split(per_epoch)
        for i, batch in enumerate(batches):
            factor = one_cycle(epoch * per_epoch + i, settings.epochs * per_epoch, settings.warmup)
            for group in optimizer.param_groups:
                group["lr"] = group["peak"] * factor
            views = augment(data[batch.to(data.device)], settings.gain, settings.offset, generator).to(device)
            goal = labels[batch].to(device)
            scores = _forward(backbone, views, settings.bfloat16)
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
    return Trained(backbone, tuple(losses), tuple(accuracies), settings.epochs * len(data))


@torch.inference_mode()
def run_model(backbone: Backbone, pixels: np.ndarray, device: torch.device, bfloat16: bool = False,
              batch: int = 64) -> np.ndarray:
    """Outputs of the network in evaluation mode for (N, C, S, S) uint8 crops: (N, K) float32."""
    backbone.model.to(device).eval()
    out = []
    for start in range(0, len(pixels), batch):
        part = torch.from_numpy(pixels[start : start + batch]).to(device).float() / 255
        out.append(_forward(backbone, part, bfloat16).cpu())
    return torch.cat(out).numpy()


def probabilities(backbone: Backbone, pixels: np.ndarray, device: torch.device, bfloat16: bool = False) -> np.ndarray:
    """Class probabilities (softmax) of crops: (N, classes) float64, rows summing to 1."""
    scores = run_model(backbone, pixels, device, bfloat16).astype(np.float64)
    scores -= scores.max(axis=1, keepdims=True)
    p = np.exp(scores)
    return p / p.sum(axis=1, keepdims=True)
