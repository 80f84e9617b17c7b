"""The nearest treatment: cosine over treatments of other compounds."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist
from sklearn.neighbors import KNeighborsClassifier

from benchmark.base.errors import LeakError, MorphobenchError
from benchmark.methods.classifiers.nearest import nearest_treatment
from benchmark.profiles.averages import treatment_medians


def wells(rows: list[tuple[str, float, str, tuple[float, ...]]]) -> pd.DataFrame:
    table = pd.DataFrame([(c, k, "", label) for c, k, label, _ in rows],
                         columns=["Metadata_Compound", "Metadata_Concentration", "Metadata_CellLine", "Metadata_Label"])
    values = np.array([v for *_, v in rows], float).reshape(len(rows), -1)
    return pd.concat([table, pd.DataFrame(values, columns=[f"f{i}" for i in range(values.shape[1])])], axis=1)


TRAIN = wells([("a", 1, "x", (1, 0)), ("a", 1, "x", (3, 0)), ("a", 1, "x", (2, 9)), ("a", 10, "x", (1, 1)),
               ("b", 1, "y", (0, 1))])


def test_treatments_are_medians_of_their_wells_and_the_nearest_gives_its_label():
    found = nearest_treatment(TRAIN, wells([("c", 1, "y", (2, 0.2)), ("c", 5, "y", (0.1, 5))]), ["x", "y", "z"])
    first, second = found.to_dict("records")
    # Well profiles of (a, 1) have the median (2, 0), by the mean (2, 3): the nearest would be (a, 10) then.
    assert (first["nearest_compound"], first["nearest_concentration"], first["predicted"]) == ("a", 1, "x")
    assert first["similarity"] == pytest.approx(2 / np.hypot(2, 0.2))
    assert first["true_similarity"] == pytest.approx(0.2 / np.hypot(2, 0.2))
    assert (second["predicted"], second["p_x"], second["p_y"], second["p_z"]) == ("y", 0, 1, 0)
    assert not found["tied"].any()


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 10**6))
def test_the_same_as_scipys_cosine_and_scikit_learns_neighbour(seed):
    rng = np.random.default_rng(seed)
    rows = [(f"c{i:02d}", 1.0, f"l{rng.integers(3)}", tuple(rng.normal(size=5))) for i in range(18)]
    train, test = wells(rows[:12]), wells(rows[12:])
    found = nearest_treatment(train, test, ["l0", "l1", "l2"])
    features = [f"f{i}" for i in range(5)]
    distance = cdist(test[features], train[features], "cosine")
    assert found["similarity"].to_numpy() == pytest.approx(1 - distance.min(axis=1))
    neighbour = KNeighborsClassifier(1, metric="cosine").fit(train[features], train["Metadata_Label"])
    assert found["predicted"].tolist() == neighbour.predict(test[features]).tolist()
    right = found["predicted"] == found["Metadata_Label"]
    assert (found.loc[right, "true_similarity"] == found.loc[right, "similarity"]).all()
    shuffled = nearest_treatment(train.sample(frac=1, random_state=0), test.sample(frac=1, random_state=1),
                                 ["l0", "l1", "l2"])
    pd.testing.assert_frame_equal(found, shuffled)
    scaled = nearest_treatment(train, test.assign(**(test[features] * 7.5)), ["l0", "l1", "l2"])
    assert scaled["predicted"].tolist() == found["predicted"].tolist()  # length does not matter


def test_predictions_do_not_depend_on_test_labels():
    test = wells([("c", 1, "y", (2, 0.2))])
    lied = test.assign(Metadata_Label="x")
    columns = ["nearest_compound", "similarity", "predicted", "p_x", "p_y"]
    pd.testing.assert_frame_equal(nearest_treatment(TRAIN, test, ["x", "y"])[columns],
                                  nearest_treatment(TRAIN, lied, ["x", "y"])[columns])


def test_a_tie_goes_to_the_first_in_order_and_is_flagged():
    train = wells([("b", 1, "y", (0, 2)), ("a", 5, "x", (0, 3)), ("a", 1, "x", (1, 0))])
    found = nearest_treatment(train, wells([("c", 1, "y", (0, 1))]), ["x", "y"])
    assert found[["nearest_compound", "nearest_concentration", "predicted", "tied"]].iloc[0].tolist() == ["a", 5, "x",
                                                                                                         True]


def test_a_shared_compound_is_a_leak():
    with pytest.raises(LeakError, match="compound 'a' is in both"):
        nearest_treatment(TRAIN, wells([("a", 3, "x", (1, 0))]), ["x", "y"])


def test_what_has_no_direction_or_no_place_is_named():
    one = wells([("c", 0.3, "y", (1, 0))])
    cases = {
        r"treatment c at 0.3 µM: .*all zeros": (TRAIN, wells([("c", 0.3, "y", (0, 0))])),
        r"treatment b at 1 µM: .*lacks values": (TRAIN.mask(TRAIN == "b").fillna("b").assign(f0=[1, 2, 3, 4, np.nan]),
                                                 one),
        "several labels": (TRAIN, wells([("c", 1, "y", (1, 0)), ("c", 1, "x", (1, 0))])),
        "different features": (TRAIN, one.rename(columns={"f0": "g"})),
        "no training well": (TRAIN.iloc[:0], one),
    }
    for message, (train, test) in cases.items():
        with pytest.raises(MorphobenchError, match=message):
            nearest_treatment(train, test, ["x", "y"])
    with pytest.raises(MorphobenchError, match="'y' is not among"):
        nearest_treatment(TRAIN[TRAIN["Metadata_Label"] == "y"], one, ["x"])


def test_training_wells_of_permuted_labels_are_profiles_of_their_own():
    table = wells([("a", 1, "x", (1, 0)), ("a", 1, "y", (0, 1))])
    assert treatment_medians(table)["Metadata_Label"].tolist() == ["x", "y"]
    found = nearest_treatment(table, wells([("c", 1, "", (0, 1))]), ["x", "y"])  # a dose series has no label
    assert found["predicted"].item() == "y" and np.isnan(found["true_similarity"].item())
