"""A missing value costs a well, a feature or itself, and never a feature of all wells for the sake of one."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from benchmark.cells.coverage import lacks_most
from benchmark.evaluation.reproducibility import reproducibility
from benchmark.methods.workers.foldtable import normalised
from benchmark.profiles.missing import marked_by_plate, usable_rows
from benchmark.profiles.select import NO_SPREAD, ProfileSelector
from benchmark.profiles.settings import ProfileSettings

FEATURES = [f"f{i}" for i in range(10)]


def table(plates=4, wells=12, controls=6, seed=0):
    rng = np.random.default_rng(seed)
    rows = pd.DataFrame({
        "Metadata_Plate": np.repeat([f"P{p}" for p in range(plates)], wells),
        "Metadata_Well": [f"A{w:02d}" for _ in range(plates) for w in range(wells)],
        "Metadata_Control": ["negative" if w < controls else "" for _ in range(plates) for w in range(wells)],
        "Metadata_Compound": [f"c{w}" for _ in range(plates) for w in range(wells)],
        "Metadata_Concentration": 1.0, "Metadata_CellLine": "", "Metadata_Batch": "1", "Metadata_Replicate": 1,
        "Metadata_Label": ["" if w < controls else f"l{w % 2}" for _ in range(plates) for w in range(wells)]})
    return rows.assign(**{f: rng.normal(size=len(rows)) for f in FEATURES})


def test_rows_that_lack_most_features_go_and_others_stay():
    profiles = table()
    profiles.loc[3, FEATURES[:6]] = np.nan
    profiles.loc[5, FEATURES[:5]] = np.inf
    kept = usable_rows(profiles)
    assert len(kept) == len(profiles) - 1 and kept["Metadata_Well"].tolist()[3] == "A04"
    assert usable_rows(table()).equals(table())


def test_a_channel_of_one_plate_alone_is_no_fault_of_the_wells_of_others():
    known = np.ones((40, 10), bool)
    known[10:, :8] = False  # eight features are of ten rows alone
    known[20, 8:] = False
    assert np.flatnonzero(lacks_most(known)).tolist() == [20]
    assert lacks_most(np.zeros((3, 2), bool)).all() and not lacks_most(np.ones((0, 2), bool)).any()


@pytest.mark.parametrize("normalise", ["controls", "training"])
def test_one_well_costs_no_other_well_a_feature(normalise):
    profiles = table()
    profiles.loc[8, FEATURES[:4]] = np.nan
    train = normalised(profiles, ProfileSettings(normalise=normalise))
    found = ProfileSelector(("missing",)).fit(train)
    assert found.columns_ == FEATURES and found.dropped_ == {"missing": 0} and found.imputed_ == 4
    assert found.transform(train).loc[8, "f0"] == pytest.approx(train["f0"].median())


def test_a_feature_goes_that_more_than_a_few_rows_lack():
    profiles = table()
    profiles.loc[[1, 9], "f1"] = np.nan  # 2 of 48
    profiles.loc[[1, 9, 30], "f2"] = np.nan
    assert ProfileSelector(("missing",)).fit(profiles).columns_ == [f for f in FEATURES if f != "f2"]
    few = profiles.iloc[:6]  # one of six is more than 5 %, and one well all the same
    assert ProfileSelector(("missing",)).fit(few).columns_ == FEATURES


@pytest.mark.parametrize("level", ["wells", "cells"])
def test_a_feature_that_a_plate_has_no_value_of_goes_as_before(level):
    profiles = table(plates=40)
    there = profiles["Metadata_Plate"] == "P1"
    profiles.loc[there, "f3"] = np.nan if level == "cells" else 0.5
    made = normalised(profiles, ProfileSettings(level=level))
    assert np.isinf(made.loc[there, "f3"]).all() and np.isfinite(made.loc[~there, FEATURES]).to_numpy().all()
    found = ProfileSelector(("missing",)).fit(made)
    assert found.columns_ == [f for f in FEATURES if f != "f3"] and found.dropped_ == {"missing": 0, NO_SPREAD: 1}
    # A plate without training wells takes nothing away.
    assert ProfileSelector(("missing",)).fit(made[~there]).columns_ == FEATURES
    assert np.isfinite(found.transform(made)[found.columns_]).to_numpy().all()


def test_a_plate_of_a_single_row_is_no_plate_without_values():
    profiles = table().iloc[:13]
    profiles.loc[12, "f0"] = np.nan
    assert np.isnan(marked_by_plate(profiles).loc[12, "f0"])


def test_reproducibility_loses_no_feature_to_one_well():
    profiles = table()
    whole = reproducibility(profiles, 0)
    profiles.loc[8, FEATURES[:9]] = np.nan
    assert reproducibility(profiles, 0) != reproducibility(profiles[[c for c in profiles if c not in FEATURES[:9]]], 0)
    assert reproducibility(profiles, 0)["treatments"] == whole["treatments"]
