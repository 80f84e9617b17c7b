"""The intensity schemes, on numbers worked out by hand and against the paper's recipe done the long way round."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from benchmark.base.errors import MorphobenchError
from benchmark.images.intensity import (
    anscombe,
    anscombe_moments,
    histogram,
    histogram_quantile,
    kensert2019_bbbc014_tile,
    kensert2019_field,
    kensert2019_table,
    kept,
    refuse_depth,
    scale_plane,
    stretch,
    zscore,
)
from benchmark.images.tiles import window_boxes


def paper_field(field: np.ndarray, controls: np.ndarray) -> tuple[list[np.ndarray], list[bool]]:
    """The recipe of the paper's BBBC021 script, pixel by pixel: tiles (uint8) in its order, and whether each is kept.

    ``field`` (C, H, W) and ``controls`` (n, C, H, W) hold stored values. Means and deviations are accumulated in
    float64; everything else is float32 as there.
    """
    x = 2.0 * np.sqrt(np.moveaxis(field, 0, 2).astype(np.float32) + 3.0 / 8.0)
    y = 2.0 * np.sqrt(np.moveaxis(controls, 1, 3).astype(np.float32) + 3.0 / 8.0)
    for i in range(x.shape[2]):
        x[:, :, i] -= np.float32(y[..., i].mean(dtype=np.float64))
        x[:, :, i] /= np.float32(y[..., i].std(dtype=np.float64))
    xt = (((x - x.min()) * 255) / (x.max() - x.min())) + 0
    height, width = x.shape[0] // 2, x.shape[1] // 2
    tiles = []
    for column in (0, width):
        for row in (0, height):
            tiles.append(xt[row : row + height, column : column + width, :].astype(np.float64))
    keep = [not (tile > (255 / 5.1)).sum() / tile.size <= 0.002 for tile in tiles]
    return [np.moveaxis(tile.astype("uint8"), 2, 0) for tile in tiles], keep


def our_field(field: np.ndarray, controls: np.ndarray) -> tuple[list[np.ndarray], list[bool]]:
    moments = [anscombe_moments(sum_counts(controls[:, c])) for c in range(len(field))]
    top = np.iinfo(field.dtype).max
    levels, threshold = kensert2019_field(field, np.stack([kensert2019_table(top, m) for m in moments]))
    boxes = [np.s_[:, b.y : b.y + b.height, b.x : b.x + b.width] for b in window_boxes(field.shape[1:], 2, 2)]
    return [levels[b] for b in boxes], [kept(field[b], threshold) for b in boxes]


def sum_counts(planes: np.ndarray) -> np.ndarray:
    return np.bincount(planes.ravel())


def test_anscombe_by_hand():
    # 2 √(0 + 3/8) = 1.224745; 2 √(1 + 3/8) = 2.345208; 2 √(100 + 3/8) = 20.037465; 2 √65535.375 = 511.997559
    assert anscombe(np.array([0, 1, 100, 65535], np.uint16)).tolist() == pytest.approx(
        [1.2247449, 2.3452079, 20.0374649, 511.9975586])
    assert anscombe(np.array([3], np.uint8)).dtype == np.float32


def test_moments_by_hand():
    # Two pixels of 0 and two of 1: mean (1.2247449 + 2.3452079) / 2, deviation half their difference.
    mean, std = anscombe_moments(np.array([2, 2]))
    assert (mean, std) == pytest.approx((1.7849764, 0.5602315))
    with pytest.raises(ValueError, match="no pixels"):
        anscombe_moments(np.zeros(256, int))


@settings(max_examples=50, deadline=None)
@given(arrays(np.uint16, st.integers(1, 200)))
def test_moments_are_those_of_the_pixels(pixels):
    values = anscombe(pixels).astype(np.float64)
    assert anscombe_moments(np.bincount(pixels)) == pytest.approx((values.mean(), values.std()), rel=1e-9, abs=1e-9)


def test_zscore_and_stretch_by_hand():
    assert zscore(np.array([1.0, 4.0]), 2.0, 0.5).tolist() == [-2.0, 4.0]
    assert stretch(np.array([-2.0, 1.0, 4.0]), -2.0, 4.0).tolist() == [0.0, 127.5, 255.0]
    assert stretch(np.array([3.0, 3.0]), 3.0, 3.0).tolist() == [0.0, 0.0]


def test_kensert2019_by_hand():
    """Two channels of two pixels. The moments (0, 1) and (0, 2) leave a channel as it is, and halve the other.

    Stored 0 and 100: 1.2247 and 20.0375; stored 1 and 4 halved: 1.1726 and 2.0917. The field's range is 1.1726 to
    20.0375, so the levels are 255 (x - 1.1726) / 18.8649: 0.705 and 255; 0 and 12.42: truncated to 0, 255, 0, 12.
    """
    planes = np.array([[[0, 100]], [[1, 4]]], np.uint8)
    tables = np.stack([kensert2019_table(255, (0.0, 1.0)), kensert2019_table(255, (0.0, 2.0))])
    levels, threshold = kensert2019_field(planes, tables)
    assert levels.tolist() == [[[0, 255]], [[0, 12]]]
    # Bright is above 50: 1.1726 + 50 · 18.8649 / 255 = 4.8716; 2 √(5 + 3/8) = 4.637 is not, 2 √(6 + 3/8) = 5.05 is.
    # The second channel nowhere reaches it: its brightest pixel is 4, so the threshold lies beyond.
    assert threshold.tolist() == [6, 5]
    assert kept(planes, threshold)


def test_a_tile_is_dropped_at_two_bright_values_in_a_thousand():
    tile = np.zeros((2, 10, 50), np.uint8)  # 1000 values
    tile[0, 0, :2] = 60
    assert not kept(tile, np.array([51, 51]))
    tile[1, 0, 0] = 60
    assert kept(tile, np.array([51, 51]))
    assert not kept(tile, np.array([61, 61]))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([np.uint8, np.uint16]), st.integers(1, 4),
       st.sampled_from([3.0, 40.0, 2000.0]))
def test_kensert2019_is_the_papers_recipe(seed, dtype, channels, brightness):
    """Equal to the last bit, keep rule included, for fields of any depth, brightness and number of channels."""
    rng = np.random.default_rng(seed)
    top = np.iinfo(dtype).max
    scale = rng.uniform(0.5, 3, (channels, 1, 1)) * brightness

    def draw(*shape: int) -> np.ndarray:
        return np.clip(rng.gamma(2.0, scale, (*shape, channels, 24, 34)), 0, top).astype(dtype)

    field, controls = draw(), draw(3)
    controls[0, :, 0, :2] = (0, 1)  # never the same value all over: that is refused
    field[:, :12, :17] = rng.integers(0, 3)  # one tile without cells
    field[0, 0, 0] = rng.integers(0, top)
    field[0, 0, 1] = field[0, 0, 0] + 1
    if rng.integers(2):
        field[-1] //= 50
    tiles, keep = paper_field(field, controls)
    ours, our_keep = our_field(field, controls)
    assert our_keep == keep
    assert all(np.array_equal(a, b) for a, b in zip(ours, tiles, strict=True))


def test_kensert2019_with_the_authors_float32_sums_differs_by_a_level_at_most():
    rng = np.random.default_rng(5)
    controls = rng.gamma(2.0, 900, (6, 3, 256, 320)).astype(np.uint16)
    field = rng.gamma(2.0, 1100, (3, 256, 320)).astype(np.uint16)
    x, y = anscombe(np.moveaxis(field, 0, 2)), anscombe(np.moveaxis(controls, 1, 3))
    for i in range(3):
        x[:, :, i] -= y[:, :, :, i].mean()
        x[:, :, i] /= y[:, :, :, i].std()
    theirs = np.moveaxis((((x - x.min()) * 255) / (x.max() - x.min())).astype("uint8"), 2, 0)
    ours = np.stack(our_field(field, controls)[0])
    boxes = window_boxes(field.shape[1:], 2, 2)
    theirs = np.stack([theirs[:, b.y : b.y + b.height, b.x : b.x + b.width] for b in boxes])
    difference = np.abs(ours.astype(int) - theirs.astype(int))
    assert difference.max() <= 1
    assert (difference > 0).mean() < 0.001


def test_bbbc014_by_hand():
    """Stored 0 and 8 in the first channel, 0 and 3 in the second: 1.2247 to 5.7879 becomes 0 to 255.

    In float32, as in the authors' code, the brightest comes to 254.99998 here, and truncation makes 254 of it.
    """
    tile = np.array([[[0, 8]], [[0, 3]]], np.uint8)
    # 2 √(3 + 3/8) = 3.6742; 255 · (3.6742 - 1.2247) / (5.7879 - 1.2247) = 136.88
    assert kensert2019_bbbc014_tile(tile).tolist() == [[[0, 0]], [[0, 254]], [[0, 136]]]


@settings(max_examples=40, deadline=None)
@given(arrays(np.uint8, (2, 8, 8)))
def test_bbbc014_is_the_papers_recipe(tile):
    x = np.dstack([np.zeros((8, 8)), tile[0], tile[1]]).astype(np.float32)
    x[:, :, 1:] = 2.0 * np.sqrt(x[:, :, 1:] + 3.0 / 8.0)
    span = x[:, :, 1:].max() - x[:, :, 1:].min()
    if span > 0:
        x[:, :, 1:] = ((x[:, :, 1:] - x[:, :, 1:].min()) * 255) / span
    else:
        x[:] = 0
    assert np.array_equal(kensert2019_bbbc014_tile(tile), np.moveaxis(x.astype("uint8"), 2, 0))


def test_bbbc014_refuses_what_the_authors_code_would_wrap_around():
    with pytest.raises(MorphobenchError, match=r"well A01: .* 2 of uint16"):
        refuse_depth(np.zeros((2, 8, 8), np.uint16), "well A01")
    with pytest.raises(MorphobenchError, match="3 of uint8"):
        refuse_depth(np.zeros((3, 8, 8), np.uint8), "well A01")


def test_scaling_by_hand():
    plane = np.array([[0, 100, 150, 200, 300]], np.uint16)
    assert scale_plane(plane, 100, 200, 255).tolist() == [[0.0, 0.0, 127.5, 255.0, 255.0]]
    assert scale_plane(plane, 100, 200, 65535)[0, 2] == pytest.approx(32767.5, abs=0.01)
    gain = np.array([[1, 1.5, 1, 0.5, 0.5]], np.float32)  # 0, 150, 150, 100, 150
    assert scale_plane(plane, 100, 200, 255, gain).tolist() == [[0.0, 127.5, 127.5, 0.0, 127.5]]


@settings(max_examples=50, deadline=None)
@given(arrays(np.uint16, st.integers(1, 60), elements=st.integers(0, 300)), st.floats(0, 1))
def test_quantiles_of_a_histogram_are_numpys(values, q):
    assert histogram_quantile(histogram(values), q) == pytest.approx(np.quantile(values, q), abs=1e-9)


@settings(max_examples=40, deadline=None)
@given(st.sampled_from([np.uint8, np.uint16]).flatmap(
    lambda t: arrays(t, st.tuples(st.integers(1, 30), st.integers(1, 30)))))
def test_a_histogram_counts_every_pixel(plane):
    assert np.array_equal(histogram(plane), np.bincount(plane.ravel()))


def test_corrected_values_are_counted_on_a_grid_of_a_sixteenth():
    plane = np.array([10, 10, 20], np.uint8)
    counts = histogram(plane, np.array([1, 1.03, 20], np.float32))
    # 10 → bin 160; 10.3 → 164.8 → bin 165; 400 → bin 6400
    assert {int(i): int(counts[i]) for i in np.flatnonzero(counts)} == {160: 1, 165: 1, 6400: 1}
    deep = histogram(np.array([10, 60000], np.uint16), np.array([1.26, 2], np.float32))
    assert {int(i): int(deep[i]) for i in np.flatnonzero(deep)} == {13: 1, 65535: 1}


def test_area_interpolation_is_the_same_plane_by_plane():
    """The authors resize three interleaved channels at once; here each plane is resized alone."""
    tile = np.random.default_rng(0).integers(0, 256, (512, 640, 3), dtype=np.uint8)
    at_once = cv2.resize(tile, (224, 224), interpolation=cv2.INTER_AREA)
    alone = np.dstack([cv2.resize(np.ascontiguousarray(tile[..., c]), (224, 224), interpolation=cv2.INTER_AREA)
                       for c in range(3)])
    assert np.array_equal(at_once, alone)
