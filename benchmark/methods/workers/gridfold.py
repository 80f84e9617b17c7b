"""One fold of the grid: one table of profiles under every correction and decision."""

from __future__ import annotations

from typing import Any, get_args

import pandas as pd
from threadpoolctl import threadpool_limits

from benchmark.base.combinations import combination
from benchmark.base.files import write_json, write_parquet
from benchmark.base.tables import (
    LABEL,
    TREATMENT_KEY,
    WELL_KEY,
    check_predictions,
    probability_columns,
)
from benchmark.folds.inner import inner_groups
from benchmark.methods.classifiers.classifier import choose_each
from benchmark.methods.classifiers.settings import ClassifierName, ClassifierSettings
from benchmark.methods.grid import GridFold
from benchmark.methods.workers.foldtable import corrected, fold_profiles
from benchmark.methods.workers.runs import check_treatments, check_wells, measured
from benchmark.methods.workers.tabular import Prepared, classified_rows, nearest_predictions, nearest_wells
from benchmark.profiles.settings import Correction


def run_grid_fold(task: GridFold) -> str:
    """Predict a fold's test treatments (or wells) by every combination, and write them as one table.

    Selection, scaling and correction are fitted on the fold's training wells and controls, once a correction; the
    settings of each classifier are chosen by cross-validation inside the training wells, grouped by compound.
    """
    facts: dict[str, Any] = {"fold": task.fold.name, "corrections": {}, "chosen": {}}
    parts = []
    with measured(facts), threadpool_limits(1):
        table = fold_profiles(task.source, task.fold, task.seed)
        absent = pd.read_parquet(task.absent)
        for correction in task.corrections:
            ready, facts["corrections"][correction] = corrected(table, task.fold, task.source.profile, correction,
                                                                task.seed)
            facts["features"] = facts["corrections"][correction].pop("selection")  # the same of every correction
            parts += _decided(task, Prepared(ready, absent, None), correction, facts["chosen"])
    predictions = pd.concat(parts, ignore_index=True)
    check_predictions(predictions, str(task.out))
    write_json(task.out.with_suffix(".json"), facts)
    write_parquet(task.out, predictions)
    return task.fold.name


def _decided(task: GridFold, ready: Prepared, correction: Correction, chosen: dict[str, str]) -> list[pd.DataFrame]:
    """Predictions by each decision; what was chosen of each classifier is noted."""
    labels, parts = list(task.labels), []
    train = ready.train(task.fold)
    if "nearest" in task.decisions:
        if task.unit == "treatment":
            found, covered, _ = nearest_predictions(ready, task.fold, labels)
            check_treatments(found, covered, task.fold)
        else:
            found = covered = nearest_wells(ready, task.fold, labels)
        parts.append(_named(task, found, covered, correction, "nearest"))
    names: tuple[ClassifierName, ...] = tuple(d for d in task.decisions if d in get_args(ClassifierName))  # type: ignore[misc]
    if names:
        settings = ClassifierSettings(candidates=names, inner_folds=task.inner_folds)
        fitted = choose_each(train, train[LABEL], inner_groups(train), settings, None, task.seed)
        for name, model in fitted.items():
            rows, _ = classified_rows(model, train, ready, labels, task.fold.test, "well")
            parts.append(_named(task, rows, rows, correction, name))
            chosen[f"{correction}, {name}"] = model.name
    return parts


def _named(task: GridFold, rows: pd.DataFrame, covered: pd.DataFrame, correction: Correction, decision: str
           ) -> pd.DataFrame:
    """Rows under their combination's name; the wells that they are made of (``covered``) must be the fold's."""
    unit = str(rows["unit"].iloc[0])
    check_wells(covered, task.fold.test, "test wells", task.fold)
    key = TREATMENT_KEY if unit == "treatment" else [*WELL_KEY, *TREATMENT_KEY]
    named = rows.assign(method=combination(*task.name, correction, decision), fold=task.fold.name, seed=task.seed)
    return named[["unit", *key, LABEL, "method", "fold", "seed", *probability_columns(task.labels)]]
