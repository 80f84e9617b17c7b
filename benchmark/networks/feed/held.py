"""Crops in memory, shared by the folds of a process: on the GPU, in pinned or plain main memory, or not at all."""

from __future__ import annotations

from collections.abc import Generator, Hashable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmark.networks.device import copied_ahead, free_memory, moved
from benchmark.networks.feed.source import ArrayCrops, CropSource, read_ahead

#: Share of a GPU's free memory that crops may take; the network's activations need the rest.
GPU_SHARE = 0.5
#: Share of free main memory that crops may take from where they are copied to a GPU.
HOST_SHARE = 0.4
#: Most bytes that a process holds where it computes on a CPU; each process has its own crops.
CPU_MOST = 128 * 2**20
#: Crops read at a time.
PIECE = 256


@dataclass(frozen=True, eq=False)
class Held:
    """All crops of a source in memory, as they are stored; or stored activations of them.

    Attributes
    ----------
    pixels : Tensor
        (N, C, S, S) uint8 or int16 with the bits of ``dtype``: PyTorch gathers 16-bit values only where they are
        signed, and the sign is never used. Activations: (N, …) float32.
    where : str
        Where they are, in words.
    """

    pixels: Tensor
    dtype: np.dtype[Any]
    where: str

    def __len__(self) -> int:
        return len(self.pixels)

    @property
    def shape(self) -> Any:
        """Channels, height and width of a crop; the shape of one activation."""
        return tuple(self.pixels.shape[1:])

    def batch(self, rows: np.ndarray) -> np.ndarray:
        """The crops ``rows`` in the order asked for: (n, C, S, S)."""
        return self.pixels[torch.from_numpy(rows).to(self.pixels.device)].cpu().numpy().view(self.dtype)

    def parts(self, rows: np.ndarray, sizes: Sequence[int], device: torch.device) -> Generator[Tensor, None, None]:
        """`in_order` from memory, in which neither the CPU waits for a GPU nor a GPU for the CPU."""
        order = torch.from_numpy(np.asarray(rows, np.int64))
        stored = torch.uint16 if self.dtype == np.uint16 else self.pixels.dtype
        if self.pixels.device.type == "cpu" and device.type == "cuda":
            batches = copied_ahead(self.pixels, order.split(list(sizes)), device)
        else:
            pieces = moved(order, self.pixels.device).split(list(sizes))
            batches = (self.pixels.index_select(0, piece) for piece in pieces)
        for pixels in batches:
            yield pixels.view(stored)


def in_order(
    source: CropSource, rows: np.ndarray, sizes: Sequence[int], device: torch.device
) -> Generator[Tensor, None, None]:
    """The crops ``rows`` as batches of ``sizes`` on ``device``: from memory where they are held, else read ahead.

    Close it where it may not be exhausted; see `benchmark.networks.feed.source.read_ahead`.
    """
    if isinstance(source, Held):
        yield from source.parts(rows, sizes, device)
    else:
        yield from read_ahead(source, np.split(rows, np.cumsum(sizes)[:-1]) if len(rows) else (), device)


#: What `held_crops` shares within its block; None outside of any.
_shared: ContextVar[dict[Hashable, CropSource] | None] = ContextVar("shared crops", default=None)


@contextmanager
def held_crops() -> Iterator[None]:
    """Keep the crops that `hold` reads, for all folds that run in the block; their memory is freed at its end.

    Only the crops that were asked for last are kept. Outside of such a block, as in a worker process, each fold reads
    crops for itself, and they are freed with the fold.
    """
    kept: dict[Hashable, CropSource] = {}
    token = _shared.set(kept)
    try:
        yield
    finally:
        _shared.reset(token)
        kept.clear()


def hold(source: CropSource, count: int, device: torch.device, key: Hashable) -> CropSource:
    """Read the crops of a source into memory if they fit; if not, ``source`` itself, to be read batch by batch.

    On CUDA they are held on the GPU if they fit into `GPU_SHARE` of its free memory, else in pinned main memory if
    they fit into `HOST_SHARE` of what is free there. On a CPU they are held if they take `CPU_MOST` bytes or fewer.

    Parameters
    ----------
    count : int
        How many crops the source has.
    key : hashable
        What the crops are: within a block of `held_crops` the same key gives the same crops without reading them
        again, and another key frees them first.

    Raises
    ------
    MorphobenchError
        A crop is damaged.
    """
    if isinstance(source, ArrayCrops) and device.type == "cpu":
        return source
    kept = _shared.get()
    if kept is None:
        return _read(source, count, device)
    key = (key, str(device))
    if key not in kept:
        kept.clear()
        kept[key] = _read(source, count, device)
    shared = kept[key]
    return shared if isinstance(shared, Held) else source


def _read(source: CropSource, count: int, device: torch.device) -> CropSource:
    size = count * int(np.prod(source.shape)) * source.dtype.itemsize
    host = torch.device("cpu")
    if device.type == "cuda":
        if size <= GPU_SHARE * free_memory(device):
            return _filled(source, count, device, "GPU memory")
        if size <= HOST_SHARE * free_memory(host):
            return _filled(source, count, host, "pinned memory")
    elif size <= CPU_MOST:
        return _filled(source, count, host, "memory")
    return source


def _filled(source: CropSource, count: int, device: torch.device, where: str) -> Held:
    """Read all crops, a few at a time; each is verified as it is read."""
    signed = {np.dtype(np.uint16): torch.int16, np.dtype(np.float32): torch.float32}.get(source.dtype, torch.uint8)
    pixels = torch.empty((count, *source.shape), dtype=signed, device=device, pin_memory=where == "pinned memory")
    for start in range(0, count, PIECE):
        rows = np.arange(start, min(start + PIECE, count))
        pixels[start : start + len(rows)] = torch.from_numpy(np.ascontiguousarray(source.batch(rows))).view(signed)
    return Held(pixels, source.dtype, where)
