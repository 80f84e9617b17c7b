"""What is missing is one sentence with its remedy, before anything long starts."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import namedtuple
from pathlib import Path

import pytest

from benchmark.base import preflight

ROOT = Path(__file__).parents[2]


def run(target: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "benchmark" / "base" / "preflight.py"), target]
    return subprocess.run(command, capture_output=True, text=True, check=False,
                          env={**os.environ, "CELLPROFILER": "", **environment})


def test_without_jdk_and_compiler_both_are_named(tmp_path):
    done = run("cellprofiler", PATH=str(tmp_path), JAVA_HOME="")
    lines = done.stderr.splitlines()
    assert done.returncode == 1
    # a JDK under /usr/lib/jvm is found without the PATH
    assert any("C compiler" in line and "install gcc" in line for line in lines)


def test_a_jdk_is_asked_for(monkeypatch):
    monkeypatch.setattr(preflight, "find_java_home", lambda environ: None)
    assert any("JDK" in s and "JAVA_HOME" in s for s in preflight.problems("cellprofiler"))


def test_a_cellprofiler_of_ones_own_needs_neither(tmp_path):
    own = tmp_path / "cellprofiler"
    own.write_text("#!/bin/sh\n")
    done = run("cellprofiler", PATH=str(tmp_path), CELLPROFILER=str(own))
    assert done.returncode == 1 and "not an executable file" in done.stderr
    own.chmod(0o755)
    assert run("cellprofiler", PATH=str(tmp_path), CELLPROFILER=str(own)).returncode == 0


def test_disk_and_python_are_checked(monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(preflight.shutil, "disk_usage", lambda _: usage(1, 1, 10**9))
    assert any("1.0 GB are free" in s for s in preflight.problems("suite"))
    monkeypatch.setattr(preflight.sys, "version_info", (3, 9, 1))
    assert any("this is 3.9" in s and "PYTHON=" in s for s in preflight.problems("suite"))


@pytest.mark.parametrize("target", ["suite", "cellprofiler"])
def test_this_machine_is_fit(target):
    assert preflight.problems(target) == []
