"""A kind of assay is one class that registers itself: this file is all that the toy kind needs."""

from typing import Literal

import numpy as np
import pandas as pd
import tifffile
from pydantic import Field

from benchmark import run
from benchmark.assays.fieldtable import Assay, make_assay
from benchmark.assays.registry import ASSAYS, AssaySettings, Place
from benchmark.base.tables import FIELD_COLUMNS, LABEL
from benchmark.workflow.study import load_study

STUDY = """
name: toy
assay: {kind: toy, compounds: 6, side: 48}
quality: {flagged: "off"}
methods: [{kind: baseline, name: bright, title: Brightness, feature: intensity}]
"""


@ASSAYS.register
class ToyAssaySettings(AssaySettings):
    """Fields of noise with spots, small or large by their label; each compound on both plates, with DMSO."""

    kind: Literal["toy"] = "toy"
    compounds: int = Field(4, ge=4, le=8)
    side: int = Field(64, ge=32)

    def load(self, place: Place) -> Assay:
        folder = place.folder / "assay"
        folder.mkdir(parents=True, exist_ok=True)
        rng, rows = np.random.default_rng(1), []
        for plate in ("1", "2"):
            for i in range(self.compounds + 2):  # the last two are DMSO
                control, label = ("", ("small", "large")[i % 2]) if i < self.compounds else ("negative", "")
                pixels = rng.poisson(200, (self.side, self.side))
                for y, x in rng.integers(8, self.side - 8, (6, 2)):
                    pixels[y - 2 - i % 2 * 4 : y + 2, x - 2 : x + 2] += 3000
                tifffile.imwrite(folder / f"{plate}-{i}.tif", pixels.astype(np.uint16))
                keys = [plate, f"p{plate}", f"A{i:02d}", 1, 1, "DMSO" if control else f"c{i}", float(not control),
                        label, control, ""]
                rows.append(dict(zip(FIELD_COLUMNS, keys, strict=True)) | {
                    "Path_DNA": f"{plate}-{i}.tif", "Plane_DNA": 0})
        return make_assay(place.name, folder, pd.DataFrame(rows), ["DNA"], simulated=True, source="Drawn by a test.")


def test_it_runs_on_worker_processes_and_stands_on_the_page(tmp_path):
    (tmp_path / "toy.yaml").write_text(STUDY)
    study = load_study(str(tmp_path / "toy.yaml"))
    result = run(study, jobs=2, runs=tmp_path / "runs", reports=tmp_path / "reports")
    assay = result.context.assay
    assert assay.labels == ["large", "small"] and len(assay.fields) == 16 and assay.treated[LABEL].size == 12
    assert study.model_dump()["assay"] == {"kind": "toy", "compounds": 6, "side": 48}
    page = result.report.page.read_text()
    assert "Brightness" in page and "Drawn by a test." in page
