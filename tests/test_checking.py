"""`assay check` prints the faults of the table and of the images in one go."""

from __future__ import annotations

import numpy as np
import tifffile
import yaml
from typer.testing import CliRunner

from benchmark.cli import app

STUDY = {
    "name": "mine", "methods": [{"name": "count", "kind": "cell_count"}],
    "assay": {
        "kind": "table", "csv": "plan.csv", "channels": {"DNA": {"file": "{File}"}},
        "columns": {"plate": "Plate", "well": "Well", "compound": "Drug", "concentration": "Dose", "label": "MoA"},
    },
}


def test_faults_of_table_and_images_come_together(tmp_path):
    rng = np.random.default_rng(0)
    rows = ["Plate,Well,Drug,Dose,MoA,File"]
    for i in range(8):
        rows.append(f"P1,A{i:02d},drug {i},1,{'xy'[i % 2]},f{i}.tif")
        tifffile.imwrite(tmp_path / f"f{i}.tif", rng.integers(0, 999, (20, 20 + (i == 5)), dtype=np.uint16))
    rows[3] = rows[3].replace(",1,", ",much,")
    rows.append(rows[1])
    (tmp_path / "f1.tif").unlink()
    (tmp_path / "f3.tif").write_bytes((tmp_path / "f3.tif").read_bytes()[:-200])
    (tmp_path / "f6.tif").write_bytes((tmp_path / "f4.tif").read_bytes())
    (tmp_path / "plan.csv").write_text("\n".join(rows))
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(STUDY))
    result = CliRunner().invoke(app, ["assay", "check", str(tmp_path / "mine.yaml")], catch_exceptions=False)
    assert result.exit_code == 1
    for words in ("'much'", "same image planes", "f1.tif", "f3.tif", "f5.tif", "well A06"):
        assert words in result.output, (words, result.output)
