"""Fusion of several methods in one fold: their probabilities stacked, or their features of wells side by side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from benchmark.base.errors import LeakError, MorphobenchError
from benchmark.base.files import read_json
from benchmark.base.tables import LABEL, WELL_KEY, labels_of, probability_columns
from benchmark.folds.fold import Fold, WellKey, rows_of
from benchmark.folds.inner import inner_groups
from benchmark.methods.classifiers.calibration import FLOOR
from benchmark.methods.classifiers.classifier import Chosen, choose_and_fit
from benchmark.methods.classifiers.labels import Permuted, with_labels
from benchmark.methods.classifiers.settings import ClassifierSettings
from benchmark.methods.classifiers.stacking import Pool, fit_pool, stacking_columns
from benchmark.methods.workers.featurefacts import after_correction, feature_facts, side_by_side
from benchmark.methods.workers.foldtable import corrected, fold_profiles
from benchmark.methods.workers.runs import check_wells, measured, response_path, write_fold
from benchmark.methods.workers.source import ProfileSource
from benchmark.methods.workers.tabular import Prepared, classified_rows
from benchmark.profiles.wells import feature_columns


@dataclass(frozen=True)
class Predictions:
    """What a part predicted: of the fold's test wells in its own run, and of each inner fold's."""

    name: str
    outer: Path
    inner: tuple[Path, ...]


@dataclass(frozen=True)
class FeatureBlock:
    """A part's features of wells; ``selected``: they go through the profile's selection, scaling and correction."""

    name: str
    source: ProfileSource
    selected: bool


#: Predictions of crops, fields or wells as those of wells, handed in since methods know nothing of evaluation.
ByWell = Callable[[pd.DataFrame], pd.DataFrame]


@dataclass(frozen=True)
class FusionFold:
    """One fold of a fusion, as a worker gets it.

    Attributes
    ----------
    parts : tuple
        `Predictions` to stack, or `FeatureBlock` to concatenate.
    inner : tuple of Fold
        To stack: the folds inside the training wells, which the parts' ``inner`` are predictions of.
    wells : DataFrame
        Metadata of the assay's wells, one row a well.
    """

    parts: tuple[Predictions, ...] | tuple[FeatureBlock, ...]
    wells: pd.DataFrame
    method: str
    fold: Fold
    seed: int
    classifier: ClassifierSettings
    labels: Permuted | None
    all_labels: tuple[str, ...]
    out: Path
    by_well: ByWell
    inner: tuple[Fold, ...] = ()


def run_fusion_fold(task: FusionFold) -> str:
    """Fit a fusion on the fold's training wells, predict its test wells and dose series, write them; gives its name.

    Raises
    ------
    LeakError
        Out-of-fold predictions are not exactly of the training wells, or a part predicted other test wells.
    MorphobenchError
        A part's file cannot be read, or parts have learnt other labels.
    """
    facts: dict[str, Any] = {"fold": task.fold.name, "device": "cpu"}
    wells = with_labels(task.wells, task.labels)
    with measured(facts), threadpool_limits(1):
        ready, said = (_stacked if isinstance(task.parts[0], Predictions) else _concatenated)(task, wells)
        train, labels = ready.train(task.fold), list(task.all_labels)
        chosen = fit(task, train)
        predictions, without = classified_rows(chosen, train, ready, labels, task.fold.test, "well")
        response, _ = classified_rows(chosen, train, ready, labels, task.fold.response, "well")
    facts["seconds"] = round(facts["seconds"] + said.get("inner_seconds", 0), 3)
    if isinstance(chosen, Pool):
        said |= {"weights_of_parts": dict(chosen.weights)}
    features = side_by_side(said.pop("selections", ()), len(feature_columns(train)))
    facts |= {"chosen": chosen.name, "inner_scores": chosen.scores, "features": features, "train": len(train),
              "without_features": without, "predicts": "well", **said}
    named: dict[str, Any] = {"method": task.method, "fold": task.fold.name, "seed": task.seed}
    write_fold(task.out, predictions.assign(**named), task.fold, facts, response.assign(**{LABEL: ""}, **named))
    return task.fold.name


def fit(task: FusionFold, train: pd.DataFrame) -> Chosen | Pool:
    """What decides, fitted on training wells: metadata, labels and features.

    To a `Pool` those rows are shown whose label other compounds of the inner training wells had: no part could have
    told the others.
    """
    if not isinstance(task.parts[0], Predictions):
        return choose_and_fit(train, train[LABEL], inner_groups(train), task.classifier, None, task.seed)
    known = np.zeros(len(train), bool)
    for inner in task.inner:
        held, rest = (rows_of(train, wells).to_numpy() for wells in (inner.test, inner.train))
        known |= held & train[LABEL].isin(set(train.loc[rest, LABEL])).to_numpy()
    shown = train[known]
    return fit_pool(shown, shown[LABEL].tolist(), [p.name for p in task.parts], list(task.all_labels))


def _stacked(task: FusionFold, wells: pd.DataFrame) -> tuple[Prepared, dict[str, Any]]:
    """Log-probabilities of the parts: of training wells by parts that did not see them, of others by the fold's own."""
    parts = [p for p in task.parts if isinstance(p, Predictions)]
    def rows(paths: Callable[[Predictions], Sequence[Path]], keys: tuple[WellKey, ...], what: str) -> pd.DataFrame:
        by_well = {p.name: [task.by_well(_read(path)) for path in paths(p)] for p in parts}
        return stacking_rows(by_well, wells, keys, what, task.fold)

    _check_labels(parts, wells, task.fold)
    tables = [rows(lambda p: p.inner, task.fold.train, "training wells"),
              rows(lambda p: (p.outer,), task.fold.test, "test wells")]
    if task.fold.response:
        tables.append(rows(lambda p: (response_path(p.outer),), task.fold.response, "dose series"))
    inner = [read_json(path.with_suffix(".json")) for p in parts for path in p.inner]
    seconds = round(sum(f["seconds"] for f in inner), 3)
    return Prepared(pd.concat(tables, ignore_index=True), wells.iloc[:0], None), {"inner_seconds": seconds}


def stacking_rows(
    predicted: dict[str, list[pd.DataFrame]], wells: pd.DataFrame, keys: tuple[WellKey, ...], what: str, fold: Fold
) -> pd.DataFrame:
    """What a stacked fusion sees of some wells: the logarithm of each part's probability of each label.

    Probabilities below `FLOOR` count as that: a label that a part's training did not have has the probability 0.

    Parameters
    ----------
    predicted : dict of str to list of DataFrame
        Part to its prediction tables by well, which together predict each of the wells once.
    what : str
        The wells in words.

    Returns
    -------
    DataFrame
        Metadata of the wells, sorted, and ``<part>: <label>`` (float64).

    Raises
    ------
    LeakError
        A part predicted other wells, or one of them twice.
    """
    rows = wells[rows_of(wells, keys)].sort_values(WELL_KEY).reset_index(drop=True)
    index = pd.MultiIndex.from_frame(rows[WELL_KEY])
    columns = []
    for name, tables in predicted.items():
        reduced = pd.concat(tables, ignore_index=True)
        check_wells(reduced, keys, what, fold)
        if reduced.duplicated(WELL_KEY).any():
            raise LeakError(f"{name} predicts a well in two inner folds", f"fold {fold.name!r}")
        labels = labels_of(reduced)
        p = reduced.set_index(WELL_KEY).loc[index, probability_columns(labels)].to_numpy(np.float64)
        columns.append(pd.DataFrame(np.log(np.clip(p, FLOOR, None)), columns=stacking_columns(name, labels)))
    return pd.concat([rows, *columns], axis=1)


def _check_labels(parts: Sequence[Predictions], wells: pd.DataFrame, fold: Fold) -> None:
    """Refuse parts that learnt other labels of the training wells than the fusion does."""
    own = wells.set_index(WELL_KEY)[LABEL]
    for part in parts:
        for path in part.inner:
            table = _read(path).drop_duplicates(WELL_KEY)
            if (own.loc[pd.MultiIndex.from_frame(table[WELL_KEY])].to_numpy() != table[LABEL].to_numpy()).any():
                raise MorphobenchError("has other labels than the fusion", f"{path} of {part.name}, fold {fold.name!r}",
                                       "Delete the file and run again.")


def _read(path: Path) -> pd.DataFrame:
    try:
        return pd.read_parquet(path)
    except (OSError, ValueError) as error:
        raise MorphobenchError(f"cannot be read ({error})", str(path), "Delete it and run again.") from error


def _concatenated(task: FusionFold, wells: pd.DataFrame) -> tuple[Prepared, dict[str, Any]]:
    """Features of the parts side by side; where a well lacks those of one part, that part's training mean.

    Embeddings of a fine-tuned network are of wells that it was trained on where they are training wells, and there they
    tell labels better than they do of wells that it has never seen: the classifier trusts them too much. Stacked
    probabilities have no such fault.
    """
    blocks = [b for b in task.parts if isinstance(b, FeatureBlock)]
    rows = wells[rows_of(wells, (*task.fold.train, *task.fold.test, *task.fold.response))].sort_values(WELL_KEY)
    rows = rows.reset_index(drop=True)
    train = rows_of(rows, task.fold.train).to_numpy()
    found: list[pd.DataFrame] = []
    facts: dict[str, Any] = {}
    selections: list[dict[str, Any]] = []
    there = np.zeros(len(rows), bool)
    lacking: dict[str, np.ndarray] = {}
    for block in blocks:
        values, has, of, selection = _block_values(block, rows, task)
        if not (has & train).any():
            raise MorphobenchError(f"has no features of any training well by {block.name}", f"fold {task.fold.name!r}")
        values.loc[~has] = values[has & train].mean().to_numpy()
        found.append(values)
        there |= has
        lacking[block.name] = ~has
        selections.append(selection)
        facts |= {f"correction of {block.name}": of} if of else {}
    table = pd.concat([rows, *found], axis=1)
    imputed = {name: int((gone & there).sum()) for name, gone in lacking.items()}
    return (Prepared(table[there].reset_index(drop=True), rows[~there].reset_index(drop=True), None),
            {"wells_given_the_training_mean": imputed, "selections": selections, **facts})


def _block_values(block: FeatureBlock, rows: pd.DataFrame, task: FusionFold
                  ) -> tuple[pd.DataFrame, np.ndarray, dict[str, Any], dict[str, Any]]:
    """A part's features for ``rows`` (missing where it has none), which rows it has, facts of its correction, and what
    became of its features."""
    table = fold_profiles(block.source, task.fold, task.seed)
    facts: dict[str, Any] = {}
    if block.selected:
        profile = block.source.profile
        table, facts = corrected(table, task.fold, profile, profile.correction, task.seed)
        selection = after_correction(facts.pop("selection"), facts)
    else:
        selection = feature_facts(table)
    features = feature_columns(table)
    values = table.set_index(WELL_KEY)[features].astype(np.float64)
    index = pd.MultiIndex.from_frame(rows[WELL_KEY])
    has = index.isin(values.index)
    return (values.reindex(index).reset_index(drop=True).rename(columns={f: f"{block.name}: {f}" for f in features}),
            np.asarray(has), facts, selection)
