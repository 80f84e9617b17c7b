"""How the real CellProfiler fails, fault by fault.

First the bare program over a folder as we stage it, with one thing broken after staging: it behaves as the test's
table says, and `check_run` refuses it wherever its exit does not. Then whole measurements: a fault that our own
staging sees costs its field before CellProfiler starts, one that CellProfiler stumbles at costs its field alone, and
a fault of the pipeline stops by name.
"""

import csv
import os
import re
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tifffile
from killing import Measurer
from small_assay import draw, small_assay

from benchmark.base.errors import FaultsError, MorphobenchError
from benchmark.base.tables import FIELD_KEY
from benchmark.base.tasks import run_serially
from benchmark.cellprofiler.check import check_run
from benchmark.cellprofiler.execute import DONE, LOG, OUT, PIPELINE, TABLE, execute
from benchmark.cellprofiler.find import CellProfiler, find_cellprofiler
from benchmark.cellprofiler.measure import measure
from benchmark.cellprofiler.settings import CellProfilerSettings
from benchmark.cellprofiler.shards import plan_shards, stage
from benchmark.quality.check import file_hashes

pytestmark = pytest.mark.cellprofiler

ANALYSIS = Path(__file__).parents[2] / "pipelines" / "analysis.cppipe"
SIZE = 96


def tiny_pipeline(corrected=False):
    """Nuclei, their shapes and masks: six modules of the shipped pipeline, on the DNA image raw or corrected."""
    wanted = {"LoadData": {}, "IdentifyPrimaryObjects": {"Select the input image": "OrigDNA",
                                                         "Lower and upper bounds on threshold": "0.1,1.0"},
              "MeasureObjectSizeShape": {"Select object sets to measure": "Nuclei"}, "ConvertObjectsToImage": {},
              "SaveImages": {}, "ExportToSpreadsheet": {}}
    if corrected:
        wanted["IdentifyPrimaryObjects"]["Select the input image"] = "FlatDNA"
        correction = {"CorrectIlluminationCalculate": {"Block size": "40"}, "CorrectIlluminationApply": {}}
        wanted = {"LoadData": {}, **correction, **wanted}
    blocks = ANALYSIS.read_text().split("\n\n")
    first = {name: next(b for b in blocks if b.startswith(f"{name}:[")) for name in wanted}
    head = re.sub(r"ModuleCount:\d+", f"ModuleCount:{len(wanted)}", blocks[0])
    modules = []
    for number, (name, values) in enumerate(wanted.items(), 1):
        text = re.sub(r"module_num:\d+", f"module_num:{number}", first[name].rstrip("\n"))
        if name == "CorrectIlluminationApply":
            lines = text.split("\n")
            text = "\n".join(lines[:5] + lines[-2:])  # the first image of three
        for setting, value in values.items():
            text, n = re.subn(rf"(?m)^(    {re.escape(setting)}):.*$", rf"\1:{value}", text)
            assert n == 1
        modules.append(text)
    return "\n\n".join([head, *modules]) + "\n"


TINY, CORRECTED = tiny_pipeline(), tiny_pipeline(corrected=True)


@pytest.fixture(scope="session")
def cellprofiler() -> CellProfiler:
    try:
        return find_cellprofiler(os.environ)
    except MorphobenchError as error:
        if os.environ.get("CI", "").lower() in ("1", "true"):
            pytest.fail(f"CI must not leave out the runs of CellProfiler: {error}")
        pytest.skip(f"NOT RUN, no CellProfiler: {error}")


@pytest.fixture(scope="session")
def shard(tmp_path_factory):
    """Two fields, of four cells and of one."""
    assay = small_assay(tmp_path_factory.mktemp("bare") / "assay", wells=2, size=SIZE, cells=[4, 1])
    return plan_shards(assay, {"OrigDNA": "DNA"}, file_hashes(assay), TINY, CellProfiler(("x",), "4.2.8.1", "t"), 2)[0]


def second_image(run):
    """The staged DNA image of the second field."""
    (path,) = (run / "images").glob("f00001_OrigDNA.tif")
    return path


def edit_table(run, change):
    with (run / TABLE).open(newline="") as handle:
        rows = list(csv.DictReader(handle))
    rows = change(rows)
    with (run / TABLE).open("w", newline="") as handle:
        writer = csv.DictWriter(handle, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def edit_pipeline(run, old, new):
    text = (run / PIPELINE).read_text()
    assert old in text
    (run / PIPELINE).write_text(text.replace(old, new))


def without_channel(run):
    edit_table(run, lambda rows: [{k: v for k, v in r.items() if not k.endswith("_OrigDNA")} for r in rows])


def other_folder(run):
    edit_table(run, lambda rows: [rows[0], {**rows[1], "Image_PathName_OrigDNA": str(run / "nowhere")}])


def zero(run):
    """Divided by its own illumination it is not a number; uncorrected it is a field without nuclei."""
    (run / PIPELINE).write_text(CORRECTED)
    blank(run)


def blank(run):
    tifffile.imwrite(second_image(run), np.zeros((SIZE, SIZE), np.uint16), photometric="minisblack")


def halved(run):
    data = second_image(run).read_bytes()
    second_image(run).write_bytes(data[: len(data) // 2])


def nothing(run):
    pass


def junk(run):
    second_image(run).write_bytes(b"II*\0 no image")


#: Row → tampering, options, exit status with -d, done-file, what the log or check_run's refusal tells.
ROWS = {
    "pipeline missing": (lambda run: (run / PIPELINE).unlink(), (), 1, "", "done-file says nothing"),
    "pipeline garbage": (lambda run: (run / PIPELINE).write_bytes(bytes(range(256))), (), 1, "",
                         "done-file says nothing"),
    "CSV missing": (lambda run: (run / TABLE).unlink(), (), 255, "Failure", "done-file says Failure"),
    "channel column absent": (without_channel, (), 255, "Failure", "done-file says Failure"),
    "bad setting": (lambda run: edit_pipeline(run, "input image:OrigDNA", "input image:OrigNone"), (), 255, "Failure",
                    "done-file says Failure"),
    "image missing": (lambda run: second_image(run).unlink(), (), 255, "Failure", "done-file says Failure"),
    "folder missing": (other_folder, (), 255, "Failure", "done-file says Failure"),
    "junk TIFF": (junk, (), 255, "Failure", "done-file says Failure"),
    "empty TIFF": (lambda run: second_image(run).write_bytes(b""), (), 255, "Failure", "done-file says Failure"),
    "rows past the end": (nothing, ("-f", "5", "-l", "9"), 255, "Failure", "done-file says Failure"),
    "bad image, always continue": (junk, ("--always-continue",), 0, "Complete", "failed at plate"),
    "unknown module": (lambda run: edit_pipeline(run, "MeasureObjectSizeShape:[", "MeasureMagic:["), (), 0, "Complete",
                       "MeasureMagic"),
    "all-zero image": (zero, (), 255, "Failure", "in module IdentifyPrimaryObjects"),
}
#: Rows that behave as another one does.
ALIKE = {"pipeline garbage", "channel column absent", "folder missing", "empty TIFF", "rows past the end"}


def bare_run(cellprofiler, shard, folder, tamper, options=()):
    stage(shard, TINY, folder)
    tamper(folder)
    execution = execute(replace(cellprofiler, command=(*cellprofiler.command, *options)), folder, 300)
    done = (folder / DONE).read_text().strip() if (folder / DONE).exists() else ""
    return execution.status, done


@pytest.mark.parametrize("row", [pytest.param(r, marks=pytest.mark.slow) if r in ALIKE else r for r in ROWS])
def test_the_bare_program_fails_as_the_table_says_and_is_refused(cellprofiler, shard, tmp_path, row):
    tamper, options, status, done, words = ROWS[row]
    assert bare_run(cellprofiler, shard, tmp_path / "run", tamper, options) == (status, done)
    with pytest.raises(MorphobenchError, match=words):
        check_run(shard, tmp_path / "run", TINY)
    written = {p.name for p in (tmp_path / "run" / OUT).glob("*.csv")}
    if row == "pipeline missing":
        assert "Traceback" in (tmp_path / "run" / LOG).read_text()
    if done == "Failure":
        assert written <= {"Experiment.csv"}  # one bad image: the sound field's tables are lost too
    if row == "bad image, always continue":
        images = pd.read_csv(tmp_path / "run" / OUT / "Image.csv")
        assert images["Count_Nuclei"].isna().sum() == 1 and len(images) == 2


@pytest.mark.parametrize(("tamper", "words"), [
    (halved, "truncated"), pytest.param(blank, "every pixel of OrigDNA is 0", marks=pytest.mark.slow)])
def test_a_truncated_or_blank_image_is_no_fault_to_the_bare_program(cellprofiler, shard, tmp_path, tamper, words):
    """Nothing that it leaves tells such an image from an empty field: it must be found before."""
    assert bare_run(cellprofiler, shard, tmp_path / "run", tamper) == (0, "Complete")
    output = check_run(shard, tmp_path / "run", TINY)
    assert output.images["Count_Nuclei"].tolist() == [4, 0]
    stage(shard, TINY, tmp_path / "again")
    tamper(tmp_path / "again")
    field = shard.fields[1]
    broken = replace(field, planes=(replace(field.planes[0], path=second_image(tmp_path / "again")),))
    with pytest.raises(MorphobenchError, match=words):
        stage(replace(shard, fields=(broken,)), TINY, tmp_path / "staged")


@pytest.fixture
def settings(tmp_path):
    (tmp_path / "tiny.cppipe").write_text(TINY)
    return CellProfilerSettings(pipeline=str(tmp_path / "tiny.cppipe"), attempts=1, timeout_minutes=5, shard_fields=8,
                                images={"OrigDNA": "DNA"})


def test_images_that_staging_refuses_cost_their_fields_and_no_run(cellprofiler, settings, tmp_path):
    assay = small_assay(tmp_path / "assay", wells=8, size=SIZE, cells=4)
    paths = [assay.root / name for name in assay.fields["Path_DNA"]]
    data = paths[1].read_bytes()
    paths[1].write_bytes(data[: len(data) // 2])
    for number, value in (2, 0), (7, 700):
        pixels = tifffile.imread(paths[number])
        pixels[0] = value
        tifffile.imwrite(paths[number], pixels, photometric="minisblack")
    paths[3].write_bytes(b"")
    paths[4].write_bytes(b"II*\0 no image")
    blank = draw(5, SIZE, 0)
    tifffile.imwrite(paths[5], blank, photometric="minisblack")
    hashes = file_hashes(assay)
    paths[6].unlink()
    measured = measure(assay, hashes, settings.model_copy(update={"failed_fields": 0.75}), cellprofiler,
                       tmp_path / "shards", run_serially)
    reasons = dict(zip(measured.failed["Metadata_Well"], measured.failed["reason"], strict=True))
    words = {1: "truncated", 2: "every pixel of OrigDNA is 0", 3: "is empty", 4: "truncated",
             6: "does not exist", 7: "every pixel of OrigDNA is 700"}
    wells = assay.fields["Metadata_Well"]
    assert list(reasons) == [wells[i] for i in words]
    assert all(word in reasons[wells[i]] and paths[i].name in reasons[wells[i]] for i, word in words.items())
    # The sound field is counted right, the blank noisy one is measured and has none.
    images = measured.images().set_index("Metadata_Well")
    assert images["Count_Nuclei"].to_dict() == {wells[0]: 4, wells[5]: 0}
    assert "started" not in (measured.shards[0] / "record.json").read_text()  # one run was enough
    assert measured.cells()["Metadata_Well"].tolist() == [wells[0]] * 4


#: Between our staging and CellProfiler: images that hold the word are overwritten.
BREAKER = """
import os, pathlib, sys
table = pathlib.Path(sys.argv[sys.argv.index("--data-file") + 1])
for path in (table.parent / "images").glob("*.tif"):
    if b"!FAILURE" in path.read_bytes():
        path.write_bytes(b"II*\\0 no image")
os.execv(sys.argv[1], sys.argv[1:])
"""


@pytest.mark.slow
def test_an_image_that_cellprofiler_stumbles_at_costs_its_field_alone(cellprofiler, settings, tmp_path):
    (tmp_path / "breaker.py").write_text(BREAKER)
    assay = small_assay(tmp_path / "assay", wells=3, size=SIZE, cells=[1, 4, 2])
    path = assay.root / assay.fields.loc[0, "Path_DNA"]
    pixels = tifffile.imread(path)
    pixels[0, 0, :4] = np.frombuffer(b"!FAILURE", "<u2")
    tifffile.imwrite(path, pixels, photometric="minisblack")
    breaker = replace(cellprofiler, command=(sys.executable, str(tmp_path / "breaker.py"), *cellprofiler.command))
    study = settings.model_copy(update={"failed_fields": 0.34})
    measured = measure(assay, file_hashes(assay), study, breaker, tmp_path / "shards", run_serially)
    assert measured.failed[FIELD_KEY].to_numpy().tolist() == assay.fields.loc[[0], FIELD_KEY].to_numpy().tolist()
    (reason,) = measured.failed["reason"]
    assert "did not complete" in reason and "Could not load the file as an image" in reason and ".running" not in reason
    assert measured.images()["Count_Nuclei"].tolist() == [4, 2] and len(measured.cells()) == 6
    masks = [measured.mask_path(key, "Nuclei") for key in assay.fields[FIELD_KEY].itertuples(index=False, name=None)]
    assert masks[0] is None and [tifffile.imread(m).max() for m in masks[1:]] == [4, 2]
    none = CellProfiler(("/nonexistent",), cellprofiler.version, "test")
    assert measure(assay, file_hashes(assay), study, none, tmp_path / "shards", run_serially).failed.equals(
        measured.failed)


#: Changes that no choice of fields can mend → what the error names.
PIPELINES = {
    "drops a module": (("MeasureObjectSizeShape:[", "MeasureMagic:["), "MeasureMagic"),
    "writes nothing": (("input image:OrigDNA", "input image:OrigNone"), "OrigNone"),
    "exports nothing": (("ExportToSpreadsheet:[", "ExportToNowhere:["), "no ExportToSpreadsheet"),
    "is garbage": ((TINY, "garbage"), "is not a CellProfiler pipeline"),
}


@pytest.mark.parametrize("kind", [pytest.param(k, marks=pytest.mark.slow) if k == "writes nothing" else k
                                  for k in PIPELINES])
def test_a_pipeline_at_fault_stops_the_study_by_name(cellprofiler, settings, tmp_path, kind):
    (old, new), words = PIPELINES[kind]
    assay = small_assay(tmp_path / "assay", wells=2, size=SIZE, cells=1)
    Path(settings.pipeline).write_text(TINY.replace(old, new))
    with pytest.raises(MorphobenchError, match=words) as caught:
        measure(assay, file_hashes(assay), settings, cellprofiler, tmp_path / "shards", run_serially)
    assert not list((tmp_path / "shards").glob("*/record.json"))
    if kind == "drops a module":
        assert isinstance(caught.value, FaultsError) and len(caught.value.faults) == 1


@pytest.mark.slow
def test_killed_with_the_real_program_and_run_again_the_tables_are_the_same(cellprofiler, settings, tmp_path):
    assay = small_assay(tmp_path / "assay", wells=2, size=SIZE, cells=[4, 1])
    study = settings.model_copy(update={"shard_fields": 1})
    with Measurer(tmp_path / "task", assay, study, cellprofiler, {}) as measurer:
        measurer.start(tmp_path / "undisturbed")
        assert measurer.end() == 0
        killed = []
        for seconds in (1, 5, 9):
            measurer.start(tmp_path / "killed")
            killed.append(measurer.kill(seconds))
        measurer.start(tmp_path / "killed")
        assert measurer.end() == 0
    assert killed[:2] == [True, True]
    one, other = ({str(p.relative_to(tmp_path / name)): p.read_bytes() for pattern in ("*/*.parquet", "*/masks/*")
                   for p in (tmp_path / name).glob(pattern)} for name in ("undisturbed", "killed"))
    assert len(one) == 6 and one == other
    assert not list((tmp_path / "killed").glob(".*"))
