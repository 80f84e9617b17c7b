"""Small studies whose methods run in seconds, for methods that rest on others: of profiles, and of images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import tifffile
import yaml
from conftest import draw, field_rows

from benchmark.base.tasks import run_serially
from benchmark.methods.context import FinishedRun
from benchmark.workflow.context import StudyContext
from benchmark.workflow.run import run_method
from benchmark.workflow.session import open_session
from benchmark.workflow.study import load_study
from benchmark.workflow.walk import prepare

#: Cheap, and its probabilities need no calibration.
LDA = {"candidates": ["lda"], "inner_folds": 2}
COLUMNS = {"plate": "plate", "well": "well", "compound": "compound", "concentration": "dose", "label": "moa"}
TINY = {"backbone": "test_efficientnet", "weights": "none"}


def profile(name: str, features: str, **more: Any) -> dict[str, Any]:
    """A method on the features of one name."""
    return {"name": name, "kind": "profile", "classifier": LDA,
            "profile": {"normalise": "training", "select": ["missing"], "features": [features]}, **more}


def drawn_profiles(effect: float = 6.0, compounds: int = 3, seed: int = 0) -> pd.DataFrame:
    """Three labels, two wells a compound: features A tell x from y and z, features B tell z from x and y."""
    rng = np.random.default_rng(seed)
    rows = []
    for label in "xyz":
        for c in range(compounds):
            for plate in ("P1", "P2"):
                a, b = rng.normal(size=5), rng.normal(size=5)
                a[0] += effect * (label == "x")
                b[0] += effect * (label == "z")
                rows.append({"plate": plate, "well": f"{label}{c}", "compound": f"{label}-{c}", "dose": 1.0,
                             "moa": label, **{f"Cells_A{i}": v for i, v in enumerate(a)},
                             **{f"Cells_B{i}": v for i, v in enumerate(b)}})
    return pd.DataFrame(rows)


def prepared(path: str = "study.yaml") -> StudyContext:
    """A study with its fields and folds, whose tasks run in this process."""
    return prepare(open_session(load_study(path), run_serially, 1, "cpu"))[0]


def run_arm(context: StudyContext, arm: str) -> list[FinishedRun]:
    """The study's methods of one arm, without those that build on others."""
    return [run_method(context, m) for m in context.study.methods if m.arm == arm]


def run_dependents(context: StudyContext, runs: Sequence[FinishedRun]) -> list[FinishedRun]:
    """The methods that build on ``runs``, in the study's order."""
    done = {run.method.name: run for run in runs}
    return [run_method(context, m, [done[name] for name in m.builds_on]) for m in context.study.methods
            if m.arm == "dependent" and set(m.builds_on) <= set(done)]


def open_drawn(folder: Path, monkeypatch: pytest.MonkeyPatch, study: dict[str, Any]) -> StudyContext:
    """A study opened in ``folder``, whose tasks run in this process: starting workers takes most of a test's time."""
    folder.mkdir(exist_ok=True)
    monkeypatch.chdir(folder)
    (folder / "study.yaml").write_text(yaml.safe_dump({"name": "s", **study}))
    return prepared("study.yaml")


def profile_study(folder: Path, monkeypatch: pytest.MonkeyPatch, table: pd.DataFrame, *methods: dict[str, Any]
                  ) -> StudyContext:
    folder.mkdir(exist_ok=True)
    table.rename(columns={"plate": "Metadata_Plate", "well": "Metadata_Well"}).to_parquet(folder / "profiles.parquet")
    columns = COLUMNS | {"plate": "Metadata_Plate", "well": "Metadata_Well"}
    assay = {"kind": "profile_table", "profiles": "profiles.parquet", "columns": columns}
    return open_drawn(folder, monkeypatch, {"assay": assay, "methods": list(methods)})


def image_study(folder: Path, monkeypatch: pytest.MonkeyPatch, *methods: dict[str, Any], **kinds: int) -> StudyContext:
    """A study of striped images with negative controls, two fields a well."""
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(0)
    rows = []
    kinds = {"labels": 2, "compounds": 2, "plates": 2, "sites": 2, "controls": 2} | kinds
    for i, row in enumerate(field_rows(**kinds).to_dict("records")):
        tifffile.imwrite(folder / f"f{i}.tif", draw(row, rng, 48), photometric="minisblack")
        rows.append({"plate": row["Metadata_Plate"], "well": row["Metadata_Well"], "site": row["Metadata_Site"],
                     "dose": row["Metadata_Concentration"], "image": f"f{i}.tif",
                     "compound": row["Metadata_Compound"], "moa": row["Metadata_Label"]})
    pd.DataFrame(rows).to_csv(folder / "fields.csv", index=False)
    channels = {name: {"file": "{image}", "plane": i} for i, name in enumerate(("DNA", "Tubulin", "Actin"))}
    assay = {"kind": "table", "csv": "fields.csv", "columns": COLUMNS | {"site": "site"}, "channels": channels,
             "negative_controls": ["DMSO"]}
    return open_drawn(folder, monkeypatch, {"assay": assay, "methods": list(methods), "quality": {"flagged": "off"},
                                            "illumination": {"method": "none"}})


def with_study(context: StudyContext, **changes: object) -> StudyContext:
    """The same with other settings of the study."""
    study = context.study.model_copy(update=changes)
    return replace(context, session=replace(context.session, study=study))


def with_folds(opened: StudyContext, count: int) -> StudyContext:
    """The study with its first folds alone."""
    return replace(opened, split=replace(opened.split, folds=opened.split.folds[:count]))


def predictions(run: FinishedRun, opened: StudyContext, fold: int = 0) -> pd.DataFrame:
    return pd.read_parquet(run.folder.fold_path(opened.split.folds[fold], 1))


def snapshot(folder: Path) -> dict[str, int]:
    return {str(p): p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file()}
