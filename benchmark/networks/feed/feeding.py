"""What a network is given, batch by batch: crops (augmented on the device), bags of them, or stored activations."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from benchmark.networks.feed.activations import Activations, above_of
from benchmark.networks.feed.augment import Draws, augment, dihedral, scaled
from benchmark.networks.feed.bags import Bags
from benchmark.networks.feed.held import Held, in_order
from benchmark.networks.feed.mixing import Mix, mixed
from benchmark.networks.feed.source import ArrayCrops, CropSource, sizes_of
from benchmark.networks.weights.weights import Backbone

Source = CropSource | Activations | Bags


class Feed(Protocol):
    """Batches for a network, or for the learnt part of it.

    Attributes
    ----------
    backbone : Backbone
        What runs on the batches.
    """

    @property
    def backbone(self) -> Backbone:
        """What runs on the batches."""
        ...

    def drawn(self, rows: np.ndarray, generator: torch.Generator) -> np.ndarray:
        """Numbers of the crops that an epoch sees of ``rows``: (n,) themselves, or (n, T) of bags."""
        ...

    def parts(self, rows: np.ndarray, most: int) -> tuple[list[np.ndarray], np.ndarray | None]:
        """``rows`` as they are passed through the network in prediction.

        Parameters
        ----------
        most : int
            Crops a batch.

        Returns
        -------
        batches : list of ndarray
            As `drawn` gives them.
        owners : ndarray or None
            Of bags, which are predicted in parts: the position in ``rows`` that each part belongs to.
        """
        ...

    def training(self, drawn: np.ndarray, sizes: Sequence[int], draws: Draws, mix: Mix | None,
                 noise: torch.Generator) -> Generator[Tensor, None, None]:
        """Batches of ``sizes`` of what was drawn, each crop with its own augmentation."""
        ...

    def plain(self, batches: Sequence[np.ndarray], views: Sequence[int] = (0,)
              ) -> Generator[Iterable[Tensor], None, None]:
        """For each batch the crops without augmentation, once in each view."""
        ...


class _ByCrop:
    """Rows are crops."""

    def drawn(self, rows: np.ndarray, generator: torch.Generator) -> np.ndarray:
        """Each crop once."""
        return rows

    def parts(self, rows: np.ndarray, most: int) -> tuple[list[np.ndarray], np.ndarray | None]:
        """Crops in batches; no owners."""
        return np.split(rows, np.cumsum(sizes_of(len(rows), most))[:-1]), None


@dataclass(frozen=True)
class CropFeed(_ByCrop):
    """Crops, augmented on the device."""

    source: CropSource
    backbone: Backbone
    device: torch.device

    def training(self, drawn: np.ndarray, sizes: Sequence[int], draws: Draws, mix: Mix | None,
                 noise: torch.Generator) -> Generator[Tensor, None, None]:
        """Batches of augmented crops (n, C, S, S), mixed where ``mix`` is given."""
        start = 0
        with closing(in_order(self.source, drawn, sizes, self.device)) as read:
            for size, pixels in zip(sizes, read, strict=True):
                crops = augment(pixels, draws.part(start, start + size), noise)
                yield crops if mix is None else mixed(crops, mix.part(start, start + size))
                start += size

    def plain(self, batches: Sequence[np.ndarray], views: Sequence[int] = (0,)
              ) -> Generator[Iterable[Tensor], None, None]:
        """Batches of crops, each turned or mirrored as each view states."""
        with closing(in_order(self.source, np.concatenate(batches), [len(b) for b in batches], self.device)) as read:
            for pixels in read:
                part = scaled(pixels)
                yield (dihedral(part, view) for view in views)


@dataclass(frozen=True)
class BagFeed:
    """Bags of crops, (B, T, C, S, S)."""

    source: Bags
    backbone: Backbone
    device: torch.device

    def drawn(self, rows: np.ndarray, generator: torch.Generator) -> np.ndarray:
        """As the bags are drawn by `Bags`."""
        return self.source.drawn(rows, generator)

    def parts(self, rows: np.ndarray, most: int) -> tuple[list[np.ndarray], np.ndarray | None]:
        """As the bags are divided by `Bags`."""
        return self.source.parts(rows, most)

    @property
    def _crops(self) -> CropFeed:
        return CropFeed(self.source.crops, self.backbone, self.device)

    def training(self, drawn: np.ndarray, sizes: Sequence[int], draws: Draws, mix: Mix | None,
                 noise: torch.Generator) -> Generator[Tensor, None, None]:
        """Batches of bags of augmented crops (B, T, C, S, S)."""
        assert mix is None  # see `benchmark.methods.base.FinetunedMethod`
        each = drawn.shape[1]
        with closing(self._crops.training(drawn.ravel(), [s * each for s in sizes], draws, None, noise)) as read:
            for crops in read:
                yield crops.unflatten(0, (-1, each))

    def plain(self, batches: Sequence[np.ndarray], views: Sequence[int] = (0,)
              ) -> Generator[Iterable[Tensor], None, None]:
        """Batches of bags, each turned or mirrored as each view states."""
        with closing(self._crops.plain([b.ravel() for b in batches], views)) as read:
            for batch, turned in zip(batches, read, strict=True):
                yield (crops.unflatten(0, batch.shape) for crops in turned)


@dataclass(frozen=True)
class ActivationFeed(_ByCrop):
    """Stored activations of views of crops: the network below them has been run already."""

    source: Activations
    backbone: Backbone
    device: torch.device

    def training(self, drawn: np.ndarray, sizes: Sequence[int], draws: Draws, mix: Mix | None,
                 noise: torch.Generator) -> Generator[Tensor, None, None]:
        """Batches of stored activations of the views drawn."""
        assert mix is None and draws.factors is None  # see `benchmark.networks.training.start.sharable`
        view = 0 if draws.views is None else draws.views.cpu().numpy()
        with closing(in_order(self.source.rows, drawn * self.source.views + view, sizes, self.device)) as read:
            yield from read

    def plain(self, batches: Sequence[np.ndarray], views: Sequence[int] = (0,)
              ) -> Generator[Iterable[Tensor], None, None]:
        """Stored activations of each batch, once in each view."""
        numbers = [batch * self.source.views + view for batch in batches for view in views]
        sizes = [len(n) for n in numbers]
        with closing(in_order(self.source.rows, np.concatenate(numbers), sizes, self.device)) as read:
            for _ in batches:
                yield [next(read) for _ in views]


def feed_of(source: Source, backbone: Backbone, learn: str, device: torch.device) -> Feed:
    """Feeds a network on ``device`` from a source; from activations, only the learnt part of the network."""
    if isinstance(source, Activations):
        return ActivationFeed(source, above_of(backbone, learn, source.crops), device)
    if isinstance(source, Bags):
        return BagFeed(source, backbone, device)
    return CropFeed(source, backbone, device)


def crop_shape(source: Source) -> tuple[int, int, int]:
    """Channels, height and width of the crops behind a source."""
    if isinstance(source, Bags):
        return source.crops.shape
    return source.crops if isinstance(source, Activations) else source.shape


def place(source: Source) -> str:
    """Where the data of a source are held, in words."""
    if isinstance(source, Activations):
        return f"activations in {place(source.rows) if source.held is not None else 'a file'}"
    if isinstance(source, Bags):
        return place(source.crops)
    return source.where if isinstance(source, Held) else "memory" if isinstance(source, ArrayCrops) else "file"
