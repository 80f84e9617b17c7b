"""Real runs of CellProfiler with the translocation pipeline and with the study's illumination."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tifffile
from small_assay import CHANNELS, small_assay

from benchmark.assays.fieldtable import make_assay
from benchmark.base.errors import MorphobenchError
from benchmark.base.tables import FIELD_COLUMNS, WELL, path_column, plane_column
from benchmark.base.tasks import run_serially
from benchmark.cellprofiler.check import check_run
from benchmark.cellprofiler.execute import OUT, execute
from benchmark.cellprofiler.find import CellProfiler, find_cellprofiler
from benchmark.cellprofiler.illumination import function_channels, function_planes, with_loaded_functions
from benchmark.cellprofiler.ingest import image_table
from benchmark.cellprofiler.measure import measure
from benchmark.cellprofiler.pipeline import loaded_images, saved_masks, with_settings
from benchmark.cellprofiler.pipeline_file import read_pipeline
from benchmark.cellprofiler.settings import CellProfilerSettings
from benchmark.cellprofiler.shards import plan_shards, stage
from benchmark.images.illumination import build_illumination
from benchmark.images.settings import IlluminationSettings
from benchmark.quality.check import assay_hash, file_hashes

PIPELINES = Path(__file__).parents[2] / "pipelines"
TRANSLOCATION = PIPELINES / "translocation.cppipe"
REPORTER = ("Reporter", "DNA")
RATIO = "Nuclei_Math_TranslocationRatio"


@pytest.fixture(scope="module")
def cellprofiler() -> CellProfiler:
    try:
        return find_cellprofiler(os.environ)
    except MorphobenchError as error:
        if os.environ.get("CI", "").lower() in ("1", "true"):
            pytest.fail(f"CI must not leave out the runs of CellProfiler: {error}")
        pytest.skip(f"NOT RUN, no CellProfiler: {error}")


def wells_assay(root, planes, channels):
    """An assay of one field a well, 8 bits, from well → planes."""
    rows = []
    for well, stack in planes.items():
        row = dict.fromkeys(FIELD_COLUMNS, "") | {
            "Metadata_Batch": "1", "Metadata_Plate": "p", WELL: well, "Metadata_Site": 1, "Metadata_Replicate": "1",
            "Metadata_Compound": f"c{well}", "Metadata_Concentration": 1.0, "Metadata_Label": "x"}
        for channel, plane in zip(channels, stack, strict=True):
            tifffile.imwrite(root / f"{well}-{channel}.tif", plane, photometric="minisblack")
            row |= {path_column(channel): f"{well}-{channel}.tif", plane_column(channel): 0}
        rows.append(row)
    return make_assay("wells", root, pd.DataFrame(rows), channels)


def draw(nucleus, cytoplasm, size=240):
    """(2, size, size) uint8, background 0: nine cells with the reporter at these levels in nucleus and cytoplasm."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:size, :size]
    reporter, dna = np.zeros((2, size, size))
    for i in range(9):
        r = np.hypot(y - (i // 3 + 0.5) * size / 3, x - (i % 3 + 0.5) * size / 3)
        reporter += nucleus * (r < 9) + cytoplasm * ((r >= 9) & (r < 20))
        dna += 120 * (r < 9)
    noise = rng.uniform(0.95, 1.05, (2, size, size))
    return np.clip(np.stack([reporter, dna]) * noise, 0, 255).astype(np.uint8)


def test_the_pipeline_names_what_it_loads_and_saves():
    text = read_pipeline(TRANSLOCATION)
    assert loaded_images(text) == ["OrigDNA", "OrigReporter"]
    assert saved_masks(text) == {"Nuclei": "_Nuclei.tiff", "Cells": "_Cells.tiff"}


@pytest.mark.slow
@pytest.mark.cellprofiler
def test_the_ratio_is_the_one_that_was_drawn(cellprofiler, tmp_path):
    drawn = {"A01": (30, 90), "A02": (60, 60), "A03": (150, 30)}
    assay = wells_assay(tmp_path, {w: draw(*levels) for w, levels in drawn.items()}, REPORTER)
    settings = CellProfilerSettings(pipeline=str(TRANSLOCATION))
    measured = measure(assay, file_hashes(assay), settings, cellprofiler, tmp_path / "shards", run_serially)
    cells = measured.cells()
    found = cells.groupby(WELL)[RATIO].agg(["size", "median"])
    assert (found["size"] == 9).all()
    # Outlines lie a pixel outside the discs, so some cytoplasm counts as nucleus.
    np.testing.assert_allclose(found["median"], [n / c for n, c in drawn.values()], rtol=0.4)
    for well, rows in cells.groupby(WELL):  # the light is even and the background 0: the raw pixels are the corrected
        reporter = tifffile.imread(tmp_path / f"{well}-Reporter.tif")
        nuclei, whole = (tifffile.imread(measured.mask_path(("p", well, 1), name)) for name in ("Nuclei", "Cells"))
        by_hand = [reporter[nuclei == i].mean() / reporter[(whole == i) & (nuclei == 0)].mean()
                   for i in rows["Metadata_ObjectNumber"]]
        np.testing.assert_allclose(rows[RATIO], by_hand, rtol=1e-4)
    pd.testing.assert_series_equal(cells[RATIO], cells["Cytoplasm_Math_TranslocationRatio"], check_names=False)
    assert cells["Cells_Correlation_Correlation_Reporter_DNA"].groupby(cells[WELL]).median().is_monotonic_increasing


@pytest.mark.slow
@pytest.mark.cellprofiler
def test_cellprofiler_divides_by_the_very_functions_that_crops_are_divided_by(cellprofiler, tmp_path):
    assay = small_assay(tmp_path / "assay", wells=8, size=96, cells=2)
    for row in assay.fields.itertuples():  # a lamp that leaves one side dark
        pixels = tifffile.imread(assay.root / row.Path_DNA)
        tifffile.imwrite(assay.root / row.Path_DNA, (pixels * np.linspace(0.6, 1, 96)).astype(np.uint16),
                         photometric="minisblack")
    hashes = file_hashes(assay)
    illumination = build_illumination(assay, assay_hash(assay, hashes), IlluminationSettings(), tmp_path / "i")
    saved = {"Image bit depth": "32-bit floating point", "Append a suffix to the image file name?": True}
    pipeline = with_loaded_functions(with_settings(read_pipeline(PIPELINES / "analysis.cppipe"), {
        "IdentifyPrimaryObjects": {"Lower and upper bounds on threshold": "0.1,1.0"},
        "SaveImages[1]": {**saved, "Select the image to save": "FlatDNA", "Text to append to the image name": "_F0"},
        "SaveImages[2]": {**saved, "Select the image to save": "FlatActin", "Text to append to the image name": "_F2"},
    }))
    images, functions = function_channels(pipeline, {}, CHANNELS)
    few = replace(assay, fields=assay.fields[:2])
    shard, = plan_shards(few, images, hashes, pipeline, cellprofiler, 2,
                         function_planes(illumination, functions, few.fields["Metadata_Plate"]))
    run = tmp_path / "a run, 100% µ"
    stage(shard, pipeline, run)
    execute(cellprofiler, run, 300)
    table = image_table(check_run(shard, run, pipeline), shard)
    assert len(table) == 2 and not [c for c in table if "Illum" in c]
    for number, row in enumerate(few.fields.itertuples()):
        for plane in (0, 2):
            stored = tifffile.imread(assay.root / row.Path_DNA)[plane] / 65535
            ours = np.minimum(stored / illumination.function(row.Metadata_Plate, CHANNELS[plane]), 1)
            theirs = tifffile.imread(run / OUT / f"f{number:05d}_OrigDNA_F{plane}.tiff")
            assert theirs.dtype == np.float32 and np.abs(ours / stored - 1).max() > 0.1
            np.testing.assert_allclose(theirs, ours, rtol=3e-7)


@pytest.mark.cellprofiler
@pytest.mark.slow
def test_real_wells_of_bbbc013_move_the_reporter_where_they_should(cellprofiler, data_folder, tmp_path):
    """Row A: Wortmannin, column 12 its highest dose; row E: LY294002, column 1 its highest; FKHR enters the nucleus."""
    wells = ["A01", "A02", "E02", "E12", "A11", "A12", "E01", "F01"]
    files = {w: [next((data_folder / "bbbc013").glob(f"Channel{c}-*-{w[0]}-{w[1:]}.tif")) for c in (1, 2)]
             for w in wells}
    assay = wells_assay(tmp_path, {w: [tifffile.imread(p) for p in paths] for w, paths in files.items()}, REPORTER)
    hashes = file_hashes(assay)
    illumination = build_illumination(assay, assay_hash(assay, hashes), IlluminationSettings(), tmp_path / "i")
    few = replace(assay, fields=assay.fields[assay.fields[WELL].isin(["A02", "E01"])])
    measured = measure(few, hashes, CellProfilerSettings(pipeline=str(TRANSLOCATION)), cellprofiler,
                       tmp_path / "shards", run_serially, illumination)
    assert measured.record["illumination"] == illumination.key
    assert measured.record["illumination_functions"] == {"IllumDNA": "DNA", "IllumReporter": "Reporter"}
    cells = measured.cells()
    assert cells.groupby(WELL).size().between(100, 400).all()
    assert cells["Nuclei_AreaShape_EquivalentDiameter"].median() == pytest.approx(17, abs=2)
    ratio = cells.groupby(WELL)[RATIO].median()
    assert 0.6 < ratio["A02"] < 1.2 and ratio["E01"] > 4
