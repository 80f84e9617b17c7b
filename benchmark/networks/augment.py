"""Augmentation of a batch on its own device, each crop with its own draw.

torchvision's v2 transforms draw once a batch; crops of one batch must not share a view, so the few
operations needed are written on batched tensors here.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Generator, Tensor
from torch.nn.functional import pad

from benchmark.networks.settings import TrainingSettings

#: What each channel of each crop is multiplied by in Kensert et al. 2019, with equal chance: one half keep theirs.
KENSERT_FACTORS = (1.0, 1.0, 0.75, 1.25)
#: Variance of that paper's Gaussian noise on the scale 0…255.
KENSERT_VARIANCE = 50.0


def full_scale(batch: Tensor) -> int:
    """The largest value that crops of a type can hold: 255 or 65535."""
    return {torch.uint8: 255, torch.uint16: 65535}[batch.dtype]


def scaled(batch: Tensor) -> Tensor:
    """Crops in uint8 or uint16 as float32 in 0…1."""
    return batch.float() / full_scale(batch)


def dihedral(batch: Tensor, views: Tensor) -> Tensor:
    """Turn each crop by one of the 8 symmetries of the square.

    Parameters
    ----------
    batch : Tensor
        (N, C, S, S), any dtype.
    views : Tensor
        (N,) integers 0…7, on the CPU: ``view % 4`` quarter turns, then a left-right flip from 4 on.
    """
    if batch.dtype == torch.uint16:  # PyTorch moves 16-bit values only if they have a sign; which is never looked at
        return dihedral(batch.view(torch.int16), views).view(torch.uint16)
    out = torch.empty_like(batch)
    # One crop after the other: four times as fast on a CPU as gathering and scattering the crops of each view.
    for crop, into, view in zip(batch, out, views.tolist(), strict=True):
        into.copy_(_turn(crop, view))
    return out


def _turn(crop: Tensor, view: int) -> Tensor:
    """One of `dihedral`'s views of one (C, S, S) crop; not contiguous."""
    turned = torch.rot90(crop, view % 4, (1, 2))
    return turned.flip(2) if view >= 4 else turned


def augment(batch: Tensor, settings: TrainingSettings, generator: Generator) -> Tensor:
    """A batch as the network is to see it in training: the settings' augmentation, each crop with its own draw.

    Parameters
    ----------
    batch : Tensor
        (N, C, S, S) uint8 or uint16.
    generator : Generator
        On the CPU.

    Returns
    -------
    Tensor
        (N, C, S, S) float32 in 0…1.
    """
    if settings.augmentation == "kensert2019":
        return kensert2019(batch, draw_kensert(batch, generator))
    if settings.augmentation == "none":
        return scaled(batch)
    return standard(batch, settings.gain, settings.offset, generator)


def standard(batch: Tensor, gain: float, offset: float, generator: Generator) -> Tensor:
    """A random dihedral view and a random gain and offset for each channel of each crop.

    Parameters
    ----------
    batch : Tensor
        (N, C, S, S) uint8 or uint16.
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
    turned = scaled(dihedral(batch, views))
    return turned.mul_(gains.to(batch.device)).add_(shifts.to(batch.device)).clamp_(0, 1)


@dataclass(frozen=True)
class KensertDraws:
    """What is drawn for N crops of C channels.

    Attributes
    ----------
    views : Tensor
        (N,) int64, on the CPU, see `dihedral`.
    factors : Tensor
        (N, C) float32, on the batch's device.
    blurred, noisy : Tensor
        (N,) bool, on the CPU: which crops are blurred, and which get noise.
    noise : Tensor
        (number of noisy crops, C, S, S) float32, standard normal, on the batch's device.
    """

    views: Tensor
    factors: Tensor
    blurred: Tensor
    noisy: Tensor
    noise: Tensor


def draw_kensert(batch: Tensor, generator: Generator) -> KensertDraws:
    """Draw for a batch. All but the noise is drawn on the CPU, so a seed gives the same on every device.

    The noise of a batch on the CPU is drawn there too; on another device it is drawn by that device, from a seed
    that ``generator`` gives: the same seed gives the same noise on the same device. Every value is drawn anew.
    """
    n, c = batch.shape[:2]
    views = torch.randint(8, (n,), generator=generator)
    factors = torch.tensor(KENSERT_FACTORS)[torch.randint(len(KENSERT_FACTORS), (n, c), generator=generator)]
    blurred, noisy = (torch.randint(2, (n,), generator=generator).bool() for _ in range(2))
    shape = (int(noisy.sum()), *batch.shape[1:])
    if batch.device.type == "cpu":
        noise = torch.randn(shape, generator=generator)
    else:
        seed = int(torch.randint(2**62, (1,), generator=generator))
        noise = torch.randn(shape, device=batch.device, generator=Generator(batch.device).manual_seed(seed))
    return KensertDraws(views, factors.to(batch.device), blurred, noisy, noise)


def kensert2019(batch: Tensor, draws: KensertDraws) -> Tensor:
    """The whole augmentation of Kensert et al. 2019 (SLAS Discovery 24:466), as their code has it.

    ``img_preprocess`` and ``noisy`` of their `model_utils_bbbc021.py`, in their order: one of the 8 views of the
    square; each channel times 1 (half the time), 0.75 or 1.25; with chance 1/2 the mean over 3 × 3 pixels
    (``cv2.blur``, the border mirrored without its edge); with chance 1/2 Gaussian noise of variance 50; and only then
    clipped to 0…255. Variance and bounds are meant on the scale 0…255; here that scale is 0…1.

    Parameters
    ----------
    batch : Tensor
        (N, C, S, S) uint8 or uint16.
    draws : KensertDraws
        From `draw_kensert`.

    Returns
    -------
    Tensor
        (N, C, S, S) float32 in 0…1.
    """
    factors = (draws.factors / full_scale(batch))[:, :, None, None]
    out = torch.empty(batch.shape, device=batch.device)
    noise = iter(draws.noise)
    crops = batch.view(torch.int16) if batch.dtype == torch.uint16 else batch
    # One crop after the other, so that it stays in a CPU's cache from the first step to the last: 1.7 times as fast
    # as each step over the whole batch.
    for i, (view, blurred, noisy) in enumerate(zip(*(t.tolist() for t in (draws.views, draws.blurred, draws.noisy)),
                                                   strict=True)):
        turned = _turn(crops[i], view).contiguous().view(batch.dtype).float()
        if blurred:
            _mean_3x3(turned.mul_(factors[i]), out[i])
        else:
            torch.mul(turned, factors[i], out=out[i])
        if noisy:
            out[i].add_(next(noise), alpha=KENSERT_VARIANCE**0.5 / 255)
    return out.clamp_(0, 1)


def _mean_3x3(planes: Tensor, out: Tensor) -> None:
    """Mean over 3 × 3 pixels of (C, H, W) float planes, the border mirrored without its edge (reflect101)."""
    wide = pad(planes, (1, 1, 1, 1), mode="reflect")
    rows = wide[..., :-2] + wide[..., 1:-1]
    rows += wide[..., 2:]
    torch.add(rows[..., :-2, :], rows[..., 1:-1, :], out=out)
    out.add_(rows[..., 2:, :]).mul_(1 / 9)
