from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from fake_cellprofiler import PIPELINE, write_output

from benchmark.base.errors import MorphobenchError
from benchmark.cellprofiler.check import PipelineFault, check_run, count_table
from benchmark.cellprofiler.shards import NUMBER, Plane, Shard, StagedField

SHARD = Shard("abc123", tuple(StagedField("P1", f"B{i:02d}", 7, ()) for i in range(3)))


def edit(path, **columns):
    table = pd.read_csv(path)
    for column, values in columns.items():
        table[column] = values
    table.to_csv(path, index=False)


def keep(path, rows):
    pd.read_csv(path).iloc[rows].to_csv(path, index=False)


def rename(path, old, new):
    path.write_text(path.read_text().replace(old, new))


def test_a_good_run_is_read_whole_in_the_order_of_the_fields(tmp_path):
    write_output(tmp_path, [2, 0, 1], empty=[1])
    output = check_run(SHARD, tmp_path, PIPELINE)
    assert output.images.index.tolist() == [0, 1, 2]
    assert output.images["Count_Nuclei"].tolist() == [2, 0, 2]
    assert output.objects["Cells"][NUMBER].tolist() == [2, 2, 0, 0]
    assert [p.name for p in output.masks["Nuclei"]] == [f"f{i:05d}_OrigDNA_Nuclei.tiff" for i in range(3)]


TAMPERED = {
    "not complete": (lambda d: (d / "done.txt").write_text("Failure\n"), ["says Failure"]),
    "no done-file": (lambda d: (d / "done.txt").unlink(), ["says nothing"]),
    "unknown module": (lambda d: rename(d / "log.txt", "Mon", "Could not find the MeasureMagic module\nMon"),
                       ["MeasureMagic"]),
    "no image table": (lambda d: (d / "out/Image.csv").unlink(), ["Image.csv was not written"]),
    "empty image table": (lambda d: (d / "out/Image.csv").write_text(""), ["cannot be read"]),
    "field lost": (lambda d: keep(d / "out/Image.csv", [0, 2]), ["well B01"]),
    "field twice": (lambda d: keep(d / "out/Image.csv", [0, 1, 2, 2]), ["4 rows for 3 fields"]),
    "module failed": (lambda d: edit(d / "out/Image.csv", ModuleError_03IdentifyPrimaryObjects=[0, 0, 1]),
                      ["IdentifyPrimaryObjects failed", "well B02"]),
    "module blank": (lambda d: edit(d / "out/Image.csv", ModuleError_06SaveImages=[0, None, 0]),
                     ["SaveImages failed", "well B01"]),
    "module not timed": (lambda d: edit(d / "out/Image.csv", ExecutionTime_06SaveImages=[0.1, 0.1, None]),
                         ["SaveImages failed", "well B02"]),
    "module dropped": (lambda d: rename(d / "out/Image.csv", "ExecutionTime_04IdentifySecondaryObjects", "Other"),
                       ["did not run IdentifySecondaryObjects"]),
    "no object table": (lambda d: (d / "out/Cells.csv").unlink(), ["Cells.csv was not written"]),
    "object lost": (lambda d: keep(d / "out/Nuclei.csv", [0, 1, 2, 4, 5]),
                    ["2 Nuclei were counted", "has 1", "well B01"]),
    "object twice": (lambda d: edit(d / "out/Nuclei.csv", ObjectNumber=[1, 1, 1, 2, 1, 2]), ["an object twice"]),
    "object of no field": (lambda d: edit(d / "out/Nuclei.csv", ImageNumber=[1, 1, 2, 2, 3, 9]),
                           ["belongs to no field"]),
    "count blank": (lambda d: edit(d / "out/Image.csv", Count_Cells=[2, None, 2]), ["belongs to no field"]),
    "counts lost": (lambda d: rename(d / "out/Image.csv", "Count_", "Number_"), ["counts no objects"]),
    "number lost": (lambda d: rename(d / "out/Image.csv", NUMBER, "Metadata_Other"), ["lacks the column", NUMBER]),
    "masks lost": (lambda d: [p.unlink() for p in (d / "out").glob("*.tiff")], ["0 masks of Nuclei", "well B00"]),
    "mask lost": (lambda d: (d / "out/f00001_OrigDNA_Nuclei.tiff").unlink(), ["0 masks of Nuclei", "well B01"]),
}


#: Faults that leaving out fields cannot cure; with the others, one field may be to blame.
PIPELINES_FAULT = {"unknown module", "no image table", "empty image table", "field twice", "module dropped",
                   "no object table", "object twice", "counts lost", "number lost", "masks lost"}


@pytest.mark.parametrize("name", TAMPERED)
def test_whatever_does_not_add_up_is_found_and_named(tmp_path, name):
    write_output(tmp_path, [0, 1, 2])
    tamper, words = TAMPERED[name]
    tamper(tmp_path)
    with pytest.raises(MorphobenchError) as caught:
        check_run(SHARD, tmp_path, PIPELINE, "kept/log.txt")
    for word in [*words, "abc123", "kept/log.txt"]:
        assert word in str(caught.value)
    assert isinstance(caught.value, PipelineFault) == (name in PIPELINES_FAULT)


def pipeline_of_two(nuclei, cells):
    """A pipeline that saves masks of cells too, with these texts appended to the images' names."""
    first = PIPELINE.index("ConvertObjectsToImage:[")
    export = PIPELINE.index("ExportToSpreadsheet:[")
    save = PIPELINE[first:export].replace("image name:_Nuclei", "image name:{}")
    other = save.replace("objects:Nuclei", "objects:Cells").replace("LabelNuclei", "LabelCells")
    return PIPELINE[:first] + save.format(nuclei) + other.format(cells) + PIPELINE[export:]


def write_two(folder, nuclei, cells):
    """What its run leaves."""
    write_output(folder, [0, 1, 2])
    modules = {f"{what}_{module}": value for module in ("07ConvertObjectsToImage", "08SaveImages")
               for what, value in (("ExecutionTime", 0.01), ("ModuleError", 0))}
    edit(folder / "out/Image.csv", **modules)
    for path in list((folder / "out").glob("*.tiff")):
        for end in (nuclei, cells):
            path.with_name(path.name.replace("_Nuclei", end)).write_bytes(path.read_bytes())
        if "_Nuclei" not in (nuclei, cells):
            path.unlink()


@pytest.mark.parametrize(("nuclei", "cells"), [("_Nuclei", "_Cells"), ("_MyCells", "_Cells"), ("", "_Nuclei"),
                                               ("_Nuclei", ""), ("_Cells", "_OrigDNA_Cells"), ("_[x]*", "_x")])
def test_masks_are_told_apart_however_alike_their_names_end(tmp_path, nuclei, cells):
    write_two(tmp_path, nuclei, cells)
    output = check_run(SHARD, tmp_path, pipeline_of_two(nuclei, cells))
    for name, end in (("Nuclei", nuclei), ("Cells", cells)):
        assert [p.name for p in output.masks[name]] == [f"f{i:05d}_OrigDNA{end}.tiff" for i in range(3)]


def test_masks_of_two_objects_under_one_name_are_the_pipelines_fault(tmp_path):
    write_two(tmp_path, "_x", "_x")
    with pytest.raises(PipelineFault, match="masks of Cells and Nuclei"):
        check_run(SHARD, tmp_path, pipeline_of_two("_x", "_x"))


def test_a_mask_that_no_staged_image_gave_its_name_is_none(tmp_path):
    write_output(tmp_path, [0, 1, 2])
    path = tmp_path / "out/f00001_OrigDNA_Nuclei.tiff"
    path.rename(path.with_name("f00001_OrigNothing_Nuclei.tiff"))
    with pytest.raises(MorphobenchError, match="0 masks of Nuclei"):
        check_run(SHARD, tmp_path, PIPELINE)
    # What the study says is loaded is staged too, known to the pipeline's text or not.
    planes = (Plane("OrigNothing", Path("x"), 0, ""),)
    shard = Shard("abc123", tuple(replace(f, planes=planes) for f in SHARD.fields))
    assert check_run(shard, tmp_path, PIPELINE).masks["Nuclei"][1].name == "f00001_OrigNothing_Nuclei.tiff"


#: The pipeline without the modules that find objects and save masks.
WHOLE = PIPELINE[:PIPELINE.index("IdentifyPrimary")] + PIPELINE[PIPELINE.index("ExportToSpreadsheet"):]


def without_objects(folder):
    """What a run of a pipeline leaves that measures whole fields alone."""
    write_output(folder, [1, 0, 2])
    table = pd.read_csv(folder / "out/Image.csv")
    table = table.drop(columns=[c for c in table if c.startswith("Count_") or ("_0" in c and "LoadData" not in c)])
    table.to_csv(folder / "out/Image.csv", index=False)
    for path in (folder / "out").glob("*"):
        if path.name != "Image.csv":
            path.unlink()


def test_a_pipeline_that_measures_whole_fields_alone_is_sound(tmp_path):
    without_objects(tmp_path)
    output = check_run(SHARD, tmp_path, WHOLE)
    assert output.objects == {} and output.masks == {}
    assert output.images.index.tolist() == [0, 1, 2]
    assert output.images["ImageQuality_Focus_OrigDNA"].tolist() == [0.5, 1.5, 2.5]
    assert count_table(output.images).shape == (3, 0)


def test_no_counts_where_objects_should_be_found_is_the_pipelines_fault(tmp_path):
    without_objects(tmp_path)
    finds = WHOLE.replace("ExportToSpreadsheet:[", "Smooth:[module_num:4|enabled:True]\n"
                          "    Name the output objects:Spots\n\nExportToSpreadsheet:[")
    table = pd.read_csv(tmp_path / "out/Image.csv").assign(ExecutionTime_04Smooth=0.1, ModuleError_04Smooth=0)
    table.to_csv(tmp_path / "out/Image.csv", index=False)
    with pytest.raises(PipelineFault, match="counts no objects"):
        check_run(SHARD, tmp_path, finds)


def test_a_run_that_broke_off_says_where_and_why(tmp_path):
    tmp_path.joinpath("log.txt").write_text(
        "MySQL could not be loaded.\nImage # 2, module LoadData # 1: CPU_time = 0.7 secs\n"
        "Error detected during run of module IdentifyPrimaryObjects\nTraceback (most recent call last):\n"
        "ValueError: zero-size array to reduction operation\n")
    with pytest.raises(MorphobenchError) as caught:
        check_run(SHARD, tmp_path, PIPELINE)
    for words in ("in module IdentifyPrimaryObjects", "well B01", "zero-size array"):
        assert words in str(caught.value)
    assert "MySQL" not in str(caught.value)
