"""Methods: what is chosen and fitted sees training wells alone; folds are whole and never redone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmark.base.errors import LeakError
from benchmark.evaluation.metrics import summarise
from benchmark.folds.make import make_split
from benchmark.methods.classifiers.classifier import choose_and_fit
from benchmark.methods.classifiers.labels import permute_labels
from benchmark.methods.classifiers.settings import ClassifierSettings
from benchmark.methods.kinds.cell_count import CellCountMethod
from benchmark.methods.workers.runs import open_run, read_run, write_fold
from benchmark.methods.workers.source import PLAIN, ProfileSource
from benchmark.methods.workers.tabular import TabularFold, run_tabular_fold

LOGISTIC = ClassifierSettings(candidates=("logistic_regression",))


def feature_table(assay, effect: float, seed: int = 0) -> pd.DataFrame:
    """Well features in which each label has a direction of its own of size ``effect``."""
    wells = assay.wells[assay.wells["Metadata_Control"] == ""].reset_index(drop=True)
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(len(wells), 12))
    number = wells["Metadata_Label"].str[-1].astype(int)
    values[np.arange(len(wells)), number] += effect
    return pd.concat([wells, pd.DataFrame(values, columns=[f"Cells_{i}" for i in range(12)])], axis=1)


def fold_task(assay, features: Path, absent: Path, fold, out: Path, labels=None, **changes) -> TabularFold:
    """One fold of a method on a table on disk."""
    task = TabularFold(ProfileSource(features, PLAIN), absent, "well", "m", fold, 1, LOGISTIC,
                       "classifier", labels, tuple(assay.labels), False, out)
    return replace(task, **changes)


def run_all(assay, split, table, folder: Path, absent=None, labels=None) -> pd.DataFrame:
    table.to_parquet(folder / "features.parquet")
    (table.iloc[:0] if absent is None else absent).to_parquet(folder / "absent.parquet")
    parts = []
    for i, fold in enumerate(split.folds):
        out = folder / f"{i}.parquet"
        run_tabular_fold(fold_task(assay, folder / "features.parquet", folder / "absent.parquet", fold, out, labels))
        parts.append(pd.read_parquet(out))
    return pd.concat(parts, ignore_index=True)


def test_real_structure_is_found_and_noise_is_not(make_tiny, tmp_path):
    assay, _, whole_hash = make_tiny(compounds=4, plates=3)
    split = make_split(assay, whole_hash, "leave-one-compound-out")
    good = summarise(run_all(assay, split, feature_table(assay, 6.0), tmp_path))
    noise = summarise(run_all(assay, split, feature_table(assay, 0.0), tmp_path))
    assert good.loc[good["unit"] == "treatment", "accuracy"].item() >= 0.9
    assert noise.loc[noise["unit"] == "treatment", "high"].item() < 0.9


def test_predictions_do_not_depend_on_test_labels(make_tiny, tmp_path):
    """The whole point: change the labels of the held-out wells, and their predictions stay the same."""
    assay, _, whole_hash = make_tiny(compounds=3, plates=2)
    split = make_split(assay, whole_hash, "leave-one-compound-out")
    table = feature_table(assay, 2.0)
    fold = split.folds[0]
    outs = []
    for name, lie in (("honest", False), ("lied", True)):
        told = table.copy()
        if lie:
            held = told["Metadata_Compound"] == fold.name
            told.loc[held, "Metadata_Label"] = "label-2"
        told.to_parquet(tmp_path / f"{name}.parquet")
        told.iloc[:0].to_parquet(tmp_path / "absent.parquet")
        out = tmp_path / f"{name}-out.parquet"
        run_tabular_fold(fold_task(assay, tmp_path / f"{name}.parquet", tmp_path / "absent.parquet", fold, out))
        outs.append(pd.read_parquet(out).filter(like="p_").to_numpy())
    assert np.array_equal(*outs)


def test_wells_without_cells_get_the_training_frequencies(make_tiny, tmp_path):
    assay, _, whole_hash = make_tiny(labels=2, compounds=3, plates=2)
    split = make_split(assay, whole_hash, "leave-one-compound-out")
    table = feature_table(assay, 3.0)
    gone = table["Metadata_Compound"] == "cpd-00"
    absent = table.loc[gone, [c for c in table if c.startswith("Metadata_")]]
    predictions = run_all(assay, split, table[~gone].reset_index(drop=True), tmp_path, absent)
    rows = predictions[predictions["Metadata_Compound"] == "cpd-00"]
    assert len(predictions) == len(table)
    assert rows[["p_label-0", "p_label-1"]].to_numpy() == pytest.approx(np.tile([0.4, 0.6], (2, 1)))


def test_the_choice_is_made_for_the_better_candidate():
    rng = np.random.default_rng(0)
    compounds = pd.Series([f"c{i // 10}" for i in range(120)])
    labels = pd.Series([f"l{(i // 10) % 2}" for i in range(120)])
    ring = np.where(labels == "l0", 1.0, 3.0)  # two rings: no line separates them, trees do
    angle = rng.uniform(0, 2 * np.pi, 120)
    X = pd.DataFrame({"x": ring * np.cos(angle), "y": ring * np.sin(angle)})
    chosen = choose_and_fit(X, labels, compounds, ClassifierSettings(), None, 0)
    assert chosen.name == "random_forest"
    assert chosen.scores["random_forest"] > max(v for k, v in chosen.scores.items() if k != "random_forest")


@settings(max_examples=30, deadline=None)
@given(sizes=st.lists(st.integers(2, 5), min_size=2, max_size=5), seed=st.integers(0, 10**6))
def test_permutation_keeps_counts_and_moves_labels(sizes, seed):
    table = pd.DataFrame([(f"c{m}-{i}", f"l{m}") for m, n in enumerate(sizes) for i in range(n)],
                         columns=["Metadata_Compound", "Metadata_Label"])
    permuted = permute_labels(table, seed)
    assert sorted(permuted.values()) == sorted(table["Metadata_Label"])
    kept = sum(permuted[c] == label for c, label in table.itertuples(index=False))
    assert kept < len(table)
    assert permuted == permute_labels(table.sample(frac=1, random_state=0), seed)


def test_permuted_labels_score_near_chance(make_tiny, tmp_path):
    assay, _, whole_hash = make_tiny(compounds=4, plates=3)
    split = make_split(assay, whole_hash, "leave-one-compound-out")
    labels = permute_labels(assay.treated, 1)
    scores = summarise(run_all(assay, split, feature_table(assay, 6.0), tmp_path, labels=labels))
    assert scores.loc[scores["unit"] == "treatment", "accuracy"].item() <= 0.5


def test_a_run_folder_is_keyed_by_what_matters_and_missing_folds_are_listed(make_tiny, tmp_path):
    assay, _, whole_hash = make_tiny()
    split = make_split(assay, whole_hash, "leave-one-compound-out")
    method = CellCountMethod(kind="cell_count", name="cell_count")
    run = open_run(tmp_path, method, split, {"cellprofiler": "1"})
    retitled = method.model_copy(update={"title": "Other words"})
    assert open_run(tmp_path, retitled, split, {"cellprofiler": "1"}).path == run.path
    assert open_run(tmp_path, method, split, {"cellprofiler": "2"}).path != run.path
    assert open_run(tmp_path, method, replace(split, assay_hash="x"), {"cellprofiler": "1"}).path != run.path
    assert len(run.missing(split, (1, 2))) == 18
    predictions = run_all(assay, split, feature_table(assay, 3.0), tmp_path)
    for fold in split.folds:
        part = predictions[predictions["fold"] == fold.name]
        write_fold(run.fold_path(fold, 1), part, fold, {"seconds": 1})
    assert run.missing(split, (1,)) == []
    assert len(read_run(run, split, (1,))) == len(predictions)
    with pytest.raises(LeakError, match="not the fold's test wells"):
        write_fold(tmp_path / "x.parquet", predictions[predictions["fold"] == split.folds[1].name], split.folds[0], {})
