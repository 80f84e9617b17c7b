"""The grid of a study: every combination on the folds of its scheme, once; what is not applicable is listed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from drawn_study import prepared, with_study
from pydantic import ValidationError

from benchmark.base.errors import LeakError
from benchmark.methods.grid import GridSettings
from benchmark.report.grid import grid_section, grid_text
from benchmark.workflow.grid import run_grid
from benchmark.workflow.tables import profile_features

GRID = {
    "profiles": {"mean": {"aggregate": "mean"}, "KS": {"aggregate": "ks"}},
    "normalise": ["training", "controls/standardize"],
    "corrections": ["none", "sphering"],
    "decisions": ["nearest", "knn"],
    "schemes": ["leave-one-compound-out", "leave-one-compound-and-batch-out"],
    "inner_folds": 2,
}


def write_study(folder: Path, grid: dict, controls: bool = True, batches: int = 2) -> None:
    """Single cells of three labels; the last label lies in one batch alone."""
    rng = np.random.default_rng(1)
    rows = []
    for b in range(batches):
        labels = "xy" if b else "xyz"
        wells = [(f"{m}{b}{j}", m, 10) for m in labels for j in range(2)] + [("DMSO", "", 12)] * (3 if controls else 0)
        for n, (compound, label, cells) in enumerate(wells):
            for _ in range(cells):
                values = rng.normal(b, 1, 5)
                if label:
                    values["xyz".index(label)] += 6
                rows.append({"Metadata_Plate": f"P{b}", "Metadata_Well": f"A{n:02d}", "week": f"w{b}",
                             "compound": compound, "dose": 1.0 if label else 0.0, "moa": label,
                             **{f"Cells_{i}": v for i, v in enumerate(values)}})
    pd.DataFrame(rows).to_parquet(folder / "cells.parquet")
    assay = {"kind": "profile_table", "profiles": "cells.parquet", "negative_controls": ["DMSO"] if controls else [],
             "columns": {"plate": "Metadata_Plate", "well": "Metadata_Well", "compound": "compound", "batch": "week",
                         "concentration": "dose", "label": "moa"}}
    count = {"name": "count", "kind": "cell_count", "classifier": {"candidates": ["logistic_regression"]}}
    (folder / "study.yaml").write_text(yaml.safe_dump({"name": "s", "assay": assay, "methods": [count], "grid": grid}))


def grid_of(folder: Path, monkeypatch):
    monkeypatch.chdir(folder)
    opened = prepared("study.yaml")
    return run_grid(opened), opened


@pytest.mark.slow
def test_every_combination_is_scored_on_its_schemes_folds(tmp_path, monkeypatch):
    write_study(tmp_path, GRID)
    grid, _ = grid_of(tmp_path, monkeypatch)
    assert len(grid.table) == 2 * 2 * 2 * 2 * 2
    n = grid.table.groupby("scheme")["n"].unique()
    assert n["leave-one-compound-out"].tolist() == [10]
    # The label of one batch alone has no training well once that batch is left out.
    assert n["leave-one-compound-and-batch-out"].tolist() == [8]
    assert len(grid.unscored) == 2 and all("z" in s and "not scored" in s for s in grid.unscored)
    mean = grid.table[(grid.table["profile"] == "mean") & (grid.table["normalise"] == "controls/standardize")]
    assert (mean["accuracy"] >= 0.8).all()
    assert {f["correction"] for f in grid.facts} >= {"sphering"}
    assert grid.reproducibility["treatments"].tolist() == [0] * 4  # one well a treatment here


def test_a_finished_grid_is_not_run_again_and_a_lost_fold_alone_is(tmp_path, monkeypatch):
    write_study(tmp_path, GRID | {"profiles": {"mean": {"aggregate": "mean"}}, "decisions": ["nearest"]})
    first, opened = grid_of(tmp_path, monkeypatch)
    files = sorted((opened.folder / "grid").glob("*/*.parquet"))
    stamps = {f: f.stat().st_mtime_ns for f in files}
    files[0].unlink()
    second, _ = grid_of(tmp_path, monkeypatch)
    assert first.table.equals(second.table)
    assert [f for f in files if f.stat().st_mtime_ns != stamps[f]] == [files[0]]


def test_what_an_assay_cannot_give_is_left_out_and_said(tmp_path, monkeypatch):
    write_study(tmp_path, GRID | {"corrections": ["none", "tvn", "combat"]}, controls=False, batches=1)
    grid, _ = grid_of(tmp_path, monkeypatch)
    said = " ".join(grid.skipped)
    for what in ("normalise controls/standardize", "correction tvn", "correction combat", "profile KS",
                 "scheme leave-one-compound-and-batch-out"):
        assert what in said
    assert set(grid.table["correction"]) == {"none"} and set(grid.table["profile"]) == {"mean"}


def test_a_grid_of_which_nothing_applies_says_so(tmp_path, monkeypatch):
    write_study(tmp_path, GRID | {"normalise": ["controls/standardize"]}, controls=False)
    grid, _ = grid_of(tmp_path, monkeypatch)
    assert grid.table.empty and any("normalise controls/standardize" in s for s in grid.skipped)
    section = grid_section(grid.table, grid.skipped, grid.unscored, grid.facts, grid.reproducibility)
    assert section["tables"] == [] and section["sentences"][0].startswith("None of the combinations")
    assert "no negative controls" in grid_text(grid.table, grid.skipped, grid.unscored)


def test_a_scheme_without_folds_is_left_out_and_said(tmp_path, monkeypatch):
    """Each label lies in one batch here: once that is left out, no training well has it."""
    write_study(tmp_path, GRID | {"profiles": {"mean": {"aggregate": "mean"}}, "decisions": ["nearest"]})
    table = pd.read_parquet(tmp_path / "cells.parquet")
    own = table["moa"].isin(["", "x"]) == (table["week"] == "w0")
    table[own | (table["moa"] == "")].to_parquet(tmp_path / "cells.parquet")
    grid, _ = grid_of(tmp_path, monkeypatch)
    assert set(grid.table["scheme"]) == {"leave-one-compound-out"}
    assert any("leave-one-compound-and-batch-out" in s and "no fold" in s for s in grid.skipped)


def test_a_treatment_that_is_not_the_folds_is_refused(tmp_path, monkeypatch):
    import benchmark.methods.workers.gridfold as gridfold

    honest = gridfold.nearest_predictions

    def short(*args):
        found, covered, without = honest(*args)
        return found.assign(Metadata_Compound="other"), covered, without

    write_study(tmp_path, GRID | {"decisions": ["nearest"]})
    monkeypatch.setattr(gridfold, "nearest_predictions", short)
    with pytest.raises(LeakError, match="not those of the fold"):
        grid_of(tmp_path, monkeypatch)


def test_the_nearest_treatment_needs_schemes_of_compounds():
    with pytest.raises(ValidationError, match="leave compounds out"):
        GridSettings(schemes=("leave-one-cell-line-out",), decisions=("nearest",))


@pytest.mark.slow
def test_profiles_set_against_controls_hang_on_the_seed(tmp_path, monkeypatch):
    """The draw of reference cells is made once, by the study's first seed; profiles without a draw stay."""
    write_study(tmp_path, GRID)
    _, opened = grid_of(tmp_path, monkeypatch)
    other = with_study(opened, seeds=(2,))
    for name, differ in (("KS", True), ("mean", False)):
        profile = opened.study.grid.profiles[name]
        found = [profile_features(o, profile, name) for o in (opened, other)]
        assert (found[0].source.table != found[1].source.table) is differ
        assert (found[0].inputs != found[1].inputs) is differ


@pytest.mark.slow
def test_no_label_of_a_test_well_reaches_the_grid(tmp_path, monkeypatch):
    """Of noise nothing is found, over several draws."""
    accuracies = []
    for seed in range(4):
        folder = tmp_path / str(seed)
        folder.mkdir()
        write_study(folder, GRID | {"profiles": {"mean": {"aggregate": "mean"}}, "corrections": ["none"]})
        table = pd.read_parquet(folder / "cells.parquet")
        table[[f"Cells_{i}" for i in range(5)]] = np.random.default_rng(seed).normal(size=(len(table), 5))
        table.to_parquet(folder / "cells.parquet")
        accuracies.append(grid_of(folder, monkeypatch)[0].table["accuracy"].mean())
    assert np.mean(accuracies) < 0.6


def test_nearest_in_a_folds_own_compounds_is_a_leak():
    from benchmark.methods.classifiers.nearest import nearest_treatment

    table = pd.DataFrame({"Metadata_Compound": ["a", "b"], "Metadata_Concentration": 1.0, "Metadata_Label": ["x", "y"],
                          "Metadata_CellLine": "", "Cells_1": [1.0, 2.0], "Cells_2": [0.0, 1.0]})
    with pytest.raises(LeakError):
        nearest_treatment(table, table, ["x", "y"])
