"""What a study cost: what methods share, each once, then each method's folds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmark.methods.context import FinishedRun
from benchmark.workflow.context import StudyContext

#: Stages of a method's own folds, whose cost is the method's row.
OWN = ("method ", "inner folds of ")  # a fusion's folds state the seconds of their inner folds


def costs(context: StudyContext, finished: Sequence[FinishedRun]) -> list[dict[str, Any]]:
    """One row for each thing that methods share, then one for each method's folds alone.

    Returns
    -------
    list of dict
        ``what``; ``used_by``, titles of methods; ``seconds``, wall time when it really ran; ``detail``. Rows of
        methods have no ``used_by``, and also ``total`` (seconds with everything that the method, and those it builds
        on, use), ``device`` and ``peak_mib``.
    """
    runs = {run.method.name: run for run in finished}
    shared = [(*_stage(record, runs), record) for record in context.session.log.records()
              if not record["stage"].startswith(OWN)]
    shared += [("trainings that folds share", {name}, {"seconds": of["seconds"], "detail": f"{of['trunks']} trainings"})
               for name, run in runs.items() if (of := run.record.get("shared"))]
    rows = [{"what": what, "used_by": [runs[name].title for name in runs if name in users],
             "seconds": record["seconds"], "detail": record["detail"]} for what, users, record in shared]
    for name, run in runs.items():
        rests = _with_parts(name, runs)
        total = sum(record["seconds"] for _, users, record in shared if rests & users)
        total += sum(runs[part].record["seconds"] for part in rests)
        rows.append({"what": run.title, "used_by": [], "seconds": run.record["seconds"], "total": round(total, 2),
                     "detail": f"{run.record['folds']} folds", "device": run.record["device"],
                     "peak_mib": run.record["peak_mib"]})
    return rows


def _stage(record: Mapping[str, Any], runs: Mapping[str, FinishedRun]) -> tuple[str, set[str]]:
    """What a stage is called, and the names of the methods that use it: those that asked, or whose pipeline it is."""
    asked = set(record["users"])
    return str(record["stage"]), {name for name, run in runs.items() if {name, *run.method.pipelines} & asked}


def _with_parts(name: str, runs: Mapping[str, FinishedRun]) -> set[str]:
    """A method and all that it builds on."""
    return {name}.union(*(_with_parts(part, runs) for part in runs[name].method.builds_on if part in runs))
