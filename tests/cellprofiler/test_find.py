import pytest

from benchmark.base.errors import MorphobenchError
from benchmark.cellprofiler.find import find_cellprofiler, write_stamp


def script(path, body):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return path


def test_the_users_own_cellprofiler_comes_first(tmp_path):
    own = script(tmp_path / "my cp" / "cellprofiler", "echo 'Traceback: no MySQL' >&2; echo 4.2.6")
    script(tmp_path / "venv/bin/cellprofiler", "exit 1")
    write_stamp(tmp_path / "venv", "4.2.8.1", "hash")
    found = find_cellprofiler({"CELLPROFILER": str(own)}, tmp_path / "venv")
    assert (found.command, found.version, found.origin) == ((str(own),), "4.2.6", "CELLPROFILER")


def test_else_the_installed_one_with_the_version_it_was_installed_with(tmp_path):
    path = script(tmp_path / "venv/bin/cellprofiler", "exit 1")
    write_stamp(tmp_path / "venv", "4.2.8.1", "hash")
    found = find_cellprofiler({}, tmp_path / "venv")
    assert (found.command, found.version) == ((str(path),), "4.2.8.1")


def test_an_installation_that_broke_off_does_not_count(tmp_path):
    script(tmp_path / "venv/bin/cellprofiler", "echo 4.2.8.1")
    with pytest.raises(MorphobenchError, match="make setup"):
        find_cellprofiler({}, tmp_path / "venv")


@pytest.mark.parametrize(("body", "mode", "words"), [
    (None, 0, "names no file"),
    ("echo 4.2.8.1", 0o644, "cannot be executed"),
    ("echo broken >&2; exit 3", 0o755, "exit status 3: broken"),
    ("echo hello", 0o755, "does not state its version"),
])
def test_a_named_cellprofiler_that_does_not_work_is_an_error_not_a_fallback(tmp_path, body, mode, words):
    write_stamp(tmp_path / "venv", "4.2.8.1", "hash")
    script(tmp_path / "venv/bin/cellprofiler", "echo 4.2.8.1")
    own = tmp_path / "own"
    if body:
        script(own, body).chmod(mode)
    with pytest.raises(MorphobenchError, match=words) as caught:
        find_cellprofiler({"CELLPROFILER": str(own)}, tmp_path / "venv")
    assert "CELLPROFILER" in str(caught.value)
