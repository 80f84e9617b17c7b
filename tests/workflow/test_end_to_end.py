"""A study end to end on a small simulated assay: real CellProfiler, a really pretrained network, one page."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import h5py
import pandas as pd
import pytest
import yaml
from fake_bbbc import write_bbbc021
from hostile_server import serving
from typer.testing import CliRunner

from benchmark.base.files import read_json
from benchmark.cli import app

ROOT = Path(__file__).parents[2]
STUDY = {
    "name": "tiny",
    "title": "Tiny <script>alert(1)</script>",
    "assay": {"kind": "demo", "seed": 5, "difficulty": 0.5, "size": 160, "cells": 12, "mechanisms": 2,
              "compounds_per_mechanism": 2, "concentrations": 1, "batches": 1, "plates_per_batch": 2,
              "negative_wells": 4, "fields_per_well": 1},
    "methods": [
        {"name": "cell_count", "kind": "cell_count"},
        {"name": "cellprofiler", "kind": "profile", "classifier": {"candidates": ["logistic_regression"]}},
        {"name": "cnn_frozen", "kind": "cnn_frozen", "crops": {"size": 96, "intensity": "standard"}},
        {"name": "cnn_finetuned", "kind": "cnn_finetuned", "crops": {"size": 64, "intensity": "standard"},
         "training": {"epochs": 2, "batch": 4}},
        {"name": "permuted", "kind": "cnn_frozen", "crops": {"size": 96, "intensity": "standard"},
         "labels": "permuted"},
    ],
}


def call(*arguments: str, expect: int = 0) -> str:
    result = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
    assert result.exit_code == expect, result.output
    return result.output


@pytest.fixture
def study(tmp_path, monkeypatch) -> str:
    """The study's file, in a working folder of its own."""
    demo = yaml.safe_load((ROOT / "benchmark" / "studies" / "demo.yaml").read_text())
    raw = {**STUDY, "cellprofiler": {**demo["cellprofiler"], "shard_fields": 8}}
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(raw))
    monkeypatch.chdir(tmp_path)
    return str(path)


def snapshot(folder: Path) -> dict[str, int]:
    return {str(p): p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file()}


@pytest.mark.slow
@pytest.mark.cellprofiler
def test_from_pixels_to_page_then_nothing_then_only_what_is_missing(study, tmp_path):
    assert "no fault found" in call("assay", "check", study)
    # either order: the networks first
    assert "cnn_finetuned: " in call("cnn", study, "--jobs", "2", "--device", "cpu")
    assert "cell_count: " in call("baseline", study, "--jobs", "2")
    text = call("report", study, "--jobs", "2", "--device", "cpu")
    assert "SIMULATED" in text and "reports/tiny/index.html" in text
    page = (tmp_path / "reports" / "tiny" / "index.html").read_text()
    assert "<script>alert" not in page and "&lt;script&gt;" in page
    assert "simulated" in page.lower()
    made = {p.name for p in (tmp_path / "reports/tiny").iterdir()}
    assert {"accuracy.csv", "pairs.csv", "figures", "index.html"} <= made

    before = snapshot(tmp_path)
    assert "nothing had changed" in call("report", study, "--jobs", "2", "--device", "cpu")
    assert snapshot(tmp_path) == before

    # a fold that is lost is run again, alone, to the same predictions
    folds = sorted((tmp_path / "runs/tiny/cnn_finetuned").glob("*/seed1-*.parquet"))
    assert len(folds) == 4
    lost = pd.read_parquet(folds[0])
    folds[0].unlink()
    call("cnn", study, "--jobs", "1", "--device", "cpu")
    pd.testing.assert_frame_equal(pd.read_parquet(folds[0]), lost, atol=1e-3)
    after = snapshot(tmp_path)
    changed = {k for k in before if after[k] != before[k]}
    assert {Path(c).name for c in changed} == {folds[0].name, folds[0].with_suffix(".json").name, "record.json"}

    # another title is another page and no new run
    raw = yaml.safe_load(Path(study).read_text())
    raw["methods"][0]["title"] = "Counting them"
    Path(study).write_text(yaml.safe_dump(raw))
    before = snapshot(tmp_path / "runs")
    call("report", study, "--jobs", "2", "--device", "cpu")
    assert "Counting them" in (tmp_path / "reports" / "tiny" / "index.html").read_text()
    assert snapshot(tmp_path / "runs") == before


@pytest.mark.slow
def test_a_run_killed_in_the_middle_goes_on_and_ends_with_the_same_predictions(study, tmp_path):
    """kill -9 of everything: what was finished stays untouched, nothing is left half written."""
    raw = yaml.safe_load(Path(study).read_text())
    raw["methods"] = [m for m in raw["methods"] if m["name"] == "cnn_finetuned"]
    Path(study).write_text(yaml.safe_dump(raw))
    command = [sys.executable, "-m", "benchmark.cli", "cnn", study, "--jobs", "1", "--device", "cpu"]

    def folds(place: Path) -> list[Path]:
        return sorted((place / "runs/tiny/cnn_finetuned").glob("*/seed1-*.parquet"))

    child = subprocess.Popen(command, cwd=tmp_path, start_new_session=True)
    while not folds(tmp_path):
        assert child.poll() is None
        time.sleep(0.02)
    os.killpg(child.pid, signal.SIGKILL)
    child.wait()
    first = {p: p.stat().st_mtime_ns for p in folds(tmp_path)}
    assert 1 <= len(first) < 4
    subprocess.run(command, cwd=tmp_path, check=True)
    assert len(folds(tmp_path)) == 4
    assert all(p.stat().st_mtime_ns == t for p, t in first.items())
    # the same as a run that nobody killed
    (tmp_path / "calm").mkdir()
    subprocess.run(command, cwd=tmp_path / "calm", check=True)
    for a, b in zip(folds(tmp_path), folds(tmp_path / "calm"), strict=True):
        pd.testing.assert_frame_equal(pd.read_parquet(a), pd.read_parquet(b))


def test_a_wrong_study_ends_with_its_faults_and_status_two(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.yaml").write_text("name: bad\nsplit: random\nassay: {kind: demo}\nmethods: []\n")
    result = CliRunner().invoke(app, ["report", "bad.yaml"])
    assert result.exit_code == 2
    assert "split" in result.output + result.stderr and "leave-one-compound-out" in result.output + result.stderr


def test_help_and_doctor_speak_plainly():
    for verb in ("report", "baseline", "cnn", "setup", "doctor", "bench", "assay"):
        assert verb in call("--help")
    result = CliRunner().invoke(app, ["doctor"])
    for subject in ("CellProfiler", "JDK", "GPU", "Pretrained weights"):
        assert subject in result.output


def zipped(folder: Path) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(folder.iterdir()):
            archive.write(path, f"{folder.name}/{path.name}")
    return out.getvalue()


@pytest.mark.slow
def test_a_named_assay_from_its_server_to_checked_crops_and_a_method(tmp_path, monkeypatch):
    """BBBC021 in small: fetched through a connection that breaks, joined, cropped as the paper does, classified."""
    write_bbbc021(tmp_path / "official", shape=(64, 80))
    plates = sorted(p for p in (tmp_path / "official").iterdir() if p.is_dir())
    files = {f"/BBBC021/{p.name}": p.read_bytes() for p in (tmp_path / "official").glob("*.csv")}
    archives = {f"/BBBC021/BBBC021_v1_images_{p.name}.zip": zipped(p) for p in plates}
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MORPHOBENCH_DATA", str(tmp_path / "data"))
    (tmp_path / "small.yaml").write_text(yaml.safe_dump({
        "name": "small", "assay": {"kind": "bbbc021", "single_compound_labels": "leave_out"},
        "methods": [{"name": "paper", "kind": "cnn_frozen", "crops": {"size": 32, "intensity": "kensert2019"}}]}))
    with serving(files | archives) as server:
        monkeypatch.setenv("MORPHOBENCH_BBBC_URL", server.url)
        result = CliRunner().invoke(app, ["cnn", "small.yaml", "--jobs", "1"])
        assert result.exit_code == 2 and "morphobench assay fetch bbbc021" in result.output + result.stderr
        server.tricks[min(archives)] = ["cut"]
        assert "lock.json" in call("assay", "fetch", "bbbc021")
        asked = len(server.asked)
        call("assay", "fetch", "bbbc021")
        assert len(server.asked) == asked  # nothing is asked for twice
    assert "paper: " in call("cnn", "small.yaml", "--jobs", "1", "--device", "cpu")
    assert "no fault found" in call("crops", "verify", "small.yaml")
    record = read_json(next((tmp_path / "runs/small/paper").glob("*/record.json")))
    assert len(record["data_lock"]) == 64
    assert "negative controls" in " ".join(record["transductive"])
    cache = next((tmp_path / "runs/small/crops").glob("*.h5"))
    with h5py.File(cache, "r+") as file:  # a byte of the first crop, as a failing disk would change it
        place = file["crops"].id.get_chunk_info(0)
    raw = bytearray(cache.read_bytes())
    raw[place.byte_offset + place.size // 2] ^= 0xFF
    cache.write_bytes(raw)
    assert "crop 0" in call("crops", "verify", str(cache), expect=1)
