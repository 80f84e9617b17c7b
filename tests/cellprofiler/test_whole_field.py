"""The pipelines without objects, and all pipelines as CellProfiler's own API reads them."""

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tifffile

from benchmark.assays.fieldtable import make_assay
from benchmark.base.errors import MorphobenchError
from benchmark.base.tables import FIELD_COLUMNS, WELL, path_column, plane_column
from benchmark.base.tasks import run_serially
from benchmark.cellprofiler.execute import ONE_THREAD
from benchmark.cellprofiler.find import VENV, CellProfiler, find_cellprofiler
from benchmark.cellprofiler.illumination import function_channels, with_loaded_functions
from benchmark.cellprofiler.measure import measure
from benchmark.cellprofiler.pipeline import csv_prefix, loaded_images, module_names, parse, saved_masks
from benchmark.cellprofiler.pipeline_file import read_pipeline
from benchmark.cellprofiler.settings import CellProfilerSettings
from benchmark.quality.check import file_hashes

PIPELINES = Path(__file__).parents[2] / "pipelines"
WHOLE = {"whole_field": ("Actin", "DNA", "Tubulin"), "whole_field_two": ("DNA", "Reporter")}
TRANSFORMS = ("Fine", "Medium", "Coarse", "Edges", "Tubes", "Speckles", "Small")


@pytest.fixture(scope="module")
def cellprofiler() -> CellProfiler:
    try:
        return find_cellprofiler(os.environ)
    except MorphobenchError as error:
        if os.environ.get("CI", "").lower() in ("1", "true"):
            pytest.fail(f"CI must not leave out the runs of CellProfiler: {error}")
        pytest.skip(f"NOT RUN, no CellProfiler: {error}")


@pytest.fixture(scope="module")
def python() -> Path:
    found = VENV / "bin" / "python"
    if not found.exists():
        pytest.skip("the pipelines are read with the installed CellProfiler, which is not there")
    return found


@pytest.mark.parametrize("name", WHOLE)
def test_whole_fields_are_measured_with_their_transforms_and_without_objects(name):
    text = read_pipeline(PIPELINES / f"{name}.cppipe")
    channels = WHOLE[name]
    assert loaded_images(text) == [f"Orig{c}" for c in channels]
    assert csv_prefix(text) == "" and saved_masks(text) == {}
    assert not [n for n in module_names(text) if n.startswith("Identify") or "Object" in n]
    measured = {image for m in parse(text) if m.name in ("MeasureTexture", "MeasureImageIntensity")
                for image in m.get("Select images to measure").split(", ")}
    assert measured == {t + c for t in ("", *TRANSFORMS) for c in channels}


@pytest.mark.parametrize("name", WHOLE)
def test_the_studys_illumination_takes_the_place_of_the_pipelines(name):
    text = with_loaded_functions(read_pipeline(PIPELINES / f"{name}.cppipe"))
    images, functions = function_channels(text, {}, WHOLE[name])
    assert images == {f"Orig{c}": c for c in WHOLE[name]}
    assert functions == {f"Illum{c}": c for c in WHOLE[name]}


#: Reads pipelines as the window does and tells what it read, what it would write, and all warnings.
READ = """
import io, json, logging, sys, warnings
import cellprofiler_core.preferences as preferences
preferences.set_headless()
logging.disable(logging.WARNING)
from cellprofiler_core.pipeline import Pipeline
from cellprofiler_core.utilities.core.modules import fill_modules
fill_modules()
logging.disable(logging.NOTSET)
said = []
class Keep(logging.Handler):
    def emit(self, record):
        said.append(record.getMessage())
logging.getLogger().addHandler(Keep(logging.WARNING))
found = {}
preferences.set_default_image_directory(sys.argv[1])
for path in sys.argv[2:]:
    said.clear()
    pipeline = Pipeline()
    pipeline.add_listener(lambda _, event: said.append(str(event.error)) if hasattr(event, "error") else None)
    pipeline.load(path)
    text = io.StringIO()
    pipeline.dump(text, save_image_plane_details=False)
    invalid = []
    for module in pipeline.modules():
        try:
            module.test_valid(pipeline)
        except Exception as error:
            invalid.append(f"{module.module_name}: {error}")
    found[path] = {"modules": [m.module_name for m in pipeline.modules()], "text": text.getvalue(), "said": list(said),
                   "invalid": invalid}
sys.stdout.write("READ" + json.dumps(found))
"""


@pytest.mark.cellprofiler
def test_every_pipeline_opens_in_cellprofiler_as_it_stands(python, tmp_path):
    paths = sorted(PIPELINES.glob("*.cppipe"))
    assert len(paths) == 5
    images = {f"Image_{part}_Orig{c}": "x" for c in ("DNA", "Tubulin", "Actin", "Reporter")
              for part in ("FileName", "PathName")}
    pd.DataFrame([images | {"Metadata_Plate": "p"}]).to_csv(tmp_path / "load_data.csv", index=False)
    done = subprocess.run([str(python), "-c", READ, str(tmp_path), *map(str, paths)], capture_output=True, text=True,
                          check=False, env={**os.environ, **ONE_THREAD})
    assert done.returncode == 0, done.stderr
    for path, found in json.loads(done.stdout.partition("READ")[2]).items():
        text = read_pipeline(Path(path))
        assert found["said"] == []
        assert found["modules"] == [m.name for m in parse(text)]
        # Revisions, order and number of settings are those that it writes itself.
        assert found["text"] == text
        # Nothing is red in the window where it finds a table.
        assert found["invalid"] == []


def stripes(pitch, size=96):
    """(size, size) uint16: stripes along x."""
    wave = 12000 + 8000 * np.sin(2 * np.pi * np.arange(size) / pitch)
    noise = np.random.default_rng(int(pitch)).uniform(0.98, 1.02, (size, size))
    return (wave[None, :] * noise).astype(np.uint16)


@pytest.mark.slow
@pytest.mark.cellprofiler
def test_bands_textures_and_edges_tell_patterns_apart(cellprofiler, tmp_path):
    planes = {"A01": stripes(5), "A02": stripes(24), "A03": stripes(24).T}
    rows = []
    for well, plane in planes.items():
        tifffile.imwrite(tmp_path / f"{well}.tif", np.stack([plane, stripes(9)]), photometric="minisblack")
        row = dict.fromkeys(FIELD_COLUMNS, "") | {
            "Metadata_Batch": "1", "Metadata_Plate": "p", WELL: well, "Metadata_Site": 1, "Metadata_Replicate": "1",
            "Metadata_Compound": f"c{well}", "Metadata_Concentration": 1.0, "Metadata_Label": "x"}
        rows.append(row | {path_column(c): f"{well}.tif" for c in ("Reporter", "DNA")}
                    | {plane_column(c): i for i, c in enumerate(("Reporter", "DNA"))})
    assay = make_assay("stripes", tmp_path, pd.DataFrame(rows), ("Reporter", "DNA"))
    # A function that is flat: one block, and the fit of a polynomial to one number everywhere.
    flat = {"CorrectIlluminationCalculate": {"Block size": 96}}
    settings = CellProfilerSettings(pipeline=str(PIPELINES / "whole_field_two.cppipe"), illumination="pipeline",
                                    settings=flat)
    measured = measure(assay, file_hashes(assay), settings, cellprofiler, tmp_path / "shards", run_serially)
    images = measured.images().set_index(WELL)
    assert measured.record["cells"] == 0 and not [c for c in images if c.startswith("Count_")]
    assert images.filter(like="Image_").shape[1] > 1000
    width = {band: images[f"Image_Intensity_StdIntensity_{band}Reporter"] for band in ("Fine", "Medium", "Coarse")}
    assert width["Fine"]["A01"] > 5 * width["Coarse"]["A01"]
    assert width["Coarse"]["A02"] > 2 * width["Fine"]["A02"]
    edges = images["Image_Intensity_MeanIntensity_EdgesReporter"]
    assert edges["A01"] > edges["A02"]
    # A field turned by a quarter: directions are exchanged (00 along x, 02 along y), the rest is the same.
    along, across = (images[f"Image_Texture_Contrast_Reporter_3_{d}_256"] for d in ("00", "02"))
    assert along["A02"] > 3 * across["A02"]
    np.testing.assert_allclose([along["A03"], across["A03"]], [across["A02"], along["A02"]], rtol=1e-4)
    same = images.filter(regex=r"Image_(Intensity_|Granularity_).*Reporter")
    np.testing.assert_allclose(same.loc["A03"], same.loc["A02"], rtol=1e-3, atol=1e-4)
    # The other channel is the same picture in all fields.
    other = images.filter(regex=r"Image_(Intensity|Texture|Granularity)_(?!.*Reporter)")
    assert other.shape[1] > 400 and other.nunique().eq(1).all()


@pytest.mark.cellprofiler
@pytest.mark.slow
def test_illumination_functions_are_made_of_all_fields_of_a_plate(cellprofiler, tmp_path):
    lamps = {"p0": np.linspace(0.6, 1.4, 64), "p1": np.linspace(1.4, 0.6, 64)}
    rng = np.random.default_rng(0)
    rows = []
    for plate, lamp in lamps.items():
        for i in range(3):
            name = f"{plate}_{i}.tif"
            tifffile.imwrite(tmp_path / name, (rng.uniform(9000, 11000, (64, 64)) * lamp).astype(np.uint16),
                             photometric="minisblack", metadata=None)
            places = {f"Image_{part}_Orig{c}": value for c in ("DNA", "Tubulin", "Actin")
                      for part, value in (("FileName", name), ("PathName", str(tmp_path)))}
            rows.append(places | {"Metadata_Plate": plate})
    table = tmp_path / "load_data.csv"
    pd.DataFrame(rows).to_csv(table, index=False)
    pipeline = tmp_path / "illumination.cppipe"
    text = read_pipeline(PIPELINES / "illumination.cppipe")
    pipeline.write_text(text.replace("Smoothing filter size:250", "Smoothing filter size:9"))
    out = tmp_path / "out"
    out.mkdir()
    subprocess.run([*cellprofiler.command, "-c", "-r", "-p", str(pipeline), "--data-file", str(table), "-i",
                    str(tmp_path), "-o", str(out), "-d", str(tmp_path / "done")], check=True, capture_output=True,
                   env={**os.environ, **ONE_THREAD})
    assert (tmp_path / "done").read_text().strip() == "Complete"
    assert sorted(p.name for p in out.glob("*.npy")) == [f"{p}_Illum{c}.npy" for p in lamps
                                                         for c in ("Actin", "DNA", "Tubulin")]
    for plate, lamp in lamps.items():
        function = np.load(out / f"{plate}_IllumDNA.npy")
        assert np.median(function) == pytest.approx(1, abs=1e-3)
        np.testing.assert_allclose(function[8:-8, 8:-8], np.broadcast_to(lamp[8:-8], (48, 48)), rtol=0.06)
