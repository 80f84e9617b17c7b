"""Bad arguments, and a machine that does not let a study write: said at once, before anything is read or run."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from bad_input import Case, command, command_refuses, each, files_in, write_study

NETWORK = {"name": "cnn", "kind": "cnn_finetuned", "network": {"weights": "none"}}


def arguments(*words: str):
    """Draws a sound study, mine.yaml; gives the words of the command."""
    def draw(folder: Path) -> list[str]:
        write_study(folder)
        return list(words)
    return draw


def in_the_way(name: str, *words: str):
    """The same with a file where a folder should be, or a folder where a study should be."""
    def draw(folder: Path) -> list[str]:
        write_study(folder)
        (folder / name).mkdir() if name.endswith(".yaml") else (folder / name).write_text("x")
        return list(words)
    return draw


def looped(folder: Path) -> list[str]:
    (folder / "loop.yaml").symlink_to("loop.yaml")
    return ["report", "loop.yaml"]


def with_network(*words: str):
    def draw(folder: Path) -> list[str]:
        path = write_study(folder)
        study = yaml.safe_load(path.read_text())
        path.write_text(yaml.safe_dump({**study, "methods": [*study["methods"], NETWORK]}))
        return list(words)
    return draw


THERE = "bbbc013, bbbc014, bbbc021"
CLUSTER = "Give tcp://host:port, or local"
CASES = [
    Case("an unknown study", arguments("report", "nope"), f"no study 'nope'. Studies here: {THERE}.*path of a YAML"),
    Case("a study that is almost spelt", arguments("report", "dem"), "no study 'dem'. Did you mean demo"),
    Case("a study in capitals", arguments("report", "Demo"), "Did you mean demo"),
    Case("no name", arguments("report", ""), f"no study ''. Studies here: {THERE}"),
    Case("a folder", arguments("report", "./"), "no study|is a folder"),
    Case("a folder by its path", arguments("assay", "check", "/tmp"), "/tmp: is a folder, and a study is a file. Give"),
    Case("a folder named as a study", in_the_way("x.yaml", "report", "x.yaml"),
         r"x\.yaml: is a folder, and a study is"),
    Case("a table of fields", arguments("report", "./plan.csv"), "no study|is no YAML file by its name"),
    Case("a study that is not there", arguments("report", "none.yaml"),
         r"none\.yaml: there is no such study file. Give"),
    Case("a link to itself", looped, r"loop\.yaml: is no path that can be used \(Too many levels"),
    Case("a name too long", arguments("report", "a" * 5000), r"a…: is no path that can be used \(File name too long"),
    Case("a file name too long", arguments("report", "a" * 5000 + ".yaml"), r"is no path that can be used \(File name"),
    Case("a NUL in a name", arguments("report", "a\0b.yaml"), "is no path that can be used .*null"),
    Case("an unknown device", arguments("report", "mine.yaml", "--device", "gpu"),
         "'gpu' is no device. Use auto, cpu or"),
    Case("a device of PyTorch's tests", arguments("report", "mine.yaml", "--device", "meta"), "'meta' is no device"),
    Case("no device", arguments("cnn", "mine.yaml", "--device", ""), "'' is no device. Use auto, cpu or cuda"),
    Case("a GPU that is not there", with_network("cnn", "mine.yaml", "--device", "cuda:99"),
         "device cuda:99: (PyTorch finds no CUDA GPU here|there are . GPUs here)"),
    Case("a cluster without protocol", arguments("report", "mine.yaml", "--cluster", "nonsense"),
         f"--cluster nonsense: is no address of a Dask scheduler. {CLUSTER}"),
    Case("a cluster of the web", arguments("report", "mine.yaml", "--cluster", "http://x:1"),
         f"is no address.*{CLUSTER}"),
    Case("a cluster without port", arguments("report", "mine.yaml", "--cluster", "tcp://localhost"), CLUSTER),
    Case("a port of 10^5 - 1", arguments("report", "mine.yaml", "--cluster", "tcp://localhost:99999"), CLUSTER),
    Case("crops that are not there", arguments("crops", "verify", "none.h5"),
         r"none\.h5: does not exist. Run the study"),
    Case("crops that are a folder", arguments("crops", "verify", "/tmp"), "/tmp: is a folder, and a study is"),
    Case("crops of a study that has none", arguments("crops", "verify", "mine.yaml"), "holds no crop cache. Run `make"),
    Case("a file in the place of runs", in_the_way("runs", "report", "mine.yaml"),
         r"runs/mine: a file stands where a folder is needed. Move it away, or run in another folder"),
]


@pytest.mark.parametrize("case", each(CASES))
def test_a_bad_command_is_refused_before_anything_is_run(tmp_path, case):
    words = case.draw(tmp_path)
    before = files_in(tmp_path)
    status, output = command(tmp_path, *words)
    assert status in (1, 2) and re.search(case.says, output, re.DOTALL), output
    assert files_in(tmp_path) == before
    assert "step 2 of" not in output or case.name == "a file in the place of runs"


@pytest.mark.parametrize(("words", "says"), [
    (["report", "mine.yaml", "--jobs", "-1"], "greater than or equal to 0|range"),
    (["report", "mine.yaml", "--jobs", "many"], "valid integer"),
    (["report", "mine.yaml", "--jobs", "1.5"], "valid integer"),
    (["report", "mine.yaml", "--nope"], "[Nn]o such option"),
    (["reprot"], "No such command 'reprot'"),
    (["assay", "check", "a", "b"], "unexpected extra argument"),
    (["assay", "check"], "Missing argument"),
])
def test_words_that_no_command_has_are_refused_with_the_usage(tmp_path, words, says):
    write_study(tmp_path)
    status, output = command(tmp_path, *words)
    plain = " ".join(re.sub(r"[│╭╮╰╯─\s]+", " ", output).split())
    assert status == 2 and re.search(says, plain), output
    assert "--help" in output and not (tmp_path / "runs").exists()


def test_a_negative_number_of_processes_of_the_environment_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("JOBS", "-3")
    write_study(tmp_path)
    status, output = command(tmp_path, "report", "mine.yaml")
    assert status == 2 and "JOBS" in output


@pytest.fixture
def closed() -> Iterator[int]:
    """A port that nothing listens at."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]


def test_a_cluster_that_does_not_answer_is_said_before_the_run(tmp_path, closed):
    write_study(tmp_path)
    address = f"tcp://127.0.0.1:{closed}"
    command_refuses(tmp_path, f"--cluster {address}: no Dask scheduler answers .*dask scheduler", "report", "mine.yaml",
                    "--cluster", address)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_not_be_written_is_said(tmp_path):
    write_study(tmp_path)
    tmp_path.chmod(0o500)
    try:
        command_refuses(tmp_path, r"cannot be read or written \(Permission denied\)", "report", "mine.yaml")
    finally:
        tmp_path.chmod(0o700)


def test_a_study_whose_suffix_is_in_capitals_is_read(tmp_path):
    write_study(tmp_path).rename(tmp_path / "M.YAML")
    assert command(tmp_path, "assay", "check", "M.YAML")[0] == 0
