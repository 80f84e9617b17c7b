"""Augmentation of a batch on its own device, each crop with its own draw.

torchvision's v2 transforms draw once a batch; crops of one batch must not share a view, so the few
operations needed are written on batched tensors here. All draws of an epoch are made at once, on the CPU: a seed
gives the same draws on every device, and a GPU waits for none of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from itertools import repeat

import torch
from torch import Generator, Tensor
from torch.nn.functional import avg_pool2d, pad

from benchmark.networks.device import moved
from benchmark.networks.settings import TrainingSettings

#: Factors of the channels of each crop in Kensert et al. 2019, equally probable: half of the channels keep theirs.
KENSERT_FACTORS = (1.0, 1.0, 0.75, 1.25)
#: Variance of that paper's Gaussian noise on the scale 0…255.
KENSERT_VARIANCE = 50.0


def full_scale(batch: Tensor) -> int:
    """The largest value that crops of a type can hold: 255 or 65535."""
    return {torch.uint8: 255, torch.uint16: 65535}[batch.dtype]


def scaled(batch: Tensor) -> Tensor:
    """Crops in uint8 or uint16 as float32 in 0…1."""
    return batch.float() / full_scale(batch)


@dataclass(frozen=True)
class Draws:
    """What is drawn for N crops of C channels; None means that it is not done.

    Attributes
    ----------
    views : Tensor
        (N,) int64, see `dihedral`.
    factors, shifts : Tensor
        (N, C) float32: what each channel is multiplied by, and what is then added, of full scale.
    blurred, noisy : Tensor
        (N,) bool: which crops are blurred, and which get noise.
    """

    views: Tensor | None = None
    factors: Tensor | None = None
    shifts: Tensor | None = None
    blurred: Tensor | None = None
    noisy: Tensor | None = None

    def to(self, device: torch.device) -> Draws:
        """On a device, moved without waiting."""
        return replace(self, **{f.name: moved(value, device) for f in fields(self)
                                if (value := getattr(self, f.name)) is not None})

    def part(self, start: int, stop: int) -> Draws:
        """Of some of the crops."""
        return replace(self, **{f.name: value[start:stop] for f in fields(self)
                                if (value := getattr(self, f.name)) is not None})


def draw(settings: TrainingSettings, n: int, channels: int, generator: Generator) -> Draws:
    """Draw the settings' augmentation for ``n`` crops, all but the noise.

    Parameters
    ----------
    generator : Generator
        On the CPU.

    Returns
    -------
    Draws
        On the CPU.
    """
    if settings.augmentation == "none":
        return Draws()
    views = torch.randint(8, (n,), generator=generator)
    if settings.augmentation == "views":
        return Draws(views)
    if settings.augmentation == "standard":
        gains = 1 + settings.gain * (2 * torch.rand(n, channels, generator=generator) - 1)
        return Draws(views, gains, settings.offset * (2 * torch.rand(n, channels, generator=generator) - 1))
    chosen = torch.randint(len(KENSERT_FACTORS), (n, channels), generator=generator)
    blurred, noisy = (torch.randint(2, (n,), generator=generator).bool() for _ in range(2))
    return Draws(views, torch.tensor(KENSERT_FACTORS)[chosen], None, blurred, noisy)


def augment(batch: Tensor, draws: Draws, noise: Generator | None = None) -> Tensor:
    """A batch as the network is to see it in training, each crop with its own draw.

    Parameters
    ----------
    batch : Tensor
        (N, C, S, S) uint8 or uint16.
    draws : Draws
        For these crops, on their device.
    noise : Generator
        On the batch's device; draws noise where ``draws`` asks for it: the same seed gives the same on the same device.

    Returns
    -------
    Tensor
        (N, C, S, S) float32 in 0…1.
    """
    if draws.views is None:
        return scaled(batch)
    on_cpu = batch.device.type == "cpu"
    if draws.factors is None:
        return scaled(gathered_views(batch, draws.views))
    if draws.noisy is None:
        return one_by_one(batch, draws) if on_cpu else at_once(batch, draws)
    assert noise is not None
    if on_cpu:
        drawn = (torch.randn(batch.shape[1:], generator=noise) for _ in repeat(None))
        return one_by_one(batch, draws, drawn)
    return at_once(batch, draws, torch.randn(batch.shape, device=batch.device, generator=noise))


def one_by_one(batch: Tensor, draws: Draws, noise: Iterator[Tensor] | None = None) -> Tensor:
    """Augment crop by crop, as a CPU is fastest at.

    With ``blurred`` and ``noisy`` this is the whole augmentation of Kensert et al. 2019 (SLAS Discovery 24:466), as
    their code has it: ``img_preprocess`` and ``noisy`` of their `model_utils_bbbc021.py`, in their order: one of the 8
    views of the square; each channel times 1 (half the time), 0.75 or 1.25; with chance 1/2 the mean over 3 × 3 pixels
    (``cv2.blur``, the border mirrored without its edge); with chance 1/2 Gaussian noise of variance 50; and only then
    clipped to 0…255. Variance and bounds are meant on the scale 0…255; here that scale is 0…1.

    Parameters
    ----------
    noise : iterator of Tensor
        (C, S, S) float32, standard normal: one for each noisy crop.

    Returns
    -------
    Tensor
        (N, C, S, S) float32 in 0…1.
    """
    assert draws.views is not None and draws.factors is not None
    factors = (draws.factors / full_scale(batch))[:, :, None, None]
    out = torch.empty(batch.shape, device=batch.device)
    crops = batch.view(torch.int16) if batch.dtype == torch.uint16 else batch
    blurred, noisy = ([False] * len(batch) if t is None else t.tolist() for t in (draws.blurred, draws.noisy))
    # One crop after the other, so that it stays in a CPU's cache from the first step to the last: 1.7 times as fast
    # as each step over the whole batch.
    for i, view in enumerate(draws.views.tolist()):
        turned = _turn(crops[i], view).contiguous().view(batch.dtype).float()
        if blurred[i]:
            _mean_3x3(turned.mul_(factors[i]), out[i])
        else:
            torch.mul(turned, factors[i], out=out[i])
        if noisy[i]:
            assert noise is not None
            out[i].add_(next(noise), alpha=KENSERT_VARIANCE**0.5 / 255)
    if draws.shifts is not None:
        out.add_(draws.shifts[:, :, None, None])
    return out.clamp_(0, 1)


def at_once(batch: Tensor, draws: Draws, noise: Tensor | None = None) -> Tensor:
    """What `one_by_one` gives, by operations on the whole batch, as a GPU is fastest at.

    Parameters
    ----------
    noise : Tensor
        (N, C, S, S) float32, standard normal; that of crops that are not noisy is not used.
    """
    assert draws.views is not None and draws.factors is not None
    out = gathered_views(batch, draws.views).float() * (draws.factors / full_scale(batch))[:, :, None, None]
    if draws.blurred is not None:
        mean = avg_pool2d(pad(out, (1, 1, 1, 1), mode="reflect"), 3, stride=1)
        out = torch.where(draws.blurred[:, None, None, None], mean, out)
    if draws.noisy is not None:
        assert noise is not None
        out += noise * (draws.noisy * (KENSERT_VARIANCE**0.5 / 255))[:, None, None, None]
    if draws.shifts is not None:
        out += draws.shifts[:, :, None, None]
    return out.clamp_(0, 1)


def dihedral(batch: Tensor, view: int) -> Tensor:
    """All crops of a batch (N, C, S, S) turned by one of the 8 symmetries of the square.

    Parameters
    ----------
    view : int
        0…7: ``view % 4`` quarter turns, then a left-right flip from 4 on.
    """
    turned = torch.rot90(batch, view % 4, (2, 3))
    return turned.flip(3) if view >= 4 else turned


def gathered_views(batch: Tensor, views: Tensor) -> Tensor:
    """Turn each crop by its own view (see `dihedral`), by gathering its pixels.

    Parameters
    ----------
    batch : Tensor
        (N, C, S, S) uint8 or uint16.
    views : Tensor
        (N,) integers 0…7, on the batch's device.
    """
    if batch.dtype == torch.uint16:  # PyTorch gathers only signed 16-bit values; the sign is never used
        return gathered_views(batch.view(torch.int16), views).view(torch.uint16)
    flat = batch.flatten(2)
    where = _sources(batch.shape[2], batch.device)[views][:, None]
    return flat.gather(2, where.expand(flat.shape)).view(batch.shape)


@lru_cache(maxsize=4)
def _sources(size: int, device: torch.device) -> Tensor:
    """Which pixel each pixel of each view comes from: (8, size²) int64."""
    pixels = torch.arange(size * size).view(1, 1, size, size)
    return torch.cat([dihedral(pixels, view).flatten(1) for view in range(8)]).to(device)


def _turn(crop: Tensor, view: int) -> Tensor:
    """One of `dihedral`'s views of one (C, S, S) crop; not contiguous."""
    return dihedral(crop[None], view)[0]


def _mean_3x3(planes: Tensor, out: Tensor) -> None:
    """Mean over 3 × 3 pixels of (C, H, W) float planes, the border mirrored without its edge (reflect101)."""
    wide = pad(planes, (1, 1, 1, 1), mode="reflect")
    rows = wide[..., :-2] + wide[..., 1:-1]
    rows += wide[..., 2:]
    torch.add(rows[..., :-2, :], rows[..., 1:-1, :], out=out)
    out.add_(rows[..., 2:, :]).mul_(1 / 9)
