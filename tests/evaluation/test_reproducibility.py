"""Replicates that look alike are found, noise is not; values against an independent reckoning."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import average_precision_score

from benchmark.base.tables import WELL_COLUMNS
from benchmark.evaluation.reproducibility import (
    TREATMENT,
    percent_replicating,
    replicate_precision,
    reproducibility,
)


def profiles(effect: float, controls: int = 8, seed: int = 0) -> pd.DataFrame:
    """20 compounds of 4 labels on 3 plates, and controls on each."""
    rng = np.random.default_rng(seed)
    directions = rng.normal(size=(20, 30))
    rows = []
    for plate in range(3):
        for n in range(20 + controls):
            treated = n < 20
            values = rng.normal(size=30) + (effect * directions[n] if treated else 0)
            keys = ("b", f"p{plate}", f"A{n:02d}", plate, f"c{n:02d}" if treated else "DMSO", 1.0 if treated else 0.0,
                    f"l{n % 4}" if treated else "", "" if treated else "negative", "")
            rows.append(dict(zip(WELL_COLUMNS, keys, strict=True)) | {f"Cells_{i}": v for i, v in enumerate(values)})
    return pd.DataFrame(rows)


def test_strong_replicates_are_found_and_noise_is_not():
    strong, noise = reproducibility(profiles(3.0), 1), reproducibility(profiles(0.0), 1)
    assert strong["treatments"] == 20 and strong["replicating"] >= 19
    assert strong["map_significant"] >= 19 and strong["map_mean"] > 0.9
    assert noise["replicating"] <= 4 and noise["map_significant"] <= 2
    assert strong["against"] == "the plate's negative controls"
    assert reproducibility(profiles(3.0, controls=0), 1)["against"] == "wells of other compounds"
    assert strong == reproducibility(profiles(3.0), 1)


def test_label_precision_asks_for_another_compound_of_the_label():
    """Compounds have directions of their own here: replicates are found, labels are not."""
    found = reproducibility(profiles(3.0), 1)
    assert found["label_treatments"] == 20 and found["label_map_significant"] <= 3
    assert found["label_map_mean"] < 0.5


def test_average_precision_is_scikit_learns():
    table = profiles(0.7, controls=0)
    values = table.filter(like="Cells_").to_numpy()
    metadata = table.filter(like="Metadata_").assign(**{TREATMENT: table["Metadata_Compound"]})
    found = replicate_precision(metadata, values, False, 1).set_index(TREATMENT)["mean_average_precision"]
    unit = values / np.linalg.norm(values, axis=1, keepdims=True)
    similarity = unit @ unit.T
    for compound in ("c00", "c07"):
        own = []
        for i in np.flatnonzero(table["Metadata_Compound"] == compound):
            others = np.arange(len(table)) != i
            own.append(average_precision_score((table["Metadata_Compound"] == compound)[others], similarity[i, others]))
        assert found[compound] == pytest.approx(np.mean(own), abs=1e-6)


def test_percent_replicating_counts_treatments_with_replicates_alone():
    table = profiles(3.0, controls=0)
    table = table[(table["Metadata_Compound"] != "c00") | (table["Metadata_Plate"] == "p0")].reset_index(drop=True)
    metadata = table.assign(**{TREATMENT: table["Metadata_Compound"]})
    assert percent_replicating(metadata, table.filter(like="Cells_").to_numpy(), 1)[1] == 19


def test_only_negative_controls_stand_against_replicates():
    """Positive controls of the plate are neither what a treatment is found among nor what is found."""
    from benchmark.base.tables import COMPOUND, CONTROL, LABEL, PLATE

    table = profiles(2.0, controls=4)
    metadata = table.filter(like="Metadata_").assign(**{TREATMENT: table[COMPOUND]})
    metadata.loc[metadata[CONTROL] == "negative", TREATMENT] = "control"
    values = table.filter(like="Cells_").to_numpy()
    positive = metadata[COMPOUND].isin(["c18", "c19"])
    with_positive = metadata.assign(**{CONTROL: metadata[CONTROL].where(~positive, "positive")})
    plain, marked = (replicate_precision(m, values, True, 1).set_index(TREATMENT)["mean_average_precision"]
                     for m in (metadata, with_positive))
    shared = [c for c in plain.index if c in marked.index]
    assert len(shared) >= 18 and metadata[PLATE].nunique() == 3 and LABEL in metadata
    pd.testing.assert_series_equal(plain[shared], marked[shared])
