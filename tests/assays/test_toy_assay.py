"""A kind of assay is one class that registers itself: this file is all that the toy kind needs."""

from typing import Literal

import numpy as np
import pandas as pd
import tifffile
from pydantic import Field

from benchmark.assays.fieldtable import Assay, make_assay
from benchmark.assays.registry import ASSAYS, AssaySettings, Place
from benchmark.base.tables import FIELD_COLUMNS, LABEL
from benchmark.workflow.opened import place_of
from benchmark.workflow.study import load_study, study_base

STUDY = """
name: toy
assay: {kind: toy, compounds: 6, side: 48}
methods: [{kind: profile, name: profile}]
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


def test_a_study_loads_the_toy_assay(tmp_path):
    (tmp_path / "toy.yaml").write_text(STUDY)
    study = load_study(str(tmp_path / "toy.yaml"))
    assert isinstance(study.assay, ToyAssaySettings) and study.assay.side == 48
    assay = study.assay.load(place_of(study, study_base(str(tmp_path / "toy.yaml")), tmp_path / "runs", map, set()))
    assert assay.labels == ["large", "small"] and len(assay.fields) == 16 and assay.treated[LABEL].size == 12
    assert {tifffile.imread(assay.root / path).shape for path in assay.fields["Path_DNA"]} == {(48, 48)}
    assert study.model_dump()["assay"] == {"kind": "toy", "compounds": 6, "side": 48}
