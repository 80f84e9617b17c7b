"""A well's cells against reference cells: Kolmogorov-Smirnov statistics, and the SVM's normal vector."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from plates import plates_of_cells, single
from scipy.stats import ks_2samp
from sklearn.svm import SVC

from benchmark.base.errors import MorphobenchError
from benchmark.base.tables import WELL_KEY
from benchmark.profiles.against import (
    KolmogorovSmirnov,
    SvmNormal,
    draw_reference,
    eliminate,
    halvings,
    normal_vector,
    signed_ks,
)


def scipys(reference, well):
    """Signed statistic of one feature by scipy."""
    found = ks_2samp(reference[np.isfinite(reference)], well[np.isfinite(well)])
    return found.statistic * found.statistic_sign


@pytest.mark.filterwarnings("ignore::RuntimeWarning:scipy")  # of its p-values
@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 10_000), m=st.integers(1, 25), n=st.integers(2, 40), left=st.integers(0, 20),
       ties=st.booleans(), gaps=st.booleans())
def test_the_statistic_is_scipys_with_ties_and_gaps(seed, m, n, left, ties, gaps):
    rng = np.random.default_rng(seed)
    well, reference = rng.normal(0.3, 1.5, (m, 3)), rng.normal(size=(n, 3))
    if ties:
        well, reference = np.round(well), np.round(reference)
    if gaps and m > 2:
        well[rng.integers(1, m), 0] = np.nan
        reference[rng.integers(n - 1), 0] = np.nan
    well, reference = well.astype(np.float32), reference.astype(np.float32)
    left = min(left, n - 1)
    rest = reference[left:]
    if not np.isfinite(rest).any(axis=0).all():
        return
    found = signed_ks(well, np.sort(reference.T, axis=1), reference[:left])
    assert np.allclose(found, [scipys(rest[:, j], well[:, j]) for j in range(3)], atol=1e-12)


def test_a_known_statistic():
    # three of four values above all of the reference: 0.75, positive as the well is larger
    well, reference = np.array([[0.5], [5], [6], [7]]), np.array([[0.0, 1.0, 2.0]])
    assert signed_ks(well, reference)[0] == pytest.approx(0.75)
    assert signed_ks(-well, -reference[:, ::-1])[0] == pytest.approx(-0.75)
    assert np.isnan(signed_ks(np.full((2, 1), np.nan), reference)[0])


def test_a_plates_wells_are_set_against_its_own_controls_without_their_own_cells():
    cells, wells = plates_of_cells(features=3)
    table = KolmogorovSmirnov().fit(single(cells), wells).transform(single(cells), wells).set_index(WELL_KEY)
    for plate, well in [("P0", "A05"), ("P1", "A01"), ("P1", "A06")]:
        here = cells[cells["Metadata_Plate"] == plate]
        controls = here[here["Metadata_Well"].isin(["A01", "A02", "A03"]) & (here["Metadata_Well"] != well)]
        own = here[here["Metadata_Well"] == well]
        for name in ("Cells_F0", "Cells_F1", "Cells_F2"):
            assert table.loc[(plate, well), name] == pytest.approx(
                scipys(controls[name].to_numpy(), own[name].to_numpy()), abs=1e-12)
    assert table.loc[("P0", "A04"), "Cells_F0"] > 0.7  # the treated well is shifted upwards


def test_the_only_control_well_of_a_plate_does_not_differ_from_itself():
    cells, wells = plates_of_cells(controls=1)
    for kind in (KolmogorovSmirnov(), SvmNormal()):
        table = kind.fit(single(cells), wells).transform(single(cells), wells).set_index(WELL_KEY)
        assert (table.loc[("P0", "A01")] == 0).all() and (table.loc[("P0", "A02")] != 0).any()


def test_reference_cells_are_named_after_their_wells_and_too_few_are_refused():
    cells, wells = plates_of_cells(cells=20)
    drawn = draw_reference(single(cells), wells.iloc[[3, 0]], ["Cells_F1"], 0)
    own = cells[(cells["Metadata_Plate"] == "P0") & (cells["Metadata_Well"] == "A04")]["Cells_F1"]
    assert np.array_equal(drawn.values[drawn.own("P0", "A04"), 0], own) and len(drawn.values) == 40
    assert not drawn.own("P1", "A04").any()
    few = cells.groupby(WELL_KEY).head(4)
    with pytest.raises(MorphobenchError, match="4 reference cells"):
        KolmogorovSmirnov("training").fit(single(few), wells.iloc[:1])


def test_the_normal_points_at_what_differs_and_leaves_out_what_does_not():
    cells, wells = plates_of_cells(features=40, cells=150, shift=2.5)
    table = SvmNormal().fit(single(cells), wells).transform(single(cells), wells).set_index(WELL_KEY)
    for plate in ("P0", "P1"):  # the plate's gain and offset are taken away by its reference
        for k in range(3):
            vector = table.loc[(plate, f"A{k + 4:02d}")].to_numpy()
            assert np.linalg.norm(vector) == pytest.approx(1)
            assert vector.argmax() == k and vector[k] > 0.8 and (vector == 0).sum() >= 20


def test_without_elimination_the_normal_is_that_of_libsvm():
    rng = np.random.default_rng(0)
    y = np.repeat([1, 0], [60, 60])
    x = rng.normal(size=(120, 2)) + np.outer(y, [2.0, -2.0])
    _, svm = next(eliminate(x, y, [2]))
    theirs = SVC(kernel="linear").fit(x, y).coef_[0]
    ours = svm.coef_[0]
    assert ours @ theirs / np.linalg.norm(ours) / np.linalg.norm(theirs) > 0.98


def test_elimination_keeps_the_features_of_largest_weight():
    rng = np.random.default_rng(1)
    y = np.repeat([1, 0], 100)
    x = rng.normal(size=(200, 9))
    x[:, 4] += 4 * y
    sizes = halvings(9)
    assert sizes == [9, 5, 3, 2, 1]
    kept = [k for k, _ in eliminate(x, y, sizes)]
    assert [len(k) for k in kept] == sizes and kept[-1].tolist() == [4]
    assert all(set(b) <= set(a) for a, b in pairwise(kept))
    assert np.flatnonzero(normal_vector(x, y, 0)).tolist() == [4]


def test_a_well_of_one_cell_has_a_normal_and_flat_features_are_missing():
    cells, wells = plates_of_cells()
    cells = cells[~((cells["Metadata_Well"] == "A04") & (cells.groupby(WELL_KEY).cumcount() > 0))]
    control = cells["Metadata_Well"].isin(["A01", "A02", "A03"]) & (cells["Metadata_Plate"] == "P0")
    cells.loc[control, "Cells_F2"] = 4.0
    table = SvmNormal().fit(single(cells), wells).transform(single(cells), wells).set_index(WELL_KEY)
    assert table.loc["P0", "Cells_F2"].isna().all() and table.loc["P1"].notna().all(axis=None)
    assert np.isfinite(table.loc[("P0", "A04"), ["Cells_F0", "Cells_F1", "Cells_F3"]].to_numpy()).all()


def test_a_wells_profile_does_not_hang_on_which_wells_are_asked_for():
    cells, wells = plates_of_cells(cells=60, features=10)
    for kind in (KolmogorovSmirnov("training"), SvmNormal("training", most=30)):
        fitted = kind.fit(single(cells), wells)
        whole = fitted.transform(single(cells), wells)
        alone = fitted.transform(single(cells), wells.iloc[[7]])
        assert whole[7:8].reset_index(drop=True).equals(alone)
