"""Two plates of drawn fields, four compounds of two labels, and the study of them."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import tifffile
import yaml
from benchmark.workflow.opened import Opened, open_study

COUNT = {"name": "cell_count", "kind": "cell_count", "classifier": {"candidates": ["logistic_regression"]}}


def _field(rng: np.random.Generator) -> np.ndarray:
    plane = np.zeros((96, 96))
    for y, x in rng.integers(6, 90, (20, 2)):
        cv2.circle(plane, (int(x), int(y)), 4, float(rng.normal(800, 80)), -1)
    return np.clip(cv2.GaussianBlur(plane, (0, 0), 0.8) + rng.normal(300, 10, plane.shape), 0, 4095).astype(np.uint16)


def draw_plate(folder: Path) -> None:
    """Four fields a well; file f<i>.tif is row i of plan.csv."""
    rng = np.random.default_rng(0)
    rows = ["Plate,Well,Drug,Dose,MoA,File"]
    for i in range(32):
        drug = i // 4 % 4
        rows.append(f"P{i // 16},A{drug:02d},drug {drug},1,{'xy'[drug % 2]},f{i}.tif")
        tifffile.imwrite(folder / f"f{i}.tif", _field(rng))
    (folder / "plan.csv").write_text("\n".join(rows))


def opened_plate(folder: Path, flagged: str = "keep", lone: str = "refuse", more: dict[str, object] | None = None,
                 **quality: object) -> Opened:
    """The study mine.yaml, opened; ``more`` are further keys of it."""
    text = {
        "name": "mine", "methods": [COUNT], "quality": {"flagged": flagged, "deviations": 6.0, **quality},
        "assay": {"kind": "table", "csv": "plan.csv", "channels": {"DNA": {"file": "{File}"}},
                  "single_compound_labels": lone,
                  "columns": {"plate": "Plate", "well": "Well", "compound": "Drug", "concentration": "Dose",
                              "label": "MoA"}},
    } | (more or {})
    (folder / "mine.yaml").write_text(yaml.safe_dump(text))
    return open_study(str(folder / "mine.yaml"), jobs=1)
