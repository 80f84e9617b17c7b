"""Crops and outlines: right colours, right lines, one scale."""

import numpy as np
import pytest
from PIL import Image

from benchmark.errors import MorphobenchError
from benchmark.report.gallery import (
    CELL_LINE,
    NUCLEUS_LINE,
    channel_colours,
    composite,
    outline,
    render_crops,
    render_outlines,
)

CHANNELS = ["DNA", "Tubulin", "Actin"]


def test_stains_have_their_colours_in_any_order():
    assert channel_colours(CHANNELS) == [(0, 0, 1), (0, 1, 0), (1, 0, 0)]
    assert channel_colours(["actin", "DAPI", "beta tubulin"]) == [(1, 0, 0), (0, 0, 1), (0, 1, 0)]
    assert channel_colours(["grey"]) == [(1, 1, 1)]
    five = channel_colours(["DNA", "ER", "RNA", "AGP", "Mito"])
    assert five[0] == (0, 0, 1) and len(set(five)) == 5


def test_composite_scales_between_the_limits():
    image = np.array([[[10]], [[5]], [[99]]], np.uint16)
    rgb = composite(image, CHANNELS, np.array([[0, 10], [0, 10], [0, 10]]))
    assert rgb.tolist() == [[[255, 128, 255]]]
    with pytest.raises(MorphobenchError, match="shape"):
        composite(image[:2], CHANNELS, np.zeros((3, 2)))


def test_outline_draws_borders_only_and_leaves_the_input_alone():
    rgb = np.zeros((20, 20, 3), np.uint8)
    nuclei, cells = np.zeros((20, 20), int), np.zeros((20, 20), int)
    cells[3:17, 3:17] = 1
    nuclei[7:13, 7:13] = 1
    drawn = outline(rgb, nuclei, cells)
    assert tuple(drawn[3, 10]) == CELL_LINE and tuple(drawn[7, 10]) == NUCLEUS_LINE
    assert not drawn[10, 10].any() and not drawn[5, 5].any() and not drawn[0, 0].any() and not rgb.any()
    with pytest.raises(MorphobenchError, match="shapes"):
        outline(rgb, nuclei[:5], cells)


def test_montages_have_a_row_a_label(tmp_path):
    rng = np.random.default_rng(0)
    crops = {label: [rng.integers(0, 255, (3, 64, 64), dtype=np.uint8) for _ in range(4)] for label in "AB"}
    one = Image.open(render_crops({"A": crops["A"]}, CHANNELS, tmp_path / "one.png"))
    two = Image.open(render_crops(crops | {"none": []}, CHANNELS, tmp_path / "two.png"))
    assert two.width == one.width and 1.8 < two.height / one.height < 2.1
    label = np.zeros((64, 64), int)
    label[20:40, 20:40] = 1
    fields = {"<script>\nA": [(crops["A"][0].astype(np.uint16) * 200, label, label)]}
    assert Image.open(render_outlines(fields, CHANNELS, tmp_path / "o.png")).size[0] >= 128


def test_nothing_to_show_is_said(tmp_path):
    for draw in (render_crops, render_outlines):
        with pytest.raises(MorphobenchError, match="no picture"):
            draw({"A": []}, CHANNELS, tmp_path / "x.png")
