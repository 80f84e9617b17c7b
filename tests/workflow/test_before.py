"""What a study lacks is named before anything runs, all at once; what can run is not refused."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import tifffile
import yaml

from benchmark.base.errors import FaultsError, MorphobenchError
from benchmark.base.tasks import run_serially
from benchmark.workflow.before import faults_before
from benchmark.workflow.checking import check_assay
from benchmark.workflow.session import open_session
from benchmark.workflow.study import load_study
from benchmark.workflow.walk import run

COLUMNS = {"plate": "plate", "well": "well", "compound": "compound", "concentration": "dose", "label": "moa"}
CNN = {"name": "cnn", "kind": "cnn_finetuned", "crops": {"size": 32, "scale_from": "controls"},
       "network": {"weights": "absent.safetensors"}}
PROFILE = {"name": "cp", "kind": "profile", "profile": {"normalise": "training"}}
BOTH = ("DNA", "Tubulin")


def write_study(folder, methods, channels=BOTH, **more):
    """A study of four wells with images; its path."""
    rng = np.random.default_rng(0)
    rows = []
    for i, label in enumerate("xxyy"):
        tifffile.imwrite(folder / f"f{i}.tif", rng.integers(0, 999, (3, 40, 40), dtype=np.uint16),
                         photometric="minisblack")
        rows.append({"plate": "P1", "well": f"A{i}", "compound": f"c{i}", "dose": 1, "moa": label, "file": f"f{i}.tif"})
    pd.DataFrame(rows).to_csv(folder / "fields.csv", index=False)
    assay = {"kind": "table", "csv": "fields.csv", "columns": COLUMNS,
             "channels": {c: {"file": "{file}", "plane": i} for i, c in enumerate(channels)}}
    (folder / "mine.yaml").write_text(yaml.safe_dump({"name": "mine", "assay": assay, "methods": methods, **more}))
    return str(folder / "mine.yaml")


def refused(path, folder):
    """Messages of `assay check`, and the error of `run`."""
    with pytest.raises(FaultsError) as caught:
        run(path, jobs=1, device="cpu", runs=folder / "runs")
    return [str(fault) for fault in check_assay(path)[0]], str(caught.value)


def test_all_that_a_study_lacks_is_named_at_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = write_study(tmp_path, [PROFILE, CNN, CNN | {"name": "cnn_two"}], illumination={"method": "none"},
                       explain={"method": "cnn", "fold": "nowhere"})
    faults, error = refused(path, tmp_path)
    assert not (tmp_path / "runs" / "mine" / "checked").exists()
    for words in ("cnn, ", "Actin", "absent.safetensors", "'nowhere'"):
        assert any(words in fault for fault in faults) and words in error, (words, faults, error)
    for words in ("Actin", "absent.safetensors", "'nowhere'"):  # two networks lack the same file
        assert sum(words in fault for fault in faults) == 1, faults


def test_a_pipeline_that_takes_no_illumination_functions_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    from benchmark.base.files import PROJECT
    from benchmark.cellprofiler.pipeline import with_modules_off

    text = (PROJECT / "pipelines" / "analysis.cppipe").read_text()
    (tmp_path / "own.cppipe").write_text(with_modules_off(text, "CorrectIlluminationApply"))
    path = write_study(tmp_path, [PROFILE], (*BOTH, "Actin"), cellprofiler={"pipeline": "own.cppipe"},
                       illumination={"method": "retrospective"})
    faults, error = refused(path, tmp_path)
    assert sum("CorrectIlluminationApply" in fault for fault in faults) == 1 and "CorrectIlluminationApply" in error


def test_a_device_that_does_not_exist_is_refused_before_the_assay_is_read(tmp_path):
    path = write_study(tmp_path, [CNN])
    (tmp_path / "fields.csv").unlink()
    with pytest.raises(MorphobenchError, match="'gpu' is no device"):
        run(path, jobs=1, device="gpu", runs=tmp_path / "runs")


def test_the_classical_arm_alone_does_not_ask_for_the_networks_device(tmp_path):
    path = write_study(tmp_path, [CNN])
    (tmp_path / "fields.csv").unlink()
    with pytest.raises(MorphobenchError, match=r"fields\.csv"):
        run(path, ("classical",), jobs=1, device="gpu", runs=tmp_path / "runs")


def test_a_study_that_can_run_is_not_refused(tmp_path):
    cnn = CNN | {"crops": {"size": 32, "scale_from": "plate"}, "network": {"weights": "none"}}
    path = write_study(tmp_path, [PROFILE, cnn], (*BOTH, "Actin"), explain={"method": "cnn"})
    study = load_study(path)
    assay = study.assay.load(open_session(study, run_serially, 1, "cpu", tmp_path).place)
    for only in (("classical", "cnn"), ("cnn",), ("classical",)):
        assert faults_before(study, assay, only) == []
