"""The section on what was done to the data, and the warnings at the top of the page."""

from __future__ import annotations

import pytest
from fake_runs import study, study_runs

from benchmark.base.account import Loss
from benchmark.evaluation.comparison import compare
from benchmark.report.data import data_section, span
from benchmark.report.page import render

WARNED = Loss("wells", 2, 12, "they have no label", "profiles.csv", remedy="Set unlabelled to leave_out")
DATA = {
    "losses": [WARNED, Loss("fields", 3, 576, "flagged by quality control", asked=True),
               Loss("features", 302, 341, "too many values are missing", "CellProfiler profiles")],
    "used": [{"things": "wells", "n": 10, "words": "8 scored, 2 negative controls"},
             {"things": "compounds", "n": 5, "words": ""}],
    "notes": [[f"plate P, well A{i}: left out: f{i}.tif is truncated" for i in range(5)], ["two spellings are one"]],
    "features": [{"title": "CellProfiler profiles", "ranges": {
        "measured": [341, 341], "used": [39, 211], "imputed": [4, 4], "rows_without_values": [0, 0],
        "steps": {"variance": [0, 0], "missing": [130, 302]}}}, {"title": "Older", "ranges": {"used": [39, 39]}},
        {"title": "grid: mean, training", "grid": True, "ranges": {"used": [40, 41]}}],
}


def test_each_loss_has_its_row_and_what_is_used_closes_a_kind():
    rows = data_section(DATA)["losses"]
    assert [(r["things"], r["read"], r["lost"], r["left"], r["total"]) for r in rows] == [
        ("wells", "12", "2", "10", False), ("wells", "", "", "10", True), ("fields", "576", "3", "573", False),
        ("compounds", "5", "0", "5", True)]
    assert [r["warns"] for r in rows] == [True, False, False, False] and rows[2]["asked"]


def test_features_are_given_as_ranges_over_folds():
    table = data_section(DATA)["features"]
    assert table["steps"] == ["missing values", "no variance"] and table["differ"] and table["unknown"]
    first, older = table["rows"]
    assert first["steps"] == ["130–302", "0"] and (first["used"], first["imputed"]) == ("39–211", "4")
    assert (older["measured"], older["steps"], older["used"]) == ("–", ["–", "–"], "39")
    assert span([12345, 12345]) == "12\u202f345"


def test_many_notes_of_a_kind_are_folded():
    first, second = data_section(DATA)["notes"]
    assert len(first["shown"]) == 3 and len(first["more"]) == 2 and second == {"shown": ["two spellings are one"],
                                                                              "more": []}


@pytest.mark.slow
def test_warnings_stand_above_the_answer_and_each_once(tmp_path):
    runs = study_runs()
    html = render(study(data=DATA), runs, compare(runs), {}, tmp_path).read_text(encoding="utf-8")
    for words in (str(WARNED), "CellProfiler profiles: 302 of 341 features left out"):
        assert html.index(words) < html.index("<h1>") < html.index('id="answer"')
    assert "3 of 576" not in html and html.count('id="data"') == 1
    assert 'class="tag">as the study asks' in html and "2 more like these" in html
    assert "1 table of profiles" in html and "<b>40–41</b>" in html
    plain = render(study(data={}), runs, compare(runs), {}, tmp_path).read_text(encoding="utf-8")
    assert "data-warnings" not in plain and "Nothing was left out, merged or assumed." in plain
