"""The grid on the page: counts, effects of corrections, and what to know before believing the best combination."""

from __future__ import annotations

import pandas as pd
import pytest

from benchmark.assays.registry import ASSAYS
from benchmark.report.grid import (
    correction_effects,
    correction_facts,
    grid_figure,
    grid_section,
    grid_sentences,
    grid_tables,
    grid_text,
    reproducibility_rows,
)


@pytest.fixture
def table() -> pd.DataFrame:
    rows = []
    for scheme, n in (("leave-one-compound-out", 103), ("leave-one-compound-and-batch-out", 92)):
        for correction, gain in (("none", 0), ("tvn", 5), ("combat", -10)):
            for decision, right in (("nearest", 80), ("lda", 70)):
                correct = right + gain - (103 - n)
                rows.append({"scheme": scheme, "profile": "mean", "normalise": "training", "correction": correction,
                             "decision": decision, "unit": "treatment", "n": n, "correct": correct,
                             "accuracy": correct / n, "low": correct / n - 0.05, "high": correct / n + 0.05,
                             "chance": 14 / n})
    return pd.DataFrame(rows)


def test_nearest_is_nsc_and_nscb(table):
    blocks = grid_tables(table)
    assert [b["decisions"][0] for b in blocks] == ["NSC", "NSCB"] and [b["n"] for b in blocks] == [103, 92]
    assert blocks[0]["rows"][0]["cells"][0]["count"] == "80/103"
    shades = [c["shade"] for b in blocks for r in b["rows"] for c in r["cells"]]
    assert 0 <= min(shades) < max(shades) <= 1
    assert "85/103" in grid_text(table, ["x: no controls"], ["y is not scored"]) and "NSCB" in grid_text(table, [], [])


def test_rows_say_what_they_are_and_what_of_them_is_transductive(table):
    rows = [{"profile": "mean", "normalise": "training", "correction": c, "words": f"mean, {c}",
             "transductive": "all wells" if c == "tvn" else ""} for c in ("none", "tvn", "combat")]
    section = grid_section(table, [], [], [], pd.DataFrame(), rows)
    for block in section["tables"]:
        assert [r["transductive"] for r in block["rows"]] == [r["names"][2] == "tvn" for r in block["rows"]]
    assert section["rows"] == rows


def test_a_correction_is_set_against_the_same_without_it(table):
    effects = correction_effects(table).set_index(["scheme", "correction"])
    assert effects.loc[("leave-one-compound-out", "tvn"), ["helped", "hurt"]].tolist() == [2, 0]
    assert effects.loc[("leave-one-compound-out", "combat"), "mean"] == pytest.approx(-10 / 103)


def test_the_best_of_many_combinations_is_said_to_flatter_itself(table):
    text = " ".join(grid_sentences(table))
    assert "best of 6 combinations has 85 of 103 right" in text
    assert "best of all 12 combinations" in text and "optimistic" in text


def test_the_loss_from_leaving_out_batches_is_stated(table):
    text = " ".join(grid_sentences(table))
    assert "same 6 combinations change by −3.4 points" in text and "rests on what" not in text
    worse = table.assign(accuracy=table["accuracy"].where(table["n"] == 103, table["accuracy"] - 0.2))
    assert "rests on what" in " ".join(grid_sentences(worse))


def test_facts_of_corrections_are_ranges_over_folds():
    facts = [{"scheme": "s", "profile": "mean", "normalise": "training", "correction": "sphering", "fold": f,
              "controls": 330, "features": 450 + i, "note": "in words"} for i, f in enumerate("ab")]
    row = correction_facts(facts)[0]
    assert "controls 330" in row["fitted"] and "features 450–451" in row["fitted"] and row["note"] == "in words"
    assert correction_facts([]) == []


def test_a_grid_of_one_combination_is_drawn(table):
    assert grid_figure(table).axes and grid_figure(table.head(1)).axes


def test_published_results_are_shown_for_bbbc021_alone_and_say_whether_they_compare(table):
    kinds = ASSAYS.kinds()
    assert kinds["demo"]().published() == kinds["bbbc014"]().published() == ()
    rows = kinds["bbbc021-profiles"]().published()
    assert sum(p.method == "factor analysis, then means" and p.percent == "94" for p in rows) == 1
    assert all(p.comparable.startswith(("roughly", "no:")) for p in rows)
    assert all("same protocol" in p.comparable for p in kinds["bbbc021"]().published())
    section = grid_section(table, [], [], [], pd.DataFrame(), published=rows)
    assert section["literature"] == list(rows) and section["fitted"] == []


def test_reproducibility_in_words():
    rows = reproducibility_rows(pd.DataFrame([{
        "profile": "mean", "normalise": "training", "replicating": 3, "treatments": 4, "map_mean": None,
        "against": "wells of other compounds", "map_significant": 0, "map_treatments": 0, "label_map_mean": 0.5,
        "label_map_significant": 1, "label_treatments": 4}]))
    assert rows[0]["replicating"] == "3 of 4" and rows[0]["map"] == "–" and rows[0]["label_map"] == "0.50"
