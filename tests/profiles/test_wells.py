"""Profiles: aggregation, per-plate normalisation, selection on training rows alone."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from conftest import CHANNELS, field_rows
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmark.assays.fieldtable import make_assay
from benchmark.errors import MorphobenchError
from benchmark.profiles.settings import ProfileSettings
from benchmark.profiles.transformers import ProfileSelector
from benchmark.profiles.wells import cell_counts, feature_columns, make_profiles, without_cells
from benchmark.tables import FIELD_KEY, path_column, plane_column


def assay_and_cells(tmp_path, shift=0.0, controls=3, sites=2, cells=5):
    """An assay and single cells of two features; plate P1 has gain 3 and an offset."""
    table = field_rows(sites=sites, controls=controls)
    for c, channel in enumerate(CHANNELS):
        table[path_column(channel)] = [f"f{i}.tif" for i in range(len(table))]
        table[plane_column(channel)] = c
    assay = make_assay("paper", tmp_path, table, CHANNELS)
    rng = np.random.default_rng(0)
    rows = assay.fields.loc[assay.fields.index.repeat(cells), FIELD_KEY].reset_index(drop=True)
    effect = np.repeat((assay.fields["Metadata_Label"] == "label-1").to_numpy(float) * shift, cells)
    base = rng.normal(0, 1, len(rows)) + effect
    rows["Cells_A"] = np.where(rows["Metadata_Plate"] == "P1", 3 * base + 10, base)
    rows["Cells_B"] = rng.normal(0, 1, len(rows))
    return assay, rows


def test_a_well_is_the_median_of_its_cells(tmp_path):
    assay, cells = assay_and_cells(tmp_path)
    profiles = make_profiles(cells, assay, ProfileSettings(normalise="training"))
    assert len(profiles) == len(assay.wells)
    first = profiles.iloc[0]
    place = ["Metadata_Plate", "Metadata_Well"]
    own = cells[(cells[place] == first[place]).all(axis=1)]
    assert first["Cells_A"] == pytest.approx(own["Cells_A"].median())
    by_field = make_profiles(cells, assay, ProfileSettings(unit="field", aggregate="mean", normalise="training"))
    assert len(by_field) == len(assay.fields)
    assert by_field["Cells_B"].mean() == pytest.approx(cells["Cells_B"].mean())


def test_normalising_to_controls_takes_a_plates_gain_away(tmp_path):
    assay, cells = assay_and_cells(tmp_path, shift=8.0, controls=12, cells=30)
    profiles = make_profiles(cells, assay, ProfileSettings(method="standardize"))
    active = profiles[profiles["Metadata_Label"] == "label-1"].groupby("Metadata_Plate")["Cells_A"].mean()
    assert active["P0"] == pytest.approx(active["P1"], rel=0.5)
    controls = profiles[profiles["Metadata_Control"] == "negative"].groupby("Metadata_Plate")["Cells_A"]
    assert controls.mean().abs().max() < 1e-9
    assert np.allclose(controls.std(ddof=0), 1)


def test_a_feature_constant_over_a_plates_controls_is_missing_there_not_enormous(tmp_path):
    assay, cells = assay_and_cells(tmp_path, controls=4)
    wells = assay.wells.set_index(["Metadata_Plate", "Metadata_Well"])["Metadata_Control"]
    control = wells.loc[list(cells[["Metadata_Plate", "Metadata_Well"]].itertuples(index=False, name=None))].to_numpy()
    flat = (cells["Metadata_Plate"] == "P1") & (control == "negative")
    cells.loc[flat, "Cells_B"] = 0.5
    profiles = make_profiles(cells, assay, ProfileSettings(method="mad_robustize"))
    by_plate = profiles.groupby("Metadata_Plate")["Cells_B"]
    assert by_plate.get_group("P1").isna().all() and by_plate.get_group("P0").abs().max() < 100


def test_a_plate_without_controls_is_named(tmp_path):
    assay, cells = assay_and_cells(tmp_path, controls=0)
    with pytest.raises(MorphobenchError, match="plate P0"):
        make_profiles(cells, assay, ProfileSettings())


def test_wells_without_cells_are_found(tmp_path):
    assay, cells = assay_and_cells(tmp_path)
    well = assay.treated.iloc[0]["Metadata_Well"]
    cells = cells[~((cells["Metadata_Plate"] == "P0") & (cells["Metadata_Well"] == well))]
    profiles = make_profiles(cells, assay, ProfileSettings(normalise="training"))
    lost = without_cells(profiles, assay, "well")
    assert lost[["Metadata_Plate", "Metadata_Well"]].to_numpy().tolist() == [["P0", well]]


def test_counts_are_means_over_a_wells_fields(tmp_path):
    assay, _ = assay_and_cells(tmp_path)
    images = assay.fields[FIELD_KEY].assign(Count_Cells=np.arange(len(assay.fields)))
    table = cell_counts(images, assay, "well")
    assert len(table) == len(assay.wells) and feature_columns(table) == ["Count_Cells"]
    assert table["Count_Cells"].iloc[0] == pytest.approx(np.log1p(0.5))


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), scale=st.floats(-1e6, 1e6, allow_nan=False))
def test_selection_never_sees_the_rows_it_transforms(seed, scale):
    rng = np.random.default_rng(seed)
    train = pd.DataFrame(rng.normal(size=(30, 5)), columns=list("abcde"))
    train["copy"] = train["a"] * 2 + 1e-9
    train["flat"] = 1.0
    train["gap"] = np.where(np.arange(30) == 3, np.nan, 1.0 * np.arange(30))
    selector = ProfileSelector(0.9).fit(train)
    assert "flat" not in selector.columns_ and "gap" not in selector.columns_
    assert len({"a", "copy"} & set(selector.columns_)) == 1
    test = pd.DataFrame(scale, index=range(4), columns=train.columns)
    before = list(selector.columns_)
    out = selector.transform(test)
    assert list(selector.columns_) == before and np.allclose(out, scale)


def test_missing_values_of_new_rows_become_the_training_median():
    train = pd.DataFrame({"a": [1.0, 2.0, 9.0, 4.0], "b": [0.0, 5.0, 1.0, 7.0]})
    selector = ProfileSelector().fit(train)
    out = selector.transform(pd.DataFrame({"a": [np.nan], "b": [3.0]}))
    assert out.tolist() == [[3.0, 3.0]]
