from pathlib import Path

import pytest

from benchmark.base import preflight
from benchmark.base.errors import MorphobenchError
from benchmark.cellprofiler import install as installer
from benchmark.cellprofiler.find import STAMP, write_stamp

REQUIREMENTS = Path(__file__).parents[2] / "pipelines" / "cellprofiler-requirements.txt"


def jdk(folder):
    for name in ("bin/javac", "include/jni.h"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch(mode=0o755)
    return folder


def test_our_requirements_are_pinned_and_free_of_what_cannot_be_installed():
    wheels, built, suite = installer.split_requirements(REQUIREMENTS)
    assert built == "python-javabridge==4.0.5" and suite == ["cellprofiler-core==4.2.8.1", "cellprofiler==4.2.8.1"]
    names = {line.split("==")[0].lower() for line in wheels}
    assert not names & {"mysqlclient", "wxpython", "cellprofiler"} and {"numpy", "centrosome", "scikit-image"} <= names


@pytest.mark.parametrize(("text", "words"), [("numpy>=1", "line 1"), ("numpy==1.0", "python-javabridge")])
def test_requirements_that_pin_nothing_are_refused(tmp_path, text, words):
    (tmp_path / "r.txt").write_text(text)
    with pytest.raises(MorphobenchError, match=words):
        installer.split_requirements(tmp_path / "r.txt")


def modules(folder, changes=()):
    for name, count in installer.RENAMED.items():
        lines = ["selem = disk(3)"] + ["f(x, selem=selem)"] * count
        (folder / name).write_text("\n".join(lines))
    return folder


def test_mending_is_complete_and_done_once(tmp_path):
    modules(tmp_path)
    installer.mend(tmp_path)
    once = {p.name: p.read_text() for p in tmp_path.iterdir()}
    for name, count in installer.RENAMED.items():
        assert once[name].count("footprint=selem") == count and "selem=selem" not in once[name].replace(
            "footprint=selem", "")
        assert "selem = disk(3)" in once[name]
    installer.mend(tmp_path)
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == once


def test_another_release_is_not_mended_blindly(tmp_path):
    modules(tmp_path)
    path = tmp_path / "findmaxima.py"
    path.write_text(path.read_text() + "\ng(selem=1)")
    with pytest.raises(MorphobenchError, match=r"findmaxima\.py: has 2 places"):
        installer.mend(tmp_path)
    path.write_text("nothing")
    with pytest.raises(MorphobenchError, match="has 0 places"):
        installer.mend(tmp_path)


def test_java_is_found_by_home_by_path_or_by_place(tmp_path):
    home, placed = jdk(tmp_path / "home"), jdk(tmp_path / "jvm" / "java-17")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "javac").symlink_to(home / "bin" / "javac")
    find = preflight.find_java_home
    assert find({"JAVA_HOME": str(home)}, tmp_path / "none") == home
    assert find({"PATH": str(tmp_path / "bin")}, tmp_path / "none") == home
    assert find({"PATH": "", "JAVA_HOME": str(tmp_path / "jre")}, tmp_path / "jvm") == placed
    assert find({"PATH": ""}, tmp_path / "none") is None


def test_what_is_missing_is_said_before_anything_starts(tmp_path, monkeypatch):
    monkeypatch.setattr(installer, "_run", lambda *a: pytest.fail("started"))
    with pytest.raises(MorphobenchError, match="missing"):
        installer.install(tmp_path / "venv", tmp_path / "none.txt")
    for name in ("PATH", "JAVA_HOME"):
        monkeypatch.setenv(name, "")
    with pytest.raises(MorphobenchError, match="gcc"):
        installer.install(tmp_path / "venv", REQUIREMENTS)
    monkeypatch.setattr(preflight.sys, "version_info", (3, 9, 1))
    with pytest.raises(MorphobenchError, match=r"this is 3\.9"):
        installer.install(tmp_path / "venv", REQUIREMENTS)
    assert not (tmp_path / "venv").exists()


def test_too_little_disk_is_said_before_anything_starts(tmp_path, monkeypatch):
    monkeypatch.setitem(preflight.DISK_GB, "cellprofiler", 10**6)
    with pytest.raises(MorphobenchError, match="GB are free"):
        installer.install(tmp_path / "venv", REQUIREMENTS)


def test_a_failed_step_shows_pips_errors_without_its_noise_and_leaves_no_stamp(tmp_path, monkeypatch):
    venv = tmp_path / "venv"
    (venv / "bin").mkdir(parents=True)
    write_stamp(venv, "4.2.8.1", "outdated")
    monkeypatch.setattr(installer, "preflight", lambda *a: tmp_path)
    monkeypatch.setattr(installer, "_usable", lambda python: True)
    pip = venv / "bin" / "python"
    pip.write_text("#!/bin/sh\necho 'WARNING: Location x is ignored: it is neither'\n"
                   "echo 'ERROR: no such wheel' >&2\nexit 1\n")
    pip.chmod(0o755)
    with pytest.raises(MorphobenchError, match="no such wheel") as caught:
        installer.install(venv, REQUIREMENTS)
    assert "is ignored" not in str(caught.value)
    assert not (venv / STAMP).exists()


def test_a_whole_installation_is_left_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(installer, "preflight", lambda *a: pytest.fail("started"))
    venv = tmp_path / "venv"
    (venv / "bin").mkdir(parents=True)
    (venv / "bin" / "cellprofiler").touch()
    write_stamp(venv, "4.2.8.1", installer.requirements_hash(REQUIREMENTS))
    installer.install(venv, REQUIREMENTS)
