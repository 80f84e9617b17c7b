"""Trying again and halving; killing everything at any moment. Together with `measure`: test_measure_flow."""

import random
import sys
import time

import fake_cellprofiler
import numpy as np
import pandas as pd
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from killing import Measurer
from small_assay import small_assay

from benchmark.base.errors import MorphobenchError
from benchmark.base.files import read_json
from benchmark.cellprofiler.check import check_run
from benchmark.cellprofiler.execute import CannotRunError, OutOfTimeError
from benchmark.cellprofiler.find import CellProfiler
from benchmark.cellprofiler.retry import halve, merged, run_seconds, timeout_beyond
from benchmark.cellprofiler.settings import CellProfilerSettings
from benchmark.cellprofiler.shards import Shard, StagedField


def attempt_that_fails_with(bad, calls):
    def attempt(items):
        calls.append(tuple(items))
        if found := sorted(bad & set(items)):
            raise MorphobenchError(f"{found[0]} is bad")
        return tuple(items)

    return attempt


@given(n=st.integers(1, 40), attempts=st.integers(1, 3), data=st.data())
@settings(deadline=None)
def test_halving_finds_exactly_the_items_that_fail_alone(n, attempts, data):
    bad = data.draw(st.sets(st.integers(0, n - 1)))
    calls = []
    results, failed = halve(range(n), attempt_that_fails_with(bad, calls), attempts)
    assert set(failed) == bad and list(failed) == sorted(failed)
    assert [i for part in results for i in part] == [i for i in range(n) if i not in bad]
    assert all(str(i) in fault.what for i, fault in failed.items())
    assert all(calls.count((i,)) == attempts for i in bad)
    if len(bad) == 1:
        assert len(calls) <= 2 * attempts + 2 * np.ceil(np.log2(n))


@given(n=st.integers(1, 30), most=st.integers(1, 30))
def test_items_that_only_fail_together_all_succeed(n, most):
    """As where the memory for a run of so many is not there."""
    def attempt(items):
        if len(items) > most:
            raise MorphobenchError("too many")
        return tuple(items)

    results, failed = halve(range(n), attempt, 1)
    assert not failed and [i for part in results for i in part] == list(range(n))


def test_what_fewer_items_cannot_mend_is_not_tried_again():
    calls = []

    def attempt(items):
        calls.append(items)
        raise CannotRunError("cannot be started")

    with pytest.raises(CannotRunError):
        halve(range(8), attempt, 3)
    assert len(calls) == 1


@given(n=st.integers(1, 40), attempts=st.integers(1, 3), data=st.data())
@settings(deadline=None)
def test_what_is_out_of_time_is_halved_at_once_and_never_tried_twice(n, attempts, data):
    slow = data.draw(st.sets(st.integers(0, n - 1)))
    calls = []

    def attempt(items):
        calls.append(tuple(items))
        if slow & set(items):
            raise OutOfTimeError("was ended")
        return tuple(items)

    results, failed = halve(range(n), attempt, attempts)
    assert set(failed) == slow and [i for part in results for i in part] == [i for i in range(n) if i not in slow]
    assert len(set(calls)) == len(calls)


def test_a_last_attempt_that_is_out_of_time_ends_them():
    calls = []

    def attempt(items):
        calls.append(items)
        raise MorphobenchError("bad") if len(calls) == 1 else OutOfTimeError("was ended")

    _, failed = halve(range(1), attempt, 5)
    assert len(calls) == 2 and failed[0].what == "was ended"


@given(timeout=st.floats(1, 1e5), of=st.integers(1, 500))
def test_a_field_alone_has_more_time_with_any_timeout_beyond_the_one_that_is_named(timeout, of):
    had = run_seconds(timeout, 1, of)
    assert had <= run_seconds(timeout, of, of) == timeout
    beyond = timeout_beyond(had, of)
    assert beyond >= timeout * (1 - 1e-9) and run_seconds(beyond, 1, of) <= had * (1 + 1e-9)
    assert run_seconds(beyond * 1.001, 1, of) > had


def test_merged_runs_read_as_one(tmp_path):
    """Parts of 2, 1 (empty) and 2 fields against one run over all five."""
    def output(folder, values, empty=()):
        numbers = range(len(values))
        fake_cellprofiler.write_output(folder, numbers, empty, values=dict(zip(numbers, values, strict=True)))
        shard = Shard("key", tuple(StagedField("P", f"A{v:02d}", 1, ()) for v in values))
        return check_run(shard, folder, fake_cellprofiler.PIPELINE)

    parts = merged([output(tmp_path / "a", [3, 1]), output(tmp_path / "b", [4], [0]), output(tmp_path / "c", [2, 9])])
    one = output(tmp_path / "all", [3, 1, 4, 2, 9], [2])
    drop = dict(columns=["FileName_OrigDNA", fake_cellprofiler_number := "Metadata_FieldNumber"], errors="ignore")
    assert parts.images.index.tolist() == one.images.index.tolist()
    pd.testing.assert_frame_equal(parts.images.drop(**drop), one.images.drop(**drop), check_exact=True)
    for name in one.objects:
        pd.testing.assert_frame_equal(parts.objects[name], one.objects[name], check_exact=True)
        assert fake_cellprofiler_number in parts.objects[name]
    assert [p.parent.parent.name for p in parts.masks["Nuclei"]] == ["a", "a", "b", "c", "c"]
    nothing = merged([output(tmp_path / "d", [1], [0]), output(tmp_path / "e", [2], [0])])
    assert nothing.objects["Cells"].empty and nothing.images["Count_Cells"].tolist() == [0, 0]


@pytest.mark.slow
def test_killed_at_any_moment_and_run_again_the_tables_are_the_same(tmp_path):
    """The whole process group by SIGKILL, in staging, runs, retries or landing, and once more, until all is there."""
    assay = small_assay(tmp_path / "assay", wells=5, sites=2)
    path = assay.root / assay.fields.loc[2, "Path_DNA"]
    pixels = tifffile.imread(path)
    pixels[0, 0, :4] = np.frombuffer(b"!FAILURE", "<u2")  # one field fails, so that halving is killed too
    tifffile.imwrite(path, pixels, photometric="minisblack")
    (tmp_path / "p.cppipe").write_text(fake_cellprofiler.PIPELINE)
    study = CellProfilerSettings(pipeline=str(tmp_path / "p.cppipe"), shard_fields=3)
    fake = CellProfiler((sys.executable, "-I", "-S", fake_cellprofiler.__file__), "4.2.8.1", "fake")
    environment = {"FAKE_CALLS": str(tmp_path / "calls"), "FAKE_SECONDS": "0.05"}
    chance = random.Random(3)
    with Measurer(tmp_path / "task", assay, study, fake, environment) as measurer:
        measurer.start(tmp_path / "undisturbed")
        start = time.monotonic()
        assert measurer.end() == 0
        most = 0.35 * (time.monotonic() - start)  # less than the shard with the failing field takes
        killed = 0
        for _ in range(6):
            measurer.start(tmp_path / "killed")
            killed += measurer.kill(chance.uniform(0, most))
        measurer.start(tmp_path / "killed")
        assert measurer.end() == 0
    assert killed >= 3
    one, other = ({str(p.relative_to(tmp_path / name)): p.read_bytes() for p in (tmp_path / name).rglob("*")
                   if p.is_file() and p.name not in ("log.txt", "record.json")} for name in ("undisturbed", "killed"))
    assert sorted(one) == sorted(other) and [n for n in one if one[n] != other[n]] == []
    failed = [{p.parent.name: read_json(p).get("failed") for p in (tmp_path / name).glob("*/record.json")}
              for name in ("undisturbed", "killed")]
    assert failed[0] == failed[1] and len(failed[0]) == 4 and len([f for f in failed[0].values() if f]) == 1
    assert not list((tmp_path / "killed").glob(".*"))
