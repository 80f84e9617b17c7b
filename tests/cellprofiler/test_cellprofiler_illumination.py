"""The study's illumination functions in the place of a pipeline's own."""

import csv
import sys
from dataclasses import replace
from pathlib import Path

import fake_cellprofiler
import numpy as np
import pytest
from small_assay import CHANNELS, small_assay

from benchmark.base.errors import MorphobenchError
from benchmark.base.tasks import run_serially
from benchmark.cellprofiler.find import CellProfiler
from benchmark.cellprofiler.illumination import function_channels, function_planes, with_loaded_functions
from benchmark.cellprofiler.measure import measure
from benchmark.cellprofiler.pipeline import loaded_images, module_names, parse, with_settings
from benchmark.cellprofiler.pipeline_file import read_pipeline
from benchmark.cellprofiler.settings import CellProfilerSettings
from benchmark.cellprofiler.shards import plan_shards, stage
from benchmark.images.illumination import build_illumination
from benchmark.images.settings import IlluminationSettings
from benchmark.quality.check import assay_hash, file_hashes

PIPELINES = Path(__file__).parents[2] / "pipelines"
TEXT = read_pipeline(PIPELINES / "analysis.cppipe")
OFF = with_loaded_functions(TEXT)
IMAGES = {f"Orig{c}": c for c in CHANNELS}
CP = CellProfiler(("/nonexistent/cellprofiler",), "4.2.8.1", "test")
DIVIDE = "Select how the illumination function is applied"


@pytest.fixture(scope="module")
def lit(tmp_path_factory):
    """An assay of 8 fields of 32 pixels, its hashes, and its illumination."""
    folder = tmp_path_factory.mktemp("lit")
    assay = small_assay(folder / "assay", wells=8)
    hashes = file_hashes(assay)
    return assay, hashes, build_illumination(assay, assay_hash(assay, hashes), IlluminationSettings(), folder / "i")


@pytest.mark.parametrize("name", ["analysis", "translocation"])
def test_only_the_calculating_modules_are_switched_off(name):
    text = read_pipeline(PIPELINES / f"{name}.cppipe")
    off = with_loaded_functions(text)
    lines = [(a, b) for a, b in zip(text.split("\n"), off.split("\n"), strict=True) if a != b]
    calculating = module_names(text).count("CorrectIlluminationCalculate")
    assert len(lines) == calculating > 1
    assert all(a.startswith("CorrectIlluminationCalculate:[") for a, _ in lines)
    assert all(a.replace("|enabled:True|", "|enabled:False|") == b for a, b in lines)
    assert module_names(off) == [n for n in module_names(text) if n != "CorrectIlluminationCalculate"]
    made = [i.replace("Orig", "Illum") for i in loaded_images(text)]
    assert loaded_images(off) == sorted(loaded_images(text) + made)
    assert with_loaded_functions(off) == off


def test_a_note_is_no_switch():
    note = r"""['keep |enabled:True| "as it is']"""
    text = TEXT.replace("notes:[\"Per field: the darkest pixels of blocks, smoothed by a polynomial, show the lamp's "
                        'shape."]', f"notes:{note}").replace("\n", "\r\n")
    off = with_loaded_functions(text)
    assert off.count(note) == text.count(note) == 3
    assert off.count("|enabled:False|") == 3 and off.count("\r\n") == text.count("\r\n")


def test_functions_belong_to_the_channels_of_the_images_they_correct():
    assert function_channels(OFF, {}, CHANNELS) == (IMAGES, {f"Illum{c}": c for c in CHANNELS})
    swapped = OFF.replace("Select the illumination function:IllumDNA", "Select the illumination function:Lamp7")
    crossed = {**IMAGES, "OrigDNA": "Actin", "OrigActin": "DNA"}
    images, functions = function_channels(swapped, crossed, CHANNELS)
    assert images == crossed and functions == {"Lamp7": "Actin", "IllumTubulin": "Tubulin", "IllumActin": "DNA"}


@pytest.mark.parametrize(("text", "words"), [
    (fake_cellprofiler.PIPELINE, "no CorrectIlluminationApply"),
    (TEXT, "loads no illumination functions"),  # its own modules make them
    (with_settings(OFF, {"CorrectIlluminationApply": {f"{DIVIDE}[2]": "Subtract"}}), "IllumTubulin by 'Subtract'"),
    (with_settings(OFF, {"CorrectIlluminationApply": {"Select the illumination function[3]": "IllumDNA"}}),
     "images of Actin and of DNA"),
    (with_settings(OFF, {"CorrectIlluminationApply": {"Select the input image[1]": "LabelCells"}}),
     "LabelCells is not a loaded image"),
    (with_settings(OFF, {"CorrectIlluminationApply": {"Select the input image[1]": "OrigActin",
                                                      "Select the illumination function[1]": "IllumActin"}}),
     "does not correct OrigDNA"),
])
def test_a_pipeline_that_cannot_take_the_functions_is_refused_with_the_way_out(text, words):
    with pytest.raises(MorphobenchError, match=words) as caught:
        function_channels(text, {}, CHANNELS)
    assert "illumination: pipeline" in str(caught.value)


def test_shards_follow_the_content_of_the_functions_of_their_plate(lit, tmp_path):
    assay, hashes, _ = lit
    images, functions = function_channels(OFF, {}, CHANNELS)
    fields = assay.fields.assign(Metadata_Plate=["p1"] * 4 + ["p2"] * 4)
    plates = replace(assay, fields=fields)
    one = build_illumination(assay, "x", IlluminationSettings(), tmp_path)
    planes = dict.fromkeys(["p1", "p2"], function_planes(one, functions, assay.fields.Metadata_Plate[:1]).popitem()[1])

    def keys(planes):
        return [s.key for s in plan_shards(plates, images, hashes, OFF, CP, 4, planes)]

    assert keys(planes) == keys(planes) and not set(keys(planes)) & set(keys(None))
    changed = {**planes, "p2": (replace(planes["p2"][0], sha256="0" * 64), *planes["p2"][1:])}
    assert [a == b for a, b in zip(keys(planes), keys(changed), strict=True)] == [True, False]
    moved = {p: tuple(replace(f, path=Path("/elsewhere") / f.path.name) for f in found) for p, found in planes.items()}
    assert keys(moved) == keys(planes)


def test_staging_gives_every_field_the_functions_of_its_plate(lit, tmp_path):
    assay, hashes, illumination = lit
    images, functions = function_channels(OFF, {}, CHANNELS)
    planes = function_planes(illumination, functions, assay.fields["Metadata_Plate"])
    shard = plan_shards(assay, images, hashes, OFF, CP, 8, planes)[0]
    stage(shard, OFF, tmp_path / "run")
    rows = list(csv.DictReader((tmp_path / "run" / "load_data.csv").open()))
    assert len(rows) == 8 and len(list((tmp_path / "run" / "images").glob("*.npy"))) == len(CHANNELS)
    for row in rows:
        for channel in CHANNELS:
            path = Path(row[f"Image_PathName_Illum{channel}"]) / row[f"Image_FileName_Illum{channel}"]
            np.testing.assert_array_equal(np.load(path), illumination.function(shard.fields[0].plate, channel))


def test_a_function_of_another_size_stops_a_shard_before_cellprofiler_starts(lit, tmp_path):
    assay, _, illumination = lit
    small = small_assay(tmp_path / "small", wells=8, size=24)
    images, functions = function_channels(OFF, {}, CHANNELS)
    planes = function_planes(illumination, functions, assay.fields["Metadata_Plate"])
    shard = plan_shards(small, images, file_hashes(small), OFF, CP, 8, planes)[0]
    with pytest.raises(MorphobenchError, match=r"of the shape \(32, 32\), the field of \(24, 24\)") as caught:
        stage(shard, OFF, tmp_path / "run")
    assert ".npy" in str(caught.value) and "well =A00" in str(caught.value)


@pytest.mark.parametrize("fault", ["gone", "damaged", "zero"])
def test_a_broken_function_is_named_before_anything_runs(lit, tmp_path, fault):
    assay, hashes, _ = lit
    illumination = build_illumination(assay, "x", IlluminationSettings(), tmp_path)
    path = illumination.path(assay.fields["Metadata_Plate"][0], "DNA")
    if fault == "gone":
        path.unlink()
    elif fault == "damaged":
        path.write_bytes(path.read_bytes()[:-1] + b"\x00")
    else:
        class Zero(type(illumination)):
            def function(self, plate, channel):
                return super().function(plate, channel) * 0
        illumination = Zero(**vars(illumination))
    settings = CellProfilerSettings(pipeline=str(PIPELINES / "analysis.cppipe"))
    with pytest.raises(MorphobenchError, match=path.parent.name):
        measure(assay, hashes, settings, CP, tmp_path / "shards", run_serially, illumination)
    assert not (tmp_path / "shards").exists()


def test_the_pipelines_own_illumination_runs_as_it_is_where_the_study_says_so(lit, tmp_path, monkeypatch):
    assay, hashes, illumination = lit
    monkeypatch.setenv("FAKE_CALLS", str(tmp_path / "calls"))
    (tmp_path / "p.cppipe").write_text(fake_cellprofiler.PIPELINE)
    fake = CellProfiler((sys.executable, fake_cellprofiler.__file__), "4.2.8.1", "fake")
    settings = CellProfilerSettings(pipeline=str(tmp_path / "p.cppipe"), shard_fields=8)
    with pytest.raises(MorphobenchError, match="illumination: pipeline"):
        measure(assay, hashes, settings, fake, tmp_path / "shards", run_serially, illumination)
    own = settings.model_copy(update={"illumination": "pipeline"})
    found = measure(assay, hashes, own, fake, tmp_path / "shards", run_serially, illumination)
    assert found.record["illumination"] == "" and found.record["shards_run"] == 1
    assert (tmp_path / "shards" / found.record["pipeline_as_run"]).read_text() == fake_cellprofiler.PIPELINE
    without = measure(assay, hashes, settings, fake, tmp_path / "shards", run_serially)
    assert without.record["shards_run"] == 0 and without.record["shards_digest"] == found.record["shards_digest"]


def test_parsed_modules_know_their_line():
    assert all(TEXT.split("\n")[m.line].startswith(f"{m.name}:[module_num:{m.number}|") for m in parse(TEXT))
