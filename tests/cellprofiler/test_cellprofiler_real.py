"""Real runs of CellProfiler on fields drawn here."""

import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
import tifffile
from small_assay import small_assay

from benchmark.base.errors import FaultsError, MorphobenchError
from benchmark.base.tables import FIELD_KEY
from benchmark.base.tasks import run_serially
from benchmark.cellprofiler.find import VENV, CellProfiler, find_cellprofiler
from benchmark.cellprofiler.measure import Measured, measure
from benchmark.cellprofiler.settings import CellProfilerSettings
from benchmark.quality.check import file_hashes

pytestmark = pytest.mark.cellprofiler

ROOT = Path(__file__).parents[2]
PIPELINE = ROOT / "pipelines" / "analysis.cppipe"
CELLS = [9, 4, 0]  # of three fields; the last shard has a single empty field
SETTINGS = {
    "CorrectIlluminationCalculate": {"Block size": 40},
    "IdentifyPrimaryObjects": {"Lower and upper bounds on threshold": "0.1,1.0"},
    "IdentifySecondaryObjects": {"Lower and upper bounds on threshold": "0.06,1.0"},
    "MeasureGranularity": {"Range of the granular spectrum": 3},
    "MeasureTexture": {"Select objects to measure": "Nuclei, Cells"},
}


@pytest.fixture(scope="session")
def cellprofiler() -> CellProfiler:
    try:
        return find_cellprofiler(os.environ)
    except MorphobenchError as error:
        if os.environ.get("CI", "").lower() in ("1", "true"):
            pytest.fail(f"CI must not leave out the runs of CellProfiler: {error}")
        pytest.skip(f"NOT RUN, no CellProfiler: {error}")


@pytest.fixture(scope="session")
def assay(tmp_path_factory):
    return small_assay(tmp_path_factory.mktemp("real") / "assay", wells=3, size=160, cells=CELLS)


def settings(pipeline: Path = PIPELINE, **more) -> CellProfilerSettings:
    return CellProfilerSettings(pipeline=str(pipeline), settings=SETTINGS, shard_fields=2, timeout_minutes=5, **more)


@pytest.fixture(scope="session")
def measured(cellprofiler, assay, tmp_path_factory) -> Measured:
    """In a folder with a name for which CellProfiler's Java needs a locale, and without one (cron, containers)."""
    folder = tmp_path_factory.mktemp("shards") / "my runs, 100% &c. µ é #1 [a] 'b' \"c\" ;+?"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LC_ALL", "C")
        return measure(assay, file_hashes(assay), settings(), cellprofiler, folder, run_serially)


def test_every_field_is_counted_right_the_empty_one_too(measured, assay):
    images = measured.images().set_index(FIELD_KEY)
    assert images.loc[assay.fields[FIELD_KEY].itertuples(index=False, name=None), "Count_Cells"].tolist() == CELLS
    assert measured.record["shards_run"] == 2 and measured.record["cells"] == sum(CELLS)
    assert images["Image_ImageQuality_MeanIntensity_OrigDNA"].between(0.02, 0.2).all()


def test_features_of_all_kinds_belong_to_the_right_cells(measured):
    cells = measured.cells()
    assert len(cells) == sum(CELLS)
    for feature in ("AreaShape_Area", "Intensity_MeanIntensity_DNA", "RadialDistribution_FracAtD_Actin_1of4",
                    "Texture_Contrast_Tubulin_3_00_256", "Granularity_1_DNA", "Correlation_Correlation_DNA_Actin"):
        assert cells[f"Cells_{feature}"].notna().all() and cells[f"Nuclei_{feature}"].notna().all()
    assert not [c for c in cells if "Location" in c and not c.startswith("Metadata_")]
    # Drawn with radii of 7 and 14 pixels.
    assert cells["Nuclei_AreaShape_Area"].between(0.8 * np.pi * 49, 1.3 * np.pi * 49).all()
    assert cells["Cells_AreaShape_Area"].between(0.8 * np.pi * 196, 1.3 * np.pi * 196).all()
    ring = cells["Cells_AreaShape_Area"] - cells["Nuclei_AreaShape_Area"]
    np.testing.assert_allclose(cells["Cytoplasm_AreaShape_Area"], ring)
    assert (cells["Nuclei_Intensity_MeanIntensity_DNA"] > 2 * cells["Cytoplasm_Intensity_MeanIntensity_DNA"]).all()


def test_masks_show_the_objects_of_their_field(measured, assay):
    for key, count in zip(assay.fields[FIELD_KEY].itertuples(index=False, name=None), CELLS, strict=True):
        rows = measured.cells().set_index(FIELD_KEY).sort_index()
        for name in ("Nuclei", "Cells"):
            labels = tifffile.imread(measured.mask_path(key, name))
            assert labels.shape == (160, 160) and labels.max() == count
        if count:
            areas = np.bincount(labels.ravel())[1:]
            cells = rows.loc[[key]].sort_values("Metadata_ObjectNumber")
            np.testing.assert_array_equal(areas, cells["Cells_AreaShape_Area"])


def test_a_second_call_starts_nothing(measured, assay):
    gone = CellProfiler(("/nonexistent/cellprofiler",), measured.record["cellprofiler"]["version"], "test")
    again = measure(assay, file_hashes(assay), settings(), gone, measured.folder, run_serially)
    assert again.record["shards_run"] == 0 and again.cells().equals(measured.cells())


def test_a_module_that_cellprofiler_does_not_know_is_an_error_by_name(cellprofiler, tmp_path):
    assay = small_assay(tmp_path / "assay", wells=2, size=96, cells=1)
    pipeline = tmp_path / "magic.cppipe"
    pipeline.write_text(PIPELINE.read_text().replace("\nMeasureColocalization:", "\nMeasureMagic:"))
    with pytest.raises(FaultsError, match="MeasureMagic"):
        measure(assay, file_hashes(assay), settings(pipeline), cellprofiler, tmp_path / "shards", run_serially)
    assert not list((tmp_path / "shards").glob("*/cells.parquet"))


def test_our_pipelines_are_what_cellprofilers_own_api_writes(tmp_path):
    python = VENV / "bin" / "python"
    if not python.exists():
        pytest.skip("the pipelines are written with the installed CellProfiler, which is not there")
    script = ROOT / "pipelines" / "write_pipelines.py"
    done = subprocess.run([str(python), str(script), str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    written = {p.name: p.read_text() for p in tmp_path.iterdir()}
    assert written == {p.name: p.read_text() for p in (ROOT / "pipelines").glob("*.cppipe")} and len(written) == 5
