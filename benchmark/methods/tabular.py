"""Contestants on a table of features: profiles, cell count, frozen network features."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from benchmark.methods.classifier import Chosen, choose_and_fit
from benchmark.methods.labels import Permuted, with_labels
from benchmark.methods.runs import measured, write_fold
from benchmark.methods.settings import ClassifierSettings
from benchmark.profiles.wells import feature_columns
from benchmark.splits import Fold, WellKey, inner_groups, rows_of
from benchmark.tables import COMPOUND, LABEL, probability_columns


@dataclass(frozen=True)
class TabularFold:
    """One fold of a tabular method, as a worker gets it.

    ``features`` and ``absent`` are parquet files: rows with features, and units to predict without any (no cell
    was found in them), which get the label frequencies of the training compounds as their prediction. Both hold the
    scored units and those of the dose series, where the assay has one.
    """

    features: Path
    absent: Path
    unit: str
    method: str
    fold: Fold
    seed: int
    classifier: ClassifierSettings
    correlation: float | None
    labels: Permuted | None
    out: Path


def run_tabular_fold(task: TabularFold) -> str:
    """Fit on the fold's training rows, predict its test rows and dose series, write them; returns its name."""
    facts: dict[str, Any] = {"fold": task.fold.name, "device": "cpu"}
    with measured(facts), threadpool_limits(1):
        table = with_labels(pd.read_parquet(task.features), task.labels)
        absent = with_labels(pd.read_parquet(task.absent), task.labels)
        train = table[rows_of(table, task.fold.train)]
        columns = feature_columns(table)
        chosen = choose_and_fit(train[columns], train[LABEL], inner_groups(train), task.classifier, task.correlation,
                                task.seed)
        labels = _all_labels(table, absent)
        predictions, without = _predict(task, chosen, train, table, absent, labels, task.fold.test)
        response, _ = _predict(task, chosen, train, table, absent, labels, task.fold.response)
    facts |= {"chosen": chosen.name, "inner_scores": chosen.scores, "features": len(columns),
              "train": len(train), "without_features": without}
    # The dose series has no labels, whatever a permutation of compounds gave it.
    write_fold(task.out, predictions, task.fold, facts, response.assign(**{LABEL: ""}))
    return task.fold.name


def _predict(
    task: TabularFold, chosen: Chosen, train: pd.DataFrame, table: pd.DataFrame, absent: pd.DataFrame,
    labels: list[str], wells: tuple[WellKey, ...],
) -> tuple[pd.DataFrame, int]:
    """Predictions of ``wells``, a row a unit, and how many units had no features."""
    seen, unseen = table[rows_of(table, wells)], absent[rows_of(absent, wells)]
    p = chosen.probabilities(seen[feature_columns(table)], labels) if len(seen) else np.zeros((0, len(labels)))
    # A compound counts once; where controls are scored it has several labels, and each of them counts once.
    prior = train.drop_duplicates([COMPOUND, LABEL])[LABEL].value_counts(normalize=True)
    flat = np.tile([float(prior.get(label, 0.0)) for label in labels], (len(unseen), 1))
    metadata = [c for c in table.columns if c.startswith("Metadata_")]
    keys = pd.concat([seen[metadata], unseen.reindex(columns=metadata)], ignore_index=True)
    predictions = keys.assign(unit=task.unit, method=task.method, fold=task.fold.name, seed=task.seed)
    predictions[probability_columns(labels)] = np.concatenate([p, flat])
    return predictions, len(unseen)


def _all_labels(table: pd.DataFrame, absent: pd.DataFrame) -> list[str]:
    """Labels of all units but the dose series, sorted; a permutation leaves them as they are."""
    return sorted((set(table[LABEL]) | set(absent[LABEL])) - {""})
