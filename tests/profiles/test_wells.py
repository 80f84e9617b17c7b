"""Profiles of wells and fields: aggregation, per-plate normalisation, cells of units."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import CHANNELS, field_rows
from plates import plates_of_cells, single

from benchmark.assays.fieldtable import make_assay
from benchmark.base.errors import MorphobenchError
from benchmark.base.tables import FIELD_KEY, WELL_KEY, path_column, plane_column
from benchmark.cells.table import SingleCells
from benchmark.methods.workers.foldtable import normalised
from benchmark.profiles.aggregate import make_well_profiles
from benchmark.profiles.settings import ProfileSettings
from benchmark.profiles.wells import (
    cell_counts,
    check_references,
    count_cells,
    feature_columns,
    unit_cells,
    well_list,
    without_cells,
)


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


def profiles_of(cells, assay, settings):
    """Profiles as methods have them made: aggregated, then normalised per plate."""
    wells = assay.wells if settings.unit == "well" else assay.fields
    controls = assay.wells[assay.wells["Metadata_Control"] == "negative"]
    return normalised(make_well_profiles(SingleCells.of_frame(cells), wells, settings, controls, 0), settings)


def test_a_well_is_the_median_of_its_cells(tmp_path):
    assay, cells = assay_and_cells(tmp_path)
    profiles = profiles_of(cells, assay, ProfileSettings(normalise="training"))
    assert len(profiles) == len(assay.wells)
    first = profiles.iloc[0]
    place = ["Metadata_Plate", "Metadata_Well"]
    own = cells[(cells[place] == first[place]).all(axis=1)]
    assert first["Cells_A"] == pytest.approx(own["Cells_A"].median())
    by_field = profiles_of(cells, assay, ProfileSettings(unit="field", aggregate="mean", normalise="training"))
    assert len(by_field) == len(assay.fields)
    assert by_field["Cells_B"].mean() == pytest.approx(cells["Cells_B"].mean())


def test_normalising_to_controls_takes_a_plates_gain_away(tmp_path):
    assay, cells = assay_and_cells(tmp_path, shift=8.0, controls=12, cells=30)
    profiles = profiles_of(cells, assay, ProfileSettings(method="standardize"))
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
    profiles = profiles_of(cells, assay, ProfileSettings(method="mad_robustize"))
    by_plate = profiles.groupby("Metadata_Plate")["Cells_B"]
    assert np.isinf(by_plate.get_group("P1")).all() and by_plate.get_group("P0").abs().max() < 100


def test_a_plate_without_controls_is_named(tmp_path):
    assay, cells = assay_and_cells(tmp_path, controls=0)
    with pytest.raises(MorphobenchError, match="plate P0"):
        profiles_of(cells, assay, ProfileSettings())


def test_wells_without_cells_are_found(tmp_path):
    assay, cells = assay_and_cells(tmp_path)
    well = assay.treated.iloc[0]["Metadata_Well"]
    cells = cells[~((cells["Metadata_Plate"] == "P0") & (cells["Metadata_Well"] == well))]
    profiles = profiles_of(cells, assay, ProfileSettings(normalise="training"))
    lost = without_cells(profiles, assay.predicted, "well")
    assert lost[["Metadata_Plate", "Metadata_Well"]].to_numpy().tolist() == [["P0", well]]


def test_counts_are_means_over_a_wells_fields(tmp_path):
    assay, _ = assay_and_cells(tmp_path)
    images = assay.fields[FIELD_KEY].assign(Count_Cells=np.arange(len(assay.fields)))
    table = cell_counts(images, assay.fields, "well")
    assert len(table) == len(assay.wells) and feature_columns(table) == ["Count_Cells"]
    assert table["Count_Cells"].iloc[0] == pytest.approx(np.log1p(0.5))


@pytest.mark.parametrize("key", [WELL_KEY, FIELD_KEY])
def test_cells_of_units_come_whole_and_without_what_is_not_finite(key):
    cells, wells = plates_of_cells(features=2)
    cells.loc[7, "Cells_F1"] = -np.inf
    asked = wells[wells["Metadata_Well"] != "A03"]
    found = dict(unit_cells(single(cells), asked, ["Cells_F1"], key))
    groups = cells[cells["Metadata_Well"] != "A03"].replace(-np.inf, np.nan).groupby(key)["Cells_F1"]
    assert set(found) == set(groups.groups)
    for unit, values in groups:
        assert found[unit].dtype == np.float32 and np.array_equal(found[unit][:, 0], values, equal_nan=True)
    assert np.isinf(cells.loc[7, "Cells_F1"])  # what was given is left as it is


def test_plates_with_too_few_reference_cells_are_all_named():
    cells, wells = plates_of_cells(plates=3, cells=4)
    assert count_cells(single(cells), well_list(wells[:3])) == 12
    reference = wells[(wells["Metadata_Plate"] == "P2") | (wells["Metadata_Well"] == "A01")]
    with pytest.raises(MorphobenchError, match=r"plate P0, P1: .*P0: 4, P1: 4\)") as caught:
        check_references(single(cells), ["P1", "P2", "P0"], reference, "Do that.")
    assert "Do that." in str(caught.value)
    check_references(single(cells), ["P2"], reference, "")
