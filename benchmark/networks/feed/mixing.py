"""Blending crops and their labels with others of their batch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Generator, Tensor

from benchmark.networks.device import moved
from benchmark.networks.settings import TrainingSettings


@dataclass(frozen=True)
class Mix:
    """How much of each of N crops is its own; the rest is its partner's, the crop as far from the batch's other end.

    Attributes
    ----------
    shares : Tensor
        (N,) float32, of the crop and of its label.
    boxes : Tensor
        (N, 4) int64, top, bottom, left and right (ends excluded) of what is cut out of the partner; None for mixup.
    """

    shares: Tensor
    boxes: Tensor | None = None

    def to(self, device: torch.device) -> Mix:
        """On a device, moved without waiting."""
        return Mix(moved(self.shares, device), None if self.boxes is None else moved(self.boxes, device))

    def part(self, start: int, stop: int) -> Mix:
        """Of some of the crops."""
        return Mix(self.shares[start:stop], None if self.boxes is None else self.boxes[start:stop])


def draw_mix(settings: TrainingSettings, n: int, size: int, generator: Generator) -> Mix | None:
    """Draw for ``n`` crops of ``size`` pixels on the CPU; None where nothing is mixed.

    mixup (Zhang et al. 2018, ICLR) and CutMix (Yun et al. 2019, ICCV), with a share for each crop of its own rather
    than one for the batch. A box has the shape of the crop, its centre is uniform, and the part outside is cut off;
    the share is then that of the remaining box.
    """
    if settings.mix == "none":
        return None
    rng = np.random.default_rng(int(torch.randint(2**62, (1,), generator=generator)))
    shares = rng.beta(settings.mix_alpha, settings.mix_alpha, n)
    if settings.mix == "mixup":
        return Mix(torch.from_numpy(shares.astype(np.float32)))
    half = np.sqrt(1 - shares)[:, None] * size / 2
    centres = rng.uniform(0, size, (n, 2))
    low, high = (np.clip(np.rint(v), 0, size).astype(np.int64) for v in (centres - half, centres + half))
    boxes = np.stack([low[:, 0], high[:, 0], low[:, 1], high[:, 1]], axis=1)
    left = 1 - np.prod(high - low, axis=1) / size**2
    return Mix(torch.from_numpy(left.astype(np.float32)), torch.from_numpy(boxes))


def mixed(pixels: Tensor, mix: Mix) -> Tensor:
    """Crops (N, C, S, S) blended with their partners."""
    other = pixels.flip(0)
    if mix.boxes is None:
        shares = mix.shares[:, None, None, None]
        return pixels * shares + other * (1 - shares)
    along = torch.arange(pixels.shape[2], device=pixels.device)
    top, bottom, left, right = (edge[:, None] for edge in mix.boxes.unbind(1))
    rows, columns = (along >= top) & (along < bottom), (along >= left) & (along < right)
    return torch.where(rows[:, None, :, None] & columns[:, None, None, :], other, pixels)
