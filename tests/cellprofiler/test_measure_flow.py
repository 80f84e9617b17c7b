"""How `measure` lands, reuses and reports shards, with a stand-in for CellProfiler."""

import os
import socket
import sys
import time
from dataclasses import replace
from pathlib import Path

import fake_cellprofiler
import numpy as np
import pytest
import tifffile
from small_assay import small_assay

from benchmark.cellprofiler.execute import execute
from benchmark.cellprofiler.find import CellProfiler
from benchmark.cellprofiler.measure import measure
from benchmark.cellprofiler.settings import CellProfilerSettings
from benchmark.errors import FaultsError, MorphobenchError
from benchmark.images.check import file_hashes
from benchmark.tables import FIELD_KEY, SITE
from benchmark.tasks import run_serially


class Bench:
    """An assay of 3 wells × 2 sites, the stand-in, and a folder for shards."""

    def __init__(self, tmp_path, monkeypatch):
        self.assay = small_assay(tmp_path / "assay", wells=3, sites=2)
        self.folder, self.calls, self.monkeypatch = tmp_path / "shards", tmp_path / "calls", monkeypatch
        monkeypatch.setenv("FAKE_CALLS", str(self.calls))
        pipeline = tmp_path / "p.cppipe"
        pipeline.write_text(fake_cellprofiler.PIPELINE)
        self.settings = CellProfilerSettings(pipeline=str(pipeline), shard_fields=2)
        command = (sys.executable, fake_cellprofiler.__file__)
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


def test_one_failing_shard_spares_the_others_and_is_named(bench):
    with pytest.raises(FaultsError) as caught:  # only shards with two wells fail
        bench.run(fault="second-well")
    assert len(caught.value.faults) == 2 and "2 of 4 shards" in str(caught.value)
    for fault in caught.value.faults:
        assert "zero-size array" in str(fault) and "IdentifyPrimaryObjects" in str(fault)
    logs = list(bench.folder.glob("failed-*/log.txt"))
    assert len(logs) == 2 and all(str(log) in str(caught.value) for log in logs)
    assert not list(bench.folder.glob("failed-*/images"))
    assert bench.run().record["shards_run"] == 2
    assert not list(bench.folder.glob("failed-*"))


def test_exit_status_zero_without_output_is_a_failure(bench):
    with pytest.raises(FaultsError, match="did not complete"):
        bench.run(fault="silent")


def test_an_assay_without_a_single_cell_is_measured(bench):
    measured = bench.run(fault="empty")
    assert measured.cells().empty
    assert measured.images()["Count_Cells"].tolist() == [0] * 6


def test_a_broken_image_stops_its_shard_before_cellprofiler_starts(bench):
    row = bench.assay.fields.iloc[5]
    path = bench.assay.root / row["Path_DNA"]
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(FaultsError) as caught:
        bench.run()
    assert len(caught.value.faults) == 1 and path.name in str(caught.value)
    assert sum(bench.called) == 5  # that field was alone in its shard


def test_leftovers_of_dead_runs_are_removed_and_of_living_ones_kept(bench):
    host = socket.gethostname()
    dead = bench.folder / f".running-{host}-4194304-0123abcd"  # above Linux' highest process number
    alive = bench.folder / f".running-{host}-{os.getppid()}-0123abcd"
    elsewhere = bench.folder / ".running-otherhost-4194304-0123abcd"
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


def test_a_shard_that_ran_out_of_time_keeps_the_log_that_is_named(bench):
    one = replace(bench.assay, fields=bench.assay.fields.iloc[:1])
    with pytest.raises(FaultsError, match="was ended") as caught:
        bench.run(one, fault="hang", timeout_minutes=0.01)
    (log,) = bench.folder.glob("failed-*/log.txt")
    assert str(log) in str(caught.value)


def test_the_child_has_one_thread(bench):
    measured = bench.run()
    assert "threads 1" in (measured.shards[0] / "log.txt").read_text()


def test_a_command_that_is_not_there_is_named(bench, tmp_path):
    bench.cellprofiler = CellProfiler((str(tmp_path / "none"),), "1", "x")
    with pytest.raises(FaultsError, match="cannot be started"):
        bench.run()


def test_a_missing_pipeline_is_named_before_anything(bench):
    with pytest.raises(MorphobenchError, match=r"none\.cppipe"):
        bench.run(pipeline=str(Path("none.cppipe")))
    assert not bench.folder.exists()
