"""Augmentation: symmetries and bounds."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmark.networks.augment import augment, dihedral


def test_the_eight_views_are_distinct_and_view_zero_is_the_identity():
    crop = torch.arange(2 * 5 * 5, dtype=torch.uint8).reshape(1, 2, 5, 5)
    views = dihedral(crop.repeat(8, 1, 1, 1), torch.arange(8))
    assert torch.equal(views[0], crop[0])
    assert len({tuple(v.flatten().tolist()) for v in views}) == 8


def test_each_view_is_inverted_by_another():
    crop = torch.randint(0, 255, (1, 3, 7, 7))
    for view in range(8):
        once = dihedral(crop, torch.tensor([view]))
        assert any(torch.equal(dihedral(once, torch.tensor([back])), crop) for back in range(8))


@settings(max_examples=20, deadline=None)
@given(gain=st.floats(0, 0.9), offset=st.floats(0, 0.9), seed=st.integers(0, 2**31))
def test_augmented_crops_stay_in_range_and_follow_the_seed(gain, offset, seed):
    batch = torch.randint(0, 256, (4, 3, 6, 6), dtype=torch.uint8)
    a, b = (augment(batch, gain, offset, torch.Generator().manual_seed(seed)) for _ in range(2))
    assert a.dtype == torch.float32 and a.shape == batch.shape
    assert float(a.min()) >= 0 and float(a.max()) <= 1
    assert torch.equal(a, b)


def test_crops_of_one_batch_get_views_of_their_own():
    batch = torch.randint(0, 256, (1, 1, 9, 9), dtype=torch.uint8).repeat(64, 1, 1, 1)
    out = augment(batch, 0.0, 0.0, torch.Generator().manual_seed(0))
    assert len({tuple(o.flatten().tolist()) for o in out}) == 8
