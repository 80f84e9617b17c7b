"""Figures: deterministic, and marking what the comparison says."""

import numpy as np
import pandas as pd
from fake_runs import run, wells

from benchmark.evaluation.comparison import compare
from benchmark.report.drawing import clean
from benchmark.report.figures import accuracy_figure, confusion_figure, draw, heat_figure

LAYOUT = wells(labels=("A", "B"), compounds_per_label=2, concentrations=(2,), odd=0)


def comparison():
    return compare([
        run(LAYOUT, "cellprofiler", (1, 2), "CellProfiler", seeds=(0, 1)),
        run(LAYOUT, "cnn_finetuned", (), "CNN", unit="field"),
        run(LAYOUT, "permuted", (0, 1, 2, 3), "permuted", control=True),
    ])


def test_same_numbers_give_the_same_file(tmp_path):
    first = draw(comparison(), tmp_path / "a")
    second = draw(comparison(), tmp_path / "b")
    assert [p.svg.read_bytes() for p in first] == [p.svg.read_bytes() for p in second]
    assert b"<dc:date>" not in first[0].svg.read_bytes()


def test_accuracy_has_a_panel_a_unit_and_counts_and_chance():
    axes = accuracy_figure(comparison()).axes
    assert [a.get_title(loc="left") or a.get_title() for a in axes] == ["by treatment", "by well", "by field"]
    texts = [t.get_text() for t in axes[0].texts]
    assert [t for t in texts if "/" in t] == ["6/8", "8/8", "4/8"]
    assert "chance" in "".join(texts)
    assert len(axes[0].containers) == 4  # two seeds of the first method, one of the others
    assert [t.get_text() for t in axes[2].get_yticklabels()] == ["CNN"]


def test_heat_map_crosses_what_is_wrong():
    axes = heat_figure(comparison()).axes[0]
    assert sum(t.get_text() == "×" for t in axes.texts) == 2 + 0 + 4
    assert [t.get_text() for t in axes.texts if t.get_text() in "AB"] == ["A", "B"]
    assert len(axes.get_yticklabels()) == 8


def test_confusion_shows_counts_and_survives_a_label_without_treatments():
    counts = pd.DataFrame([[3, 1], [0, 0]], index=["A", "B"], columns=["A", "B"])
    axes = confusion_figure(counts, "title").axes[0]
    assert sorted(t.get_text() for t in axes.texts if t.get_text()) == ["1", "3"]
    assert np.nanmax(axes.collections[0].get_array()) == 0.75


def test_names_are_made_fit_for_a_figure():
    assert clean("a\nb\x00c  d") == "a b c d"
    assert clean("x" * 99, most=10) == "x" * 9 + "…"
