"""Where tiles and cell crops lie, and that nothing is lost, moved or mirrored on the way."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmark.images.tiles import (
    Box,
    cell_boxes,
    cut,
    grid_boxes,
    original_box,
    resize,
    to_whole,
    window_boxes,
)

SIDES = st.integers(1, 60)


def covered(shape: tuple[int, int], boxes: list[Box]) -> np.ndarray:
    """How many boxes each pixel lies in."""
    count = np.zeros(shape, int)
    for b in boxes:
        assert b.y >= 0 and b.x >= 0 and b.y + b.height <= shape[0] and b.x + b.width <= shape[1]
        count[b.y : b.y + b.height, b.x : b.x + b.width] += 1
    return count


@settings(max_examples=60, deadline=None)
@given(SIDES, SIDES, st.integers(1, 5), st.integers(1, 5))
def test_windows_tile_the_field_once(tall, wide, rows, columns):
    shape = (tall * rows, wide * columns)
    assert (covered(shape, window_boxes(shape, rows, columns)) == 1).all()


def test_windows_are_numbered_as_in_the_paper():
    assert window_boxes((1024, 1280), 2, 2) == [
        Box(0, 0, 512, 640), Box(512, 0, 512, 640), Box(0, 640, 512, 640), Box(512, 640, 512, 640)]
    assert [tuple(b[:2]) for b in window_boxes((1024, 1024), 4, 4)[:5]] == [
        (0, 0), (256, 0), (512, 0), (768, 0), (0, 256)]


@settings(max_examples=60, deadline=None)
@given(st.integers(8, 80), st.integers(8, 80), st.integers(1, 4), st.integers(1, 4))
def test_grid_tiles_are_squares_that_do_not_overlap_and_run_row_by_row(height, width, rows, columns):
    boxes = grid_boxes((height, width), (rows, columns))
    assert len(boxes) == rows * columns
    assert {(b.height, b.width) for b in boxes} == {(min(height // rows, width // columns),) * 2}
    assert covered((height, width), boxes).max() == 1
    assert boxes == sorted(boxes)


def test_a_square_field_is_covered_whole():
    assert (covered((64, 64), grid_boxes((64, 64), (4, 4))) == 1).all()
    assert grid_boxes((40, 56), (1, 1)) == [Box(0, 8, 40, 40)]


@settings(max_examples=80, deadline=None)
@given(st.integers(-20, 40), st.integers(-20, 40), st.integers(1, 25), st.integers(1, 25))
def test_a_cut_is_the_field_and_zero_beyond(y, x, height, width):
    field = np.arange(1, 2 * 16 * 20 + 1, dtype=np.uint16).reshape(2, 16, 20)
    around = np.zeros((2, 136, 140), np.uint16)
    around[:, 60:76, 60:80] = field
    piece = cut(field, Box(y, x, height, width))
    assert np.array_equal(piece, around[:, 60 + y : 60 + y + height, 60 + x : 60 + x + width])


def test_a_cell_stands_in_the_middle():
    field = np.zeros((1, 30, 40), np.uint8)
    field[0, 7, 33] = 9
    (box,) = cell_boxes(np.array([33.4]), np.array([6.5]), 11)
    assert (box.height, box.width) == (11, 11)
    assert cut(field, box)[0, 5, 5] == 9


def test_shrinking_takes_area_means_and_leaves_equal_sizes_alone():
    piece = np.zeros((1, 4, 8), np.float32)
    piece[0, :2, :4] = 40
    assert resize(piece, 2, 2).tolist() == [[[40, 0], [0, 0]]]
    assert resize(piece, 1, 1).tolist() == [[[10]]]
    assert resize(piece, 4, 8) is piece


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000), st.integers(33, 90), st.integers(33, 90))
def test_shrinking_keeps_the_mean(seed, height, width):
    piece = np.random.default_rng(seed).uniform(0, 255, (1, height, width)).astype(np.float32)
    assert resize(piece, 16, 16).mean() == pytest.approx(piece.mean(), rel=1e-4)


def test_rounding_is_to_the_nearest_and_clipped():
    assert to_whole(np.array([-3, 0.4, 0.6, 254.7, 300]), np.dtype(np.uint8)).tolist() == [0, 0, 1, 255, 255]
    assert to_whole(np.array([65535.2, 300]), np.dtype(np.uint16)).tolist() == [65535, 300]


def test_boxes_of_a_resized_field_are_told_in_its_own_pixels():
    assert original_box(Box(256, 768, 256, 256), (1024, 1360), (1024, 1024)) == Box(256, 1020, 256, 340)
