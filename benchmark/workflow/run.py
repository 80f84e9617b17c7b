"""The methods of a study: every fold that is missing is run, and the record of each run is kept."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace

from benchmark.base.files import read_json, write_json
from benchmark.methods.base import Arm, Method
from benchmark.methods.context import FinishedRun, Plan
from benchmark.methods.workers.runs import RunFolder, open_run
from benchmark.workflow.context import StudyContext
from benchmark.workflow.record import description, record_of


def run_methods(context: StudyContext, arms: Sequence[Arm]) -> list[FinishedRun]:
    """Run the methods of some arms, then those that build on them, all in the study's order.

    So `make baseline` runs fusions of CellProfiler profiles alone, `make cnn` those of networks alone, and
    `make report` all.

    Raises
    ------
    MorphobenchError
        A method does not suit the assay, or a fold fails.
    LeakError
        A fold would let test wells reach training.
    """
    methods = context.study.methods
    done = {m.name: run_method(context, m) for arm in arms for m in methods if m.arm == arm}
    for method in methods:
        if method.arm == "dependent" and set(method.builds_on) <= set(done):
            done[method.name] = run_method(context, method, [done[name] for name in method.builds_on])
    return [done[m.name] for m in methods if m.name in done]


def run_method(context: StudyContext, method: Method, parts: Sequence[FinishedRun] = ()) -> FinishedRun:
    """Run the folds of a method that are missing, then write the run's record."""
    context = replace(context, user=method.name)
    plan = method.plan(context, parts)
    run = open_run(context.folder, method, context.split, plan.inputs)
    missing = run.missing(context.split, context.seeds)
    stage = f"method {method.name}"
    context.note(stage, run.path.name)
    with plan.around() if missing else nullcontext():
        plan.before(run, missing)
        if missing:
            with context.stage(stage, run.path.name) as timed:
                tasks = [plan.task(run, fold, seed) for fold, seed in missing]
                for _ in context.runner(method)(plan.worker(), tasks, f"{method.name}, by fold"):
                    pass
                timed["detail"] = f"{len(missing)} folds"
        plan.after(run, missing)
    return FinishedRun(method, run, _recorded(context, method, plan, run, bool(missing)))


def _recorded(context: StudyContext, method: Method, plan: Plan, run: RunFolder, ran: bool) -> dict[str, object]:
    """The run's record: made anew where folds ran, brought up to date where only its words changed."""
    record = read_json(run.record_path) if run.record_path.exists() else None
    now = description(context, method)
    if ran or record is None or record["seeds"] != list(context.seeds):
        record = record_of(context, method, plan, run)
        write_json(run.record_path, record)
    elif record != record | now:
        record |= now  # what ran it, and when, stays as it was
        write_json(run.record_path, record)
    return dict(record)
