"""The backend cp_measure: masks, names, tables, and its features beside CellProfiler's."""

import importlib
import os
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tifffile
from small_assay import small_assay

from benchmark.base.errors import MorphobenchError
from benchmark.base.files import read_json
from benchmark.base.tables import FIELD_KEY
from benchmark.base.tasks import run_serially
from benchmark.cellprofiler.cp_measure import cpmeasure
from benchmark.cellprofiler.cp_measure import segment as segment_module
from benchmark.cellprofiler.cp_measure.cpshard import backend, corrected, measure_shard, read_images
from benchmark.cellprofiler.cp_measure.segment import (
    PRIMARY,
    SECONDARY,
    Primary,
    Secondary,
    Threshold,
    cells,
    cytoplasm,
    foreground,
    nuclei,
    primary_settings,
    secondary_settings,
)
from benchmark.cellprofiler.cp_measure.steps import FieldFault
from benchmark.cellprofiler.find import find_cellprofiler
from benchmark.cellprofiler.illumination import APPLY, CALCULATE
from benchmark.cellprofiler.ingest import OBJECT_NUMBER
from benchmark.cellprofiler.land import Task, run_shard
from benchmark.cellprofiler.measure import effective_pipeline, measure
from benchmark.cellprofiler.pipeline import parse, with_modules_off
from benchmark.cellprofiler.settings import CellProfilerSettings
from benchmark.cellprofiler.shards import Plane, StagedField, image_channels, plan_shards
from benchmark.quality.check import file_hashes

ROOT = Path(__file__).parents[3]
CELLS = [9, 4, 0]
SETTINGS = {
    "CorrectIlluminationCalculate": {"Block size": 40},
    "IdentifyPrimaryObjects": {"Lower and upper bounds on threshold": "0.1,1.0"},
    "IdentifySecondaryObjects": {"Lower and upper bounds on threshold": "0.06,1.0"},
    "MeasureGranularity": {"Range of the granular spectrum": 3},
    "MeasureTexture": {"Select objects to measure": "Nuclei, Cells", "Texture scale to measure[2]": 5},
}
OPTIONS = CellProfilerSettings(pipeline=str(ROOT / "pipelines" / "analysis.cppipe"), settings=SETTINGS, shard_fields=3,
                               timeout_minutes=5)
PIPELINE = effective_pipeline(OPTIONS)


def disks(*discs, size=120):
    """A plane of discs (row, column, radius) of 0.5 on 0.05, hardly noisy."""
    y, x = np.mgrid[:size, :size]
    plane = np.random.default_rng(0).normal(0.05, 0.002, (size, size))
    for row, column, radius in discs:
        plane[(y - row) ** 2 + (x - column) ** 2 <= radius**2] = 0.5
    return np.clip(plane, 0, 1)


def plan(assay, text=PIPELINE):
    [shard] = plan_shards(assay, image_channels(text, {}, assay.channels), file_hashes(assay), text, backend(), 3)
    return shard


@pytest.fixture(scope="module")
def assay(tmp_path_factory):
    return small_assay(tmp_path_factory.mktemp("own") / "assay", wells=3, size=160, cells=CELLS)


@pytest.fixture(scope="module")
def own(assay):
    return measure_shard(plan(assay), PIPELINE)


# ---- masks

def test_settings_are_those_of_the_pipeline():
    modules = {m.name: m for m in parse(PIPELINE)}
    nucleus, cell = primary_settings(modules[PRIMARY]), secondary_settings(modules[SECONDARY])
    assert nucleus == Primary((12, 60), Threshold(sigma=nucleus.threshold.sigma, bounds=(0.1, 1)))
    assert nucleus.threshold.sigma == pytest.approx(1, abs=1e-3) and nucleus.threshold.window == 0
    assert (cell.method, cell.weight) == ("Propagation", 0.05)
    assert cell.threshold.correction == 0.8 and cell.threshold.bounds == (0.06, 1.0)
    ring = {m.name: m for m in parse((ROOT / "pipelines" / "translocation.cppipe").read_text())}
    assert primary_settings(ring[PRIMARY]).threshold.window == 100
    assert secondary_settings(ring[SECONDARY]).method == "Distance - N"


def test_nuclei_that_touch_are_two_and_those_at_the_border_or_of_the_wrong_size_none():
    plane = disks((40, 30, 10), (40, 47, 10), (90, 90, 10), (0, 60, 10), (20, 100, 3), (85, 30, 22))
    labels, everything, threshold = nuclei(plane, Primary((12, 30)))
    assert 0.06 < threshold < 0.5
    assert labels.max() == 3 and len({labels[40, 30], labels[40, 47], labels[90, 90]} - {0}) == 3
    assert np.bincount(labels.ravel())[labels[90, 90]] == pytest.approx(np.pi * 100, rel=0.2)
    assert not labels[0, 60] and everything[0, 60] > labels.max()  # at the border: keeps its ground
    assert not labels[20, 100] and not everything[20, 100]
    assert not labels[85, 30]
    np.testing.assert_array_equal(everything[labels > 0], labels[labels > 0])


def test_an_empty_plane_and_a_bound_above_all_pixels_give_no_nuclei():
    assert nuclei(disks(), Primary(threshold=Threshold(bounds=(0.2, 1))))[0].max() == 0
    assert nuclei(disks((60, 60, 10)), Primary(threshold=Threshold(bounds=(0.7, 1))))[0].max() == 0


def test_the_threshold_is_corrected_bounded_and_where_adaptive_follows_the_background():
    plane = disks((60, 60, 20))
    _, level = foreground(plane, Threshold())
    assert foreground(plane, Threshold(correction=0.5))[1] == pytest.approx(level / 2)
    assert foreground(plane, Threshold(bounds=(0.4, 1)))[1] == 0.4
    assert foreground(plane, Threshold("Manual", 0.3))[1] == 0.3
    # One light for all takes the lit right for cells; blocks of 60 × 60 do not.
    dim, bright = disks((60, 30, 12)) > 0.3, disks((60, 90, 12)) > 0.3
    lit = np.where(np.arange(120) < 60, 0.1, 0.17) * np.ones((120, 1))
    lit = np.where(dim, 0.2, np.where(bright, 0.5, lit))
    (whole, one), (local, mean) = (foreground(lit, Threshold(window=w)) for w in (0, 60))
    assert all(found[disc].mean() > 0.9 for found in (whole, local) for disc in (dim, bright))
    right, left = np.s_[:40, 70:], np.s_[:40, :50]
    assert whole[right].mean() > 0.9 and local[right].mean() < 0.5 and not whole[left].any() and not local[left].any()
    assert 0.7 * one <= mean <= 1.5 * one


@pytest.mark.parametrize("method", ["Propagation", "Distance - N", "Watershed - Image"])
def test_cells_surround_their_nuclei_and_leave_the_neighbours_at_the_border_their_ground(method):
    seeds = np.zeros((60, 60), np.int32)
    seeds[25:35, 15:20], seeds[25:35, 40:45] = 1, 2
    plane = np.full((60, 60), 0.05)
    plane[15:45, 5:55] = 0.5 + np.random.default_rng(0).uniform(0, 0.01, (30, 50))
    kept = np.where(seeds == 1, 1, 0)
    labels, _ = cells(plane, kept, seeds, Secondary(method, 6, 0.05, Threshold()))
    assert set(np.unique(labels)) == {0, 1} and (labels[seeds == 1] == 1).all()
    assert not labels[seeds == 2].any() and labels[30, 13] == 1 and not labels[30, 48]
    if method == "Distance - N":
        assert labels[30, 25] == 1 and labels[30, 26] == 0
    ring = cytoplasm(labels, kept)
    assert (ring > 0).sum() == (labels > 0).sum() - kept.sum()
    assert (cytoplasm(labels, kept, shrink=True) > 0).sum() == (ring > 0).sum() + 2 * (10 + 5) - 4


# ---- images

def test_planes_are_scaled_by_their_depth_divided_and_multiplied(tmp_path):
    for name, dtype, value in (("eight", np.uint8, 51), ("sixteen", np.uint16, 13107)):
        pixels = np.full((8, 8), value, dtype)
        pixels[0, 0] = 0
        tifffile.imwrite(tmp_path / f"{name}.tif", pixels)
        planes = tuple(Plane(f"Orig{c}", tmp_path / f"{name}.tif", 0, "") for c in ("DNA", "Tubulin", "Actin"))
        loaded, levels = read_images(StagedField("p", "w", 1, planes))
        assert levels == np.iinfo(dtype).max and loaded["OrigDNA"][1, 1] == pytest.approx(0.2)
        text = effective_pipeline(CellProfilerSettings(
            pipeline=OPTIONS.pipeline, settings={"ImageMath[1]": {"Multiply the image by[1]": 4}}))
        made = corrected(parse(text), loaded, {"IllumDNA": np.full((8, 8), 0.5, np.float32),
                                               "IllumActin": np.full((8, 8), 2, np.float32)})
        assert [made[c][1, 1] for c in ("DNA", "Tubulin", "Actin")] == pytest.approx([1.0, 0.2, 0.1])


# ---- a shard

def test_a_shard_has_the_tables_and_masks_that_cellprofiler_would_give(own, assay):
    assert own.fields == (0, 1, 2) and not own.failed and not own.objects_left_out
    images = own.images.set_index(FIELD_KEY)
    order = images.loc[list(assay.fields[FIELD_KEY].itertuples(index=False, name=None))]
    assert order["Count_Cells"].tolist() == order["Count_Nuclei"].tolist() == CELLS
    assert own.images["Count_Cells"].dtype == np.int32
    assert len(own.cells) == sum(CELLS) and own.cells[OBJECT_NUMBER].dtype == np.int32
    features = own.cells.columns[~own.cells.columns.str.startswith("Metadata_")]
    assert (own.cells.dtypes[features] == np.float32).all()
    centre = own.cells.loc[own.cells.groupby(FIELD_KEY).cumcount() == 0, "Metadata_Nuclei_Location_Center_X"]
    assert ((centre - 160 / 6).abs().min()) < 1
    assert own.cells["Nuclei_AreaShape_Area"].between(0.8 * np.pi * 49, 1.3 * np.pi * 49).all()
    assert own.cells["Cells_AreaShape_Area"].between(0.8 * np.pi * 196, 1.3 * np.pi * 196).all()
    for name in ("Nuclei", "Cells"):
        assert [m.max() for m in own.masks[name]] == [9, 4, 0] and own.masks[name][0].dtype == np.uint16
    areas = np.bincount(own.masks["Cells"][0].ravel())[1:]
    np.testing.assert_array_equal(areas, own.cells["Cells_AreaShape_Area"][:9])
    assert own.modules_left_out == ["CorrectIlluminationCalculate", "MeasureImageQuality"]


def test_columns_are_cellprofilers(own):
    for name in ("Nuclei_AreaShape_Zernike_9_9", "Cells_AreaShape_MinFeretDiameter", "Cytoplasm_Granularity_3_Tubulin",
                 "Cells_Texture_InfoMeas2_Actin_5_03_256", "Nuclei_RadialDistribution_MeanFrac_DNA_2of4",
                 "Cells_Correlation_Correlation_DNA_Tubulin", "Cells_Correlation_RWC_Tubulin_DNA",
                 "Cells_Correlation_Overlap_Tubulin_Actin", "Nuclei_Neighbors_PercentTouching_60",
                 "Cells_Neighbors_AngleBetweenNeighbors_Adjacent", "Cytoplasm_Intensity_MADIntensity_Actin"):
        assert own.cells[name].notna().all(), name
    assert not own.cells.columns.str.contains("Location_CenterMass|Correlation_Slope|ObjectNumber_|BoundingBox").any()
    assert {"Image_ImageQuality_PowerLogLogSlope_OrigDNA", "Image_Threshold_FinalThreshold_Nuclei"} <= set(own.images)


def test_a_field_that_cannot_be_read_is_left_out_with_its_reason(tmp_path, own):
    small = small_assay(tmp_path / "assay", wells=2, size=96, cells=1)
    shard = plan(small)
    tifffile.imwrite(shard.fields[0].planes[0].path, np.full((3, 96, 96), 7, np.uint16), photometric="minisblack")
    found = measure_shard(shard, PIPELINE)
    assert found.fields == (1,) and "every pixel" in found.failed[0].what and len(found.masks["Cells"]) == 1
    # One cell has no neighbours, and everything else.
    assert found.cells[FIELD_KEY].iloc[0].tolist() == [shard.fields[1].plate, shard.fields[1].well, 1]
    assert len(found.cells) == 1 and found.cells["Cells_Granularity_1_DNA"].notna().all()
    tifffile.imwrite(shard.fields[1].planes[0].path, np.full((3, 96, 96), 7, np.uint16), photometric="minisblack")
    none = measure_shard(shard, PIPELINE)
    assert not none.fields and not len(none.cells) and OBJECT_NUMBER in none.cells and set(none.failed) == {0, 1}


def failing_at(monkeypatch, module, area, error):
    """Let a module fail at fields of which so many pixels are nuclei."""
    whole = cpmeasure.MEASURES[module]

    def failing(settings, place):
        whole(settings, place)
        if (place.objects["Nuclei"].labels > 0).sum() == area:
            raise error

    monkeypatch.setitem(cpmeasure.MEASURES, module, failing)


def assert_same_but_for(found, own, index):
    """The other fields are as they were, as if that one had never been there."""
    others = [i for i in own.fields if i != index]
    assert found.fields == tuple(others)
    for name in own.masks:
        for one, other in zip(found.masks[name], [own.masks[name][i] for i in others], strict=True):
            np.testing.assert_array_equal(one, other)
    gone = own.images[FIELD_KEY].iloc[index]
    for one, other in (found.cells, own.cells), (found.images, own.images):
        other = other[(other[FIELD_KEY] != gone).any(axis=1)]
        pd.testing.assert_frame_equal(one, other.reset_index(drop=True), check_exact=True)


@pytest.mark.parametrize(("index", "module", "error", "words"), [
    (0, "MeasureTexture", IndexError("index 9 is out\nof bounds"), "IndexError: index 9 is out of bounds"),
    (1, "MeasureGranularity", ValueError("zero-size array"), "ValueError: zero-size array"),
    (2, "MeasureObjectIntensity", ZeroDivisionError("division by zero"), "ZeroDivisionError: division by zero")])
def test_an_odd_field_costs_itself_alone(assay, own, monkeypatch, index, module, error, words):
    failing_at(monkeypatch, module, (own.masks["Nuclei"][index] > 0).sum(), error)
    shard = plan(assay)
    found = measure_shard(shard, PIPELINE)
    assert set(found.failed) == {index} and found.odd == (index,)
    assert str(found.failed[index]).startswith(f"{shard.fields[index].name}: {module} failed with {words}. ")
    assert_same_but_for(found, own, index)


def test_a_field_that_cannot_be_segmented_costs_itself_alone(assay, own, monkeypatch):
    shard = plan(assay)
    bright = read_images(shard.fields[0])[0]["OrigDNA"].mean()
    whole = segment_module.nuclei

    def failing(plane, settings):
        if plane.mean() > 0.9 * bright:
            raise RuntimeError("no convergence")
        return whole(plane, settings)

    monkeypatch.setattr(segment_module, "nuclei", failing)
    found = measure_shard(shard, PIPELINE)
    assert f"{PRIMARY} failed with RuntimeError: no convergence" in found.failed[0].what
    assert_same_but_for(found, own, 0)


def test_a_field_of_another_size_than_its_illumination_function_costs_itself_alone(assay, own, tmp_path):
    shard = plan(assay)
    fields = []
    for i, field in enumerate(shard.fields):
        names = {name: tmp_path / f"{name}{i}.npy" for name in ("IllumDNA", "IllumTubulin", "IllumActin")}
        for path in names.values():
            np.save(path, np.ones((160, 150 if i == 1 else 160), np.float32))
        fields.append(replace(field, functions=tuple(Plane(n, p, 0, "") for n, p in names.items())))
    found = measure_shard(replace(shard, fields=tuple(fields)), PIPELINE)
    assert set(found.failed) == {1} and "(160, 150)" in found.failed[1].what
    assert_same_but_for(found, own, 1)


@pytest.mark.parametrize("error", [MorphobenchError("the pipeline is wrong"), MemoryError(), OSError("disk"),
                                   ImportError("centrosome")])
def test_what_no_field_is_to_blame_for_stops_the_run(assay, own, monkeypatch, error):
    failing_at(monkeypatch, "MeasureTexture", (own.masks["Nuclei"][1] > 0).sum(), error)
    with pytest.raises(type(error)):
        measure_shard(plan(assay), PIPELINE)


@pytest.mark.parametrize(("setting", "value", "words"), [
    ("Texture scale to measure", "3a", "'3a' is not a whole number"),
    ("Range of the granular spectrum", "", "'' is not a whole number"),
    ("Typical diameter of objects, in pixel units (Min,Max)", "12", "'12' are not two numbers"),
    ("Threshold correction factor", "0,8", "'0,8' is not a number")])
def test_a_setting_that_is_no_number_is_the_pipelines_fault_at_every_field(assay, setting, value, words):
    text, n = re.subn(rf"(?m)^(    {re.escape(setting)}):.*$", rf"\1:{value}", PIPELINE, count=1)
    assert n == 1
    with pytest.raises(MorphobenchError, match=re.escape(words)) as caught:
        measure_shard(plan(assay), text)
    assert not isinstance(caught.value, FieldFault) and setting in str(caught.value)


@pytest.mark.parametrize("counts", [[0, 0, 0], [0, 0, 1]])
def test_fields_without_any_object_are_measured(tmp_path, counts):
    assay = small_assay(tmp_path / "assay", wells=3, size=96, cells=counts)
    found = measure_shard(plan(assay), PIPELINE)
    assert not found.failed and found.images["Count_Cells"].tolist() == counts and len(found.cells) == sum(counts)
    assert OBJECT_NUMBER in found.cells and [m.max() for m in found.masks["Nuclei"]] == counts
    assert np.isfinite(found.images["Image_ImageQuality_MeanIntensity_OrigDNA"]).all()


def test_odd_fields_land_with_their_reason_and_a_shard_of_nothing_else_does_not(assay, own, tmp_path, monkeypatch):
    def task(name, tolerated):
        (tmp_path / name).mkdir()
        return Task(plan(assay), PIPELINE, backend(), tmp_path / name, 60, 2, tolerated)

    def failing(settings, place):
        raise KeyError("Area")

    failing_at(monkeypatch, "MeasureTexture", (own.masks["Nuclei"][1] > 0).sum(), IndexError("9"))
    one = task("one", 0)
    assert run_shard(one) == ()
    record = read_json(tmp_path / "one" / one.shard.key / "record.json")
    assert record["failed_alone"] == 1 and "IndexError: 9" in record["failed"][0][3] and "out_of_time" not in record
    assert len(list((tmp_path / "one" / one.shard.key / "masks").glob("*_Nuclei.tiff"))) == 2
    monkeypatch.setitem(cpmeasure.MEASURES, "MeasureTexture", failing)
    faults = run_shard(task("none", 2))
    assert len(faults) == 3 and all("MeasureTexture failed with KeyError: 'Area'" in f.what for f in faults)
    assert not list((tmp_path / "none").glob("*/record.json"))
    assert run_shard(task("tolerated", 3)) == ()


def test_what_the_backend_cannot_do_is_an_error(assay, monkeypatch):
    with pytest.raises(MorphobenchError, match="whole fields"):
        measure_shard(plan(assay), (ROOT / "pipelines" / "whole_field.cppipe").read_text())
    with pytest.raises(MorphobenchError, match="Distance - B"):
        measure_shard(plan(assay), PIPELINE.replace("secondary objects:Propagation", "secondary objects:Distance - B"))
    with pytest.raises(MorphobenchError, match="does not make 'Other'"):
        measure_shard(plan(assay), PIPELINE.replace("Select the input image:DNA", "Select the input image:Other"))

    def absent(name):
        raise ModuleNotFoundError(f"No module named {name!r}")

    monkeypatch.setattr(importlib, "import_module", absent)
    with pytest.raises(MorphobenchError, match=r"\[cp-measure\]"):
        backend()


# ---- beside CellProfiler

def agreement(theirs, ours):
    """Category of features → share of the values that differ by at most 0.05 of CellProfiler's standard deviation."""
    keys = [*FIELD_KEY, OBJECT_NUMBER]
    names = [c for c in theirs if not str(c).startswith("Metadata_")]
    theirs, ours = (t.set_index(keys).sort_index()[names].astype(float) for t in (theirs, ours))
    close = ((theirs - ours).abs() <= 0.05 * theirs.std(ddof=0)) | (theirs == ours)
    values = close.where(theirs.notna() | ours.notna()).astype(float).T.groupby(lambda name: name.split("_")[1])
    return values.sum().sum(axis=1) / values.count().sum(axis=1)


@pytest.mark.slow
@pytest.mark.cellprofiler
def test_on_cellprofilers_own_masks_most_families_agree(tmp_path):
    try:
        cellprofiler = find_cellprofiler(os.environ)
    except MorphobenchError as error:
        if os.environ.get("CI", "").lower() in ("1", "true"):
            pytest.fail(f"CI must not leave out the runs of CellProfiler: {error}")
        pytest.skip(f"NOT RUN, no CellProfiler: {error}")
    assay = small_assay(tmp_path / "assay", wells=3, size=160, cells=CELLS)
    for path in (tmp_path / "assay").rglob("*.tif"):  # nuclei off the middle of their cells
        planes = tifffile.imread(path)
        tifffile.imwrite(path, np.stack([planes[0], *np.roll(planes[1:], 4, axis=2)]), photometric="minisblack")
    # Without the pipeline's own illumination, which the backend does not make.
    text = with_modules_off(with_modules_off((ROOT / "pipelines" / "analysis.cppipe").read_text(), CALCULATE), APPLY)
    plain = tmp_path / "plain.cppipe"
    plain.write_text(text.replace("Select the image:Flat", "Select the image:Orig"))
    options = OPTIONS.model_copy(update={"pipeline": str(plain)})
    text = effective_pipeline(options)
    theirs = measure(assay, file_hashes(assay), options, cellprofiler, tmp_path / "shards", run_serially)
    shard = plan(assay, text)
    masks = [{name: tifffile.imread(theirs.mask_path((f.plate, f.well, f.site), name)) for name in ("Nuclei", "Cells")}
             for f in shard.fields]
    ours = measure_shard(shard, text, masks)
    measured = theirs.cells()
    assert set(ours.cells) == set(measured) and len(ours.cells) == len(measured)
    table = agreement(measured, ours.cells)
    # Radial distribution: rings of cells lie around their own centres, CellProfiler's around their nuclei's. Rank-
    # weighted colocalisation: pixels are ranked within their cell, CellProfiler's within the field.
    for family in ("AreaShape", "Intensity", "Texture", "Granularity", "Neighbors"):
        assert table[family] > 0.995, family  # a round nucleus may be turned by a right angle
    rwc = measured.columns[measured.columns.str.contains("_RWC_")]
    other = agreement(measured.drop(columns=rwc), ours.cells)
    assert other["Correlation"] > 0.999 > table["Correlation"]
    assert table["RadialDistribution"] < 0.95
    assert (ours.images["Count_Cells"] == theirs.images()["Count_Cells"]).all()
    # Masks of our own: the same cells, about as large.
    alone = measure_shard(shard, text)
    assert alone.images["Count_Cells"].tolist() == ours.images["Count_Cells"].tolist()
    for name in ("Nuclei", "Cells"):
        for theirs_mask, mask in zip([m[name] for m in masks], alone.masks[name], strict=True):
            either, both = ((theirs_mask > 0) | (mask > 0)).sum(), ((theirs_mask > 0) & (mask > 0)).sum()
            assert both >= 0.9 * either
