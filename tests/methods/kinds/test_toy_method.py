"""A kind of method is one class that registers itself: this file is all that the toy kind needs."""

from collections import namedtuple
from typing import ClassVar, Literal

from drawn_study import COLUMNS, drawn_profiles
from yaml import safe_dump

from benchmark import run
from benchmark.base.tables import probability_columns
from benchmark.folds.fold import rows_of
from benchmark.methods.base import Arm, Method, Role, keyed
from benchmark.methods.context import Plan
from benchmark.methods.registry import METHODS
from benchmark.methods.workers.runs import measured, write_fold

ToyFold = namedtuple("ToyFold", "wells fold seed out")


@METHODS.register
class ToyMethod(Method):
    """Every label is as likely as it is among the training wells."""

    revision: ClassVar[int] = 1
    arm: ClassVar[Arm] = "classical"
    role: ClassVar[Role] = "baseline"  # type: ignore[misc]

    kind: Literal["toy"]

    def words(self, program: str) -> str:
        return "label frequencies of the training wells"

    def plan(self, context, parts) -> Plan:
        return Plan(keyed(self, context, {}), lambda: run_toy_fold, lambda run, fold, seed: ToyFold(
            context.assay.wells, fold, seed, run.fold_path(fold, seed)))


def run_toy_fold(task: ToyFold) -> str:
    with measured(facts := {"device": "cpu"}):
        shares = task.wells[rows_of(task.wells, task.fold.train)]["Metadata_Label"].value_counts(normalize=True)
        test = task.wells[rows_of(task.wells, task.fold.test)]
        p = {column: shares[column.removeprefix("p_")] for column in probability_columns(list(shares.index))}
    write_fold(task.out, test.assign(unit="well", method="guess", fold=task.fold.name, seed=task.seed, **p), task.fold,
               facts)
    return task.fold.name


def test_it_runs_on_worker_processes_and_stands_on_the_page(tmp_path):
    drawn_profiles().to_parquet(tmp_path / "profiles.parquet")
    assay = {"kind": "profile_table", "profiles": "profiles.parquet", "columns": COLUMNS}
    (tmp_path / "s.yaml").write_text(safe_dump({"name": "s", "assay": assay, "methods": [
        {"kind": "toy", "name": "guess", "title": "A guess"}, {"kind": "baseline", "name": "b", "feature": "batch"}]}))
    result = run(str(tmp_path / "s.yaml"), jobs=2, runs=tmp_path / "runs", reports=tmp_path / "reports")
    page = result.report.page.read_text()
    assert "A guess" in page and "label frequencies of the training wells" in page and len(result.runs) == 2
