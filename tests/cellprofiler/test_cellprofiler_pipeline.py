from pathlib import Path

import pytest
from fake_cellprofiler import PIPELINE
from hypothesis import given
from hypothesis import strategies as st

from benchmark.base.errors import MorphobenchError
from benchmark.cellprofiler.pipeline import (
    combining_modules,
    csv_prefix,
    escape,
    loaded_images,
    module_names,
    object_names,
    parse,
    saved_masks,
    unescape,
    with_settings,
)
from benchmark.cellprofiler.pipeline_file import read_pipeline

OURS = Path(__file__).parents[2] / "pipelines" / "analysis.cppipe"
TEXT = read_pipeline(OURS)
SETTINGS = [(m.name, sum(n.name == m.name for n in parse(TEXT)[: m.number]), s.text,
             sum(t.text == s.text and t.line <= s.line for t in m.settings), s.line)
            for m in parse(TEXT) for s in m.settings]
#: Values CellProfiler can hold: one line, no control characters.
VALUES = st.text(st.characters(blacklist_categories=("Cc", "Cs", "Zl", "Zp")), max_size=20) | st.sampled_from(
    ["\\x41", "a\\x7Cµ→", "\\\\x00", "C:\\new\\x"])


def test_our_pipeline_measures_everything_asked_for():
    names = module_names(TEXT)
    assert names[0] == "LoadData" and names[-1] == "ExportToSpreadsheet"
    assert {"CorrectIlluminationApply", "IdentifyPrimaryObjects", "IdentifySecondaryObjects", "IdentifyTertiaryObjects",
            "MeasureObjectSizeShape", "MeasureObjectIntensity", "MeasureObjectIntensityDistribution", "MeasureTexture",
            "MeasureGranularity", "MeasureObjectNeighbors", "MeasureColocalization", "MeasureImageQuality",
            "SaveImages"} <= set(names)
    assert loaded_images(TEXT) == ["OrigActin", "OrigDNA", "OrigTubulin"]
    assert saved_masks(TEXT) == {"Nuclei": "_Nuclei.tiff", "Cells": "_Cells.tiff"}
    assert csv_prefix(TEXT) == ""


def test_no_change_is_no_change_to_the_byte():
    for text in (TEXT, PIPELINE, TEXT.replace("\n", "\r\n")):
        assert with_settings(text, {}) == text
        same = {"IdentifyPrimaryObjects": {"Typical diameter of objects, in pixel units (Min,Max)": "12,60"}}
        assert with_settings(text, same) == text


@given(st.sampled_from(SETTINGS), VALUES, st.booleans())
def test_a_change_alters_its_line_only_and_reads_back(which, value, windows):
    module, module_index, name, name_index, line = which
    text = TEXT.replace("\n", "\r\n") if windows else TEXT
    changed = with_settings(text, {f"{module}[{module_index}]": {f"{name}[{name_index}]": value}})
    old, new = text.split("\n"), changed.split("\n")
    assert len(old) == len(new)
    assert [i for i in range(len(old)) if old[i] != new[i]] in ([], [line])
    assert new[line].startswith(old[line].split(":")[0] + ":") and new[line].endswith("\r") == windows
    assert [s.value for m in parse(changed) for s in m.settings if s.line == line] == [value]


@given(VALUES)
def test_escaping_is_undone_by_cellprofilers_unescaping(value):
    assert unescape(escape(value)) == value


def test_a_plain_name_means_every_module_and_an_index_wins_over_it():
    changed = with_settings(TEXT, {"MeasureObjectNeighbors[2]": {"Neighbor distance": 7},
                                   "MeasureObjectNeighbors": {"Neighbor distance": 9}})
    assert [m.get("Neighbor distance") for m in parse(changed) if m.name == "MeasureObjectNeighbors"] == ["9", "7"]


def test_truth_becomes_yes_and_no():
    changed = with_settings(TEXT, {"MeasureColocalization": {"Run all metrics?": True}})
    assert next(m for m in parse(changed) if m.name == "MeasureColocalization").get("Run all metrics?") == "Yes"


@pytest.mark.parametrize(("overrides", "words"), [
    ({"IdentifyPrimaryObject": {}}, ["'IdentifyPrimaryObject'", "'IdentifyPrimaryObjects'"]),
    ({"Zzz": {}}, ["'Zzz'", "MeasureTexture", "LoadData"]),
    ({"MeasureTexture[2]": {}}, ["1 module", "MeasureTexture[2]"]),
    ({"MeasureGranularity": {"Radius of element": 3}}, ["'Radius of element'", "'Radius of structuring element'"]),
    ({"MeasureTexture": {"Texture scale to measure": 3}}, ["2 times", "Texture scale to measure[1]"]),
    ({"MeasureTexture": {"Texture scale to measure[3]": 3}}, ["Texture scale to measure[3]"]),
    ({"MeasureTexture": {"Texture scale to measure[1]": "3\n    x:y"}}, ["span lines"]),
])
def test_a_wrong_override_is_named_with_what_there_is(overrides, words):
    with pytest.raises(MorphobenchError) as caught:
        with_settings(TEXT, overrides)
    assert all(word in str(caught.value) for word in words)


def test_disabled_modules_do_not_count():
    assert "Smooth" not in module_names(PIPELINE)
    assert "OrigNothing" not in loaded_images(PIPELINE)


@pytest.mark.parametrize(("text", "words"), [
    (PIPELINE.replace("LoadData:[", "Images:["), "starts with Images"),
    (PIPELINE.replace("ExportToSpreadsheet:[", "Other:["), "no ExportToSpreadsheet"),
])
def test_a_pipeline_of_another_shape_is_refused(text, words):
    with pytest.raises(MorphobenchError, match=words):
        csv_prefix(text)


ALL = """
CorrectIlluminationCalculate:[module_num:8|notes:[]|enabled:True]
    Calculate function for each image individually, or based on all images?:{}
"""
STRETCH = """
RescaleIntensity:[module_num:8|notes:[]|enabled:True]
    Method to calculate the maximum intensity:{}
"""


@pytest.mark.parametrize(("module", "name"), [
    (ALL.format("All: Across cycles"), "CorrectIlluminationCalculate"),
    (ALL.format("All: First cycle"), "CorrectIlluminationCalculate"),
    (ALL.format("All"), "CorrectIlluminationCalculate"),
    (STRETCH.format("Maximum of all images"), "RescaleIntensity"),
    (ALL.format("x").replace("CorrectIlluminationCalculate", "TrackObjects"), "TrackObjects"),
])
def test_a_module_that_needs_all_fields_at_once_is_refused(module, name):
    text = PIPELINE + module
    assert combining_modules(text) == [name]
    with pytest.raises(MorphobenchError, match=f"{name} needs all fields of a plate"):
        csv_prefix(text)
    assert csv_prefix(text.replace("[]|enabled:True]\n    Cal", "[]|enabled:False]\n    Cal").replace(
        "[]|enabled:True]\n    Met", "[]|enabled:False]\n    Met")) == ""


def test_modules_that_work_field_by_field_are_not():
    for module in (ALL.format("Each"), STRETCH.format("Maximum of each image")):
        assert combining_modules(PIPELINE + module) == [] and csv_prefix(PIPELINE + module) == ""
    for path in OURS.parent.glob("*.cppipe"):
        assert bool(combining_modules(read_pipeline(path))) == (path.name == "illumination.cppipe")


def test_objects_are_those_that_modules_name():
    assert object_names(PIPELINE) == ["Nuclei", "Cells"]
    assert object_names(TEXT)[:2] == ["Nuclei", "Cells"] and "Cytoplasm" in object_names(TEXT)
    for name in ("illumination", "whole_field", "whole_field_two"):
        assert object_names(read_pipeline(OURS.with_name(f"{name}.cppipe"))) == []


def test_a_prefix_of_file_names_is_found():
    assert csv_prefix(PIPELINE.replace("to file names?:No", "to file names?:Yes")) == "MyExpt_"


@pytest.mark.parametrize("content", [b"\x89HDF\r\n", b"{}", "CellProfiler".encode("utf-16")])
def test_another_kind_of_file_is_no_pipeline(tmp_path, content):
    (tmp_path / "p.cpproj").write_bytes(content)
    with pytest.raises(MorphobenchError, match=r"\.cppipe"):
        read_pipeline(tmp_path / "p.cpproj")
    with pytest.raises(MorphobenchError, match="no such pipeline"):
        read_pipeline(tmp_path / "none.cppipe")


def test_garbage_among_the_modules_is_named_by_line():
    with pytest.raises(MorphobenchError, match="line 9"):
        parse(PIPELINE.replace("    Name of the file:load_data.csv", "oops"))
    with pytest.raises(MorphobenchError, match="no modules"):
        parse("CellProfiler Pipeline: http://www.cellprofiler.org\n")
