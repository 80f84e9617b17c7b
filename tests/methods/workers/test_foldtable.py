"""What a fold fits, it fits on what it may see: its training wells and the negative controls."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmark.base.errors import LeakError
from benchmark.base.tables import BATCH, COMPOUND, CONTROL, LABEL, PLATE, WELL, WELL_COLUMNS, WELL_KEY
from benchmark.folds.fold import Fold, rows_of
from benchmark.folds.inner import inner_groups
from benchmark.methods.classifiers.classifier import choose_and_fit
from benchmark.methods.classifiers.labels import permute_labels
from benchmark.methods.classifiers.settings import ClassifierSettings
from benchmark.methods.workers.foldtable import corrected, fold_profiles, selector
from benchmark.methods.workers.runs import write_fold
from benchmark.methods.workers.source import ProfileSource
from benchmark.methods.workers.tabular import TabularFold, run_tabular_fold
from benchmark.profiles.settings import ProfileSettings

LOGISTIC = ClassifierSettings(candidates=("logistic_regression",), inner_folds=2)
FEATURES = [f"Cells_{i}" for i in range(10)]


def profiles(effect: float = 4.0, seed: int = 0) -> pd.DataFrame:
    """Two batches of two plates: 3 labels x 3 compounds a batch, one well each on each plate, and 6 of DMSO."""
    rng = np.random.default_rng(seed)
    rows = []
    for plate in range(4):
        names = [(f"c{m}{plate // 2}{j}", f"l{m}", "") for m in range(3) for j in range(3)]
        for n, (compound, label, control) in enumerate([*names, *[("DMSO", "", "negative")] * 6]):
            values = rng.normal(plate // 2, 1 + plate // 2, len(FEATURES))
            if label:
                values[int(label[1])] += effect
            rows.append(dict(zip(WELL_COLUMNS, (f"b{plate // 2}", f"p{plate}", f"A{n:02d}", 1, compound,
                                                0.0 if control else 1.0, label, control, ""), strict=True))
                        | dict(zip(FEATURES, values, strict=True)))
    return pd.DataFrame(rows)


def fold_of(table: pd.DataFrame, compound: str) -> Fold:
    scored = table[table[CONTROL] == ""]
    keys = {held: tuple(scored.loc[(scored[COMPOUND] == compound) == held, WELL_KEY].itertuples(index=False, name=None))
            for held in (True, False)}
    return Fold(compound, keys[True], keys[False])


def run(table: pd.DataFrame, folder: Path, profile: ProfileSettings, decision: str, labels=None, **changes):
    """Predictions of the first compound's fold."""
    table.to_parquet(folder / "table.parquet")
    table.iloc[:0].to_parquet(folder / "absent.parquet")
    task = TabularFold(ProfileSource(folder / "table.parquet", profile), folder / "absent.parquet", "well", "m",
                       fold_of(table, "c000"), 1, LOGISTIC, decision, labels, ("l0", "l1", "l2"), True,
                       folder / "out.parquet")
    run_tabular_fold(replace(task, **changes))
    return pd.read_parquet(folder / "out.parquet")


@pytest.mark.parametrize("correction", ["none", "sphering", "tvn", "combat"])
@pytest.mark.parametrize("decision", ["classifier", "nearest"])
def test_a_prediction_hangs_on_no_test_label_and_on_no_other_test_well(tmp_path, correction, decision):
    profile = ProfileSettings(normalise="training", correction=correction)
    table = profiles()
    honest = run(table, tmp_path, profile, decision)
    lied = table.copy()
    lied.loc[lied[COMPOUND] == "c000", LABEL] = "l2"
    told = run(lied, tmp_path, profile, decision)
    assert np.array_equal(honest.filter(like="p_"), told.filter(like="p_"))
    if decision == "classifier":  # a treatment's profile is made of all its wells
        moved = table.copy()
        first = moved[COMPOUND].eq("c000") & moved[PLATE].eq("p0")
        moved.loc[first, FEATURES] += 50.0
        other = run(moved, tmp_path, profile, decision)
        assert np.array_equal(honest.loc[honest[PLATE] == "p1"].filter(like="p_"),
                              other.loc[other[PLATE] == "p1"].filter(like="p_"))


def test_harmony_looks_at_test_wells_and_says_so(tmp_path):
    profile = ProfileSettings(normalise="training", correction="harmony")
    assert "Harmony" in str(profile.transductive)
    table, moved = profiles(), profiles()
    moved.loc[moved[COMPOUND].eq("c000") & moved[PLATE].eq("p0"), FEATURES] += 50.0
    outs = [run(t, tmp_path, profile, "classifier") for t in (table, moved)]
    assert not np.array_equal(*(o.loc[o[PLATE] == "p1"].filter(like="p_") for o in outs))


def test_nearest_treatments_are_predicted_by_treatment_and_found_where_there_is_an_effect(tmp_path):
    found = run(profiles(8.0), tmp_path, ProfileSettings(normalise="training"), "nearest")
    assert found["unit"].eq("treatment").all() and WELL not in found and len(found) == 1
    assert found["p_l0"].item() == 1.0


def test_permuted_labels_leave_controls_alone_and_reach_the_nearest_treatment(tmp_path):
    table = profiles(8.0)
    labels = permute_labels(table[table[CONTROL] == ""], 1)
    found = run(table, tmp_path, ProfileSettings(normalise="training"), "nearest", labels)
    assert found[LABEL].item() == labels["c000"]


def test_treatments_of_other_wells_than_the_folds_are_refused(tmp_path):
    table = profiles()
    found = run(table, tmp_path, ProfileSettings(normalise="training"), "nearest")
    fold = fold_of(table, "c000")
    covered = table[rows_of(table, fold.test)]
    with pytest.raises(LeakError, match="not those of the fold's test wells"):
        write_fold(tmp_path / "x.parquet", found.assign(**{COMPOUND: "c001"}), fold, {}, covered=covered)
    with pytest.raises(LeakError, match="not the fold's test wells"):
        write_fold(tmp_path / "x.parquet", found, fold, {}, covered=covered.iloc[:1])


def test_features_normalised_per_plate_are_not_scaled_again():
    table = profiles()
    fold = fold_of(table, "c000")
    settings = ProfileSettings(normalise="controls", select=())
    done, _ = corrected(table, fold, settings, "none", 1)
    assert np.allclose(done[FEATURES], table[FEATURES].clip(-20, 20))
    scaled, _ = corrected(table, fold, settings.model_copy(update={"normalise": "training"}), "none", 1)
    train = rows_of(scaled, fold.train)
    values = scaled.loc[train, FEATURES]
    assert np.allclose(values.mean(), 0) and np.allclose(values.std(ddof=0), 1)


def test_reference_cells_are_those_of_the_training_wells_alone(tmp_path):
    """Profiles that refer to training cells are made anew in a fold: a test well's cells change no other profile."""
    wells = profiles()[WELL_COLUMNS]
    fold = fold_of(wells, "c000")
    settings = ProfileSettings(aggregate="ks", reference="training", normalise="training")
    made = []
    for shift in (0.0, 30.0):
        cells = wells.loc[wells.index.repeat(12), WELL_KEY].reset_index(drop=True)
        values = np.random.default_rng(3).normal(size=(len(cells), 3))
        values[rows_of(cells, fold.test[:1]).to_numpy()] += shift
        cells.join(pd.DataFrame(values, columns=FEATURES[:3])).to_parquet(tmp_path / "cells.parquet")
        wells.to_parquet(tmp_path / "wells.parquet")
        source = ProfileSource(tmp_path / "wells.parquet", settings, tmp_path / "cells.parquet")
        made.append(fold_profiles(source, fold, 1))
    moved = rows_of(made[0], fold.test[:1])
    assert not np.allclose(made[0].loc[moved, FEATURES[:3]], made[1].loc[moved, FEATURES[:3]])
    assert np.array_equal(made[0].loc[~moved, FEATURES[:3]], made[1].loc[~moved, FEATURES[:3]])


def test_a_classifier_selects_features_anew_in_each_inner_fold():
    table = profiles()
    train = table[rows_of(table, fold_of(table, "c000").train)]
    chosen = choose_and_fit(train, train[LABEL], inner_groups(train), LOGISTIC, selector(ProfileSettings()), 1)
    p = chosen.probabilities(table, ["l0", "l1", "l2"])
    assert p.shape == (len(table), 3) and np.allclose(p.sum(axis=1), 1)


def test_combat_leaves_a_batch_without_training_wells_as_it_is():
    """Its controls alone do not say where its treated wells would lie: fitted on them they would be thrown far off."""
    table = profiles()
    scored = table[CONTROL] == ""
    wells = [tuple(table.loc[scored & (table[BATCH] == b), WELL_KEY].itertuples(index=False, name=None))
             for b in ("b0", "b1")]
    fold, raw = Fold("f", wells[0][:6], wells[1]), ProfileSettings(normalise="training")
    found, facts = corrected(table, fold, raw, "combat", 1)
    plain, _ = corrected(table, fold, raw, "none", 1)
    test = (table[BATCH] == "b0").to_numpy()
    np.testing.assert_array_equal(found.loc[test, found.columns], plain.loc[test, found.columns])
    assert facts["batches_unseen"] == ["b0"]


def test_what_is_clipped_is_a_setting_and_noted():
    table = profiles()
    table.loc[table[COMPOUND] == "c000", FEATURES[0]] = 1e6
    fold = fold_of(table, "c000")
    shares = {}
    for clip in (20.0, None):
        settings = ProfileSettings(normalise="training", select=(), clip=clip)
        found, facts = corrected(table, fold, settings, "none", 1)
        shares[clip] = facts["clipped"], found[FEATURES[0]].max()
    assert shares[20.0] == (pytest.approx(2 / (len(table) * len(FEATURES)), abs=1e-5), 20.0)
    assert shares[None][0] == 0.0 and shares[None][1] > 1e4


def test_small_units_are_no_reason_to_drop_a_feature():
    """A variance is looked at in a feature's own unit only to see whether there is any."""
    table = profiles()
    table[FEATURES[0]] *= 1e-6
    table[FEATURES[1]] = 7.0
    for how, kept in (("training", True), ("controls", False)):
        found, _ = corrected(table, fold_of(table, "c000"), ProfileSettings(normalise=how), "none", 1)
        assert (FEATURES[0] in found) is kept and FEATURES[1] not in found
