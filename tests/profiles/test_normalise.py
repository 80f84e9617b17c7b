"""Normalisation by plate: pycytominer's numbers, Ljosa's percentiles, what has no spread, what is refused."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pycytominer
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from benchmark.base.errors import MorphobenchError
from benchmark.profiles.normalise import PlateNormaliser, location_and_scale

FEATURES = ["a", "b", "c"]


def table(seed=0, plates=3, wells=8, controls=4, sites=1):
    """Profiles with an offset and a gain of each plate; the first wells of a plate are its controls."""
    rng = np.random.default_rng(seed)
    rows = []
    for p in range(plates):
        for w in range(wells):
            for s in range(sites):
                x = 100.0 * p + 10.0 ** p * rng.normal(size=3)
                row = {"Metadata_Plate": f"P{p}", "Metadata_Well": f"A{w:02d}",
                       "Metadata_Control": "negative" if w < controls else ""}
                row |= {"Metadata_Site": str(s)} if sites > 1 else {}
                rows.append(row | dict(zip(FEATURES, x, strict=True)))
    return pd.DataFrame(rows)


@pytest.mark.parametrize("method", ["standardize", "mad_robustize"])
@pytest.mark.parametrize("samples", ["controls", "plate"])
@pytest.mark.parametrize("sites", [1, 2])
def test_it_gives_pycytominers_numbers_plate_by_plate(method, samples, sites):
    profiles = table(sites=sites)
    profiles.loc[9, "b"] = np.nan
    query = "Metadata_Control == 'negative'" if samples == "controls" else "all"
    metadata = [c for c in profiles if c.startswith("Metadata_")]
    parts = [pycytominer.normalize(rows, features=FEATURES, meta_features=metadata, samples=query, method=method,
                                   mad_robustize_epsilon=0) for _, rows in profiles.groupby("Metadata_Plate")]
    found = PlateNormaliser(method, samples).fit(profiles).transform(profiles)
    assert_allclose(found[FEATURES], pd.concat(parts)[FEATURES], rtol=1e-12, atol=1e-12)
    pd.testing.assert_frame_equal(found[metadata], profiles[metadata])


def test_ljosas_scale_puts_the_controls_percentiles_at_0_and_1():
    reference = pd.DataFrame({"a": np.arange(101.0), "b": 5 - 2 * np.arange(101.0)})
    location, scale = location_and_scale(reference, "ljosa")
    assert location.tolist() == [1.0, -193.0] and scale.tolist() == [98.0, 196.0]  # by hand: 1, 99; 5-2x99, 5-2x1
    profiles = table(wells=60, controls=50)
    found = PlateNormaliser("ljosa").fit(profiles).transform(profiles)
    for _, rows in found[found["Metadata_Control"] == "negative"].groupby("Metadata_Plate"):
        assert_allclose(np.percentile(rows[FEATURES], [1, 99], axis=0), [[0] * 3, [1] * 3], atol=1e-12)


@pytest.mark.parametrize("method", ["standardize", "mad_robustize", "ljosa"])
@pytest.mark.parametrize("constant", [0.1, 0.0, 1e6 / 3])
def test_a_feature_without_spread_over_a_plates_controls_is_missing_there(method, constant):
    profiles = table()
    flat = (profiles["Metadata_Plate"] == "P1") & (profiles["Metadata_Control"] == "negative")
    profiles.loc[flat, "b"] = constant
    found = PlateNormaliser(method).fit(profiles).transform(profiles)
    missing = found["b"].isna()
    assert (missing == (found["Metadata_Plate"] == "P1")).all()
    assert found[["a", "c"]].notna().to_numpy().all()


def test_rounding_is_no_spread():
    profiles = table()
    flat = (profiles["Metadata_Plate"] == "P1") & (profiles["Metadata_Control"] == "negative")
    profiles.loc[flat, "b"] = [0.3, 0.1 + 0.2, 0.3, 0.3]  # these differ in the last bit
    assert profiles.loc[flat, "b"].nunique() == 2
    found = PlateNormaliser("standardize").fit(profiles).transform(profiles)
    assert found.loc[found["Metadata_Plate"] == "P1", "b"].isna().all()


def test_infinite_values_are_missing_and_do_not_spoil_the_plate():
    profiles = table()
    clean = PlateNormaliser("mad_robustize").fit(profiles.drop(index=0)).transform(profiles.drop(index=0))
    profiles.loc[0, "a"] = np.inf
    found = PlateNormaliser("mad_robustize").fit(profiles).transform(profiles)
    assert np.isnan(found.loc[0, "a"]) and found.drop(index=0).notna().to_numpy().all()
    assert_allclose(found.drop(index=0)["a"], clean["a"])


@pytest.mark.parametrize(("controls", "samples", "words"), [
    (1, "controls", "plate P0: has 1 negative controls with cells"), (0, "controls", "Set normalise to plate"),
])
def test_a_plate_with_too_few_controls_is_named(controls, samples, words):
    with pytest.raises(MorphobenchError, match=words):
        PlateNormaliser("standardize", samples).fit(table(controls=controls))


def test_a_plate_of_one_row_is_refused_and_so_is_one_that_was_not_fitted():
    profiles = table()
    with pytest.raises(MorphobenchError, match="plate P0: has 1 rows"):
        PlateNormaliser("standardize", "plate").fit(profiles.iloc[:1])
    fitted = PlateNormaliser().fit(profiles[profiles["Metadata_Plate"] != "P2"])
    with pytest.raises(MorphobenchError, match="plate P2"):
        fitted.transform(profiles)
    with pytest.raises(MorphobenchError, match="lacks 1 of 3 features"):
        fitted.transform(profiles.drop(columns="a"))


@settings(max_examples=6, deadline=None)
@given(seed=st.integers(0, 10_000), method=st.sampled_from(["standardize", "mad_robustize", "ljosa"]),
       gain=st.floats(1e-3, 1e3), offset=st.floats(-1e3, 1e3))
def test_a_plates_gain_and_offset_do_not_matter_nor_do_other_wells(seed, method, gain, offset):
    profiles = table(seed)
    before = PlateNormaliser(method).fit(profiles).transform(profiles)
    moved = profiles.copy()
    own = moved["Metadata_Plate"] == "P1"
    moved.loc[own, FEATURES] = moved.loc[own, FEATURES] * gain + offset
    assert_allclose(PlateNormaliser(method).fit(moved).transform(moved)[FEATURES], before[FEATURES], rtol=1e-5,
                    atol=1e-5)
    changed = profiles.copy()
    changed.loc[changed["Metadata_Control"] == "", FEATURES] *= -7
    after = PlateNormaliser(method).fit(changed)
    pd.testing.assert_frame_equal(after.locations_, PlateNormaliser(method).fit(profiles).locations_)
    pd.testing.assert_frame_equal(after.scales_, PlateNormaliser(method).fit(profiles).scales_)


def test_rows_keep_their_order_and_index():
    profiles = table().sample(frac=1, random_state=0)
    found = PlateNormaliser("standardize").fit(profiles).transform(profiles)
    assert found.index.tolist() == profiles.index.tolist()
    again = PlateNormaliser("standardize").fit(profiles.sort_index()).transform(profiles.sort_index())
    assert_allclose(found.sort_index()[FEATURES], again[FEATURES], rtol=1e-9, atol=1e-12)
