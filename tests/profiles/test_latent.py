"""Shares of a Gaussian mixture, and means of latent factors."""

from __future__ import annotations

import numpy as np
import pytest
from plates import plates_of_cells, single
from sklearn.decomposition import FactorAnalysis

from benchmark.base.errors import MorphobenchError
from benchmark.profiles import latent
from benchmark.profiles.latent import FactorMeans, MixtureCounts, fit_factors, independent_features, reference_cells
from benchmark.profiles.wells import feature_columns

NAMES = [f"Cells_F{i}" for i in range(4)]


def test_shares_are_those_of_the_populations():
    """Two far populations in known shares, as in Slack et al. 2008."""
    cells, wells = plates_of_cells(plates=1, controls=2, treated=2, cells=500, shift=0)
    rng = np.random.default_rng(0)
    shares = {"A01": 0.5, "A02": 0.5, "A03": 0.9, "A04": 0.2}
    first = rng.permutation(500)[None].repeat(4, 0).ravel() < cells["Metadata_Well"].map(shares) * 500
    cells.loc[first, NAMES] += 30
    made = MixtureCounts(2).fit(single(cells), wells)
    table = made.transform(single(cells), wells).set_index("Metadata_Well")
    names = feature_columns(table)
    assert names == ["Mixture_001", "Mixture_002"] and np.allclose(table[names].sum(axis=1), 1)
    found = table[names].to_numpy()
    expected = np.array([[s, 1 - s] for s in shares.values()])
    assert np.allclose(found, expected, atol=1e-3) or np.allclose(found[:, ::-1], expected, atol=1e-3)
    assert made.facts_["components"] == 2 and made.facts_["converged"]


def test_components_and_factors_are_capped_openly():
    cells, wells = plates_of_cells(cells=10, features=6)
    mixture = MixtureCounts(25).fit(single(cells), wells)
    assert mixture.facts_["components asked for"] == 25 and mixture.facts_["components"] == 12  # 60 control cells
    factors = FactorMeans(50).fit(single(cells), wells)
    assert factors.facts_["factors asked for"] == 50 and factors.facts_["factors"] == 6
    assert feature_columns(factors.transform(single(cells), wells))[-1] == "Factor_006"
    assert MixtureCounts(50, "training").fit(single(cells), wells).facts_["reference cells"] == 120


def test_the_largest_component_is_the_first():
    cells, wells = plates_of_cells(plates=1, controls=3, cells=200, shift=8)
    table = MixtureCounts(3, "training").fit(single(cells), wells).transform(single(cells), wells)
    assert table["Mixture_001"].mean() > table["Mixture_003"].mean()


def correlated(n=800, features=12, factors=2, seed=0):
    """Cells of a factor model."""
    rng = np.random.default_rng(seed)
    loadings = rng.normal(size=(factors, features))
    x = rng.normal(size=(n, factors)) @ loadings + rng.normal(size=(n, features)) * 0.7
    return (x - x.mean(axis=0)) / x.std(axis=0)


def test_factors_of_a_covariance_are_those_of_the_cells():
    x = correlated()
    model, facts = fit_factors(np.cov(x.T, bias=True), 2, 0)
    theirs = FactorAnalysis(2, svd_method="lapack", tol=1e-6, max_iter=2000).fit(x)
    assert facts["converged"]
    assert np.allclose(model.get_covariance(), theirs.get_covariance(), atol=0.01)
    ours, scores = model.transform(x), theirs.transform(x)
    for k in range(2):
        assert abs(np.corrcoef(ours[:, k], scores[:, k])[0, 1]) > 0.999


def test_many_factors_are_fitted_as_well_as_by_the_exact_decomposition():
    rng = np.random.default_rng(3)
    x = rng.normal(size=(600, 60)) * np.geomspace(3, 0.05, 60) @ rng.normal(size=(60, 120))
    x += rng.normal(size=x.shape) * 0.2
    x = (x - x.mean(axis=0)) / x.std(axis=0)
    model, facts = fit_factors(np.cov(x.T, bias=True), 20, 0)
    theirs = FactorAnalysis(20, svd_method="lapack", tol=1e-3 * 600, max_iter=200).fit(x)
    assert facts["converged"] and facts["steps"] > 5
    assert model.score(x) == pytest.approx(theirs.score(x), abs=0.02)


def test_features_that_others_determine_are_left_out():
    x = correlated()
    x = np.column_stack([x, x[:, 0], (x[:, 1] + x[:, 2])])
    x = (x - x.mean(axis=0)) / x.std(axis=0)
    kept = independent_features(np.cov(x.T, bias=True))
    assert len(kept) == 12 and len({0, 12} & set(kept)) == 1 and len({1, 2, 13} & set(kept)) == 2


def test_a_wells_factors_are_the_means_of_its_cells_scores():
    cells, wells = plates_of_cells(cells=100)
    cells[NAMES] += cells[["Cells_F1"]].to_numpy() * np.array([[0.7, 0, 0.5, 0]], np.float32)
    cells["Cells_copy"] = cells["Cells_F0"] * 2
    cells["Cells_flat"] = np.float32(1.0)
    made = FactorMeans(2).fit(single(cells), wells)
    assert made.facts_["features used"] == 5 and made.facts_["independent features"] == 4
    table = made.transform(single(cells), wells)
    own = cells[(cells["Metadata_Plate"] == "P1") & (cells["Metadata_Well"] == "A05")]
    standard = made.scale_(own[list(made.features_)].to_numpy()) - made.centre_
    scores = made.model_.transform(standard[:, made.kept_]).mean(axis=0) * made.signs_
    row = table[(table["Metadata_Plate"] == "P1") & (table["Metadata_Well"] == "A05")].iloc[0]
    assert row[["Factor_001", "Factor_002"]].to_numpy(float) == pytest.approx(scores[made.order_])


def test_only_control_cells_are_fitted_on(monkeypatch):
    cells, wells = plates_of_cells()
    drawn = reference_cells(single(cells), wells, "controls", NAMES, 0, 1.0, 1, 10_000)
    controls = cells[cells["Metadata_Well"].isin(["A01", "A02", "A03"])]
    assert np.array_equal(drawn, controls[NAMES])
    few = reference_cells(single(cells), wells, "training", NAMES, 0, 0.1, 60, 10_000)
    assert len(few) == 60  # a tenth would be 48
    with pytest.raises(MorphobenchError, match="reference to training"):
        FactorMeans().fit(single(cells), wells.assign(Metadata_Control=""))
    monkeypatch.setattr(latent, "ROWS", 7)
    chunked = FactorMeans(2).fit(single(cells), wells).transform(single(cells), wells)
    monkeypatch.undo()
    whole = FactorMeans(2).fit(single(cells), wells).transform(single(cells), wells)
    assert np.allclose(chunked[feature_columns(chunked)], whole[feature_columns(whole)])


def test_missing_values_become_the_references_median_and_gappy_features_are_not_used():
    cells, wells = plates_of_cells(cells=100)
    cells.loc[cells.index[::10], "Cells_F0"] = np.nan
    cells.loc[cells.index[::50], "Cells_F1"] = np.nan
    made = MixtureCounts(2).fit(single(cells), wells)
    assert made.facts_["features used"] == 3
    assert made.transform(single(cells), wells).notna().all(axis=None)
    with pytest.raises(MorphobenchError, match="no feature varies"):
        FactorMeans(features=["Cells_F0"]).fit(single(cells), wells)
