"""What a network is given, batch by batch: crops, augmented as they come, or stored activations of their views."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from benchmark.networks.activations import Activations, above_of
from benchmark.networks.augment import Draws, augment, dihedral, scaled
from benchmark.networks.held import Held, in_order
from benchmark.networks.mixing import Mix, mixed
from benchmark.networks.source import ArrayCrops, CropSource
from benchmark.networks.weights import Backbone

Source = CropSource | Activations


class Feed(Protocol):
    """Batches of what a network, or what is learnt of it, is given.

    Attributes
    ----------
    backbone : Backbone
        What runs on the batches.
    """

    @property
    def backbone(self) -> Backbone: ...

    def training(self, rows: np.ndarray, sizes: Sequence[int], draws: Draws, mix: Mix | None,
                 noise: torch.Generator) -> Generator[Tensor, None, None]:
        """Batches of ``sizes`` of the crops ``rows``, each crop with its own draw."""
        ...

    def plain(self, rows: np.ndarray, sizes: Sequence[int], views: Sequence[int] = (0,)
              ) -> Generator[Iterable[Tensor], None, None]:
        """For each batch the crops as they are, once in each view."""
        ...


@dataclass(frozen=True)
class CropFeed:
    """Crops, augmented on the device."""

    source: CropSource
    backbone: Backbone
    device: torch.device

    def training(self, rows: np.ndarray, sizes: Sequence[int], draws: Draws, mix: Mix | None,
                 noise: torch.Generator) -> Generator[Tensor, None, None]:
        start = 0
        with closing(in_order(self.source, rows, sizes, self.device)) as read:
            for size, pixels in zip(sizes, read, strict=True):
                crops = augment(pixels, draws.part(start, start + size), noise)
                yield crops if mix is None else mixed(crops, mix.part(start, start + size))
                start += size

    def plain(self, rows: np.ndarray, sizes: Sequence[int], views: Sequence[int] = (0,)
              ) -> Generator[Iterable[Tensor], None, None]:
        with closing(in_order(self.source, rows, sizes, self.device)) as read:
            for pixels in read:
                part = scaled(pixels)
                yield (dihedral(part, view) for view in views)


@dataclass(frozen=True)
class ActivationFeed:
    """Stored activations of views of crops: the network below them has been run already."""

    source: Activations
    backbone: Backbone
    device: torch.device

    def training(self, rows: np.ndarray, sizes: Sequence[int], draws: Draws, mix: Mix | None,
                 noise: torch.Generator) -> Generator[Tensor, None, None]:
        assert mix is None and draws.factors is None  # see `benchmark.networks.activations.sharable`
        drawn = 0 if draws.views is None else draws.views.cpu().numpy()
        with closing(in_order(self.source.rows, rows * self.source.views + drawn, sizes, self.device)) as read:
            yield from read

    def plain(self, rows: np.ndarray, sizes: Sequence[int], views: Sequence[int] = (0,)
              ) -> Generator[Iterable[Tensor], None, None]:
        parts = np.split(rows, np.cumsum(sizes)[:-1]) if len(rows) else []
        numbers = [part * self.source.views + view for part in parts for view in views]
        every = np.concatenate(numbers) if numbers else rows
        with closing(in_order(self.source.rows, every, [len(n) for n in numbers], self.device)) as read:
            for _ in parts:
                yield [next(read) for _ in views]


def feed_of(source: Source, backbone: Backbone, learn: str, device: torch.device) -> Feed:
    """What feeds a network that lies on ``device`` from a source; from activations what is learnt of it alone."""
    if isinstance(source, Activations):
        return ActivationFeed(source, above_of(backbone, learn, source.crops), device)
    return CropFeed(source, backbone, device)


def crop_shape(source: Source) -> tuple[int, int, int]:
    """Channels, height and width of the crops behind a source."""
    return source.crops if isinstance(source, Activations) else source.shape


def place(source: Source) -> str:
    """Where what is read from a source lies, in words."""
    if isinstance(source, Activations):
        return f"activations in {place(source.rows) if source.held is not None else 'a file'}"
    return source.where if isinstance(source, Held) else "memory" if isinstance(source, ArrayCrops) else "file"
