"""What CellProfiler cannot measure goes for both arms, once; where nothing is lost, nothing changes."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import fake_cellprofiler
import numpy as np
import pandas as pd
import pytest
import tifffile
from drawn_plate import COUNT, LOST, context_of, draw_plate, measured_as, plate_session
from drawn_study import TINY
from typer.testing import CliRunner

from benchmark.base.errors import FaultsError, MorphobenchError
from benchmark.base.tables import FIELD_KEY
from benchmark.cellprofiler import measure as measuring
from benchmark.cli import app
from benchmark.methods.workers.runs import RunFolder
from benchmark.workflow.context import StudyContext
from benchmark.workflow.fields import lost_fields
from benchmark.workflow.measured import counts_if_any, field_counts, pipelines_used
from benchmark.workflow.record import description
from benchmark.workflow.run import run_methods
from benchmark.workflow.session import Session
from benchmark.workflow.walk import prepare

PROFILE = {"name": "p", "kind": "profile", "profile": {"normalise": "training"},
           "classifier": {"candidates": ["logistic_regression"]}}
WHOLE_FIELD = {"name": "w", "kind": "profile", "profile": {"normalise": "training", "source": "whole_field"}}
TILES = {"name": "f", "kind": "cnn_frozen", "network": TINY, "crops": {"size": 64, "intensity": "bit_depth"}}
CELLS = TILES | {"crops": {"kind": "cells", "box": 64, "intensity": "bit_depth"}}
INTENSITY = {"name": "i", "kind": "baseline", "feature": "intensity"}
BLOCK = {"pipeline": "p.cppipe", "images": {"OrigDNA": "DNA", "OrigActin": "DNA"}, "shard_fields": 16,
         "attempts": 1}
#: Row 5 of the plan.
BAD = ["P0", "A01", 2]


@pytest.fixture
def plate(tmp_path, monkeypatch) -> Path:
    """Drawn plates, and a stand-in for CellProfiler."""
    draw_plate(tmp_path)
    (tmp_path / "p.cppipe").write_text(fake_cellprofiler.PIPELINE)
    monkeypatch.setenv("FAKE_CALLS", str(tmp_path / "calls"))
    monkeypatch.chdir(tmp_path)
    install(tmp_path, monkeypatch)
    return tmp_path


def install(folder: Path, monkeypatch, version: str = "4.2.8.1") -> None:
    command, fake = folder / f"cellprofiler-{version}", str(Path(fake_cellprofiler.__file__).parent)
    command.write_text(f"#!{sys.executable} -I\nimport sys\nsys.path.insert(0, {fake!r})\n"
                       f"if '--version' in sys.argv:\n    sys.exit(print({version!r}))\n"
                       "from fake_cellprofiler import main\nsys.exit(main(sys.argv[1:]))\n")
    command.chmod(0o755)
    monkeypatch.setenv("CELLPROFILER", str(command))


def drawn(folder: Path, *methods: dict, flagged: str = "keep", lone: str = "refuse", **more: object) -> Session:
    extra = {"methods": list(methods or (COUNT,)), "cellprofiler": BLOCK, "illumination": {"method": "none"}}
    return plate_session(folder, flagged, lone, more=extra | more)


def settled(session: Session) -> StudyContext:
    """The study after CellProfiler has measured it."""
    return prepare(session)[0]


def for_networks(session: Session) -> tuple[StudyContext, str]:
    """The study as its networks alone see it, and what the user is told."""
    context, notes = prepare(session, only=("cnn",))
    return context, " ".join(notes)


def opened(session: Session) -> StudyContext:
    """The study before anything has been measured."""
    return context_of(session, {})


def losing(context: StudyContext, gone: pd.DataFrame, counts: pd.DataFrame | None = None) -> StudyContext:
    """The study where CellProfiler failed on some fields and counted the cells of the others."""
    if counts is None:
        keys = context.fields.whole.assay.fields[FIELD_KEY]
        counts = keys.drop(index=gone.index).assign(cells=60)
    return context_of(context.session, {"cellprofiler": measured_as(counts, gone)})


def spoil(folder: Path, i: int) -> None:
    """Write into an image what the stand-in fails on."""
    pixels = tifffile.imread(folder / f"f{i}.tif")
    pixels[3, :4] = np.frombuffer(b"!FAILURE", "<u2")
    tifffile.imwrite(folder / f"f{i}.tif", pixels)


def lost(of: StudyContext, *rows: int) -> pd.DataFrame:
    return of.fields.whole.assay.fields.loc[list(rows), FIELD_KEY].assign(reason="IdentifyPrimaryObjects failed")


def keys(table: pd.DataFrame) -> list[list[object]]:
    return table[FIELD_KEY].to_numpy().tolist()


def test_a_field_that_cannot_be_measured_goes_for_both_arms_under_its_own_reason(plate):
    spoil(plate, 5)
    for flagged in ("off", "keep", "leave_out"):
        check_loss(plate, flagged)


def check_loss(plate: Path, flagged: str) -> None:
    before = opened(drawn(plate, flagged=flagged))
    after = settled(drawn(plate, flagged=flagged))
    assert len(before.assay.fields) == 32 and len(after.assay.fields) == 31
    assert BAD not in keys(after.assay.fields)
    assert keys(after.fields.lost) == keys(after.fields.dropped) == [BAD]
    about = [s for s in after.split.left_out if "well A01, site 2" in s]
    assert len(about) == 1 and about[0].startswith(
        "plate P0, well A01, site 2: left out: could not be measured by CellProfiler: ")
    assert "zero-size array" in about[0] and after.fields.flags.empty
    assert len(after.assay.left_out) == 1
    assert after.assay_hash == after.split.assay_hash != before.assay_hash == after.fields.whole.assay_hash
    assert settled(drawn(plate, flagged=flagged)).split == after.split
    assert not any("quality control" in s for s in description(after, after.study.methods[0])["transductive"])


def test_where_nothing_is_lost_no_hash_and_no_run_changes(plate):
    methods = (COUNT, INTENSITY)
    plain = opened(drawn(plate, *methods))
    runs = folders(settled(drawn(plate, *methods)))
    stamps = {p: p.stat().st_mtime_ns for f in runs.values() for p in f.path.iterdir()}
    for flagged in ("keep", "off", "leave_out"):
        after = settled(drawn(plate, *methods, flagged=flagged))
        assert after.assay_hash == plain.assay_hash and after.split.hash == plain.split.hash and after.fields.lost.empty
        assert after.fields.used is after.fields.whole
        assert folders(after) == runs
    assert len(runs) == 2 and {p: p.stat().st_mtime_ns for p in stamps} == stamps


def folders(context: StudyContext) -> dict[str, RunFolder]:
    """The run folder of each method of the classical arm, run where it has not been."""
    return {run.method.name: run.folder for run in run_methods(context, ["classical"])}


def test_what_goes_with_lost_fields_is_named_and_a_lone_label_refused_or_left_out(plate):
    block = BLOCK | {"failed_fields": 0.3}
    study = opened(drawn(plate, cellprofiler=block))
    gone = lost(study, 4, 5, 6, 7, 20, 21, 22, 23)  # drug 1, of the label y
    with pytest.raises(MorphobenchError, match=r"the label 'y' has a single compound \(drug 3\)"):
        losing(study, gone)
    wells = ["x", "y", "x", "y", "z", "z"]  # a label more, so that two are left
    rows = [f"P0,A{i // 4:02d},drug {i // 4},1,{wells[i // 4]},f{i}.tif,{i % 4 + 1}" for i in range(24)]
    (plate / "plan.csv").write_text("\n".join(["Plate,Well,Drug,Dose,MoA,File,Site", *rows]))
    study = opened(drawn(plate, lone="leave_out", cellprofiler=block))
    fields = study.fields.whole.assay.fields
    after = losing(study, lost(study, *fields.index[fields["Metadata_Compound"] == "drug 1"]))
    said = " | ".join(map(str, after.assay.left_out))
    for words in ("P0, A01: the well is left without", "drug 1, 1: the treatment is left without",
                  "drug 1: the compound is left without", "label 'y' left out: a single compound (drug 3)"):
        assert said.count(words) == 1, (words, said)
    assert after.assay.labels == ["x", "z"]


def test_more_lost_fields_than_allowed_stop_the_study_whichever_pipeline_lost_them(plate):
    study = opened(drawn(plate))
    with pytest.raises(FaultsError, match="7 of 32 fields of mine could not be measured, more than") as caught:
        losing(study, lost(study, *range(7)))
    assert len(caught.value.faults) == 7
    assert len(losing(study, lost(study, *range(0, 28, 5))).assay.fields) == 26
    both = opened(drawn(plate, COUNT, WHOLE_FIELD, whole_field=BLOCK))
    counts = both.fields.whole.assay.fields[FIELD_KEY].assign(cells=2)
    measured = {"cellprofiler": measured_as(counts, lost(both, 0, 5, 10, 15)),
                "whole_field": measured_as(counts, lost(both, 16, 21, 26, 31))}
    with pytest.raises(FaultsError, match="8 of 32"):
        context_of(both.session, measured)
    tolerant = drawn(plate, COUNT, WHOLE_FIELD, whole_field={**BLOCK, "failed_fields": 0.5})
    assert len(context_of(tolerant, measured).assay.fields) == 24


def test_a_field_lost_by_two_pipelines_is_one_field(plate):
    study = opened(drawn(plate))
    assay, one = study.fields.whole.assay, "IdentifyPrimaryObjects failed"
    cells, whole = lost(study, 9, 2), lost(study, 2, 4)
    both = lost_fields(assay, {"cellprofiler": SimpleNamespace(failed=cells),
                               "whole_field": SimpleNamespace(failed=whole)})
    assert both.columns.tolist() == LOST
    assert keys(both) == keys(assay.fields.loc[[2, 4, 9]])
    assert both["reason"].tolist() == [f"{one}; whole fields: {one}", f"whole fields: {one}", one]
    assert lost_fields(assay, {"cellprofiler": SimpleNamespace(failed=pd.DataFrame(columns=LOST))}).empty


def test_a_lost_field_is_neither_flagged_nor_left_out_twice(plate):
    """It is out of focus, too, and has no count."""
    pixels = tifffile.imread(plate / "f5.tif")
    tifffile.imwrite(plate / "f5.tif", np.full_like(pixels, 300) + (np.arange(96) // 12).astype(np.uint16))
    for flagged in ("keep", "leave_out"):
        study = opened(drawn(plate, flagged=flagged))
        assert keys(study.fields.flags.drop_duplicates(FIELD_KEY)) == [BAD]
        after = losing(study, lost(study, 5))
        assert after.fields.flags.empty and len(after.assay.fields) == 31
        assert len(after.assay.left_out) == len([s for s in after.split.left_out if "site 2" in s]) == 1
        assert "could not be measured" in str(after.assay.left_out[0])


def test_cell_counts_are_flagged_where_flagged_fields_are_kept(plate):
    plain = opened(drawn(plate))
    counts = plain.fields.whole.assay.fields[FIELD_KEY].assign(cells=60)
    counts.loc[7, "cells"] = 3
    after = losing(plain, lost(plain), counts)
    assert after.fields.flags["measure"].tolist() == ["cells"] and "few cells: 3" in after.fields.flags["reason"][0]
    assert keys(after.fields.flags) == keys(counts.loc[[7]])
    assert after.fields.used is after.fields.whole
    assert after.assay_hash == plain.assay_hash and after.split.hash == plain.split.hash
    assert losing(opened(drawn(plate, flagged="off")), lost(plain), counts).fields.flags.empty


def test_a_pipeline_that_counts_no_cells_is_in_the_way_only_of_leaving_out(plate):
    kept, left_out = opened(drawn(plate)), drawn(plate, flagged="leave_out")
    fields = kept.fields.whole.assay.fields[FIELD_KEY]
    uncounted = SimpleNamespace(images=lambda: fields, failed=lost(kept), record={"pipeline": "p.cppipe"})
    assert counts_if_any(kept.study, uncounted) is None
    with pytest.raises(MorphobenchError, match="counts no cells"):
        field_counts(kept.study, uncounted)
    assert context_of(kept.session, {"cellprofiler": uncounted}).fields.flags.empty
    with pytest.raises(MorphobenchError, match="counts no cells"):
        context_of(left_out, {"cellprofiler": uncounted})


@pytest.mark.parametrize(("methods", "more", "blocks"), [
    ((INTENSITY, TILES), {}, ()),
    ((INTENSITY, TILES), {"flagged": "leave_out"}, ("cellprofiler",)),
    ((COUNT,), {}, ("cellprofiler",)),
    ((CELLS,), {}, ("cellprofiler",)),
    ((WHOLE_FIELD,), {}, ("whole_field",)),
    ((PROFILE, WHOLE_FIELD), {}, ("cellprofiler", "whole_field")),
    ((INTENSITY,), {"grid": {"profiles": {"w": {"source": "whole_field"}}}}, ("whole_field",)),
    ((INTENSITY,), {"grid": {"profiles": {"k": {"aggregate": "ks"}}}}, ()),  # it takes negative controls
    ((INTENSITY,), {"grid": {}}, ("cellprofiler",)),
])
def test_only_pipelines_that_something_is_taken_from_are_run(plate, monkeypatch, methods, more, blocks):
    session = drawn(plate, *methods, **more)
    plain = opened(session)
    assert pipelines_used(session.study, plain.assay) == blocks
    if not blocks:
        monkeypatch.setenv("CELLPROFILER", str(plate / "none"))
        for study, said in ((settled(session), ""), for_networks(session)):
            assert study.fields.used is study.fields.whole and study.split == plain.split
            assert said == "" and not study.measured
        assert not (plate / "runs" / "mine" / "measured").exists()


def test_networks_alone_need_no_cellprofiler_and_use_what_it_measured_elsewhere(plate, monkeypatch):
    spoil(plate, 5)
    monkeypatch.setenv("CELLPROFILER", str(plate / "none"))
    plain, said = for_networks(drawn(plate, COUNT, TILES))
    assert plain.fields.used is plain.fields.whole and len(plain.assay.fields) == 32
    assert "CellProfiler has not measured this study yet" in said and "\n" not in said
    with pytest.raises(MorphobenchError, match="names no file"):
        settled(drawn(plate, COUNT, TILES))
    install(plate, monkeypatch)
    after = settled(drawn(plate, COUNT, TILES))
    calls = (plate / "calls").read_text()
    monkeypatch.setenv("CELLPROFILER", str(plate / "none"))
    study, said = for_networks(drawn(plate, COUNT, TILES))
    assert said == "" and study.assay_hash == after.assay_hash and study.split == after.split
    # Of another version nothing is known.
    install(plate, monkeypatch, "5.0.0")
    assert for_networks(drawn(plate, COUNT, TILES))[1]
    monkeypatch.setenv("CELLPROFILER", str(plate / "none"))
    # Nor where the pipeline has changed, or a shard is missing.
    changed = BLOCK | {"settings": {"IdentifyPrimaryObjects": {"Thresholding method[1]": "Manual"}}}
    assert for_networks(drawn(plate, COUNT, TILES, cellprofiler=changed))[1]
    next((plate / "runs" / "mine" / "measured").glob("[0-9a-f]*/record.json")).unlink()
    study, said = for_networks(drawn(plate, COUNT, TILES))
    assert said and study.assay_hash == plain.assay_hash
    assert (plate / "calls").read_text() == calls


def test_what_the_networks_cannot_do_without_is_measured_for_them(plate, monkeypatch):
    study, said = for_networks(drawn(plate, CELLS))
    assert said == "" and set(study.measured) == {"cellprofiler"}
    monkeypatch.setenv("CELLPROFILER", str(plate / "none"))
    with pytest.raises(MorphobenchError, match="names no file"):
        for_networks(drawn(plate, TILES, flagged="leave_out"))


def test_a_report_measures_once_and_lists_each_lost_field_once(plate, monkeypatch):
    spoil(plate, 5)
    measured = []
    real = measuring.measure
    monkeypatch.setattr(measuring, "measure", lambda *a, **k: measured.append(1) or real(*a, **k))
    drawn(plate, COUNT, INTENSITY, flagged="leave_out")
    result = CliRunner().invoke(app, ["report", "mine.yaml", "--jobs", "1"], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert len(measured) == 1
    rows = pd.read_csv(plate / "reports" / "mine" / "fields.csv")
    assert rows[["plate", "well", "site"]].to_numpy().tolist() == [BAD]
    state = "left out of both arms: not measured by CellProfiler"
    assert rows["state"].tolist() == [state] and "zero-size array" in rows["reason"][0]
    page = (plate / "reports" / "mine" / "index.html").read_text()
    assert page.count(f"<td>{state}</td>") == 1
    assert page.count("site 2: left out: could not be measured by CellProfiler") == 1
    assert "nothing had changed" in CliRunner().invoke(app, ["report", "mine.yaml", "--jobs", "1"]).output
