"""Users' own pipelines: NamesAndTypes turned into LoadData, and objects of any name."""

import os
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest
import tifffile
from small_assay import small_assay

from benchmark.base.errors import MorphobenchError
from benchmark.base.files import sha256_file
from benchmark.base.tables import PLATE
from benchmark.cellprofiler.check import check_run
from benchmark.cellprofiler.execute import execute
from benchmark.cellprofiler.find import VENV, CellProfiler, find_cellprofiler
from benchmark.cellprofiler.illumination import function_channels, with_loaded_functions
from benchmark.cellprofiler.inputs import LOAD_DATA, Roles, object_roles, with_load_data
from benchmark.cellprofiler.pipeline import csv_prefix, loaded_images, module_names, parse
from benchmark.cellprofiler.pipeline_file import read_pipeline
from benchmark.cellprofiler.shards import NUMBER, Plane, image_channels, plan_shards, stage
from benchmark.quality.check import file_hashes

PIPELINES = Path(__file__).parents[2] / "pipelines"
HEAD = """CellProfiler Pipeline: http://www.cellprofiler.org
Version:5
DateRevision:428
GitHash:
ModuleCount:8
HasImagePlaneDetails:False

"""
INPUTS = r"""Images:[module_num:1|svn_version:'Unknown'|variable_revision_number:2|show_window:False|notes:['a | b']|enabled:True]
    :
    Filter images?:Images only
    Select the rule criteria:and (extension does isimage)

Metadata:[module_num:2|svn_version:'Unknown'|variable_revision_number:6|show_window:False|notes:[]|enabled:True]
    Extract metadata?:Yes
    Regular expression to extract from file name:^(?P<Plate>.*)_(?P<Well>[A-P][0-9]{2})_s(?P<Site>[0-9])

NamesAndTypes:[module_num:3|svn_version:'Unknown'|variable_revision_number:8|show_window:False|notes:[]|enabled:True]
    Assign a name to:Images matching rules
    Select the image type:Grayscale image
    Name to assign these images:Everything
    Match metadata:[]
    Image set matching method:Order
    Set intensity range from:Image bit-depth
    Assignments count:2
    Single images count:1
    Maximum intensity:255.0
    Process as 3D?:No
    Select the rule criteria:and (file does contain "w1")
    Name to assign these images:Blue
    Name to assign these objects:Cell
    Select the image type:Grayscale image
    Set intensity range from:Image bit-depth
    Maximum intensity:255.0
    Select the rule criteria:and (file does contain "w2")
    Name to assign these images:Red
    Name to assign these objects:Nucleus
    Select the image type:Grayscale image
    Set intensity range from:Image bit-depth
    Maximum intensity:255.0
    Single image location:file:///illum.npy 0 0
    Name to assign this image:Lamp
    Name to assign these objects:Cytoplasm
    Select the image type:Illumination function
    Set intensity range from:Image metadata
    Maximum intensity:255.0

Groups:[module_num:4|svn_version:'Unknown'|variable_revision_number:2|show_window:False|notes:[]|enabled:True]
    Do you want to group your images?:No
    grouping metadata count:1
    Metadata category:None

"""  # noqa: E501
REST = r"""CorrectIlluminationApply:[module_num:5|variable_revision_number:5|notes:['µ | →']|enabled:True]
    Select the input image:Blue
    Name the output image:FlatBlue
    Select the illumination function:Lamp
    Select how the illumination function is applied:Divide

IdentifyPrimaryObjects:[module_num:6|variable_revision_number:15|notes:[]|enabled:True]
    Select the input image:FlatBlue
    Name the primary objects to be identified:Kerne

IdentifySecondaryObjects:[module_num:7|variable_revision_number:10|notes:[]|enabled:True]
    Select the input objects:Kerne
    Name the objects to be identified:Zellen
    Select the input image:Red
    Name the new primary objects:FilteredNuclei

ExportToSpreadsheet:[module_num:8|variable_revision_number:13|notes:[]|enabled:True]
    Add a prefix to file names?:No
    Filename prefix:MyExpt_
"""
OWN = HEAD + INPUTS + REST
TERTIARY = r"""
IdentifyTertiaryObjects:[module_num:{n}|variable_revision_number:3|notes:[]|enabled:True]
    Select the larger identified objects:{large}
    Select the smaller identified objects:{small}
    Name the tertiary objects to be identified:{name}
"""


def alone(kind="Grayscale image", rescale="Image bit-depth"):
    """A pipeline that gives one name to all images."""
    text = OWN.replace("Assign a name to:Images matching rules", "Assign a name to:All images")
    text = text.replace("Select the image type:Grayscale image", f"Select the image type:{kind}", 1)
    return text.replace("Set intensity range from:Image bit-depth", f"Set intensity range from:{rescale}", 1)


@pytest.mark.parametrize("ends", ["\n", "\r\n"])
def test_only_the_input_modules_are_replaced(ends):
    text = OWN.replace("\n", ends)
    new = with_load_data(text)
    block = LOAD_DATA.format(grouped="No", tags="", rescale="No")
    assert new == (HEAD.replace("Count:8", "Count:5") + block + "\n" + REST).replace("\n", ends)
    assert module_names(new) == ["LoadData", *module_names(OWN)[4:]] and len(parse(new)) == 5
    assert with_load_data(new) == new


def test_what_follows_works_on_it():
    new = with_load_data(OWN)
    assert csv_prefix(new) == "" and loaded_images(new) == ["Blue", "Lamp", "Red"]
    assert image_channels(new, {"Blue": "DNA"}, ("DNA",)) == {"Blue": "DNA"}
    # The function is the study's, its channel that of the image divided by it; Red is left uncorrected.
    with pytest.raises(MorphobenchError, match="does not correct Red"):
        function_channels(with_loaded_functions(new), {"Blue": "DNA", "Red": "Actin"}, ("DNA", "Actin"))
    loaded, functions = function_channels(with_loaded_functions(new), {"Blue": "DNA"}, ("DNA", "Actin"))
    assert loaded == {"Blue": "DNA"} and functions == {"Lamp": "DNA"}
    # Without the study's functions there is no channel of that name.
    with pytest.raises(MorphobenchError, match="loads Lamp"):
        image_channels(new, {}, ("Blue", "Red"))


@pytest.mark.parametrize("name", [p.name for p in PIPELINES.glob("*.cppipe")])
def test_a_pipeline_with_loaddata_comes_back_as_it_is(name):
    text = read_pipeline(PIPELINES / name)
    assert with_load_data(text) is text


def test_an_intensity_range_from_metadata_is_said_to_loaddata():
    assert "Rescale intensities?:Yes\n" in with_load_data(alone(rescale="Image metadata"))
    assert "Rescale intensities?:No\n" in with_load_data(OWN)  # the function's own range says nothing


def test_groups_by_plate_and_well_become_loaddatas():
    grouped = OWN.replace("group your images?:No", "group your images?:Yes").replace(
        "Metadata category:None", "Metadata category:Plate\n    Metadata category:Well")
    new = with_load_data(grouped)
    assert "    Group images by metadata?:Yes\n    Select metadata tags for grouping:Plate,Well\n" in new
    with pytest.raises(MorphobenchError, match="groups by Run"):
        with_load_data(grouped.replace("Metadata category:Well", "Metadata category:Run"))
    with pytest.raises(MorphobenchError, match="groups by nothing"):
        with_load_data(OWN.replace("group your images?:No", "group your images?:Yes"))


def kinds(which, what):
    """The own pipeline with the type of its ``which``-th assignment changed (0 is that of all images)."""
    parts = OWN.split("Select the image type:")
    parts[which + 1] = what + parts[which + 1][parts[which + 1].index("\n"):]
    return "Select the image type:".join(parts)


REFUSED = {
    "objects": (kinds(2, "Objects"), ["loads Nucleus as objects"]),
    "mask": (kinds(1, "Binary mask"), ["loads Blue as binary mask"]),
    "colour": (kinds(2, "Color image"), ["loads Red as color image"]),
    "colour alone": (alone("Color image"), ["loads Everything as color image"]),
    "one picture": (kinds(3, "Grayscale image"), ["one file, Lamp, for all fields"]),
    "volumes": (OWN.replace("as 3D?:No", "as 3D?:Yes"), ["volumes"]),
    "guessing": (OWN.replace("to:Images matching rules", "to:Try to guess image assignment"), ["Try to guess"]),
    "divided": (alone(rescale="Manual"), ["divides Everything by a number", "Image bit-depth", "ImageMath"]),
    "both": (OWN + "\n" + LOAD_DATA, ["by LoadData and by NamesAndTypes"]),
    "no names": (HEAD + INPUTS[:INPUTS.index("NamesAndTypes")] + REST, ["input modules (Images, Metadata)"]),
    "in between": (HEAD + REST + "\n" + INPUTS, ["at its start"]),
    "metadata": (OWN.replace("prefix:MyExpt_", r"prefix:\g<Run>_\g<Well>"), ["ExportToSpreadsheet", "metadata Run"]),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_a_table_of_grey_planes_cannot_give_is_refused_by_name(name):
    text, words = REFUSED[name]
    with pytest.raises(MorphobenchError) as caught:
        with_load_data(text)
    for word in words:
        assert word in str(caught.value)


def test_objects_are_found_whatever_they_are_called():
    assert object_roles(OWN) == Roles("Kerne", "Zellen", "")
    assert object_roles(OWN + TERTIARY.format(n=9, large="Zellen", small="Kerne", name="Ring")).cytoplasm == "Ring"
    assert object_roles(OWN + TERTIARY.format(n=9, large="Zellen", small="Specks", name="Ring")).cytoplasm == ""
    for name in ("analysis", "translocation"):
        assert object_roles(read_pipeline(PIPELINES / f"{name}.cppipe")) == Roles("Nuclei", "Cells", "Cytoplasm")
    for name in ("whole_field", "whole_field_two"):
        assert object_roles(read_pipeline(PIPELINES / f"{name}.cppipe")) == Roles()


def test_cells_grown_from_filtered_nuclei_belong_to_those():
    made = "\nFilterObjects:[module_num:7|notes:[]|enabled:True]\n" + (
        "    Select the objects to filter:Kerne\n    Name the output objects:Gute\n\n")
    text = OWN.replace("\nIdentifySecondaryObjects", made + "IdentifySecondaryObjects").replace(
        "Select the input objects:Kerne", "Select the input objects:Gute")
    assert object_roles(text) == Roles("Gute", "Zellen", "")
    # Objects that are no form of the nuclei have cells of their own.
    assert object_roles(text.replace("to filter:Kerne", "to filter:Andere")) == Roles("Kerne", "", "")


def test_what_the_study_states_goes_before():
    second = REST[REST.index("IdentifyPrimaryObjects"):REST.index("ExportToSpreadsheet")]
    text = OWN + "\n" + second.replace("Kerne", "Mitos").replace("Zellen", "Hof")
    assert object_roles(text) == Roles("Kerne", "Zellen")
    assert object_roles(text, nuclei="Mitos") == Roles("Mitos", "Hof")
    assert object_roles(text, cells="Hof") == Roles("Mitos", "Hof")
    assert object_roles(text, "Kerne", "Hof") == Roles("Kerne", "Hof")
    with pytest.raises(MorphobenchError, match=r"no objects 'Nuclei'.*Kerne, Zellen"):
        object_roles(text, nuclei="Nuclei")
    disabled = re.sub(r"(IdentifySecondaryObjects:.*)enabled:True", r"\1enabled:False", OWN)
    assert object_roles(disabled) == Roles("Kerne")


#: Written by CellProfiler itself: the pipeline that a user would have made in its window.
WRITE = """
import logging, sys
import cellprofiler_core.preferences as preferences
preferences.set_headless()
logging.disable(logging.WARNING)
from cellprofiler_core.pipeline import Pipeline
from cellprofiler_core.utilities.core.modules import fill_modules, instantiate_module
fill_modules()
pipeline = Pipeline()
def add(name, **settings):
    module = instantiate_module(name)
    module.set_module_num(len(pipeline.modules(False)) + 1)
    for attribute, value in settings.items():
        getattr(module, attribute).value = value
    pipeline.add_module(module)
    return module
add("Images")
add("Metadata")
names = add("NamesAndTypes", assignment_method="Images matching rules")
names.add_assignment()
for group, name in zip(names.assignments, ("Blue", "Red")):
    group.image_name.value = name
names.add_single_image()
names.single_images[0].image_name.value = "Lamp"
names.single_images[0].load_as_choice.value = "Illumination function"
add("Groups", wants_groups=True).grouping_metadata[0].metadata_choice.value = "Plate"
image = add("CorrectIlluminationApply").images[0]
image.image_name.value, image.corrected_image_name.value = "Blue", "FlatBlue"
image.illum_correct_function_image_name.value, image.divide_or_subtract.value = "Lamp", "Divide"
add("IdentifyPrimaryObjects", x_name="FlatBlue", y_name="Kerne")
add("IdentifySecondaryObjects", x_name="Kerne", y_name="Zellen", image_name="Red", method="Distance - N",
    distance_to_dilate=5)
add("MeasureObjectIntensity", images_list="Red, FlatBlue", objects_list="Kerne, Zellen")
add("ExportToSpreadsheet", wants_everything=True, directory="Default Output Folder|", wants_prefix=False)
with open(sys.argv[1], "w", encoding="utf-8") as handle:
    pipeline.dump(handle, save_image_plane_details=False)
blank = Pipeline()
module = instantiate_module("LoadData")
module.set_module_num(1)
blank.add_module(module)
with open(sys.argv[2], "w", encoding="utf-8") as handle:
    blank.dump(handle, save_image_plane_details=False)
"""


@pytest.fixture(scope="module")
def cellprofiler() -> CellProfiler:
    try:
        return find_cellprofiler(os.environ)
    except MorphobenchError as error:
        if os.environ.get("CI", "").lower() in ("1", "true"):
            pytest.fail(f"CI must not leave out the runs of CellProfiler: {error}")
        pytest.skip(f"NOT RUN, no CellProfiler: {error}")


@pytest.mark.cellprofiler
def test_a_pipeline_as_cellprofilers_window_makes_it_runs(cellprofiler, tmp_path):
    python = VENV / "bin" / "python"
    if not python.exists():
        pytest.skip("the pipeline is written with the installed CellProfiler, which is not there")
    own, blank = tmp_path / "own.cppipe", tmp_path / "blank.cppipe"
    subprocess.run([str(python), "-c", WRITE, str(own), str(blank)], check=True, capture_output=True)
    # The block is the text that CellProfiler writes for LoadData: the same settings, in order, of the same revision.
    ours, theirs = parse(HEAD + LOAD_DATA)[0], parse(blank.read_text())[0]
    assert [s.text for s in ours.settings] == [s.text for s in theirs.settings]
    assert "variable_revision_number:6|" in blank.read_text() and "variable_revision_number:6|" in LOAD_DATA

    text = with_load_data(read_pipeline(own))
    assay = small_assay(tmp_path / "assay", wells=2, size=128, cells=[5, 2])
    images, functions = {"Blue": "DNA", "Red": "Actin"}, {}
    np.save(tmp_path / "lamp.npy", np.full((128, 128), 2, np.float32))
    for plate in assay.fields[PLATE].unique():
        functions[plate] = (Plane("Lamp", tmp_path / "lamp.npy", 0, sha256_file(tmp_path / "lamp.npy")),)
    shard, = plan_shards(assay, images, file_hashes(assay), text, cellprofiler, 2, functions)
    work = tmp_path / "work"
    staged = stage(shard, text, work)
    execute(cellprofiler, work, 300)
    output = check_run(staged, work, text)
    assert set(output.objects) == {"Kerne", "Zellen"} == set(object_roles(text).__dict__.values()) - {""}
    assert output.images["Count_Kerne"].tolist() == [5, 2] == output.images["Count_Zellen"].tolist()
    # What is measured is what was drawn, over the function of 2.
    blue = [tifffile.imread(work / "images" / f"f{i:05d}_Blue.tif") / 65535 / 2 for i in range(2)]
    brightest = output.objects["Kerne"].groupby(NUMBER)["Intensity_MaxIntensity_FlatBlue"].max()
    np.testing.assert_allclose(brightest, [b.max() for b in blue], rtol=1e-5)
