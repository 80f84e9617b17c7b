"""Permuted labels are a fair control: as many of each, and nothing of the truth left in them."""

from __future__ import annotations

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmark.errors import MorphobenchError
from benchmark.methods.labels import permute_wells, with_labels


def wells(negatives: int, positives: int) -> pd.DataFrame:
    n = negatives + positives
    return pd.DataFrame({"Metadata_Plate": "P", "Metadata_Well": [f"A{i:02d}" for i in range(n)],
                         "Metadata_Compound": "c", "Metadata_Label": ["out"] * negatives + ["in"] * positives})


@settings(max_examples=30, deadline=None)
@given(negatives=st.integers(2, 12), positives=st.integers(2, 12), seed=st.integers(0, 50))
def test_wells_keep_their_frequencies_and_lose_their_labels(negatives, positives, seed):
    table = wells(negatives, positives)
    permuted = with_labels(table, permute_wells(table, seed))["Metadata_Label"]
    assert permuted.value_counts().to_dict() == table["Metadata_Label"].value_counts().to_dict()
    # As near to independence as whole wells allow: the number of true "in" that stay "in" is the expected one.
    kept = int(((table["Metadata_Label"] == "in") & (permuted == "in").to_numpy()).sum())
    assert abs(kept - positives**2 / (negatives + positives)) <= 1


def test_wells_that_are_not_named_keep_their_own_label():
    table = wells(4, 4)
    train = table.iloc[:6]
    labels = permute_wells(train, 1)
    assert set(labels) == {("P", w) for w in train["Metadata_Well"]}
    assert with_labels(table, labels)["Metadata_Label"].tolist()[6:] == ["in", "in"]
    assert with_labels(table, None) is table


def test_one_label_cannot_be_permuted():
    with pytest.raises(MorphobenchError, match="one only"):
        permute_wells(wells(3, 0), 1)
