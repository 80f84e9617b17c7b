"""What a study cost: what methods share, each once, then each method's folds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchmark.methods.context import FinishedRun
from benchmark.workflow.context import StudyContext

#: Stages of a method's own folds, whose cost is the method's row.
OWN = "method "


def costs(context: StudyContext, finished: Sequence[FinishedRun]) -> list[dict[str, Any]]:
    """One row for what is shared, with the methods that use it, then one for each method's folds alone.

    Returns
    -------
    list of dict
        ``what``; ``used_by``, titles of methods; ``seconds``, wall time when it really ran; ``detail``. Rows of
        methods also have ``device`` and ``peak_mib``.
    """
    runs = {run.method.name: run for run in finished}
    titles = {name: run.title for name, run in runs.items()}
    rows = []
    for record in context.session.log.records():
        if record["stage"].startswith(OWN):
            continue
        users = [titles[m.name] for m in context.study.methods
                 if m.name in titles and ({m.name, *m.pipelines} & set(record["users"]))]
        rows.append({"what": record["stage"], "used_by": users, "seconds": record["seconds"],
                     "detail": record["detail"]})
    for run in finished:
        shared = run.record.get("shared")
        if shared:
            rows.append({"what": "trainings that folds share", "used_by": [run.title], "seconds": shared["seconds"],
                         "detail": f"{shared['trunks']} trainings"})
    return rows + [{"what": run.title, "used_by": [run.title], "seconds": run.record["seconds"],
                    "detail": f"{run.record['folds']} folds", "device": run.record["device"],
                    "peak_mib": run.record["peak_mib"]} for run in finished]
