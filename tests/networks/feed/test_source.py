"""Reading ahead: every batch in order, few at a time, errors passed on, no thread left."""

from __future__ import annotations

import threading
from contextlib import closing

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmark.networks.feed.source import ArrayCrops, read_ahead

CPU = torch.device("cpu")


def readers() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name.startswith("read-ahead")]


class Watched(ArrayCrops):
    """Notes which rows are read, and fails at one."""

    bad = -1

    def __init__(self, n: int) -> None:
        super().__init__(np.zeros((n, 1, 2, 2), np.uint8))
        self.reads: list[list[int]] = []

    def batch(self, rows: np.ndarray) -> np.ndarray:
        if self.bad in rows:
            raise OSError(f"row {self.bad} is damaged")
        self.reads.append(rows.tolist())
        return super().batch(rows)


class Damaged(Watched):
    """Row 5 cannot be read."""

    bad = 5


@settings(max_examples=30, deadline=None)
@given(data=st.data(), n=st.integers(1, 12), dtype=st.sampled_from([np.uint8, np.uint16]))
def test_batches_are_the_rows_asked_for_in_order(data, n, dtype):
    pixels = np.random.default_rng(n).integers(0, 255, (n, 2, 3, 3)).astype(dtype)
    rows = st.lists(st.integers(0, n - 1), min_size=1, max_size=5).map(np.array)
    plan = data.draw(st.lists(rows, max_size=6))
    got = [b.numpy() for b in read_ahead(ArrayCrops(pixels), plan, CPU)]
    assert len(got) == len(plan)
    assert all(np.array_equal(g, pixels[r]) and g.dtype == dtype for g, r in zip(got, plan, strict=True))
    assert readers() == []


def test_only_the_next_batch_is_read_ahead():
    source = Watched(100)
    with closing(read_ahead(source, np.arange(100).reshape(50, 2), CPU)) as read:
        for i, _ in enumerate(read):
            assert len(source.reads) <= i + 2
    assert len(source.reads) == 50


def test_an_error_comes_at_its_batch_and_leaves_no_thread():
    source = Damaged(10)
    seen = 0
    with pytest.raises(OSError, match="row 5 is damaged"), \
            closing(read_ahead(source, np.arange(10).reshape(5, 2), CPU)) as read:
        for _ in read:
            seen += 1
    assert seen == 2 and readers() == []


def test_leaving_early_leaves_no_thread():
    source = Watched(10)
    with pytest.raises(KeyError), closing(read_ahead(source, np.arange(10).reshape(5, 2), CPU)) as read:
        for _ in read:
            raise KeyError("the caller's own")
    assert readers() == [] and len(source.reads) <= 2
