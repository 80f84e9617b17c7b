"""Records of runs and pages say what holds now, and what ran then."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import yaml
from drawn_study import prepared

from benchmark.assays.fetching.lock import LOCK_NAME, Lock, lock_hash
from benchmark.base.files import read_json, write_json
from benchmark.cellprofiler.settings import CellProfilerSettings
from benchmark.images.settings import IlluminationSettings
from benchmark.methods.base import Method
from benchmark.methods.registry import METHODS
from benchmark.methods.workers.runs import FoldFacts, joined_versions, versions
from benchmark.quality.settings import QualitySettings
from benchmark.workflow.context import StudyContext
from benchmark.workflow.record import description
from benchmark.workflow.reporting import make_report
from benchmark.workflow.run import run_methods

PROFILE = {"name": "p", "kind": "profile", "profile": {"normalise": "training"},
           "classifier": {"candidates": ["logistic_regression"]}}


def method(kind: str, **more: object) -> Method:
    return METHODS.kinds()[kind].model_validate({"kind": kind, "name": "m", **more})


def pretend(*methods: Method, cellprofiler: str = "study") -> StudyContext:
    """A study of an assay with images, as far as `description` reads it."""
    study = SimpleNamespace(illumination=IlluminationSettings(), quality=QualitySettings(), methods=methods,
                            cellprofiler=CellProfilerSettings(illumination=cellprofiler),
                            whole_field=CellProfilerSettings(illumination=cellprofiler))
    assay = SimpleNamespace(channels=("DNA",), scoring="treatments", lock=None)
    fields = SimpleNamespace(used=SimpleNamespace(assay=assay), flags=pd.DataFrame())
    return StudyContext(SimpleNamespace(study=study), fields, {}, None)


def described(one: Method, **more: str) -> dict[str, object]:
    return description(pretend(one, **more), one)


@pytest.fixture
def opened(tmp_path: Path, monkeypatch) -> StudyContext:
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
    return prepared("study.yaml")


def test_cell_crops_depend_on_what_cellprofiler_saw():
    """Cells are cut where nuclei were segmented in images divided by functions of the whole plate: that is said."""
    cells = method("cnn_frozen", crops={"kind": "cells", "box": 64, "intensity": "bit_depth"})
    tiles = method("cnn_frozen", crops={"intensity": "bit_depth"})
    assert described(cells)["transductive"] == [IlluminationSettings().transductive]
    assert described(tiles)["transductive"] == []
    assert described(cells, cellprofiler="pipeline")["transductive"] == []


def test_what_parts_estimate_is_said_of_a_fusion_once():
    cells = method("cnn_frozen", crops={"kind": "cells", "box": 64, "intensity": "bit_depth"}, name="a")
    other = method("profile", profile={"normalise": "training"}, name="b")
    fused = method("fusion", parts=["a", "b"])
    assert description(pretend(cells, other, fused), fused)["transductive"] == [IlluminationSettings().transductive]


def test_a_readout_of_chosen_features_does_not_stand_for_cellprofiler():
    assert described(method("profile"))["role"] == "classical"
    assert described(method("profile", profile={"features": ["Nuclei_Ratio"]}))["role"] == "other"


def test_a_record_follows_what_is_said_of_the_run_and_keeps_what_ran_it(opened, tmp_path):
    first = run_methods(opened, ["classical"])[0]
    assert first.record["data_lock"] == ""
    old = first.record | {"versions": {"python": "then"}, "finished": "then", "transductive": ["stale"]}
    write_json(first.folder.record_path, old)
    lock = tmp_path / LOCK_NAME
    write_json(lock, Lock(collection="fetched anew").model_dump())
    record = run_methods(with_assay(opened, lock=lock), ["classical"])[0].record
    assert record == read_json(first.folder.record_path)
    assert record["data_lock"] == lock_hash(lock) and record["transductive"] == []
    assert record["versions"] == {"python": "then"} and record["finished"] == "then"


def with_assay(context: StudyContext, **changes: object) -> StudyContext:
    """The same with other facts of the assay that no hash depends on."""
    used = context.fields.used
    used = replace(used, assay=replace(used.assay, **changes))
    return replace(context, fields=replace(context.fields, used=used))


def test_a_page_is_drawn_again_when_anything_it_says_changes(opened, tmp_path):
    finished = run_methods(opened, ["classical"])
    assert make_report(opened, finished, reports=tmp_path / "reports").fresh
    (tmp_path / "reports" / "s" / "dose.csv").write_text("of a study that had doses\n")
    assert not make_report(opened, finished, reports=tmp_path / "reports").fresh
    for changed in (with_assay(opened, source="Another source."),
                    replace(opened, split=replace(opened.split, left_out=("plate Z",)))):
        made = make_report(changed, finished, reports=tmp_path / "reports")
        assert made.fresh and not make_report(changed, finished, reports=tmp_path / "reports").fresh
    assert "plate Z" in made.page.read_text()
    assert not (tmp_path / "reports" / "s" / "dose.csv").exists()


def test_a_record_names_every_version_that_folds_were_run_with():
    def fold(noted: dict[str, str]) -> FoldFacts:
        return FoldFacts(1.0, 1.0, "cpu", noted, {})

    old = {**versions(), "scikit-learn": "1.0"}
    assert joined_versions([fold(versions())] * 2) == versions()
    assert joined_versions([fold(old), fold(versions())])["scikit-learn"] == f"1.0, {versions()['scikit-learn']}"
