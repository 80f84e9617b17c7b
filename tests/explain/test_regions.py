"""Regions lie on the very pixels of their crops, and shares of them sum to one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import maximum_filter, minimum_filter

from benchmark.base.errors import MorphobenchError
from benchmark.explain.regions import BACKGROUND, CYTOPLASM, NUCLEI, OUTSIDE, REGIONS, cut_regions, region_shares
from benchmark.images.tiles import Box, cut, resize


def field() -> tuple[np.ndarray, np.ndarray]:
    """Two cells (numbers 1 and 7) of 24 pixels with nuclei of 12, in a field of 64."""
    nuclei, cells = np.zeros((64, 64), np.uint16), np.zeros((64, 64), np.uint16)
    cells[4:28, 4:28], nuclei[10:22, 10:22] = 1, 3
    cells[36:60, 36:60], nuclei[42:54, 42:54] = 7, 4
    return nuclei, cells


@pytest.mark.parametrize("size", [16, 32, 64, 96])
def test_regions_match_the_resized_crop(size):
    """An image that is 100 in nuclei and 50 in cytoplasm, cut and resized as crops are, agrees but at the edges."""
    nuclei, cells = field()
    box = Box(0, 8, 48, 40)
    image = np.where(nuclei > 0, 100, np.where(cells > 0, 50, 0)).astype(np.float32)
    crop = resize(cut(image[None], box), size, size)[0]
    (regions,) = cut_regions(nuclei, cells, np.array([box]), size)
    value = np.array([0, 50, 100, -1], np.float32)[regions]
    assert regions.shape == (size, size) and (np.abs(value - crop) < 25).mean() > 0.85
    inner = maximum_filter(crop, 3) - minimum_filter(crop, 3) < 0.01
    assert np.allclose(value[inner], crop[inner], atol=0.01)


def test_beyond_the_field_and_other_cells_are_outside():
    nuclei, cells = field()
    boxes = np.array([[-8, -8, 32, 32], [0, 0, 32, 32]])
    border, whole = cut_regions(nuclei, cells, boxes, 32)
    assert (border[:8] == OUTSIDE).all() and (border[:, :8] == OUTSIDE).all() and (border[8:, 8:] != OUTSIDE).all()
    assert not (whole == OUTSIDE).any() and {BACKGROUND, CYTOPLASM, NUCLEI} == set(np.unique(whole))
    (masked,) = cut_regions(nuclei, cells, np.array([[0, 0, 64, 64]]), 64, own=np.array([7]))
    assert (masked[:36] == OUTSIDE).all() and masked[48, 48] == NUCLEI and masked[37, 37] == CYTOPLASM
    assert not (masked == BACKGROUND).any()
    with pytest.raises(MorphobenchError, match="masks of nuclei and cells"):
        cut_regions(nuclei[:5], cells, boxes, 32)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000))
def test_shares_sum_to_one(seed):
    rng = np.random.default_rng(seed)
    regions = rng.integers(0, len(REGIONS), (3, 8, 8)).astype(np.uint8)
    weights = rng.random((3, 8, 8)).astype(np.float32)
    weights[2] = 0
    shares = region_shares(weights, regions)
    assert np.allclose(shares[:2].sum(axis=1), 1) and (shares[:2] >= 0).all() and np.isnan(shares[2]).all()


def test_shares_of_known_pictures():
    regions = np.full((1, 10, 10), BACKGROUND, np.uint8)
    regions[0, :5], regions[0, :2] = CYTOPLASM, NUCLEI
    assert region_shares(np.ones((1, 10, 10)), regions).tolist() == [[0.5, 0.3, 0.2, 0]]
    weights = np.zeros((1, 10, 10))
    weights[0, 0], weights[0, 9] = 3, 1
    assert region_shares(weights, regions).tolist() == [[0.25, 0, 0.75, 0]]
    with pytest.raises(ValueError, match="below 0"):
        region_shares(-weights, regions)
    with pytest.raises(MorphobenchError, match="shape"):
        region_shares(weights[:, :5], regions)
