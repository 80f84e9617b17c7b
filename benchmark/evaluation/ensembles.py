"""Ensembles over seeds as runs of their own, made from finished runs."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import pandas as pd

from benchmark.base.errors import MorphobenchError
from benchmark.evaluation.comparison import Run
from benchmark.evaluation.seeds import mean_over_seeds

#: Entries of a run's record that hold for its ensemble as well.
KEPT = ("assay_hash", "split_hash", "method", "transductive", "data_lock", "versions", "device", "folds")


def ensemble_name(method: str) -> str:
    """Name of a method's ensemble; no method of a study can have this name."""
    return f"{method}:ensemble"


def ensemble(run: Run) -> Run:
    """The ensemble of a run's seeds: see `benchmark.evaluation.seeds.mean_over_seeds`.

    Raises
    ------
    MorphobenchError
        The run has one seed, or permuted labels (each seed has its own), or its seeds do not fit together.
    """
    seeds = sorted(run.predictions["seed"].unique().tolist())
    if len(seeds) < 2:
        raise MorphobenchError("has one seed, and no ensemble over seeds", run.name, "Give the study several seeds.")
    if run.control:
        raise MorphobenchError("has labels that were permuted anew with each seed, and no ensemble", run.name)
    name = ensemble_name(run.name)
    title = run.title or run.name
    record: dict[str, Any] = {key: run.record[key] for key in KEPT if key in run.record} | {
        "role": run.role, "ensemble_of": run.name,
        "summary": f"probabilities of {title} averaged over its seeds {', '.join(map(str, seeds))}, "
                   f"{run.predictions['unit'].iloc[0]} by {run.predictions['unit'].iloc[0]}; nothing is trained or "
                   "fitted for it",
    }
    response = mean_over_seeds(run.response, name) if len(run.response) else pd.DataFrame()
    return Run(name, f"{title}, ensemble of {len(seeds)} seeds", record, mean_over_seeds(run.predictions, name),
               response)


def with_ensembles(runs: Sequence[Run], methods: Collection[str]) -> list[Run]:
    """``runs``, each of ``methods`` followed by its ensemble."""
    return [each for run in runs for each in ([run, ensemble(run)] if run.name in methods else [run])]
