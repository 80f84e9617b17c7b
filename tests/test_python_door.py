"""From Python: `benchmark.run`, `load_study` and `compare`, which load nothing before it is used."""

from __future__ import annotations

import subprocess
import sys

import pandas as pd
import pytest
from drawn_study import drawn_profiles, predictions, profile, profile_study
from typer.testing import CliRunner

import benchmark
from benchmark.base.errors import MorphobenchError
from benchmark.cli import app
from benchmark.evaluation.comparison import Run
from benchmark.methods.workers.runs import read_run

A = profile("a", "Cells_A*")


@pytest.mark.parametrize("code", [
    "import benchmark; benchmark.run, benchmark.load_study, benchmark.compare",
    "import benchmark.workflow.run, benchmark.workflow.walk, benchmark.cli",
])
def test_importing_it_loads_neither_pytorch_nor_scikit_learn(code):
    heavy = ("torch", "timm", "sklearn", "distributed", "matplotlib", "seaborn", "statsmodels")
    program = f"import sys\n{code}\nprint(*(name for name in {heavy} if name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_it_does_what_the_command_line_does(tmp_path, monkeypatch):
    context = profile_study(tmp_path, monkeypatch, drawn_profiles(), A)
    result = benchmark.run(benchmark.load_study("study.yaml"), only=("classical",), jobs=1)
    assert [run.method.name for run in result.runs] == ["a"] and result.report is None
    again = CliRunner().invoke(app, ["baseline", "study.yaml", "--jobs", "1"], catch_exceptions=False)
    assert again.exit_code == 0 and str(result.runs[0].folder.path) in again.output
    run = result.runs[0]
    table = read_run(run.folder, context.split, context.seeds)
    comparison = benchmark.compare([Run("a", "A", run.record, table)])
    assert comparison.accuracy["n"].iloc[0] == 9
    pd.testing.assert_frame_equal(predictions(run, context), table[table["fold"] == context.split.folds[0].name])


def test_relative_paths_start_from_the_studys_file(tmp_path, monkeypatch):
    profile_study(tmp_path / "there", monkeypatch, drawn_profiles(), A)
    monkeypatch.chdir(tmp_path)
    study = benchmark.load_study("there/study.yaml")
    assert study.base == (tmp_path / "there").resolve()
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        benchmark.nothing  # noqa: B018
    with pytest.raises(MorphobenchError, match="no number of processes"):
        benchmark.run(study, jobs=-1)
