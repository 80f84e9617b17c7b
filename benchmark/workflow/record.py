"""The record of a run: configuration, hashes, versions, what ran it and what it cost."""

from __future__ import annotations

import platform
from datetime import UTC, datetime
from typing import Any

from benchmark.assays.fetching.lock import lock_hash
from benchmark.base.cluster import available_cores
from benchmark.base.tables import FIELD_KEY
from benchmark.methods.base import Method
from benchmark.methods.context import Plan
from benchmark.methods.registry import all_estimated
from benchmark.methods.workers.runs import RunFolder, fold_facts, joined_versions
from benchmark.workflow.context import StudyContext


def description(context: StudyContext, method: Method) -> dict[str, Any]:
    """What a record says of a method in words, and of its data: no prediction depends on it, and it may change."""
    assay = context.assay
    return {
        "role": method.role,
        "control": method.labels == "permuted",
        "transductive": [*all_estimated(context.study.methods, method, context), *_left_out(context)],
        "data_lock": lock_hash(assay.lock) if assay.lock else "",
        "summary": method.summary(assay.scoring == "controls",
                                  context.program(next(iter(method.pipelines), "cellprofiler"))),
    }


def _left_out(context: StudyContext) -> list[str]:
    """What quality control compared test fields with, where it left any out; it looked at no label."""
    flags = context.fields.flags
    if context.study.quality.flagged != "leave_out" or flags.empty:
        return []
    n = len(flags.drop_duplicates(FIELD_KEY))
    return [f"{n} fields left out by quality control, each compared with its plate and the other wells of its "
            "treatment"]


def record_of(context: StudyContext, method: Method, plan: Plan, run: RunFolder) -> dict[str, Any]:
    """The record of a run whose folds are all there."""
    folds = fold_facts(run, context.split, context.seeds)
    record: dict[str, Any] = {
        **run.config,
        "name": method.name,
        **description(context, method),
        "seeds": list(context.seeds),
        "folds": len(context.split.folds),
        "seconds": round(sum(f.seconds for f in folds), 2),
        "peak_mib": max(f.peak_mib for f in folds),
        "device": ", ".join(sorted({f.device for f in folds})),
        "machine": f"{platform.system()} {platform.machine()}, {available_cores()} cores",
        "versions": joined_versions(folds),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "run": run.path.name,
    }
    return record | dict(plan.summarise(run, folds)) | plan.facts
