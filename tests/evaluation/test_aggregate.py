"""Reduction of crops to fields, wells and treatments."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmark.base.errors import MorphobenchError
from benchmark.base.tables import probability_columns
from benchmark.evaluation.aggregate import reduce_to

LABELS = ["A", "B", "C"]
P = probability_columns(LABELS)


def row(p, well="A01", site=1, crop=0, compound="x", concentration=1.0, label="A", plate="P1", **more):
    return {
        "Metadata_Batch": "b", "Metadata_Plate": plate, "Metadata_Well": well, "Metadata_Site": site,
        "Metadata_Compound": compound, "Metadata_Concentration": concentration, "Metadata_Label": label,
        "unit": "crop", "crop": crop, "method": "m", "fold": 0, "seed": 0, **dict(zip(P, p, strict=True)), **more,
    }  # fmt: skip


@st.composite
def crops(draw, least=1):
    """A prediction table of crops: up to 3 wells of 2 treatments, 2 fields, 3 crops; zeros are common."""
    rows = []
    for well in range(draw(st.integers(1, 3))):
        for site in range(draw(st.integers(1, 2))):
            for crop in range(draw(st.integers(least, 3))):
                p = np.array(draw(st.lists(st.integers(0, 3), min_size=3, max_size=3)), float)
                p = p / p.sum() if p.sum() else np.full(3, 1 / 3)
                rows.append(row(p, well=f"A{well:02d}", site=site, crop=crop, concentration=float(well % 2)))
    return pd.DataFrame(rows)


@given(crops(), st.sampled_from(["crop", "field", "well", "treatment"]), st.randoms(use_true_random=False))
@settings(max_examples=25, deadline=None)
def test_order_of_rows_does_not_matter_and_rows_sum_to_one(table, unit, random):
    order = list(range(len(table)))
    random.shuffle(order)
    reduced = reduce_to(table, unit)
    pd.testing.assert_frame_equal(reduced, reduce_to(table.iloc[order], unit))
    np.testing.assert_allclose(reduced[P].sum(axis=1), 1)
    assert (reduced["unit"] == unit).all()


@given(crops(), st.sampled_from(["field", "well", "treatment"]))
@settings(max_examples=15, deadline=None)
def test_reducing_twice_changes_nothing_and_wells_are_a_stop_on_the_way(table, unit):
    once = reduce_to(table, unit)
    np.testing.assert_allclose(reduce_to(once, unit)[P], once[P], atol=1e-12)
    if unit == "treatment":
        np.testing.assert_allclose(reduce_to(reduce_to(table, "well"), unit)[P], once[P], atol=1e-12)


@given(st.lists(st.floats(0.01, 1), min_size=3, max_size=3), st.sampled_from(["field", "well", "treatment"]))
@settings(max_examples=15, deadline=None)
def test_one_crop_is_its_own_treatment(p, unit):
    p = np.array(p) / np.sum(p)
    np.testing.assert_allclose(reduce_to(pd.DataFrame([row(p)]), unit)[P].to_numpy()[0], p)


def test_a_wells_median_is_over_all_its_crops_not_over_fields():
    # Field 1 has one crop, field 2 three: the median of field medians would be another number.
    table = pd.DataFrame([
        row([0.9, 0.1, 0.0], site=1),
        *(row([0.2, 0.8, 0.0], site=2, crop=i) for i in range(3)),
    ])
    np.testing.assert_allclose(reduce_to(table, "well")[P].to_numpy()[0], [0.2, 0.8, 0.0])


def test_a_treatments_median_is_over_wells_however_many_crops_they_have():
    # One well with 5 crops for B, two wells with a crop each for A: two wells of three say A.
    table = pd.DataFrame([
        *(row([0.1, 0.9, 0.0], well="A01", crop=i) for i in range(5)),
        row([0.8, 0.2, 0.0], well="A02"),
        row([0.7, 0.3, 0.0], well="A03"),
    ])
    reduced = reduce_to(table, "treatment")
    np.testing.assert_allclose(reduced[P].to_numpy()[0], [0.7, 0.3, 0.0])
    assert reduced["predicted"].tolist() == ["A"] and reduced["correct"].tolist() == [True]


def test_medians_are_scaled_to_sum_to_one():
    table = pd.DataFrame([row([0.5, 0.5, 0], crop=0), row([0.5, 0, 0.5], crop=1), row([0, 0.5, 0.5], crop=2)])
    np.testing.assert_allclose(reduce_to(table, "well")[P].to_numpy()[0], [1 / 3] * 3)
    table = pd.DataFrame([row([0.6, 0.4, 0], crop=0), row([0.6, 0, 0.4], crop=1), row([0.6, 0.3, 0.1], crop=2)])
    np.testing.assert_allclose(reduce_to(table, "well")[P].to_numpy()[0], [0.6 / 1.0, 0.3, 0.1])


def test_where_all_medians_are_zero_the_mean_speaks():
    table = pd.DataFrame([row(p, crop=i) for i, p in enumerate(np.eye(3))])
    np.testing.assert_allclose(reduce_to(table, "field")[P].to_numpy()[0], [1 / 3] * 3)


def test_a_tie_takes_the_first_label_and_is_marked():
    reduced = reduce_to(pd.DataFrame([row([0.2, 0.4, 0.4])]), "treatment")
    assert reduced["predicted"].tolist() == ["B"] and reduced["tied"].tolist() == [True]
    assert not reduce_to(pd.DataFrame([row([0.2, 0.5, 0.3])]), "treatment")["tied"].any()


def test_a_method_that_predicts_wells_has_no_fields():
    table = pd.DataFrame([row([1, 0, 0])]).drop(columns=["Metadata_Site", "crop"]).assign(unit="well")
    assert reduce_to(table, "field") is None
    assert reduce_to(table, "crop") is None
    assert len(reduce_to(table, "well")) == 1


def test_same_well_name_on_two_plates_is_two_wells():
    table = pd.DataFrame([row([1, 0, 0], plate="P1"), row([0, 1, 0], plate="P2")])
    assert len(reduce_to(table, "well")) == 2 and len(reduce_to(table, "treatment")) == 1


def test_methods_and_seeds_are_kept_apart():
    table = pd.concat([pd.DataFrame([row([1, 0, 0], seed=s, method=m)]) for s in (0, 1) for m in "mn"])
    assert len(reduce_to(table, "treatment")) == 4


def test_what_cannot_be_reduced_is_refused():
    table = pd.DataFrame([row([1, 0, 0]), row([1, 0, 0], crop=1, label="B")])
    with pytest.raises(MorphobenchError, match="several true labels"):
        reduce_to(table, "treatment")
    with pytest.raises(MorphobenchError, match="kinds of unit"):
        reduce_to(pd.concat([table, table.assign(unit="well")]), "treatment")
    with pytest.raises(MorphobenchError, match="not one of"):
        reduce_to(table, "plate")
