"""Both arms see the same fields: images must be those that were fetched, and no method can see test labels."""

from __future__ import annotations

import shutil
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
import tifffile
import yaml
from drawn_plate import context_of, draw_plate, measured_as, opened_plate, plate_session
from drawn_study import prepared
from fake_bbbc import write_bbbc021, write_plate
from PIL import Image
from typer.testing import CliRunner

from benchmark.assays.fetching.lock import LOCK_NAME, lock_hash
from benchmark.base.errors import FaultsError, LeakError, MorphobenchError
from benchmark.base.tables import COMPOUND, FIELD_KEY
from benchmark.cli import app
from benchmark.workflow.context import StudyContext
from benchmark.workflow.pictures import draw_flagged, flagged_heading, worst_flagged
from benchmark.workflow.record import description

COUNT = {"name": "cell_count", "kind": "cell_count"}
#: Needs no CellProfiler.
POSITION = {"name": "position", "kind": "baseline", "feature": "position"}


def study(folder: Path, assay: dict[str, object], *methods: dict[str, object]) -> str:
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump({"name": "s", "assay": assay, "methods": list(methods or [POSITION])}))
    return str(path)


@pytest.fixture
def bbbc013(tmp_path, monkeypatch, data_folder) -> Path:
    """A drawn plate in the layout of BBBC013, with the official table of doses."""
    root = tmp_path / "bbbc013"
    write_plate(root, "Channel{channel}-{number:02d}-{row}-{column:02d}.tif")
    shutil.copy(data_folder / "bbbc013" / "1049_Metadata.csv", root)
    monkeypatch.chdir(tmp_path)
    return root


@pytest.mark.parametrize("method", [
    {"name": "p", "kind": "profile", "profile": {"normalise": "controls"}},
    {"name": "f", "kind": "cnn_frozen", "crops": {"scale_from": "controls"}},
    {"name": "t", "kind": "cnn_finetuned", "crops": {"intensity": "kensert2019"}},
])
def test_scaling_by_controls_is_refused_where_controls_are_scored(bbbc013, tmp_path, method):
    with pytest.raises(LeakError, match=f"method {method['name']}.*would use the labels of test wells"):
        prepared(study(tmp_path, {"kind": "bbbc013", "root": str(bbbc013)}, method))


def test_leaving_out_flagged_fields_is_refused_where_controls_are_scored(bbbc013, tmp_path):
    """A field is spared by the others of its treatment, and there the treatment is the label."""
    name = study(tmp_path, {"kind": "bbbc013", "root": str(bbbc013)})
    raw = yaml.safe_load(Path(name).read_text())
    for flagged in ("leave_out", "keep", "off"):
        Path(name).write_text(yaml.safe_dump(raw | {"quality": {"flagged": flagged}}))
        if flagged == "leave_out":
            with pytest.raises(LeakError, match="the treatment is the label"):
                prepared(name)
        else:
            assert len(prepared(name).assay.fields) == 96


def test_the_plate_opens_with_its_dose_series_outside_the_scored_wells(bbbc013, tmp_path):
    opened = prepared(study(tmp_path, {"kind": "bbbc013", "root": str(bbbc013)}))
    assert [(f.name, len(f.test), len(f.train), len(f.response)) for f in opened.split.folds] == [
        ("LY294002", 12, 12, 36), ("Wortmannin", 12, 12, 36)]
    assert opened.assay.lock is None and len(opened.assay.predicted) == 96
    again = prepared(str(tmp_path / "study.yaml"))
    assert again.split == opened.split and again.assay_hash == opened.assay_hash


def test_images_must_be_those_of_the_lock_file(tmp_path, monkeypatch):
    from benchmark.assays.fetching.collections import data_folder as folder
    from benchmark.assays.fetching.fetch import fetch_assay

    monkeypatch.setenv("MORPHOBENCH_DATA", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    root = tmp_path / "data" / "bbbc021"
    write_bbbc021(root)
    # Everything is there already in the official layout: it is locked as it is, and nothing is asked of any server.
    lock = fetch_assay("bbbc021", folder(), base_url="http://127.0.0.1:9/")
    assert lock == root / LOCK_NAME
    name = study(tmp_path, {"kind": "bbbc021", "single_compound_labels": "leave_out"})
    opened = prepared(name)
    assert opened.assay.lock == lock
    assert description(opened, opened.study.methods[0])["data_lock"] == lock_hash(lock)
    image = opened.assay.root / opened.assay.fields["Path_DNA"][0]
    raw = bytearray(image.read_bytes())
    raw[-1] ^= 1
    image.write_bytes(raw)
    with pytest.raises(FaultsError, match=image.name):
        prepared(name)


def test_profiles_without_images_run_the_classical_arm_alone(tmp_path, monkeypatch):
    rng = np.random.default_rng(1)
    rows = []
    for plate in "PQ":
        for number in range(12):
            label = "xyz"[number % 3]
            values = rng.normal(0, 1, 6) + 4 * np.eye(6)["xyz".index(label)]
            rows.append({"Metadata_Plate": plate, "Metadata_Well": f"A{number:02d}", "Metadata_compound": f"c{number}",
                         "Metadata_dose": 1.0, "Metadata_moa": label,
                         **{f"Cells_{i}": v for i, v in enumerate(values)}})
    pd.DataFrame(rows).to_parquet(tmp_path / "profiles.parquet")
    monkeypatch.chdir(tmp_path)
    assay = {"kind": "profile_table", "profiles": "profiles.parquet",
             "columns": {"plate": "Metadata_Plate", "well": "Metadata_Well", "compound": "Metadata_compound",
                         "concentration": "Metadata_dose", "label": "Metadata_moa"}}
    classical = {"name": "cellprofiler", "kind": "profile", "profile": {"normalise": "training"},
                 "classifier": {"candidates": ["logistic_regression"]}}
    result = CliRunner().invoke(app, ["report", study(tmp_path, assay, classical), "--jobs", "1"])
    assert result.exit_code == 0, result.output
    assert "cellprofiler" in result.output and "12/12" in result.output
    page = (tmp_path / "reports" / "s" / "index.html").read_text()
    assert "24 fields" not in page
    for method, words in (({"name": "f", "kind": "cnn_frozen"}, "needs images"), (COUNT, "one row a well")):
        result = CliRunner().invoke(app, ["report", study(tmp_path, assay, method), "--jobs", "1"])
        assert result.exit_code == 2 and words in result.output + result.stderr


@pytest.fixture
def plate(tmp_path, monkeypatch) -> Path:
    draw_plate(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def spoil(folder: Path, i: int) -> None:
    """Out of focus."""
    plane = tifffile.imread(folder / f"f{i}.tif")
    tifffile.imwrite(folder / f"f{i}.tif", cv2.GaussianBlur(plane, (0, 0), 7.0))


def truncate(folder: Path, i: int) -> None:
    path = folder / f"f{i}.tif"
    path.write_bytes(path.read_bytes()[:-500])


def test_a_bad_image_costs_its_field_alone(plate):
    sound = opened_plate(plate)
    assert len(sound.assay.fields) == 32 and sound.assay.left_out == () and sound.fields.dropped.empty
    assert sound.fields.used is sound.fields.whole
    truncate(plate, 5)
    (plate / "f9.tif").unlink()
    tifffile.imwrite(plate / "f22.tif", np.full((96, 96), 7, np.uint16))
    opened = opened_plate(plate)
    assert len(opened.assay.fields) == 29 and opened.assay.fields.index.tolist() == list(range(29))
    assert not set(opened.assay.fields["Path_DNA"]) & {"f5.tif", "f9.tif", "f22.tif"}
    said = opened.split.left_out
    for words in ("plate P0, well A01, site 2: left out: f5.tif is truncated",
                  "plate P0, well A02, site 2: left out: f9.tif does not exist",
                  "plate P1, well A01, site 3: left out: f22.tif is constant: every pixel is 7"):
        assert sum(s.startswith(words) for s in said) == 1, (words, said)
    assert opened.assay_hash != sound.assay_hash
    assert opened.fields.used is opened.fields.whole and opened.fields.dropped.empty
    again = opened_plate(plate)  # by the record of the check
    assert again.assay_hash == opened.assay_hash and again.split == opened.split


def test_the_hash_is_that_of_a_table_without_the_field(plate):
    """Leaving out is as if the row had never been there."""
    truncate(plate, 3)  # the last site of its well: the others keep their numbers
    left = opened_plate(plate)
    lines = (plate / "plan.csv").read_text().splitlines()
    (plate / "plan.csv").write_text("\n".join(lines[:4] + lines[5:]))
    assert opened_plate(plate).assay_hash == left.assay_hash


def test_many_bad_images_and_faults_of_the_table_still_refuse(plate):
    for i in (1, 5, 9, 13, 17, 21):
        truncate(plate, i)
    opened_plate(plate)
    (plate / "f25.tif").unlink()  # 7 of 32
    with pytest.raises(FaultsError) as caught:
        opened_plate(plate)
    absent, cut = caught.value.faults  # one a cause
    assert "f25.tif" in absent.where and cut.where.startswith("6 files, 6 fields: ") and "and 3 more" in cut.where
    for i in (1, 5, 9, 13, 17, 21):
        (plate / f"f{i}.tif").unlink()
    with pytest.raises(FaultsError, match="7 files, 7 fields") as caught:
        opened_plate(plate)
    assert len(caught.value.faults) == 1


def test_the_same_picture_twice_refuses_beside_a_bad_one(plate):
    truncate(plate, 5)
    shutil.copy(plate / "f8.tif", plate / "f12.tif")
    with pytest.raises(FaultsError, match="another well") as caught:
        opened_plate(plate)
    assert len(caught.value.faults) == 2 and "f5.tif" in str(caught.value)


def test_wells_and_compounds_that_go_are_named_and_a_lone_label_is_not_scored(plate):
    wells = [("x", (0, 1)), ("y", (2, 3)), ("x", (4, 5)), ("y", (12,)), ("z", (6, 7)), ("z", (8, 9))]
    rows = ["Plate,Well,Drug,Dose,MoA,File,Site"]
    rows += [f"P0,A{k:02d},drug {k},1,{label},f{i}.tif,{i}" for k, (label, files) in enumerate(wells) for i in files]
    (plate / "plan.csv").write_text("\n".join(rows))
    opened_plate(plate)
    truncate(plate, 12)  # the only field of drug 3, one of the two compounds with the label y
    with pytest.raises(MorphobenchError, match=r"label 'y' has a single compound \(drug 1\)"):
        opened_plate(plate)
    opened = opened_plate(plate, lone="leave_out")
    said = " | ".join(map(str, opened.assay.left_out))
    for words in ("P0, A03: the well is left without", "drug 3, 1: the treatment is left without",
                  "drug 3: the compound is left without", "label 'y' left out: a single compound (drug 1)"):
        assert words in said, (words, said)
    assert opened.assay.labels == ["x", "z"]


def test_flagged_fields_are_kept_left_out_or_not_looked_at(plate, tmp_path):
    sound = opened_plate(plate)
    assert sound.fields.flags.empty
    for i in (6, 25):
        spoil(plate, i)
    kept = opened_plate(plate)
    wanted = kept.assay.fields.loc[kept.assay.fields["Path_DNA"].isin(["f6.tif", "f25.tif"]), FIELD_KEY]
    assert len(kept.assay.fields) == 32 and kept.fields.dropped.empty and kept.assay.left_out == ()
    assert kept.fields.flags[FIELD_KEY].drop_duplicates().to_numpy().tolist() == wanted.to_numpy().tolist()
    off = opened_plate(plate, "off")
    assert off.fields.flags.empty and off.assay_hash == kept.assay_hash and off.split.hash == kept.split.hash
    left = opened_plate(plate, "leave_out")
    assert len(left.assay.fields) == 30 and left.fields.dropped.to_numpy().tolist() == wanted.to_numpy().tolist()
    assert left.assay_hash != kept.assay_hash == left.fields.whole.assay_hash
    assert left.fields.whole.assay.fields.equals(kept.assay.fields)
    assert left.split.assay_hash == left.assay_hash
    said = [s for s in left.split.left_out if "left out by quality control: out of focus" in s]
    assert len(said) == 2 and said[0].startswith("plate P0, well A01, site 3:")
    measured = list((plate / "runs" / "mine" / "checked").glob("quality-*"))
    assert len(measured) == 2  # one of each content of the images, whatever the setting
    assert flagged_heading(left) == "Flagged fields (2 of 32, left out)"
    with Image.open(draw_flagged(left, tmp_path / "flagged.png")) as sheet:
        assert sheet.width == 2 * 246 + 6 and sheet.height > 192


def counted(folder: Path, counts: pd.DataFrame, flagged: str, **quality: object) -> StudyContext:
    """The drawn plate after CellProfiler has counted its cells."""
    return context_of(plate_session(folder, flagged, **quality), {"cellprofiler": measured_as(counts)})


def test_cell_counts_come_in_after_measuring(plate):
    opened = opened_plate(plate, "leave_out")
    counts = opened.fields.whole.assay.fields[FIELD_KEY].assign(cells=[60] * 32)
    counts.loc[7, "cells"] = 3
    after = counted(plate, counts, "leave_out")
    assert after.fields.dropped.to_numpy().tolist() == counts.loc[[7], FIELD_KEY].to_numpy().tolist()
    assert after.assay_hash == after.split.assay_hash != opened.assay_hash
    assert after.fields.whole.assay_hash == opened.assay_hash
    assert "few cells: 3, plate 60" in str(after.assay.left_out[0])
    kept = counted(plate, counts, "keep")
    assert kept.fields.flags["measure"].tolist() == ["cells"] and kept.assay_hash == opened.assay_hash
    same = counted(plate, counts, "leave_out", cell_count=False)
    assert same.fields.used is same.fields.whole and same.fields.flags.empty and same.split == opened.split
    assert counted(plate, counts, "off").fields.flags.empty
    toxic = opened.fields.whole.assay.fields[COMPOUND] == "drug 2"
    counts.loc[toxic, "cells"] = 2
    counts.loc[7, "cells"] = 55
    assert counted(plate, counts, "leave_out").fields.dropped.empty


def test_quality_control_never_leaves_out_a_large_part(plate):
    rng = np.random.default_rng(2)
    opened = opened_plate(plate, "leave_out")
    counts = opened.fields.whole.assay.fields[FIELD_KEY].assign(cells=60)
    counts.loc[rng.choice(32, 8, replace=False), "cells"] = 0
    with pytest.raises(MorphobenchError, match="would leave out 8 of 32 fields"):
        counted(plate, counts, "leave_out")


def test_the_worst_flagged_fields_are_shown_with_all_their_reasons():
    flags = pd.DataFrame({"Metadata_Plate": ["P", "P", "P", "Q"], "Metadata_Well": ["B", "A", "A", "A"],
                          "Metadata_Site": 1, "deviations": [9.0, -7.0, 8.0, -20.0], "reason": list("bacd")})
    shown = worst_flagged(flags, 2)
    assert shown["reason"].tolist() == ["b", "d"] and shown["Metadata_Plate"].tolist() == ["P", "Q"]
    assert worst_flagged(flags, 9)["reason"].tolist() == ["c\na", "b", "d"]
