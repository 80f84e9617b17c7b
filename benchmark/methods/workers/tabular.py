"""Contestants on a table of features: profiles, baselines, cell count, frozen network features."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from benchmark.base.tables import CONCENTRATION, LABEL, TREATMENT_KEY, WELL_KEY, probability_columns
from benchmark.folds.fold import Fold, WellKey, rows_of
from benchmark.folds.inner import inner_groups
from benchmark.methods.classifiers.classifier import choose_and_fit
from benchmark.methods.classifiers.labels import Permuted, label_frequencies, with_labels
from benchmark.methods.classifiers.nearest import nearest_treatment
from benchmark.methods.classifiers.settings import ClassifierSettings
from benchmark.methods.workers.featurefacts import after_correction, feature_facts
from benchmark.methods.workers.foldtable import corrected, fold_profiles, selector
from benchmark.methods.workers.runs import measured, write_fold
from benchmark.methods.workers.source import ProfileSource
from benchmark.profiles.settings import ProfileSettings


@dataclass(frozen=True)
class TabularFold:
    """One fold of a tabular method, as a worker gets it.

    ``source`` leads to rows with features (negative controls may be among them, for corrections), ``absent`` to units
    to predict without any (no cell was found in them, or they lack most features), which get the label frequencies of
    the training compounds as their prediction, and are not trained on. Both hold the scored units and those of the
    dose series, where the assay has one.
    """

    source: ProfileSource
    absent: Path
    unit: str
    method: str
    fold: Fold
    seed: int
    classifier: ClassifierSettings
    decision: Literal["classifier", "nearest"]
    labels: Permuted | None
    all_labels: tuple[str, ...]
    selected: bool
    out: Path


@dataclass
class Prepared:
    """A fold's rows with labels, ready for a decision.

    ``selection`` is what is still to be fitted in it; ``features`` tells of one that was.
    """

    table: pd.DataFrame
    absent: pd.DataFrame
    selection: ProfileSettings | None
    facts: dict[str, Any] = field(default_factory=dict)
    features: dict[str, Any] = field(default_factory=dict)

    def train(self, fold: Fold) -> pd.DataFrame:
        """Rows that may be learnt from."""
        return self.table[rows_of(self.table, fold.train)]


def run_tabular_fold(task: TabularFold) -> str:
    """Fit on the fold's training rows, predict its test rows and dose series, write them; returns its name."""
    facts: dict[str, Any] = {"fold": task.fold.name, "device": "cpu"}
    with measured(facts), threadpool_limits(1):
        ready = prepare_fold(task.source, task.absent, task.fold, task.labels, task.seed, task.selected,
                             task.decision == "nearest")
        if task.decision == "nearest":
            predictions, covered, without = nearest_predictions(ready, task.fold, list(task.all_labels))
            response, chosen = predictions.iloc[:0], {"chosen": "nearest treatment"}
            features = ready.features
        else:
            predictions, response, without, chosen, features = _classified(task, ready)
            covered = None
    facts |= {**chosen, "features": features, "train": int(rows_of(ready.table, task.fold.train).sum()),
              "without_features": without, "predicts": str(predictions["unit"].iloc[0]), **ready.facts}
    named: dict[str, Any] = {"method": task.method, "fold": task.fold.name, "seed": task.seed}
    here = set(ready.table[WELL_KEY].itertuples(index=False, name=None))
    facts["train_without_features"] = len(set(task.fold.train) - here)
    # The dose series has no labels, whatever a permutation of compounds gave it.
    write_fold(task.out, predictions.assign(**named), task.fold, facts,
               response.assign(**{LABEL: ""}, **named), covered)
    return task.fold.name


def prepare_fold(
    source: ProfileSource, absent: Path, fold: Fold, labels: Permuted | None, seed: int, selected: bool, scaled: bool
) -> Prepared:
    """Read a fold's features and bring them as far as the decision needs.

    Parameters
    ----------
    selected : bool
        Whether features go through the profile's selection and correction (those of networks and counts do not).
    scaled : bool
        Whether the decision takes selected and standardised features; a classifier does both by itself, anew in each
        inner fold, unless a correction asks for it beforehand.
    """
    table = with_labels(fold_profiles(source, fold, seed), labels)
    missing = with_labels(pd.read_parquet(absent), labels)
    profile = source.profile
    if selected and (scaled or profile.correction != "none"):
        table, facts = corrected(table, fold, profile, profile.correction, seed)
        features = after_correction(facts.pop("selection"), facts)
        return Prepared(table, missing, None, {"correction": facts}, features)
    return Prepared(table, missing, profile if selected else None)


def _classified(
    task: TabularFold, ready: Prepared
) -> tuple[pd.DataFrame, pd.DataFrame, int, dict[str, Any], dict[str, Any]]:
    """Predictions of the test rows and of the dose series by a classifier chosen inside the training rows.

    Then how many rows lack features, what was chosen, and what became of the features.
    """
    train = ready.train(task.fold)
    labels = list(task.all_labels)
    chosen = choose_and_fit(train, train[LABEL], inner_groups(train), task.classifier,
                            selector(ready.selection) if ready.selection else None, task.seed)
    predictions, without = classified_rows(chosen, train, ready, labels, task.fold.test, task.unit)
    response, _ = classified_rows(chosen, train, ready, labels, task.fold.response, task.unit)
    features = ready.features or feature_facts(ready.table, chosen.preparation.selector)
    return predictions, response, without, {"chosen": chosen.name, "inner_scores": chosen.scores}, features


class Decider(Protocol):
    """What gives probabilities of labels: `benchmark.methods.classifiers.classifier.Chosen`,
    `benchmark.methods.classifiers.stacking.Pool`."""

    def probabilities(self, X: pd.DataFrame, labels: list[str]) -> np.ndarray:
        """(rows, labels) float64, rows sum to 1."""
        ...


def classified_rows(
    chosen: Decider, train: pd.DataFrame, ready: Prepared, labels: list[str], wells: tuple[WellKey, ...], unit: str
) -> tuple[pd.DataFrame, int]:
    """Predictions of ``wells``, a row a unit, and how many units had no features."""
    seen, unseen = (t[rows_of(t, wells)] for t in (ready.table, ready.absent))
    p = chosen.probabilities(seen, labels) if len(seen) else np.zeros((0, len(labels)))
    flat = label_frequencies(train, labels, len(unseen))
    metadata = [c for c in ready.table.columns if c.startswith("Metadata_")]
    keys = pd.concat([seen[metadata], unseen.reindex(columns=metadata)], ignore_index=True)
    predictions = keys.assign(unit=unit)
    predictions[probability_columns(labels)] = np.concatenate([p, flat])
    return predictions, len(unseen)


def nearest_predictions(
    ready: Prepared, fold: Fold, labels: list[str]
) -> tuple[pd.DataFrame, pd.DataFrame, int]:
    """Labels of the test treatments by their nearest training treatment.

    Returns
    -------
    predictions : DataFrame
        One row a treatment of the fold.
    covered : DataFrame
        The test wells that they are made of.
    without : int
        Treatments without any profile, which get the label frequencies of the training compounds.
    """
    train = ready.train(fold)
    seen, unseen = (t[rows_of(t, fold.test)] for t in (ready.table, ready.absent))
    covered = pd.concat([t[[*_METADATA]] for t in (seen, unseen)], ignore_index=True)
    found = nearest_treatment(train, seen, labels) if len(seen) else pd.DataFrame()
    known = set(seen[TREATMENT_KEY].itertuples(index=False, name=None))
    bare = unseen.drop_duplicates(TREATMENT_KEY)
    bare = bare[np.array([t not in known for t in bare[TREATMENT_KEY].itertuples(index=False, name=None)], bool)]
    flat = bare[[*TREATMENT_KEY, LABEL]].assign(
        **dict(zip(probability_columns(labels), label_frequencies(train, labels, len(bare)).T, strict=True)))
    predictions = pd.concat([found, flat], ignore_index=True).assign(unit="treatment")
    predictions[CONCENTRATION] = predictions[CONCENTRATION].astype(float)
    return predictions, covered, len(bare)


def nearest_wells(ready: Prepared, fold: Fold, labels: list[str]) -> pd.DataFrame:
    """Labels of single test wells by their nearest training treatment, where wells are what is compared."""
    train = ready.train(fold)
    seen, unseen = (t[rows_of(t, fold.test)] for t in (ready.table, ready.absent))
    rows = []
    for i in range(len(seen)):
        well = seen.iloc[[i]]
        found = nearest_treatment(train, well, labels)[probability_columns(labels)]
        rows.append(pd.concat([well[[*_METADATA]].reset_index(drop=True), found.reset_index(drop=True)], axis=1))
    flat = unseen[[*_METADATA]].assign(
        **dict(zip(probability_columns(labels), label_frequencies(train, labels, len(unseen)).T, strict=True)))
    return pd.concat([*rows, flat], ignore_index=True).assign(unit="well")


_METADATA = ("Metadata_Plate", "Metadata_Well", *TREATMENT_KEY, LABEL)
