"""What a fold notes of its features, and the range over folds."""

from __future__ import annotations

import numpy as np
import pandas as pd

from benchmark.methods.workers.featurefacts import after_correction, feature_facts, feature_ranges, side_by_side
from benchmark.profiles.select import ProfileSelector


def table() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    found = pd.DataFrame(rng.normal(size=(10, 4)), columns=[f"Cells_{i}" for i in range(4)])
    found["Cells_3"] = 1.0
    return found.assign(Metadata_Plate="P", Metadata_Well=[f"A{i:02d}" for i in range(10)])


def test_a_fold_notes_every_step_and_what_is_filled_in():
    rows = table()
    rows.loc[9, ["Cells_0", "Cells_1"]] = np.nan, np.inf  # a test row
    facts = feature_facts(rows, ProfileSelector(("missing", "variance")).fit(rows[:8]))
    assert facts == {"measured": 4, "used": 3, "steps": {"missing": 0, "variance": 1}, "imputed": 2,
                     "rows_without_values": 0}
    rows.loc[8, [f"Cells_{i}" for i in range(4)]] = np.nan
    assert feature_facts(rows) == {"measured": 4, "used": 4, "steps": {}, "imputed": 6, "rows_without_values": 1}


def test_a_correction_and_a_fusion_are_counted_too():
    facts = feature_facts(table())
    less = after_correction(facts, {"left_out": 1})
    assert less["used"] == 3 and less["steps"] == {"correction": 1} and after_correction(facts, {}) == facts
    assert side_by_side([facts, less], 7) == {"measured": 8, "used": 7, "steps": {"correction": 1}, "imputed": 0}
    assert side_by_side((), 6) == {"used": 6}


def test_ranges_take_folds_of_every_version():
    new = {"measured": 341, "used": 39, "steps": {"missing": 302}, "imputed": 0, "rows_without_values": 0}
    other = {"measured": 341, "used": 211, "steps": {"missing": 100, "variance": 30}, "imputed": 5,
             "rows_without_values": 0}
    assert feature_ranges([new, other]) == {
        "measured": [341, 341], "used": [39, 211], "imputed": [0, 5], "rows_without_values": [0, 0],
        "steps": {"missing": [100, 302], "variance": [0, 30]}}
    assert feature_ranges([39, 41]) == {"used": [39, 41]} and feature_ranges([None, None]) == {}
