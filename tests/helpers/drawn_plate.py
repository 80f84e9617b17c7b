"""Two plates of drawn fields, four compounds of two labels, and the study of them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pandas as pd
import tifffile
import yaml

from benchmark.base.tables import FIELD_KEY
from benchmark.base.tasks import run_serially
from benchmark.cellprofiler.measure import Measured
from benchmark.methods.context import Pipeline
from benchmark.workflow.context import StudyContext
from benchmark.workflow.fields import check_images, folds_of, settle_fields
from benchmark.workflow.session import Session, open_session
from benchmark.workflow.study import load_study

#: Columns of fields that could not be measured.
LOST = [*FIELD_KEY, "reason"]
COUNT = {"name": "cell_count", "kind": "cell_count", "classifier": {"candidates": ["logistic_regression"]}}


def _field(rng: np.random.Generator) -> np.ndarray:
    plane = np.zeros((96, 96))
    for y, x in rng.integers(6, 90, (20, 2)):
        cv2.circle(plane, (int(x), int(y)), 4, float(rng.normal(800, 80)), -1)
    return np.clip(cv2.GaussianBlur(plane, (0, 0), 0.8) + rng.normal(300, 10, plane.shape), 0, 4095).astype(np.uint16)


def draw_plate(folder: Path) -> None:
    """Four fields a well; file f<i>.tif is row i of plan.csv."""
    rng = np.random.default_rng(0)
    rows = ["Plate,Well,Drug,Dose,MoA,File,Site"]
    for i in range(32):
        drug = i // 4 % 4
        rows.append(f"P{i // 16},A{drug:02d},drug {drug},1,{'xy'[drug % 2]},f{i}.tif,{i % 4 + 1}")
        tifffile.imwrite(folder / f"f{i}.tif", _field(rng))
    (folder / "plan.csv").write_text("\n".join(rows))


def plate_session(folder: Path, flagged: str = "keep", lone: str = "refuse", more: dict[str, object] | None = None,
                  **quality: object) -> Session:
    """A session of the study mine.yaml, whose tasks run in this process; ``more`` are further keys of the study."""
    text = {
        "name": "mine", "methods": [COUNT], "quality": {"flagged": flagged, "deviations": 6.0, **quality},
        "assay": {"kind": "table", "csv": "plan.csv", "channels": {"DNA": {"file": "{File}"}},
                  "single_compound_labels": lone,
                  "columns": {"plate": "Plate", "well": "Well", "compound": "Drug", "concentration": "Dose",
                              "label": "MoA", "site": "Site"}},
    } | (more or {})
    (folder / "mine.yaml").write_text(yaml.safe_dump(text))
    return open_session(load_study(str(folder / "mine.yaml")), run_serially, 1, "cpu")


def measured_as(counts: pd.DataFrame, failed: pd.DataFrame | None = None) -> Any:
    """A stand-in for what CellProfiler measured: ``cells`` of each field, and which fields it failed on."""
    images = counts[FIELD_KEY].assign(Count_Cells=counts["cells"])
    return SimpleNamespace(images=lambda: images, failed=pd.DataFrame(columns=LOST) if failed is None else failed,
                           record={"pipeline": "stand-in"})


def context_of(session: Session, measured: Mapping[Pipeline, Measured]) -> StudyContext:
    """The study with its fields as some measurements settle them; nothing is measured."""
    whole = check_images(session, session.study.assay.load(session.place))
    fields = settle_fields(session, whole, measured)
    return StudyContext(session, fields, measured, folds_of(session, fields.used))


def opened_plate(folder: Path, flagged: str = "keep", lone: str = "refuse", more: dict[str, object] | None = None,
                 **quality: object) -> StudyContext:
    """The study of `plate_session` as its images alone settle it, before CellProfiler has measured."""
    return context_of(plate_session(folder, flagged, lone, more, **quality), {})
