"""Whole files, safe names, prediction tables, tasks."""

from __future__ import annotations

import os
import sys
import threading

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmark.base import files
from benchmark.base.cluster import Cluster
from benchmark.base.errors import MorphobenchError
from benchmark.base.files import digest, inside, once, read_json, replace_folder, safe_name, whole, write_json
from benchmark.base.tables import check_predictions


def test_what_exists_is_not_made_again(tmp_path):
    path = tmp_path / "deep" / "a.json"
    assert once(path, lambda: {"x": 1}) == path and read_json(once(path, lambda: 1 / 0)) == {"x": 1}
    table = pd.DataFrame({"a": [1, 2]})
    pd.testing.assert_frame_equal(pd.read_parquet(once(tmp_path / "a.parquet", lambda: table)), table)


def test_a_file_is_whole_or_not_there(tmp_path):
    path = tmp_path / "deep" / "a.json"
    write_json(path, {"x": 1})
    with pytest.raises(RuntimeError), whole(path) as tmp:
        tmp.write_text("half")
        raise RuntimeError
    assert read_json(path) == {"x": 1}
    assert [p.name for p in path.parent.iterdir()] == ["a.json"]
    path.write_text("{")
    with pytest.raises(MorphobenchError, match=r"a\.json"):
        read_json(path)


def two_folders(parent):
    for name in ("old", "new"):
        (parent / name).mkdir(parents=True)
        (parent / name / "file").write_text(name)
    return parent / "old", parent / "new"


@pytest.mark.parametrize("swap", [True, False])
def test_a_folder_is_replaced_by_another(tmp_path, monkeypatch, swap):
    if not swap:
        monkeypatch.setattr(files, "_LIBC", None)
    old, new = two_folders(tmp_path)
    replace_folder(new, old, tmp_path / "aside")
    assert (old / "file").read_text() == "new"
    with pytest.raises(FileNotFoundError):
        replace_folder(tmp_path / "none", old, tmp_path / "other")
    assert (old / "file").read_text() == "new"


@pytest.mark.skipif(sys.platform != "linux", reason="folders are swapped at one stroke on Linux alone")
def test_a_folder_that_is_replaced_is_there_at_every_moment(tmp_path):
    old, new = two_folders(tmp_path)
    missing, stop = [], threading.Event()

    def watch():
        while not stop.is_set():
            if not old.exists():
                missing.append(1)

    watcher = threading.Thread(target=watch)
    watcher.start()
    for _ in range(2000):
        replace_folder(new, old, tmp_path / "aside")
    stop.set()
    watcher.join()
    assert not missing and (old / "file").read_text() == "old"


@given(st.text(max_size=60))
def test_names_are_safe_and_distinct(text):
    name = safe_name(text)
    assert name.replace("-", "").isalnum() and name.isascii() and len(name) <= 50
    assert safe_name(text + "x") != name


def test_paths_do_not_leave_their_folder(tmp_path):
    root = tmp_path / "root"
    root.mkdir()
    (root / "link").symlink_to(tmp_path)
    assert inside(root, "a/b.tif") == root / "a" / "b.tif"
    for bad in ("../x", "/etc/passwd", "a/../../x", "link/x"):
        with pytest.raises(MorphobenchError, match="leads out"):
            inside(root, bad)


@given(st.dictionaries(st.text(max_size=4), st.integers()))
def test_hashes_do_not_depend_on_key_order(value):
    assert digest(value) == digest(dict(reversed(value.items())))


def predictions(**changes) -> pd.DataFrame:
    table = pd.DataFrame({
        "Metadata_Plate": "P", "Metadata_Well": ["A1", "A2"], "Metadata_Compound": ["a", "b"],
        "Metadata_Concentration": 1.0, "Metadata_Label": ["x", "y"], "unit": "well", "method": "m", "fold": ["a", "b"],
        "seed": 1, "p_x": [0.7, 0.2], "p_y": [0.3, 0.8],
    })
    return table.assign(**changes)


@pytest.mark.parametrize(("table", "text"), [
    (predictions().drop(columns="seed"), "lacks"),
    (predictions(p_x=[0.9, 0.2]), "sum to 1"),
    (predictions(p_x=[float("nan"), 0.2]), "not finite"),
    (predictions(Metadata_Label=["x", "z"]), "no probability column"),
    (predictions(Metadata_Well="A1"), "twice"),
    (predictions(unit="plate"), "unit"),
    (predictions().drop(columns="p_y"), "two or more"),
])
def test_malformed_predictions_are_refused(table, text):
    check_predictions(predictions())
    with pytest.raises(MorphobenchError, match=text):
        check_predictions(table)


def where(number: int) -> tuple[int, int, str]:
    return number, os.getpid(), os.environ.get("OMP_NUM_THREADS", "")


def test_the_cluster_runs_tasks_in_processes_of_their_own_with_bounded_threads():
    done = list(Cluster(2, threads=1)(where, list(range(6)), "numbers"))
    assert sorted(n for n, _, _ in done) == list(range(6))
    assert os.getpid() not in {pid for _, pid, _ in done}
    assert {threads for _, _, threads in done} == {"1"}


def fail(number: int) -> int:
    raise MorphobenchError("is wrong", f"task {number}", "Mend it.")


def test_a_tasks_error_arrives_as_it_was_raised():
    with pytest.raises(MorphobenchError, match=r"task 1: is wrong\. Mend it"):
        list(Cluster(2)(fail, [1, 1], "failing"))
