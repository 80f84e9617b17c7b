"""Contestants on a table of features: profiles, cell count, frozen network features."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from benchmark.methods.classifier import choose_and_fit
from benchmark.methods.labels import with_labels
from benchmark.methods.runs import measured, write_fold
from benchmark.methods.settings import ClassifierSettings
from benchmark.profiles.wells import feature_columns
from benchmark.splits import Fold, rows_of
from benchmark.tables import COMPOUND, LABEL, probability_columns


@dataclass(frozen=True)
class TabularFold:
    """One fold of a tabular method, as a worker gets it.

    ``features`` and ``absent`` are parquet files: rows with features, and scored units without any (no cell was
    found in them), which get the label frequencies of the training compounds as their prediction.
    """

    features: Path
    absent: Path
    unit: str
    method: str
    fold: Fold
    seed: int
    classifier: ClassifierSettings
    correlation: float | None
    labels: dict[str, str] | None
    out: Path


def run_tabular_fold(task: TabularFold) -> str:
    """Fit on the fold's training rows, predict its test rows, write the prediction file; returns its name."""
    facts: dict[str, Any] = {"fold": task.fold.name, "device": "cpu"}
    with measured(facts), threadpool_limits(1):
        table = pd.read_parquet(task.features)
        absent = pd.read_parquet(task.absent)
        train = with_labels(table[rows_of(table, task.fold.train)], task.labels)
        test = with_labels(table[rows_of(table, task.fold.test)], task.labels)
        unseen = with_labels(absent[rows_of(absent, task.fold.test)], task.labels)
        columns = feature_columns(table)
        labels = _all_labels(table, absent, task.labels)
        chosen = choose_and_fit(train[columns], train[LABEL], train[COMPOUND], task.classifier, task.correlation,
                                task.seed)
        metadata = [c for c in table.columns if c.startswith("Metadata_")]
        p = chosen.probabilities(test[columns], labels) if len(test) else np.zeros((0, len(labels)))
        prior = train.drop_duplicates(COMPOUND)[LABEL].value_counts(normalize=True)
        flat = np.tile([float(prior.get(label, 0.0)) for label in labels], (len(unseen), 1))
        keys = pd.concat([test[metadata], unseen.reindex(columns=metadata)], ignore_index=True)
        predictions = keys.assign(unit=task.unit, method=task.method, fold=task.fold.name, seed=task.seed)
        predictions[probability_columns(labels)] = np.concatenate([p, flat])
    facts |= {"chosen": chosen.name, "inner_scores": chosen.scores, "features": len(columns),
              "train": len(train), "without_features": len(unseen)}
    write_fold(task.out, predictions, task.fold, facts)
    return task.fold.name


def _all_labels(table: pd.DataFrame, absent: pd.DataFrame, labels: dict[str, str] | None) -> list[str]:
    if labels is not None:
        return sorted(set(labels.values()))
    return sorted(set(table[LABEL]) | set(absent[LABEL]))
