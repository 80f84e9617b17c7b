"""Figures of an explanation: every crop and method has its place, wrong ones are marked, and cells stay visible."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest

from benchmark.explain.record import Explanation
from benchmark.report.drawing import SIMULATED
from benchmark.report.saliency import (
    AGAINST,
    FOR,
    crop_words,
    draw_explanation,
    filters_figure,
    maps_figure,
    overlay,
    sanity_figure,
    sanity_rows,
    shares_figure,
    shares_table,
)

METHODS = ("grad_cam", "occlusion")
SANITY = pd.DataFrame([
    {"method": m, "depth": d, "spearman": s, "ssim": 0.5, "spearman_signed": 0.0, "crops": 3}
    for m, values in zip(METHODS, ((0.4, 0.2, 0.1), (0.9, 0.8, np.nan)), strict=True)
    for d, s in zip(("classifier", "upper half", "all"), values, strict=True)
])


def explanation(n: int = 3, channels: int = 3, size: int = 24) -> Explanation:
    rng = np.random.default_rng(0)
    p = np.array([[0.9, 0.1], [0.3, 0.7], [0.2, 0.8]])[:n]
    areas = np.tile([0.5, 0.25, 0.25, 0.0], (n, 1))
    shares = {"grad_cam": np.tile([0.1, 0.4, 0.5, 0.0], (n, 1)), "occlusion": areas.copy()}
    shares["occlusion"][0] = np.nan
    return Explanation(
        labels=("Aurora", "Eg5 <b>"), channels=tuple(f"Stain {c}" for c in range(channels)),
        titles=tuple(f"P1 A0{i}, compound" for i in range(n)), rows=np.arange(n), truth=np.array([0, 0, 1])[:n],
        predicted=p.argmax(axis=1), probability=p,
        pixels=rng.integers(0, 255, (n, channels, size, size)).astype(np.uint8),
        maps={m: rng.normal(size=(n, size, size)).astype(np.float32) for m in METHODS}, by_channel={},
        gaps=np.array([0.01, 0.02, 0.3], np.float32)[:n], regions=np.zeros((n, size, size), np.uint8), areas=areas,
        shares=shares, filters=np.array([4, 90]), tuned=rng.random((2, channels, 32, 32)).astype(np.float32),
        pretrained=rng.random((2, channels, 32, 32)).astype(np.float32), sanity=SANITY,
        verdicts={"grad_cam": "Passes: so it does.", "occlusion": "Fails: so it does."}, refused={},
        facts={"choice": "By rule.", "settings": {"saliency": {"tolerance": 0.05}}},
    )  # fmt: skip


def test_overlay_keeps_cells_visible_and_colours_by_sign():
    grey = np.tile(np.array([0.2, 0.8]), (32, 16))
    values = np.zeros((32, 32))
    values[:10], values[22:] = 1, -1
    rgb = overlay(grey, values)
    assert rgb.shape == (32, 32, 3) and rgb.min() >= 0 and rgb.max() <= 1
    assert np.allclose(rgb[16], 0.85 * grey[16][:, None], atol=0.02)  # nothing attributed: the picture itself
    assert rgb[3, 3].argmax() == FOR.argmax() and rgb[28, 3].argmax() == AGAINST.argmax()
    assert (rgb[3, 1::2].sum(axis=1) > 1.3 * rgb[3, 0::2].sum(axis=1)).all()  # bright cells stay bright
    assert np.allclose(overlay(grey, 0 * values), 0.85 * grey[..., None])


def test_maps_have_a_row_a_crop_and_wrong_ones_are_marked():
    figure = maps_figure(explanation())
    assert len(figure.axes) == 3 * (3 + 2)
    words = [t.get_text() for axes in figure.axes for t in axes.texts]
    assert len(words) == 3 and "p = 0.90" in words[0] and "×" not in words[0]
    assert "true: Aurora" in words[1] and "× predicted: Eg5" in words[1] and "p = 0.70 (true 0.30)" in words[1]
    assert crop_words(explanation(), 1)[1] is False
    assert [a.get_title() for a in figure.axes[:5]] == ["Stain 0", "Stain 1", "Stain 2", "Grad-CAM", "occlusion"]


def test_many_channels_share_one_picture():
    assert len(maps_figure(explanation(channels=7)).axes) == 3 * (1 + 2)


def test_shares_leave_out_empty_maps_and_give_enrichment():
    table = shares_table(explanation()).set_index(["method", "region"])
    assert table.loc[("grad_cam", "nuclei"), "enrichment"] == pytest.approx(2)
    assert table.loc[("grad_cam", "background"), "enrichment"] == pytest.approx(0.2)
    assert table.loc[("occlusion", "nuclei")].tolist() == [0.25, 0.25, 1.0, 2]
    assert "outside" not in table.index.get_level_values("region")
    axes = shares_figure(explanation()).axes
    assert [a.get_title(loc="left") for a in axes] == ["nuclei", "cytoplasm", "background"]
    assert [t.get_text() for t in axes[0].texts] == ["× 2.00", "× 1.00"]


def test_filters_stand_above_one_another_pretrained_first():
    figure = filters_figure(explanation())
    assert len(figure.axes) == 4 and [a.get_title() for a in figure.axes] == ["filter 4", "filter 90", "", ""]
    assert [t.get_text() for a in figure.axes for t in a.texts] == ["pretrained", "fine-tuned"]
    alone = dataclasses.replace(explanation(), pretrained=np.zeros((0, 3, 32, 32), np.float32))
    assert len(filters_figure(alone).axes) == 2


def test_sanity_is_a_table_with_verdicts():
    axes = sanity_figure(explanation()).axes
    assert [t.get_text() for t in axes[0].texts] == ["0.40", "0.20", "0.10", "0.90", "0.80", "–"]
    rows = sanity_rows(explanation())
    assert [r["verdict"][:5] for r in rows] == ["Passe", "", "", "Fails", "", ""] and rows[5]["spearman"] == "–"


def test_what_there_is_is_drawn_and_the_same_each_time(tmp_path):
    first = draw_explanation(explanation(), tmp_path / "a", "fold", simulated=True)
    assert [p.kind for p in first] == ["maps", "shares", "filters", "sanity"]
    assert all(p.caption.startswith(SIMULATED) and p.png.stat().st_size > 2000 for p in first)
    assert "for 2 of 3 crops (largest gap 30.0 %)" in first[0].caption and "By rule." in first[0].caption
    assert "Occlusion: fails" in first[3].caption
    bare = dataclasses.replace(explanation(), shares={}, filters=np.zeros(0, np.int64), sanity=SANITY.head(0))
    only, again = (draw_explanation(bare, tmp_path / name, "fold") for name in "bc")
    assert [p.kind for p in only] == ["maps"] and only[0].svg.read_bytes() == again[0].svg.read_bytes()
