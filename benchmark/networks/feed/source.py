"""Where batches of crops come from, and reading the next one while the device works on this one."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor


class CropSource(Protocol):
    """Crops by number: the cache on disk (`benchmark.crops`), or an array.

    Attributes
    ----------
    shape : (int, int, int)
        Channels, height and width of a crop.
    dtype : dtype
        uint8 or uint16.
    """

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of a crop."""
        ...

    @property
    def dtype(self) -> np.dtype[Any]:
        """uint8 or uint16."""
        ...

    def batch(self, rows: np.ndarray) -> np.ndarray:
        """The crops ``rows`` in the order asked for: (n, C, S, S)."""
        ...


@dataclass
class ArrayCrops:
    """Crops that fit in memory: (N, C, S, S) uint8 or uint16."""

    pixels: np.ndarray

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of a crop."""
        return (self.pixels.shape[1], self.pixels.shape[2], self.pixels.shape[3])

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the pixels."""
        return self.pixels.dtype

    def batch(self, rows: np.ndarray) -> np.ndarray:
        """The crops ``rows`` in the order asked for: (n, C, S, S)."""
        return self.pixels[rows]


def sizes_of(count: int, batch: int) -> list[int]:
    """Sizes of the batches of ``count`` crops."""
    return [min(batch, count - start) for start in range(0, count, batch)]


def read_ahead(
    source: CropSource, batches: Iterable[np.ndarray], device: torch.device
) -> Generator[Tensor, None, None]:
    """Each batch of rows as a tensor on ``device``, in order; one thread reads the next meanwhile.

    No more than two batches are held at any time, whatever the number of crops. Close the iterator (for example by
    `contextlib.closing`) where it may be left early: the read under way is waited for, and no thread is left behind.

    Parameters
    ----------
    batches : iterable of ndarray
        Row numbers of each batch.
    device : device
        On CUDA a batch is read into pinned memory and copied while earlier work still runs.

    Raises
    ------
    Exception
        Whatever ``source.batch`` raises, when its batch's turn comes.
    """
    on_gpu = device.type == "cuda"

    def read(rows: np.ndarray) -> Tensor:
        pixels = torch.from_numpy(np.ascontiguousarray(source.batch(rows)))
        return pixels.pin_memory() if on_gpu else pixels

    rows = iter(batches)
    with ThreadPoolExecutor(1, thread_name_prefix="read-ahead") as reader:
        first = next(rows, None)
        pending = None if first is None else reader.submit(read, first)
        while pending is not None:
            pixels = pending.result()
            following = next(rows, None)
            pending = None if following is None else reader.submit(read, following)
            yield pixels.to(device, non_blocking=on_gpu)
            del pixels
