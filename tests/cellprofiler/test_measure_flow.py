"""How `measure` lands, reuses and reports shards, with a stand-in for CellProfiler."""

import errno
import os
import signal
import socket
import sys
import time
from dataclasses import replace
from pathlib import Path

import fake_cellprofiler
import numpy as np
import pandas as pd
import psutil
import pytest
import tifffile
from small_assay import small_assay

from benchmark.base import files
from benchmark.base.errors import FaultsError, MorphobenchError
from benchmark.base.files import read_json
from benchmark.base.machine import MachineError
from benchmark.base.tables import FIELD_KEY, SITE, WELL
from benchmark.base.tasks import run_serially
from benchmark.cellprofiler import execute as executing
from benchmark.cellprofiler import measure as measure_module
from benchmark.cellprofiler import retry, shards
from benchmark.cellprofiler.execute import OutOfTimeError, execute, utf8_locale
from benchmark.cellprofiler.find import CellProfiler
from benchmark.cellprofiler.measure import measure
from benchmark.cellprofiler.settings import CellProfilerSettings
from benchmark.quality.check import file_hashes


class Bench:
    """An assay of 3 wells × 2 sites, the stand-in, and a folder for shards."""

    def __init__(self, tmp_path, monkeypatch):
        self.assay = small_assay(tmp_path / "assay", wells=3, sites=2)
        self.folder, self.calls, self.monkeypatch = tmp_path / "shards", tmp_path / "calls", monkeypatch
        monkeypatch.setenv("FAKE_CALLS", str(self.calls))
        pipeline = tmp_path / "p.cppipe"
        pipeline.write_text(fake_cellprofiler.PIPELINE)
        self.settings = CellProfilerSettings(pipeline=str(pipeline), shard_fields=2)
        command = (sys.executable, "-I", "-S", fake_cellprofiler.__file__)  # starts in a third of the time
        self.cellprofiler = CellProfiler(command, "4.2.8.1", "fake")

    def run(self, assay=None, fault="", **settings):
        assay = assay or self.assay
        self.calls.write_text("")
        self.monkeypatch.setenv("FAKE_FAULT", fault)
        return measure(assay, file_hashes(assay), self.settings.model_copy(update=settings), self.cellprofiler,
                       self.folder, run_serially)

    @property
    def called(self):
        """Numbers of fields of the stand-in's calls."""
        return [int(n) for n in self.calls.read_text().split()]


def spoil(assay, row, word):
    """Write bytes that the stand-in stumbles at (`fake_cellprofiler.FAULTS`) into the DNA image of a field."""
    path = assay.root / assay.fields.loc[row, "Path_DNA"]
    pixels = tifffile.imread(path)
    pixels[0, 3, : len(word) // 2] = np.frombuffer(word, "<u2")
    tifffile.imwrite(path, pixels, photometric="minisblack")


def fields_of(table):
    return sorted(set(table[FIELD_KEY].itertuples(index=False, name=None)))


def assert_same_tables(one, other):
    """Byte for byte the same tables and masks in all shards."""
    names = [sorted(str(p.relative_to(folder)) for pattern in ("*/*.parquet", "*/masks/*")
                    for p in folder.glob(pattern)) for folder in (one, other)]
    assert names[0] == names[1] and names[0]
    assert [n for n in names[0] if (one / n).read_bytes() != (other / n).read_bytes()] == []


@pytest.fixture
def bench(tmp_path, monkeypatch):
    return Bench(tmp_path, monkeypatch)


def test_all_fields_are_measured_once_and_a_second_call_runs_nothing(bench):
    measured = bench.run()
    assert sorted(bench.called) == [1, 1, 2, 2]  # two sites of three wells, in shards of two
    cells, images = measured.cells(), measured.images()
    keys = sorted(bench.assay.fields[FIELD_KEY].itertuples(index=False, name=None))
    assert sorted(images[FIELD_KEY].itertuples(index=False, name=None)) == keys
    assert (cells.groupby(FIELD_KEY).size() == 2).all() and len(cells) == 12
    few = measured.cells(["Metadata_ObjectNumber", "no such column", *FIELD_KEY])
    assert set(few.columns) == {"Metadata_ObjectNumber", *FIELD_KEY} and few.equals(cells[few.columns])
    assert measured.record["cells"] == 12 and measured.record["shards_run"] == 4
    assert (bench.folder / measured.record["pipeline_as_run"]).read_text() == fake_cellprofiler.PIPELINE
    path = measured.mask_path(keys[3], "Nuclei")
    assert path is not None and tifffile.imread(path).dtype == np.uint16
    assert measured.mask_path(keys[3], "Cells") is None and measured.mask_path(("no", "such", 1), "Nuclei") is None
    again = bench.run()
    assert bench.called == [] and again.record["shards_run"] == 0
    assert again.cells().equals(cells)
    assert {p.name for p in bench.folder.iterdir()} == {*(s.name for s in measured.shards),
                                                        measured.record["pipeline_as_run"]}


def test_more_sites_run_only_what_is_new(bench):
    one_site = replace(bench.assay, fields=bench.assay.fields[bench.assay.fields[SITE] == 1].reset_index(drop=True))
    assert bench.run(one_site).record["shards_run"] == 2
    assert bench.run().record["shards_run"] == 2


def test_other_settings_are_another_measurement(bench):
    bench.run()
    changed = bench.run(settings={"IdentifyPrimaryObjects": {"Thresholding method[1]": "Manual"}})
    assert changed.record["shards_run"] == 4
    assert "Thresholding method:Manual" in (bench.folder / changed.record["pipeline_as_run"]).read_text()


def test_a_shard_that_only_fails_whole_is_measured_in_halves(bench):
    measured = bench.run(fault="second-well")  # shards with two wells fail
    assert bench.called == [2, 2, 1, 1, 1, 2, 2, 1, 1, 1]
    assert measured.failed.empty and measured.record["failed_fields"] == []
    bench.folder = bench.folder.with_name("undisturbed")
    assert_same_tables(measured.folder, bench.run().folder)


def test_a_bad_field_costs_itself_alone_and_is_not_tried_again(bench):
    spoil(bench.assay, 2, b"!FAILURE")
    measured = bench.run(shard_fields=6)
    assert bench.called == [3, 3, 1, 2, 1, 1, 1, 3]  # the first sites: both fail together, then halves; second sites
    key = tuple(bench.assay.fields.loc[2, FIELD_KEY])
    assert measured.failed[FIELD_KEY].itertuples(index=False, name=None).__next__() == key and len(measured.failed) == 1
    (reason,) = measured.failed["reason"]
    assert "IdentifyPrimaryObjects" in reason and "zero-size array" in reason and ".running" not in reason
    assert measured.record["failed_fields"] == [[*key, reason]]
    others = bench.assay.fields.drop(index=2)
    assert fields_of(measured.images()) == fields_of(others) == fields_of(measured.cells())
    assert all((measured.mask_path(k, "Nuclei") is None) == (k == key) for k in fields_of(bench.assay.fields))
    log = next(p for p in measured.shards[0].glob("failed-*.txt"))
    assert log.name == "failed-00001.txt" and "zero-size" in log.read_text()
    assert not list(bench.folder.glob("failed-*"))
    again = bench.run(shard_fields=6)
    assert bench.called == [] and again.failed.equals(measured.failed) and again.record["shards_run"] == 0
    # The other fields are as if that one had never been there.
    bench.folder = bench.folder.with_name("without")
    without = bench.run(replace(bench.assay, fields=others.reset_index(drop=True)), shard_fields=6)
    assert without.record["failed_fields"] == []
    for table in (measured.cells(), measured.images()), (without.cells(), without.images()):
        assert len(table[0]) == 10 and len(table[1]) == 5
    for name in ("cells", "images"):
        one, other = (getattr(m, name)().sort_values(FIELD_KEY, kind="stable", ignore_index=True)
                      for m in (measured, without))
        pd.testing.assert_frame_equal(one, other, check_exact=True)
    assert without.record["shards_digest"] != measured.record["shards_digest"]


@pytest.mark.parametrize(("word", "reason"), [(b"!CRASHES", "did not complete"), (b"!HANGING", "was ended")])
def test_a_field_that_crashes_or_hangs_costs_itself_alone(bench, word, reason):
    spoil(bench.assay, 4, word)
    measured = bench.run(attempts=1, timeout_minutes=0.05)
    assert len(measured.failed) == 1 and reason in measured.failed["reason"][0]
    assert len(measured.images()) == 5


class Slow:
    """In the place of `execute`: fields with !SLOWEST in their images take so many seconds, without waiting."""

    def __init__(self, bench, seconds):
        self.seconds, self.runs = seconds, []
        bench.monkeypatch.setattr(retry, "execute", self)

    def __call__(self, cellprofiler, folder, timeout_seconds, log_name=""):
        images = list((folder / "images").glob("*_OrigDNA.tif"))
        self.runs.append(len(images))
        if timeout_seconds < self.seconds and any(b"!SLOWEST" in path.read_bytes() for path in images):
            (folder / "log.txt").write_text("still at it")
            raise OutOfTimeError("CellProfiler was ended", log_name, "Raise it.")
        return execute(cellprofiler, folder, 60, log_name)


def files_of(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_a_run_out_of_time_is_never_repeated(bench):
    spoil(bench.assay, 2, b"!SLOWEST")
    slow = Slow(bench, 60)
    measured = bench.run(shard_fields=6, timeout_minutes=0.5, attempts=3)
    assert slow.runs == [3, 1, 2, 1, 1, 3]
    assert fields_of(measured.failed) == fields_of(bench.assay.fields.loc[[2]])
    assert "timeout_minutes is above 0.5" in measured.failed["reason"][0]
    # Nor where a half holds, but for a field that cannot be read, what the whole did.
    (bench.assay.root / bench.assay.fields.loc[4, "Path_DNA"]).write_bytes(b"")
    bench.folder, slow.runs = bench.folder.with_name("more"), []
    measured = bench.run(shard_fields=6, timeout_minutes=0.5, attempts=3, failed_fields=0.5)
    assert slow.runs == [2, 1, 1, 3] and len(measured.failed) == 2


def test_a_field_that_was_out_of_time_is_measured_anew_when_it_has_more(bench):
    spoil(bench.assay, 2, b"!SLOWEST")
    spoil(bench.assay, 1, b"!FAILURE")
    options = {"shard_fields": 6, "failed_fields": 0.5}
    slow = Slow(bench, 60)
    less = bench.run(timeout_minutes=0.5, **options)
    digests = [less.record["shards_digest"]]
    record = read_json(less.shards[0] / "record.json")
    key = list(bench.assay.fields.loc[2, FIELD_KEY])
    assert record["out_of_time"] == [[*key, 30.0]] and [f[:3] for f in record["failed"]] == [key]
    assert "out_of_time" not in read_json(less.shards[1] / "record.json")
    before, slow.runs = files_of(less.folder), []
    for minutes in (0.5, 0.1):
        assert bench.run(timeout_minutes=minutes, **options).record["shards_run"] == 0
    assert slow.runs == [] and files_of(less.folder) == before
    # More, but not enough: the record says so, and the measurements are the same.
    more = bench.run(timeout_minutes=0.75, **options)
    digests.append(more.record["shards_digest"])
    assert slow.runs == [3, 1, 2, 1, 1] and more.record["shards_run"] == 1
    assert read_json(less.shards[0] / "record.json")["out_of_time"] == [[*key, 45.0]]
    assert bench.run(timeout_minutes=0.75, **options).record["shards_run"] == 0
    after = files_of(less.folder)
    assert [n for n in before if n not in after or before[n] != after[n]] == [
        f"{less.shards[0].name}/{name}" for name in ("record.json",)]
    # Enough.
    slow.runs = []
    enough = bench.run(timeout_minutes=2, **options)
    digests.append(enough.record["shards_digest"])
    assert slow.runs == [3] and enough.shards == less.shards
    assert fields_of(enough.failed) == fields_of(bench.assay.fields.loc[[1]])  # which failed otherwise, and stays
    assert "failed" not in read_json(less.shards[0] / "record.json")
    assert digests[0] == digests[1] != digests[2]
    assert not [p for p in less.folder.iterdir() if p.name.startswith(".")]
    assert bench.run(timeout_minutes=0.5, **options).record["shards_digest"] == digests[2]
    bench.folder = bench.folder.with_name("undisturbed")
    assert bench.run(timeout_minutes=2, **options).record["shards_digest"] == digests[2]
    assert_same_tables(less.folder, bench.folder)


@pytest.mark.parametrize("swap", [pytest.param(True, marks=pytest.mark.slow), False])
def test_killed_while_a_shard_is_replaced_the_old_or_the_new_is_there(bench, swap):
    """Before the first, second and so on of all renames of the process that measures anew."""
    spoil(bench.assay, 2, b"!SLOWEST")
    one = replace(bench.assay, fields=bench.assay.fields.iloc[[0, 2]].reset_index(drop=True))
    Slow(bench, 60)
    old = bench.run(one, timeout_minutes=0.5, failed_fields=0.5)
    if not swap:
        bench.monkeypatch.setattr(files, "_LIBC", None)
    kept = files_of(old.shards[0])
    hashes, killed = file_hashes(one), 0
    while True:
        if (child := os.fork()) == 0:
            try:
                signal.alarm(60)
                left = [killed]

                def rename(path, target, rename=os.rename, left=left):
                    left[0] -= 1
                    if left[0] < 0:
                        os.kill(os.getpid(), signal.SIGKILL)
                    rename(path, target)

                os.rename = os.replace = rename
                measure(one, hashes, bench.settings.model_copy(update={"timeout_minutes": 2}), bench.cellprofiler,
                        bench.folder, run_serially)
                os._exit(0)
            finally:
                os._exit(1)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if status == 0:
            break
        assert status == -signal.SIGKILL
        killed += 1
        measure_module._remove_dead(bench.folder)
        found = files_of(old.shards[0])
        assert found == kept or "failed" not in read_json(old.shards[0] / "record.json")
        assert set(found) >= {"cells.parquet", "images.parquet", "record.json", "log.txt"}
        if found != kept:
            break
    assert killed >= (4 if swap else 6)  # the files of the new shard, and its place
    assert "failed" not in read_json(old.shards[0] / "record.json")
    assert len(bench.run(one, timeout_minutes=0.5).images()) == 2


def test_a_small_shard_whose_every_field_fails_is_judged_by_what_the_study_tolerates(bench):
    five = replace(bench.assay, fields=bench.assay.fields.iloc[:5].reset_index(drop=True))
    for row in (1, 3):  # second sites: a shard of their own
        spoil(bench.assay, row, b"!FAILURE")
    with pytest.raises(FaultsError, match="cannot measure small") as caught:
        bench.run(five, shard_fields=3, failed_fields=0.39)
    assert len(caught.value.faults) == 2 and len(list(bench.folder.glob("*/record.json"))) == 1
    measured = bench.run(five, shard_fields=3, failed_fields=0.4)
    assert bench.called == [2, 2, 1, 1, 1, 1] and measured.record["shards_run"] == 1
    assert fields_of(measured.failed) == fields_of(five.fields.loc[[1, 3]])
    assert fields_of(measured.images()) == fields_of(five.fields.loc[[0, 2, 4]]) == fields_of(measured.cells())
    assert len(list(measured.shards[1].glob("failed-*.txt"))) == 2
    assert len(measured.single_cells().counts) == 3
    assert bench.run(five, shard_fields=3, failed_fields=0.4).record["shards_run"] == 0
    # A stricter study has them looked at once more.
    with pytest.raises(FaultsError, match="2 of 5 fields"):
        bench.run(five, shard_fields=3, failed_fields=0.2)
    assert bench.called == [] and not (measured.shards[1] / "record.json").exists()
    assert (measured.shards[0] / "record.json").exists()


def test_many_fields_that_fail_and_none_that_is_measured_stop_the_study_soon(bench):
    bench.monkeypatch.setattr(measure_module, "_TELLING", 3)
    with pytest.raises(FaultsError, match="cannot measure small") as caught:
        bench.run(fault="silent", attempts=1, failed_fields=0.9)
    assert bench.called == [2, 1, 1, 1] and len(caught.value.faults) == 3  # of 6 fields, 5 of which might fail
    assert not list(bench.folder.glob("*/record.json"))
    # Fields that cannot be read tell nothing of the pipeline, however many.
    for row in (0, 1, 2, 4):
        (bench.assay.root / bench.assay.fields.loc[row, "Path_DNA"]).write_bytes(b"")
    assert len(bench.run(attempts=1, failed_fields=0.9).failed) == 4


def test_as_many_fields_may_fail_as_the_share_says():
    assert [measure_module._tolerated(n, share) for n, share in ((100, 0.29), (5, 0.2), (9, 0.2), (3, 1), (1, 1))] == [
        29, 1, 1, 2, 0]


def test_a_failure_that_passes_costs_nothing(bench):
    spoil(bench.assay, 2, b"!ODDTIME")
    assert bench.run().failed.empty
    assert bench.called == [2, 2, 1, 2, 1]


def test_exit_status_zero_without_output_is_a_failure(bench):
    with pytest.raises(FaultsError, match="did not complete") as caught:
        bench.run(fault="silent")
    assert bench.called == [2, 2, 1, 1, 1, 1]  # the first shard tells: no other is started
    assert len(caught.value.faults) == 2
    (log,) = bench.folder.glob("failed-*/log.txt")
    assert str(log) in str(caught.value) and not list(log.parent.glob("images"))
    assert not list(bench.folder.glob("*/record.json"))
    assert bench.run().record["shards_run"] == 4
    assert not list(bench.folder.glob("failed-*"))


def test_more_failed_fields_than_allowed_stop_the_study_and_are_listed(bench):
    for row in (1, 2):
        spoil(bench.assay, row, b"!FAILURE")
    with pytest.raises(FaultsError, match="2 of 6 fields of small could not be measured") as caught:
        bench.run(shard_fields=1)
    assert len(caught.value.faults) == 2
    assert all(str(bench.assay.fields.loc[row, WELL]) in str(caught.value) for row in (1, 2))
    # What was measured stays; shards of which nothing was are tried again.
    assert bench.run(shard_fields=1, failed_fields=0.4).record["shards_run"] == 2
    assert bench.called == [1, 1, 1, 1]


def test_a_pipeline_that_drops_a_module_stops_at_once(bench):
    with pytest.raises(FaultsError, match="MeasureMagic") as caught:
        bench.run(fault="unknown-module")
    assert bench.called == [2] and len(caught.value.faults) == 1
    assert not list(bench.folder.glob("*/cells.parquet"))


def test_a_full_disk_is_no_fields_fault(bench):
    bench.monkeypatch.setattr(retry, "_LEAST_SPACE", 2**62)
    with pytest.raises(MachineError, match="disk is full"):
        bench.run(fault="silent")
    assert bench.called == [2]


def test_a_disk_that_fills_while_planes_are_staged_is_no_fields_fault(bench):
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    bench.monkeypatch.setattr(shards.tifffile, "imwrite", full)
    with pytest.raises(MachineError, match="shards: the disk is full") as caught:
        bench.run()
    assert len(str(caught.value).splitlines()) == 1 and bench.called == []
    assert not [p for p in bench.folder.iterdir() if p.is_dir()]


def test_single_cells_are_brought_together_by_plate(bench):
    spoil(bench.assay, 2, b"!FAILURE")
    measured = bench.run()
    cells = measured.single_cells()
    counts = cells.counts.merge(measured.images(), on=FIELD_KEY, validate="1:1")
    assert len(counts) == 5 and (counts["cells"] == counts["Count_Cells"]).all()
    assert set(cells.features) == {c for c in measured.cells() if not c.startswith("Metadata_")}
    assert measured.cells_folder.is_dir() and measured.single_cells().counts.equals(cells.counts)


def test_an_assay_without_a_single_cell_is_measured(bench):
    measured = bench.run(fault="empty")
    assert measured.cells().empty
    assert measured.images()["Count_Cells"].tolist() == [0] * 6


def test_a_broken_image_costs_its_field_before_cellprofiler_starts(bench):
    row = bench.assay.fields.iloc[5]
    path = bench.assay.root / row["Path_DNA"]
    path.write_bytes(path.read_bytes()[:-100])
    measured = bench.run()
    assert sum(bench.called) == 5  # that field was alone in its shard
    assert path.name in measured.failed["reason"][0] and "truncated" in measured.failed["reason"][0]
    assert len(measured.images()) == 5 and len(measured.cells()) == 10
    assert bench.run().record["shards_run"] == 0


def test_broken_images_in_a_shard_leave_the_others_one_run(bench):
    for row in (0, 3):
        path = bench.assay.root / bench.assay.fields.loc[row, "Path_DNA"]
        path.write_bytes(b"II*" if row else b"")
    measured = bench.run(shard_fields=6, failed_fields=0.5)
    assert sorted(bench.called) == [2, 2]
    assert fields_of(measured.failed) == fields_of(bench.assay.fields.loc[[0, 3]])
    assert all(measured.mask_path(key, "Nuclei") for key in fields_of(measured.images()))


def test_nothing_measured_at_all_is_an_error_whatever_the_share(bench):
    one = replace(bench.assay, fields=bench.assay.fields.iloc[:1])
    with pytest.raises(FaultsError, match="1 of 1 fields"):
        bench.run(one, fault="silent", failed_fields=1.0)
    assert not list(bench.folder.glob("*/record.json"))


def test_leftovers_of_dead_runs_are_removed_and_of_living_ones_kept(bench):
    host = socket.gethostname()
    dead = bench.folder / f".running-{host}_4194304_0_0123abcd"  # above Linux' highest process number
    start = int(psutil.Process(os.getppid()).create_time())
    alive = bench.folder / f".running-{host}_{os.getppid()}_{start}_0123abcd"
    elsewhere = bench.folder / ".running-otherhost_4194304_0_0123abcd"
    for path in (dead, alive, elsewhere):
        (path / "run").mkdir(parents=True)
    bench.run()
    assert [p.exists() for p in (dead, alive, elsewhere)] == [False, True, True]


def test_time_runs_out_for_all_that_was_started(bench, tmp_path):
    bench.monkeypatch.setenv("FAKE_FAULT", "hang")
    run = tmp_path / "run"
    run.mkdir()
    (run / "load_data.csv").write_text("Metadata_FieldNumber\n0\n")
    with pytest.raises(MorphobenchError, match="was ended"):
        execute(bench.cellprofiler, run, 0.7)
    time.sleep(2.2)  # the stand-in's own child would speak up now
    assert bench.calls.read_text() == "1\n"


def test_the_child_has_one_thread(bench):
    measured = bench.run()
    assert "threads 1" in (measured.shards[0] / "log.txt").read_text()


def test_the_child_reads_names_as_utf8_whatever_the_locale(bench, tmp_path):
    for name in ("LC_ALL", "LANG", "PYTHONIOENCODING"):
        bench.monkeypatch.setenv(name, "C" if name != "PYTHONIOENCODING" else "ascii")
    script = tmp_path / "child.py"
    script.write_text("import locale, os, sys\nprint(locale.setlocale(locale.LC_ALL, ''), os.environ['LC_ALL'], 'µ')\n")
    folder = tmp_path / "é"
    folder.mkdir()
    execute(CellProfiler((sys.executable, str(script)), "1", "x"), folder, 60)
    assert (folder / "log.txt").read_text("utf-8").split() == [utf8_locale(), utf8_locale(), "µ"]


def test_folders_in_which_cellprofiler_finds_nothing_are_named_before_it_starts(bench, tmp_path):
    bench.folder = tmp_path / "two\nlines"
    with pytest.raises(MachineError, match=r"two\\nlines.*line break in its name") as caught:
        bench.run()
    assert len(str(caught.value).splitlines()) == 1 and bench.called == []
    bench.monkeypatch.setattr(executing, "utf8_locale", lambda: "")
    bench.folder = tmp_path / "écran"
    with pytest.raises(MachineError, match=r"écran.*CellProfiler finds no files.*Install the locale"):
        bench.run()
    bench.folder = tmp_path / "plain"
    assert bench.run().record["fields"] == 6


def test_a_command_that_is_not_there_is_named(bench, tmp_path):
    bench.cellprofiler = CellProfiler((str(tmp_path / "none"),), "1", "x")
    with pytest.raises(MachineError, match="none: cannot be started"):
        bench.run()


def test_a_missing_pipeline_is_named_before_anything(bench):
    with pytest.raises(MorphobenchError, match=r"none\.cppipe"):
        bench.run(pipeline=str(Path("none.cppipe")))
    assert not bench.folder.exists()
