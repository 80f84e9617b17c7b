"""Crops in memory: the same batches as from the file, read once for all folds, and only where they fit."""

from __future__ import annotations

import weakref
from contextlib import nullcontext

import numpy as np
import pytest
import torch

from benchmark.networks.feed import held
from benchmark.networks.feed.feeding import place
from benchmark.networks.feed.held import Held, held_crops, hold, in_order
from benchmark.networks.feed.source import ArrayCrops

CPU = torch.device("cpu")


class File:
    """Stands for the cache; counts what is read."""

    def __init__(self, n: int = 11, dtype: type = np.uint8) -> None:
        self.pixels = np.random.default_rng(0).integers(0, np.iinfo(dtype).max, (n, 2, 4, 4), dtype, endpoint=True)
        self.shape, self.dtype, self.reads = (2, 4, 4), np.dtype(dtype), 0

    def batch(self, rows: np.ndarray) -> np.ndarray:
        self.reads += len(rows)
        return self.pixels[rows]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_batches_from_memory_are_those_from_the_file(dtype, monkeypatch):
    monkeypatch.setattr(held, "PIECE", 4)
    file = File(dtype=dtype)
    source = hold(file, 11, CPU, "a")
    assert isinstance(source, Held) and source.shape == (2, 4, 4) and source.dtype == dtype and len(source) == 11
    rows, sizes = np.array([3, 10, 0, 0, 7]), [2, 2, 1]
    parts, streamed = ([b.numpy() for b in in_order(s, rows, sizes, CPU)] for s in (source, file))
    assert [len(b) for b in parts] == sizes and parts[0].dtype == dtype
    assert all(np.array_equal(a, b) for a, b in zip(parts, streamed, strict=True))
    assert np.array_equal(source.batch(rows), file.pixels[rows])
    assert list(in_order(source, rows[:0], [], CPU)) == list(in_order(file, rows[:0], [], CPU)) == []


def test_folds_in_a_block_share_what_was_read_and_another_cache_takes_its_place():
    file, key = File(), ("c.h5", "k")
    with held_crops():
        first = hold(file, 11, CPU, key)
        assert hold(file, 11, CPU, key) is first and file.reads == 11
        kept = weakref.ref(first)
        assert hold(File(), 11, CPU, ("c.h5", "other")) is not first
        del first
        assert kept() is None
        assert isinstance(hold(file, 11, CPU, key), Held) and file.reads == 22


@pytest.mark.parametrize("error", [None, KeyboardInterrupt])
def test_crops_are_freed_at_the_end_of_the_block_and_not_kept_outside(error):
    file = File()
    with pytest.raises(error) if error else nullcontext(), held_crops():
        kept = weakref.ref(hold(file, 11, CPU, "k"))
        assert kept() is not None
        if error:
            raise error
    assert kept() is None
    first, second = (hold(file, 11, CPU, "k") for _ in range(2))
    assert first is not second and file.reads == 33


def test_what_does_not_fit_is_read_from_the_file(monkeypatch):
    monkeypatch.setattr(held, "CPU_MOST", 11 * 32 - 1)
    file = File()
    with held_crops():
        assert hold(file, 11, CPU, "a") is file and hold(file, 11, CPU, "a") is file and file.reads == 0
    assert (place(file), place(ArrayCrops(file.pixels))) == ("file", "memory")


@pytest.mark.parametrize(("gpu", "host", "where"), [
    (1000, 0, "GPU memory"), (100, 1000, "pinned memory"), (100, 100, None)])
def test_a_gpu_holds_them_if_a_share_of_its_memory_suffices_else_main_memory_does(monkeypatch, gpu, host, where):
    monkeypatch.setattr(held, "free_memory", lambda device: gpu if device.type == "cuda" else host)
    made = []
    monkeypatch.setattr(held, "_filled", lambda *a: made.append((a[2].type, a[3])))
    held._read(File(), 11, torch.device("cuda"))
    assert made == ([] if where is None else [("cuda" if where == "GPU memory" else "cpu", where)])
