"""What was done to the data is said in the log, at the end and on the page, with counts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
import yaml
from drawn_plate import context_of, draw_plate, measured_as, opened_plate, plate_session
from drawn_study import drawn_profiles, profile, profile_study, run_arm
from typer.testing import CliRunner

from benchmark.base.account import Loss, warnings_of
from benchmark.base.files import write_json
from benchmark.base.tables import FIELD_KEY
from benchmark.cli import app
from benchmark.workflow import measured as measuring
from benchmark.workflow.accounting import feature_losses, joined, losses_of
from benchmark.workflow.measured import measured_notes
from benchmark.workflow.reporting import make_report


def test_features_that_a_blank_takes_are_a_warning_and_selected_ones_are_not(tmp_path, monkeypatch):
    table = drawn_profiles()
    table.loc[0, ["Cells_A1", "Cells_A2", "Cells_A3"]] = np.nan
    nearest = profile("nearest", "Cells_A*", decision="nearest")
    opened = profile_study(tmp_path, monkeypatch, table, nearest, profile("a", "Cells_A*"))
    runs = run_arm(opened, "classical")
    for run in runs:
        ranges = run.record["features"]
        assert ranges["used"][0] >= 2 and ranges["steps"]["missing"][1] + ranges["used"][0] == ranges["measured"][1]
    lost = [loss for loss in losses_of(opened, runs) if loss.things == "features"]
    if runs[0].record["features"]["steps"]["missing"][1]:  # as the rule for missing values has it
        assert all(loss.warns for loss in lost) and "missing or infinite" in lost[0].why
    assert feature_losses("m", {"measured": [40, 40], "steps": {"variance": [30, 35]}})[0].asked


def test_the_page_counts_features_by_fold_where_an_earlier_version_recorded_those_of_the_first(tmp_path, monkeypatch):
    opened = profile_study(tmp_path, monkeypatch, drawn_profiles(), profile("a", "Cells_*"))
    run, = run_arm(opened, "classical")
    for number, fold in enumerate(opened.split.folds):
        path = run.folder.fold_path(fold, 1).with_suffix(".json")
        write_json(path, yaml.safe_load(path.read_text()) | {"features": 39 + number})
    old = replace(run, record=run.record | {"features": 39})
    page = make_report(opened, [old], reports=tmp_path / "reports").page.read_text()
    assert f"<b>39–{38 + len(opened.split.folds)}</b>" in page


def test_a_plate_at_another_depth_is_a_warning_in_the_log_at_the_end_and_on_the_page(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    draw_plate(tmp_path)
    for i in range(4, 8):  # 4 of 32 fields: one well
        tifffile.imwrite(tmp_path / f"f{i}.tif", (tifffile.imread(tmp_path / f"f{i}.tif") // 16).astype(np.uint8))
    words = "4 of 32 fields left out (12.5 %): an image is uint8, where most are uint16 (plate P0)"
    plain = {"name": "intensity", "kind": "baseline", "feature": "intensity",
                "classifier": {"candidates": ["logistic_regression"]}}
    opened = opened_plate(tmp_path, more={"methods": [plain]})
    assert warnings_of(losses_of(opened))[0].startswith(words)
    assert opened_plate(tmp_path, more={"methods": [plain]}).assay.losses == opened.assay.losses  # by the record
    assert Loss("wells", 1, 8, "no field of them is left") in opened.assay.losses
    result = CliRunner().invoke(app, ["baseline", "mine.yaml", "--jobs", "1"], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert result.stderr.count(f"WARNING: {words}") == 1 and result.stdout.count(f"WARNING: {words}") == 1
    assert result.stdout.index("intensity") < result.stdout.index("WARNING")
    result = CliRunner().invoke(app, ["report", "mine.yaml", "--jobs", "1"], catch_exceptions=False)
    page = Path("reports/mine/index.html").read_text()
    assert page.index(words) < page.index("<h1>") and "WARNING" in result.stdout


def test_what_quality_control_leaves_out_is_asked_for(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    draw_plate(tmp_path)
    rng = np.random.default_rng(1)
    for i in (6, 14, 21, 25):
        tifffile.imwrite(tmp_path / f"f{i}.tif", rng.normal(300, 10, (96, 96)).astype(np.uint16))
    opened = opened_plate(tmp_path, "leave_out")
    loss, = opened.assay.losses
    assert (loss.lost, loss.total, loss.asked, loss.warns) == (4, 32, True, False) and "plates P0, P1" in loss.why


def test_fields_that_cellprofiler_failed_on_are_counted_once_with_the_wells_that_go(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    draw_plate(tmp_path)
    session = plate_session(tmp_path, "off", more={"cellprofiler": {"failed_fields": 0.3}})
    fields = opened_plate(tmp_path, "off").assay.fields[FIELD_KEY]
    failed = fields.iloc[4:8].assign(reason="no objects")
    opened = context_of(session, {"cellprofiler": measured_as(fields.assign(cells=9), failed)})
    monkeypatch.setattr(measuring, "counts_if_any", lambda study, measured: None)
    words = list(map(str, losses_of(opened)))
    assert len(words) == 2 and words[0] == "1 of 8 wells left out (12.5 %): no field of them is left"
    assert words[1].startswith("CellProfiler: 4 of 32 fields left out (12.5 %): could not be measured")


def test_check_says_notes_and_losses_and_still_ends_with_0(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    table = drawn_profiles().rename(columns={"plate": "Metadata_Plate", "well": "Metadata_Well"})
    lone = {"Metadata_Well": "A99", "compound": "lone", "moa": "alone", "Cells_A0": 0.5}
    table.loc[len(table)] = {**table.iloc[0], **lone}
    table.to_parquet("p.parquet")
    assay = {"kind": "profile_table", "profiles": "p.parquet", "single_compound_labels": "leave_out", "columns": {
        "plate": "Metadata_Plate", "well": "Metadata_Well", "compound": "compound", "concentration": "dose",
        "label": "moa"}}
    Path("s.yaml").write_text(yaml.safe_dump({"name": "s", "assay": assay, "methods": [profile("a", "Cells_A*")]}))
    result = CliRunner().invoke(app, ["assay", "check", "s.yaml"], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert "Note: label 'alone' left out: a single compound (lone)" in result.output


def test_the_same_loss_of_several_methods_is_said_once():
    losses = [Loss("features", 302, 341, "missing", name) for name in "abcde"] + [Loss("wells", 1, 9, "blank")]
    assert joined(losses) == [Loss("features", 302, 341, "missing", "a, b, c and 2 more"), Loss("wells", 1, 9, "blank")]


def test_objects_that_cellprofiler_left_out_are_named():
    measured = measured_as(drawn_profiles().rename(columns={"plate": "Metadata_Plate", "well": "Metadata_Well"}).assign(
        Metadata_Site=1, cells=1))
    measured.record["objects_left_out"] = ["Speckles"]
    note, = measured_notes({"cellprofiler": measured})
    assert str(note).startswith("CellProfiler: Speckles left out: these objects do not pair off")


@pytest.mark.parametrize(("n", "words"), [(0, ""), (3, "3 of 18 wells left out")])
def test_wells_without_features_are_counted_for_the_method(tmp_path, monkeypatch, n, words):
    opened = profile_study(tmp_path, monkeypatch, drawn_profiles(), profile("a", "Cells_A*"))
    run, = run_arm(opened, "classical")
    assert run.record["predicts"] == "well"
    said = " ".join(map(str, losses_of(opened, [replace(run, record=run.record | {"without_features": n})])))
    assert words in said and ("how common each label is" in said) == bool(n)
