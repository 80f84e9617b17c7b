"""Single cells scaled per plate."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from plates import plates_of_cells, single
from pycytominer.operations.transform import RobustMAD
from sklearn.preprocessing import StandardScaler

from benchmark.base.errors import MorphobenchError
from benchmark.profiles import scaling
from benchmark.profiles.scaling import CellScaler, Standardiser, centre_and_scale

NAMES = [f"Cells_F{i}" for i in range(4)]


def controls_of(cells, plate):
    """Control cells of a plate, float64."""
    chosen = cells["Metadata_Well"].isin(["A01", "A02", "A03"]) & (cells["Metadata_Plate"] == plate)
    return cells.loc[chosen, NAMES].astype(float)


def test_scalers_are_those_of_scikit_learn_pycytominer_and_numpy():
    rng = np.random.default_rng(0)
    values = rng.lognormal(size=(101, 3)) * [1, 1e3, 1e-3] + [0, 1e4, 0]
    standard = StandardScaler().fit(values)
    assert np.allclose(centre_and_scale(values, "standardize"), [standard.mean_, standard.scale_])
    robust = RobustMAD(epsilon=0).fit(pd.DataFrame(values))
    assert np.allclose(centre_and_scale(values, "mad_robustize"), [robust.median, robust.mad])
    low, high = np.percentile(values, [1, 99], axis=0)
    assert np.allclose(centre_and_scale(values, "ljosa"), [low, high - low])


@pytest.mark.parametrize("method", ["standardize", "mad_robustize", "ljosa"])
def test_what_has_no_spread_has_no_scale(method):
    third = np.full(50, np.float32(1 / 3), np.float32).astype(float)
    rounding = np.float32(1e4) * (1 + np.float32(1e-7) * np.tile([0, 1], 25))
    values = np.column_stack([third, rounding, np.full(50, np.nan), np.arange(50.0), np.r_[1e9, np.arange(49.0)]])
    values[3, 3] = np.nan
    _, scale = centre_and_scale(values, method)
    assert np.isnan(scale[:3]).all() and np.isfinite(scale[3:]).all()


def test_mostly_zeros_have_no_mad_but_a_standard_deviation():
    values = np.r_[np.zeros(40), np.ones(5)][:, None]
    assert np.isnan(centre_and_scale(values, "mad_robustize")[1]) and centre_and_scale(values, "standardize")[1] > 0


@pytest.mark.parametrize("samples", ["controls", "plate"])
def test_each_plate_is_scaled_by_its_own_cells_some_features_at_a_time(samples, monkeypatch):
    monkeypatch.setattr(scaling, "CHUNK", 500)  # one or two features at once
    cells, wells = plates_of_cells()
    scaled = CellScaler("ljosa", samples).fit(single(cells), wells).transform(single(cells))
    for plate in ("P0", "P1"):
        table = pd.concat(list(scaled.blocks(plate)), ignore_index=True)
        own = cells[cells["Metadata_Plate"] == plate]
        base = controls_of(cells, plate) if samples == "controls" else own[NAMES].astype(float)
        low, high = np.percentile(base, [1, 99], axis=0)
        assert np.allclose(table[NAMES], (own[NAMES].astype(float) - low) / (high - low), atol=1e-5)
        assert (table.dtypes[NAMES] == np.float32).all()
        assert table["Metadata_Well"].tolist() == own["Metadata_Well"].tolist()
    part = scaled.read([("P1", "A02")], columns=["Cells_F2"])
    both = pd.concat(list(scaled.blocks("P1", wells={"A02"})))
    assert np.array_equal(part["Cells_F2"], both["Cells_F2"])


def test_treated_cells_do_not_touch_the_scale_of_controls():
    cells, wells = plates_of_cells()
    changed = cells.copy()
    changed.loc[~changed["Metadata_Well"].isin(["A01", "A02", "A03"]), NAMES] = 1e6
    one, two = (CellScaler("mad_robustize").fit(single(c), wells).scales_ for c in (cells, changed))
    assert all(one[p].equals(two[p]) for p in ("P0", "P1"))


def test_plates_without_controls_are_named_and_unknown_plates_refused():
    cells, wells = plates_of_cells()
    bare = wells.assign(Metadata_Control=wells["Metadata_Control"].where(wells["Metadata_Plate"] == "P0", ""))
    with pytest.raises(MorphobenchError, match=r"plate P1.*normalise"):
        CellScaler().fit(single(cells), bare)
    half = CellScaler().fit(single(cells), wells[wells["Metadata_Plate"] == "P0"]).transform(single(cells))
    assert len(list(half.blocks("P0")))
    with pytest.raises(MorphobenchError, match="plate P1"):
        list(half.blocks("P1"))


def test_the_standardiser_fills_scales_and_cuts():
    rng = np.random.default_rng(0)
    reference = rng.normal(5, 2, (200, 3)).astype(np.float32)
    reference[:15, 1] = np.nan  # more than 5 %
    reference[:5, 2] = np.nan
    scale = Standardiser(reference)
    assert scale.used.tolist() == [True, False, True]
    mean, deviation = np.nanmean(reference, 0, dtype=float)[[0, 2]], np.nanstd(reference, 0, dtype=float)[[0, 2]]
    cells = np.array([[5.0, 0, 7], [1e9, 0, np.nan]], np.float32)
    median = np.nanmedian(reference[:, 2])
    expected = [[(5 - mean[0]) / deviation[0], (7 - mean[1]) / deviation[1]], [20, (median - mean[1]) / deviation[1]]]
    assert np.allclose(scale(cells), expected, atol=1e-6)
