"""Moments of cells, and well profiles of all kinds by their settings."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pycytominer
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from plates import fields_of, plates_of_cells, single

from benchmark.base.errors import MorphobenchError
from benchmark.base.tables import FIELD_KEY, WELL_COLUMNS, WELL_KEY
from benchmark.profiles.aggregate import Moments, make_well_profiles, moments
from benchmark.profiles.settings import ProfileSettings
from benchmark.profiles.wells import feature_columns

NAMES = [f"Cells_F{i}" for i in range(4)]
RAW = ProfileSettings(aggregate="median", normalise="training")


def holed(seed=0):
    """Cells with gaps, and a feature that is all gaps in one well."""
    cells, wells = plates_of_cells(seed=seed, cells=41)
    rng = np.random.default_rng(seed)
    cells[NAMES] = cells[NAMES].mask(rng.random(cells[NAMES].shape) < 0.1)
    cells.loc[(cells["Metadata_Plate"] == "P0") & (cells["Metadata_Well"] == "A02"), "Cells_F1"] = np.nan
    return cells, wells


@pytest.mark.parametrize("unit", ["well", "field"])
@pytest.mark.parametrize("kind", ["mean", "median"])
def test_mean_and_median_are_pycytominers(kind, unit):
    cells, wells = holed()
    key = WELL_KEY if unit == "well" else FIELD_KEY
    theirs = pycytominer.aggregate(cells, strata=key, features=NAMES, operation=kind)
    ours = Moments(kind, unit).fit(single(cells), wells).transform(single(cells), wells)
    assert (ours.dtypes[NAMES] == np.float64).all()
    assert ours["Cells_F1"].isna().sum() == (1 if unit == "well" else 2)
    pd.testing.assert_frame_equal(ours, theirs, check_exact=kind == "median", rtol=1e-12)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), n=st.integers(1, 30), gaps=st.floats(0, 0.9), narrow=st.booleans())
def test_quantiles_are_numpys(seed, n, gaps, narrow):
    rng = np.random.default_rng(seed)
    values = np.round(rng.normal(size=(n, 5)), 1) * 1e3
    values[rng.random((n, 5)) < gaps] = np.nan
    values[:, 0] = 7.5
    values = values.astype(np.float32 if narrow else np.float64)
    wide = pd.DataFrame(values.astype(np.float64))
    deciles = wide.quantile(np.arange(1, 10) / 10).to_numpy()
    assert np.allclose(moments(values, "deciles"), deciles, rtol=1e-12, atol=1e-9, equal_nan=True)
    median, mad = moments(values, "median_mad")
    assert np.array_equal(median, wide.median().to_numpy(), equal_nan=True)
    assert np.array_equal(mad, (wide - wide.median()).abs().median().to_numpy(), equal_nan=True)


def test_infinite_values_of_cells_are_missing_ones():
    cells, wells = plates_of_cells()
    first = (cells["Metadata_Plate"] == "P0") & (cells["Metadata_Well"] == "A01")
    cells.loc[cells.index[first][0], "Cells_F0"] = np.inf
    rest = cells.loc[first, "Cells_F0"].astype(float).iloc[1:]
    assert Moments("mean").transform(single(cells), wells)["Cells_F0"][0] == pytest.approx(rest.mean())
    assert Moments("median").transform(single(cells), wells)["Cells_F0"][0] == rest.median()


@pytest.mark.parametrize(("kind", "first", "number"), [("median_mad", "Cells_F0", 8), ("deciles", "Cells_F0_D10", 36)])
def test_names_follow_values(kind, first, number):
    cells, wells = plates_of_cells()
    table = make_well_profiles(single(cells), wells, ProfileSettings(aggregate=kind, normalise="training"), wells, 0)
    names = feature_columns(table)
    assert len(names) == number and names[0] == first
    own = cells[(cells["Metadata_Plate"] == "P1") & (cells["Metadata_Well"] == "A02")]["Cells_F2"].astype(float)
    row = table[(table["Metadata_Plate"] == "P1") & (table["Metadata_Well"] == "A02")].iloc[0]
    if kind == "deciles":
        assert row["Cells_F2_D90"] == pytest.approx(own.quantile(0.9))
    else:
        assert row["Cells_F2_MAD"] == (own - own.median()).abs().median() and row["Cells_F2"] == own.median()


def test_every_well_with_cells_is_a_row_with_its_metadata():
    cells, wells = plates_of_cells()
    empty = (cells["Metadata_Plate"] == "P1") & (cells["Metadata_Well"] == "A05")
    shuffled = wells.sample(frac=1, random_state=1)
    table = make_well_profiles(single(cells[~empty]), shuffled, RAW, wells, 0)
    assert list(table.columns) == [*WELL_COLUMNS, *NAMES] and len(table) == len(wells) - 1
    expected = wells[~((wells["Metadata_Plate"] == "P1") & (wells["Metadata_Well"] == "A05"))]
    pd.testing.assert_frame_equal(table[WELL_COLUMNS], expected.sort_values(WELL_KEY).reset_index(drop=True))


def test_fields_are_units_too():
    cells, wells = plates_of_cells()
    fields = fields_of(cells, wells)
    asked = ProfileSettings(unit="field", aggregate="mean", level="cells", method="standardize")
    table = make_well_profiles(single(cells), fields, asked, fields, 0)
    assert len(table) == len(fields) and table[FIELD_KEY].equals(fields[FIELD_KEY])
    controls = table[table["Metadata_Control"] == "negative"].groupby("Metadata_Plate")[NAMES].mean()
    assert np.allclose(controls, 0, atol=1e-6)  # fields of one size: the mean over controls' cells is 0


def test_only_features_asked_for_are_used():
    cells, wells = plates_of_cells()
    asked = ProfileSettings(features=("*_F1", "Cells_F3"), normalise="training")
    assert feature_columns(make_well_profiles(single(cells), wells, asked, wells, 0)) == ["Cells_F1", "Cells_F3"]
    with pytest.raises(MorphobenchError, match="no feature is called 'Nuclei_"):
        make_well_profiles(single(cells), wells, ProfileSettings(features=("Nuclei_*",)), wells, 0)


def test_scaling_cells_takes_a_plates_gain_away_and_a_flat_feature_is_missing_on_its_plate():
    cells, wells = plates_of_cells(cells=400)
    control = wells.loc[wells["Metadata_Control"] == "negative", "Metadata_Well"]
    flat = (cells["Metadata_Plate"] == "P1") & cells["Metadata_Well"].isin(control)
    cells.loc[flat, "Cells_F3"] = 0.3
    asked = ProfileSettings(aggregate="mean", level="cells", method="ljosa")
    table = make_well_profiles(single(cells), wells, asked, wells, 0).set_index(WELL_KEY)
    plates = [table.loc[p, NAMES[:3]] for p in ("P0", "P1")]
    assert np.allclose(*plates, atol=0.1) and plates[0].to_numpy().max() > 1
    assert table.loc["P1", "Cells_F3"].isna().all() and table.loc["P0", "Cells_F3"].abs().max() < 2
    # with normalise: training no plate is looked at
    raw = make_well_profiles(single(cells), wells, asked.model_copy(update={"normalise": "training"}), wells, 0)
    assert raw.loc[raw["Metadata_Plate"] == "P1", "Cells_F0"].min() > 5


@pytest.mark.parametrize("aggregate", ["ks", "svm", "gmm", "factor_analysis"])
@pytest.mark.parametrize("reference", ["controls", "training"])
def test_profiles_that_refer_are_the_same_twice_and_hang_on_the_reference_alone(aggregate, reference):
    cells, wells = plates_of_cells(cells=60, features=6)
    asked = ProfileSettings(aggregate=aggregate, reference=reference, components=2, normalise="training")
    learnt = wells[wells["Metadata_Well"] != "A06"]
    one = make_well_profiles(single(cells), wells, asked, learnt, 3)
    pd.testing.assert_frame_equal(one, make_well_profiles(single(cells), wells, asked, learnt, 3), check_exact=True)
    assert len(one) == len(wells) and one.attrs["facts"]["reference"] == reference
    assert one[feature_columns(one)].notna().all(axis=None)
    # what is not referred to can be anything
    other = cells["Metadata_Well"] == "A06"
    changed = cells.copy()
    changed.loc[other, [c for c in cells if c.startswith("Cells_")]] *= -50
    two = make_well_profiles(single(changed), wells, asked, learnt, 3)
    same = one["Metadata_Well"] != "A06"
    pd.testing.assert_frame_equal(one[same], two[same], check_exact=True)
    assert not one[~same].equals(two[~same])


@pytest.mark.parametrize("aggregate", ["ks", "svm"])
def test_a_plate_without_control_cells_is_named_with_the_remedy(aggregate):
    cells, wells = plates_of_cells()
    wells.loc[wells["Metadata_Plate"] == "P1", "Metadata_Control"] = ""
    asked = ProfileSettings(aggregate=aggregate, normalise="training")
    with pytest.raises(MorphobenchError, match=r"plate P1.*reference to training") as caught:
        make_well_profiles(single(cells), wells, asked, wells, 0)
    assert "P0" not in str(caught.value)


def test_cells_of_other_plates_are_refused():
    cells, wells = plates_of_cells()
    wells["Metadata_Plate"] = "elsewhere"
    with pytest.raises(MorphobenchError, match="other plates"):
        make_well_profiles(single(cells), wells, RAW, wells, 0)
