"""Augmentation of a batch on its own device, each crop with its own draw.

torchvision's v2 transforms draw once a batch; crops of one batch must not share a view, so the few
operations needed are written on batched tensors here.
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor


def dihedral(batch: Tensor, views: Tensor) -> Tensor:
    """Turn each crop by one of the 8 symmetries of the square.

    Parameters
    ----------
    batch : Tensor
        (N, C, S, S), any dtype.
    views : Tensor
        (N,) integers 0…7: ``view % 4`` quarter turns, then a left-right flip from 4 on.
    """
    out = torch.empty_like(batch)
    for view in range(8):
        chosen = (views == view).nonzero().squeeze(1)
        if len(chosen):
            turned = torch.rot90(batch[chosen], view % 4, (2, 3))
            out[chosen] = turned.flip(3) if view >= 4 else turned
    return out


def augment(batch: Tensor, gain: float, offset: float, generator: Generator) -> Tensor:
    """A random dihedral view and a random gain and offset for each channel of each crop.

    Parameters
    ----------
    batch : Tensor
        (N, C, S, S) uint8.
    gain, offset : float
        Factors are uniform in 1 ± gain; shifts uniform in ± offset of full scale.
    generator : Generator
        On the CPU, so that a seed gives the same draws on every device.

    Returns
    -------
    Tensor
        (N, C, S, S) float32 in 0…1.
    """
    n, c = batch.shape[:2]
    views = torch.randint(8, (n,), generator=generator)
    gains = 1 + gain * (2 * torch.rand(n, c, 1, 1, generator=generator) - 1)
    shifts = offset * (2 * torch.rand(n, c, 1, 1, generator=generator) - 1)
    turned = dihedral(batch, views.to(batch.device)).float() / 255
    return (turned * gains.to(batch.device) + shifts.to(batch.device)).clamp_(0, 1)
