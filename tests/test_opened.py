"""A study opens only where its images are those that were fetched, and no method can see test labels."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml
from fake_bbbc import write_bbbc021, write_plate
from typer.testing import CliRunner

from benchmark.assays.lock import LOCK_NAME, lock_hash
from benchmark.cli import app
from benchmark.errors import FaultsError, LeakError
from benchmark.opened import open_study

COUNT = {"name": "cell_count", "kind": "cell_count"}


def study(folder: Path, assay: dict[str, object], *methods: dict[str, object]) -> str:
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump({"name": "s", "assay": assay, "methods": list(methods or [COUNT])}))
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
        open_study(study(tmp_path, {"kind": "bbbc013", "root": str(bbbc013)}, method))


def test_the_plate_opens_with_its_dose_series_outside_the_scored_wells(bbbc013, tmp_path):
    opened = open_study(study(tmp_path, {"kind": "bbbc013", "root": str(bbbc013)}))
    assert [(f.name, len(f.test), len(f.train), len(f.response)) for f in opened.split.folds] == [
        ("LY294002", 12, 12, 36), ("Wortmannin", 12, 12, 36)]
    assert opened.lock_hash == "" and len(opened.assay.predicted) == 96
    again = open_study(str(tmp_path / "study.yaml"))
    assert again.split == opened.split and again.assay_hash == opened.assay_hash


def test_images_must_be_those_of_the_lock_file(tmp_path, monkeypatch):
    from benchmark.assays.collections import data_folder as folder
    from benchmark.assays.fetch import fetch_assay

    monkeypatch.setenv("MORPHOBENCH_DATA", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    root = tmp_path / "data" / "bbbc021"
    write_bbbc021(root)
    # Everything is there already in the official layout: it is locked as it is, and nothing is asked of any server.
    lock = fetch_assay("bbbc021", folder(), base_url="http://127.0.0.1:9/")
    assert lock == root / LOCK_NAME
    name = study(tmp_path, {"kind": "bbbc021", "single_compound_labels": "leave_out"})
    opened = open_study(name)
    assert opened.lock_hash == lock_hash(lock)
    image = opened.assay.root / opened.assay.fields["Path_DNA"][0]
    raw = bytearray(image.read_bytes())
    raw[-1] ^= 1
    image.write_bytes(raw)
    with pytest.raises(FaultsError, match=image.name):
        open_study(name)


def test_profiles_without_images_run_the_classical_arm_alone(tmp_path, monkeypatch):
    import numpy as np
    import pandas as pd

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
