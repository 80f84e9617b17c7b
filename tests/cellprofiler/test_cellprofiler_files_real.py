"""One real run, exported by CellProfiler's own ExportToSpreadsheet and ExportToDatabase: the same cells each time."""

import os
import re
import shutil

import numpy as np
import pandas as pd
import pytest
from small_assay import small_assay

from benchmark.assays.profiles.cellprofiler_files import find_output, read_cells
from benchmark.base.errors import MorphobenchError
from benchmark.base.files import PROJECT
from benchmark.cellprofiler.check import check_run
from benchmark.cellprofiler.execute import OUT, execute
from benchmark.cellprofiler.find import find_cellprofiler
from benchmark.cellprofiler.ingest import cell_table
from benchmark.cellprofiler.measure import effective_pipeline
from benchmark.cellprofiler.settings import CellProfilerSettings
from benchmark.cellprofiler.shards import image_channels, plan_shards, stage
from benchmark.quality.check import file_hashes

pytestmark = pytest.mark.cellprofiler

SETTINGS = {
    "CorrectIlluminationCalculate": {"Block size": 40},
    "IdentifyPrimaryObjects": {"Lower and upper bounds on threshold": "0.1,1.0"},
    "IdentifySecondaryObjects": {"Lower and upper bounds on threshold": "0.06,1.0"},
    "MeasureGranularity": {"Range of the granular spectrum": 3},
    "MeasureTexture": {"Select objects to measure": "Nuclei, Cells"},
}
FORMS = {"combined": "Single object table", "separate": "One table per object type", "view": "Single object view"}


def export_module(number, form):
    """ExportToDatabase as CellProfiler's own API writes it (revision 28): values in order, names do not count."""
    prefixed = "No" if form == "separate" else "Yes"
    values = ["SQLite", "DefaultDB", prefixed, "My_", "Default Output Folder|", "No", "", "", "", f"{form}.db", "Yes",
              *["No"] * 5, "All", "", "64", FORMS[form], "", "No", "", "Yes", "None", "None", "None", "Yes", "1", "1",
              "0", "1", "MyExpt", "None", "", "No", "Data and schema", "No", "Object", "None", "Yes", "Channel1", "red",
              "No", "", "ImageNumber", "No", "No", "No", "ScatterPlot", "Image", "None", "None", "ImageNumber",
              "Image", "None", "None", "ImageNumber"]
    assert len(values) == 58
    head = f"ExportToDatabase:[module_num:{number}|variable_revision_number:28|notes:[]|enabled:True|wants_pause:False]"
    return "\n".join([head, *(f"    setting {i}:{v}" for i, v in enumerate(values))])


@pytest.fixture(scope="session")
def run(tmp_path_factory):
    """Folder of the run, its shard, and the pipeline without the exports to databases."""
    try:
        cellprofiler = find_cellprofiler(os.environ)
    except MorphobenchError as error:
        if os.environ.get("CI", "").lower() in ("1", "true"):
            pytest.fail(f"CI must not leave out the runs of CellProfiler: {error}")
        pytest.skip(f"NOT RUN, no CellProfiler: {error}")
    root = tmp_path_factory.mktemp("existing")
    assay = small_assay(root / "assay", wells=3, size=160, cells=[9, 4, 0])
    plain = effective_pipeline(CellProfilerSettings(pipeline=str(PROJECT / "pipelines" / "analysis.cppipe"),
                                                    settings=SETTINGS))
    count = len(re.findall(r"^\w+:\[module_num", plain, re.MULTILINE))
    text = "\n\n".join([plain.rstrip(), *(export_module(count + 1 + i, form) for i, form in enumerate(FORMS))]) + "\n"
    text = re.sub(r"ModuleCount:\d+", f"ModuleCount:{count + len(FORMS)}", text)
    [shard] = plan_shards(assay, image_channels(plain, {}, assay.channels), file_hashes(assay), text, cellprofiler, 3)
    stage(shard, text, root / "run")
    # ExportToDatabase wants MySQLdb even for SQLite, of which it then uses this alone.
    stub = root / "stub" / "MySQLdb"
    stub.mkdir(parents=True)
    (stub / "__init__.py").write_text("class Error(Exception): pass\ndef escape_string(t): return t.encode()\n")
    (stub / "cursors.py").write_text("class SSCursor: pass\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(stub.parent))
        execute(cellprofiler, root / "run", 600)
    return root / "run", shard, plain


def read(path):
    return read_cells(find_output(path, ","), "Metadata_Plate", "Metadata_Well", None)[0]


@pytest.mark.slow
def test_sqlite_and_csv_of_one_real_run_are_the_table_that_we_ingest(run, tmp_path):
    folder, shard, pipeline = run
    for path in (folder / OUT).glob("*.csv"):
        shutil.copy(path, tmp_path)
    table = read(tmp_path)
    features = [c for c in table if not c.startswith("Metadata_")]
    assert len(table) == 13 and len(features) > 1000
    for form in FORMS:
        other = read(folder / OUT / f"{form}.db")
        pd.testing.assert_frame_equal(other[list(table)], table, rtol=1e-6, atol=0)
        assert set(other) == set(table)
    ours, _ = cell_table(check_run(shard, folder, pipeline), shard)
    np.testing.assert_array_equal(ours[features].to_numpy(), table[features].to_numpy())
    assert {c for c in ours if not c.startswith("Metadata_")} == set(features)
