"""Crops and outlines: right colours, right lines, one scale."""

import numpy as np
import pytest
from PIL import Image

from benchmark.base.errors import MorphobenchError
from benchmark.report.gallery import (
    CELL_LINE,
    NUCLEUS_LINE,
    channel_colours,
    composite,
    contact_sheet,
    outline,
    render_crops,
    render_flagged,
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


def test_flagged_fields_stand_in_rows_with_their_words(tmp_path):
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 255, (60, 80, 3), dtype=np.uint8) for _ in range(6)]
    path = contact_sheet(pictures, ["P1, A01\nout of focus"] * 6, tmp_path / "s.png", side=80, columns=4)
    sheet = np.array(Image.open(path).convert("RGB"))
    assert (sheet[6:66, 6:86] == pictures[0]).all() and (sheet[6:66, 92:172] == pictures[1]).all()
    second = next(y for y in range(70, len(sheet)) if (sheet[y, 6:86] == pictures[4][0]).all())
    assert (sheet[second : second + 60, 92:172] == pictures[5]).all()
    assert (sheet[66:second, :].min(axis=(0, 2)) < 200).any()  # words under the first row
    assert (sheet[second : second + 60, 180:] == 255).all()
    long = contact_sheet(pictures[:4], ["words " * 40] * 4, tmp_path / "l.png", side=80)
    assert Image.open(long).height > Image.open(path).height / 2 + 100


def test_flagged_fields_are_as_bright_as_usual_ones_make_them(tmp_path):
    usual = [np.tile(np.linspace(0, 200, 50).astype(np.uint8), (1, 50, 1))]
    dim, bright = np.full((1, 50, 50), 20, np.uint8), np.full((1, 50, 50), 250, np.uint8)
    sheet = np.array(Image.open(render_flagged([(dim, "dim"), (bright, "bright")], usual, ["DNA"], tmp_path / "f.png")))
    assert sheet[30, 30].max() < 40 and sheet[30, 6 + 246 + 30].min() == 255
    with pytest.raises(MorphobenchError, match="no picture"):
        render_flagged([], usual, ["DNA"], tmp_path / "x.png")
