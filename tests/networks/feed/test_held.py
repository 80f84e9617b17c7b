"""Crops in memory: the same batches as from the file, read once for all folds, and only where they fit."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from benchmark.networks.feed import held
from benchmark.networks.feed.feeding import place
from benchmark.networks.feed.held import Held, forget, hold, in_order
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


@pytest.fixture(autouse=True)
def _empty():
    forget()
    yield
    forget()


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


def test_folds_of_a_process_share_what_was_read_and_another_cache_takes_its_place():
    file = File()
    first = hold(file, 11, CPU, ("c.h5", "k"))
    assert hold(file, 11, CPU, ("c.h5", "k")) is first and file.reads == 11
    other = hold(File(), 11, CPU, ("c.h5", "other"))
    assert other is not first and len(held._held) == 1
    forget()
    assert hold(file, 11, CPU, ("c.h5", "k")) is not first and file.reads == 22


def test_what_does_not_fit_is_read_from_the_file(monkeypatch):
    monkeypatch.setattr(held, "CPU_MOST", 11 * 32 - 1)
    file = File()
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
