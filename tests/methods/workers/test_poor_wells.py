"""A well that lacks most features is a well without cells: not trained on, and predicted by frequencies alone."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from drawn_study import LDA, drawn_profiles, profile_study, run_arm

from benchmark.base.tables import WELL, WELL_KEY

NEAREST = {"name": "near", "kind": "profile", "decision": "nearest", "profile": {"normalise": "training"}}
CLASSIFIER = {"name": "lda", "kind": "profile", "classifier": LDA, "profile": {"normalise": "plate"}}
MIXTURE = {"name": "gmm", "kind": "profile", "classifier": LDA,
           "profile": {"normalise": "training", "aggregate": "gmm", "components": 2, "reference": "training"}}


def poor(table, well="x0", plate="P1", kept=1):
    """The table with one well that has values of its first features alone."""
    features = [c for c in table if c.startswith("Cells_")]
    table.loc[(table["well"] == well) & (table["plate"] == plate), features[kept:]] = np.nan
    return table


def predicted(run):
    return pd.concat([pd.read_parquet(p) for p in sorted(run.folder.path.glob("seed*.parquet"))], ignore_index=True)


def facts(run):
    return [json.loads(p.read_text()) for p in sorted(run.folder.path.glob("seed*.json"))]


@pytest.mark.parametrize("method", [NEAREST, CLASSIFIER, MIXTURE])
def test_a_poor_well_costs_itself(tmp_path, monkeypatch, method):
    cells = 8 if method is MIXTURE else 1
    table = drawn_profiles()
    if cells > 1:
        table = table.loc[table.index.repeat(cells)].reset_index(drop=True)
        names = [c for c in table if c.startswith("Cells_")]
        table[names] += np.random.default_rng(1).normal(0, 0.1, table[names].shape)
    context = profile_study(tmp_path, monkeypatch, poor(table), method)
    assert "1 of 18 wells are not used: they lack more than half" in "\n".join(map(str, context.assay.left_out))
    (run,) = run_arm(context, "classical")
    assert run.record["train_without_features"] == 1
    said = facts(run)
    assert sorted(f["train_without_features"] for f in said) == [0, *[1] * 8]
    if method is NEAREST:  # its treatment has another well
        assert run.record["without_features"] == 0
        return
    assert run.record["without_features"] == 1
    table = predicted(run)
    flat = table[(table["Metadata_Plate"] == "P1") & (table[WELL] == "x0")]
    assert len(flat) == 1 and set(map(tuple, table[WELL_KEY].to_numpy())) == set(
        map(tuple, context.assay.wells[WELL_KEY].to_numpy()))
    p = flat.filter(like="p_").to_numpy()[0]
    np.testing.assert_allclose(p, [2 / 8, 3 / 8, 3 / 8])  # of the eight compounds that the fold trains on


def test_a_treatment_whose_only_well_is_poor_is_counted(tmp_path, monkeypatch):
    table = drawn_profiles()
    context = profile_study(tmp_path, monkeypatch, poor(poor(table), plate="P2"), NEAREST)
    (run,) = run_arm(context, "classical")
    assert run.record["without_features"] == 1 and run.record["train_without_features"] == 2


def test_predictions_of_the_others_are_those_without_the_poor_well(tmp_path, monkeypatch):
    """Its leftover values change nothing."""
    found = []
    for i, table in enumerate((poor(drawn_profiles()), poor(drawn_profiles(), kept=0))):
        (run,) = run_arm(profile_study(tmp_path / str(i), monkeypatch, table, NEAREST), "classical")
        found.append(predicted(run).set_index("Metadata_Compound").filter(like="p_"))
    others = found[1].index.drop("x-0")
    np.testing.assert_array_equal(found[0].loc[others], found[1].loc[others])
