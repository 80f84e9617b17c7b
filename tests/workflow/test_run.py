"""Records of runs and pages say what holds now, and what ran then."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import yaml
from benchmark.workflow.opened import Opened, open_study
from pydantic import TypeAdapter

from benchmark.base.files import read_json, write_json
from benchmark.cellprofiler.settings import CellProfilerSettings
from benchmark.images.settings import IlluminationSettings
from benchmark.methods.base import MethodSettings
from benchmark.quality.settings import QualitySettings
from benchmark.workflow.reporting import make_report
from benchmark.workflow.run import _corrected, _description, run_baseline

PROFILE = {"name": "p", "kind": "profile", "profile": {"normalise": "training"},
           "classifier": {"candidates": ["logistic_regression"]}}


def method(kind: str, **more: object) -> MethodSettings:
    return TypeAdapter(MethodSettings).validate_python({"kind": kind, "name": "m", **more})


def pretend(scoring: str = "treatments", cellprofiler: str = "study") -> Opened:
    """What `_description` reads of an opened study, of an assay with images."""
    study = SimpleNamespace(illumination=IlluminationSettings(), quality=QualitySettings(),
                            cellprofiler=CellProfilerSettings(illumination=cellprofiler),
                            whole_field=CellProfilerSettings(illumination=cellprofiler))
    return SimpleNamespace(study=study, assay=SimpleNamespace(channels=("DNA",), scoring=scoring), lock_hash="lock",
                           quality=pd.DataFrame())


@pytest.fixture
def opened(tmp_path: Path, monkeypatch) -> Opened:
    """A small study of profiles without images."""
    rng = np.random.default_rng(1)
    rows = [{"Metadata_Plate": "P", "Metadata_Well": f"A{n:02d}", "compound": f"c{n}", "dose": 1.0,
             "moa": "xyz"[n % 3], **{f"Cells_{i}": v for i, v in enumerate(rng.normal(0, 1, 4) + n % 3 * 4)}}
            for n in range(12)]
    pd.DataFrame(rows).to_parquet(tmp_path / "profiles.parquet")
    assay = {"kind": "profile_table", "profiles": "profiles.parquet",
             "columns": {"plate": "Metadata_Plate", "well": "Metadata_Well", "compound": "compound",
                         "concentration": "dose", "label": "moa"}}
    (tmp_path / "study.yaml").write_text(yaml.safe_dump({"name": "s", "assay": assay, "methods": [PROFILE]}))
    monkeypatch.chdir(tmp_path)
    return open_study("study.yaml", jobs=1)


def test_cell_crops_rest_on_what_cellprofiler_saw():
    """Cells are cut where nuclei were found in images divided by functions of a whole plate; this is stated."""
    cells = method("cnn_frozen", crops={"kind": "cells", "box": 64, "intensity": "bit_depth"})
    tiles = method("cnn_frozen", crops={"intensity": "bit_depth"})
    assert _corrected(pretend(), cells) and not _corrected(pretend(), tiles)
    assert not _corrected(pretend(cellprofiler="pipeline"), cells)


def test_a_readout_of_chosen_features_does_not_stand_for_cellprofiler():
    assert _description(pretend(), method("profile"))["role"] == "classical"
    assert _description(pretend(), method("profile", profile={"features": ["Nuclei_Ratio"]}))["role"] == "other"


def test_a_record_follows_what_is_said_of_the_run_and_keeps_what_ran_it(opened):
    first = run_baseline(opened)[0]
    old = first.record | {"versions": {"python": "then"}, "finished": "then", "transductive": ["stale"]}
    write_json(first.folder.record_path, old)
    record = run_baseline(replace(opened, lock_hash="fetched anew"))[0].record
    assert record == read_json(first.folder.record_path)
    assert record["data_lock"] == "fetched anew" and record["transductive"] == []
    assert record["versions"] == {"python": "then"} and record["finished"] == "then"


def test_a_page_is_drawn_again_when_anything_it_says_changes(opened, tmp_path):
    finished = run_baseline(opened)
    assert make_report(opened, finished, reports=tmp_path / "reports").fresh
    (tmp_path / "reports" / "s" / "dose.csv").write_text("of a study that had doses\n")
    assert not make_report(opened, finished, reports=tmp_path / "reports").fresh
    for changed in (replace(opened, assay=replace(opened.assay, source="Another source.")),
                    replace(opened, split=replace(opened.split, left_out=("plate Z",)))):
        made = make_report(changed, finished, reports=tmp_path / "reports")
        assert made.fresh and not make_report(changed, finished, reports=tmp_path / "reports").fresh
    assert "plate Z" in made.page.read_text()
    assert not (tmp_path / "reports" / "s" / "dose.csv").exists()


def test_a_record_names_every_version_that_folds_were_run_with():
    from benchmark.methods.workers.runs import joined_versions, versions

    old = {**versions(), "scikit-learn": "1.0"}
    assert joined_versions([{"versions": versions()}] * 2) == versions()
    assert joined_versions([{"versions": old}, {"versions": versions()}])["scikit-learn"] == (
        f"1.0, {versions()['scikit-learn']}")
