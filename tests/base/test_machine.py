"""Trouble of the machine is told apart from trouble of a file, and says where and what to do."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from typer.testing import CliRunner

from benchmark.base.errors import MorphobenchError
from benchmark.base.files import whole, write_json
from benchmark.base.machine import MachineError, blaming_machine, refuse_unwritable, trouble_of
from benchmark.cli import app
from benchmark.workflow import walk

HDF5 = "Driver read request failed (file read failed: time = Tue, errno = 5, error message = 'Input/output error')"


@pytest.mark.parametrize(("error", "words"), [
    (OSError(errno.ENOSPC, "No space left on device"), "place: the disk is full"),
    (OSError(errno.EROFS, "Read-only file system"), "place: the file system is read-only"),
    (OSError(errno.ENOLCK, "No locks available"), "HDF5_USE_FILE_LOCKING"),
    (OSError(errno.EACCES, "Permission denied", "/elsewhere/a.tif"), "/elsewhere/a.tif: permission is denied"),
    (OSError(errno.EACCES, "Permission denied", "place/.tmp"), "place: permission is denied"),
    (OSError(errno.EAGAIN, "unable to lock file"), "is locked by another process"),
    (OSError(HDF5), "do not delete it"),
    (RuntimeError(HDF5), "do not delete it"),
])
def test_what_the_machine_does_is_told(error, words):
    with pytest.raises(MachineError) as caught, blaming_machine(Path("place")):
        raise error
    assert words in str(caught.value)


@pytest.mark.parametrize("error", [OSError("file signature not found"), OSError(errno.ENOENT, "No such file"),
                                   OSError(errno.EINVAL, "Invalid argument"), ValueError("x")])
def test_what_a_file_does_is_not(error):
    assert trouble_of(error, "place") is None
    with pytest.raises(type(error)), blaming_machine(Path("place")):
        raise error


def test_a_full_disk_leaves_nothing_half_written(tmp_path):
    path = tmp_path / "table.json"
    with pytest.raises(MachineError, match=r"the disk is full.*Make room") as caught, whole(path) as tmp:
        tmp.write_text("half")
        Path("/dev/full").write_text("more")
    assert str(caught.value).startswith(str(tmp_path)) and not list(tmp_path.iterdir())


def test_a_file_in_the_place_of_a_folder_and_links_are_told(tmp_path):
    (tmp_path / "file").write_text("x")
    (tmp_path / "nowhere").symlink_to(tmp_path / "absent" / "deep")
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    for place, words in (("file/study", "a file stands where"), ("file", "a file stands where"),
                         ("nowhere", "is a link that leads nowhere"), ("x" * 300, "name is too long")):
        with pytest.raises(MachineError, match=words):
            refuse_unwritable(tmp_path / place)
    refuse_unwritable(tmp_path / "link" / "study")
    assert not any((tmp_path / "real" / "study").iterdir())


def test_a_runs_folder_that_cannot_be_written_is_told_before_anything(tmp_path, monkeypatch):
    (tmp_path / "runs").write_text("x")
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["report", "demo"])
    assert done.exit_code == 2 and len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("morphobench: runs/demo: a file stands where a folder is needed")


def test_trouble_that_no_one_foresaw_is_one_line_and_a_bug_keeps_its_traceback(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for number, code in ((errno.ENOSPC, 2), (errno.EIO, 2), (errno.ENOENT, 1)):
        def fail(*_: object, number: int = number, **__: object) -> None:
            raise OSError(number, os.strerror(number), "somewhere/a.h5")

        monkeypatch.setattr(walk, "prepare", fail)
        done = CliRunner().invoke(app, ["report", "demo"])
        assert done.exit_code == code
        assert (done.exit_code == 1) == isinstance(done.exception, OSError)
        assert code == 1 or "morphobench: somewhere/a.h5: the disk" in done.stderr


def test_written_files_are_in_utf8_and_a_json_file_that_is_a_folder_is_named(tmp_path):
    write_json(tmp_path / "a.json", {"é": "µ"})
    assert "é" in (tmp_path / "a.json").read_bytes().decode("utf-8")
    (tmp_path / "b.json" / "x").mkdir(parents=True)
    with pytest.raises((MorphobenchError, OSError)):
        write_json(tmp_path / "b.json", {})
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []
