"""Permuted labels are a fair control: as many of each, and nothing of the truth left in them."""

from __future__ import annotations

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmark.base.errors import MorphobenchError
from benchmark.methods.classifiers.labels import permute_labels, permute_wells, with_labels


def wells(negatives: int, positives: int) -> pd.DataFrame:
    n = negatives + positives
    return pd.DataFrame({"Metadata_Plate": "P", "Metadata_Well": [f"A{i:02d}" for i in range(n)],
                         "Metadata_Compound": "c", "Metadata_CellLine": "",
                         "Metadata_Label": ["out"] * negatives + ["in"] * positives})


@settings(max_examples=30, deadline=None)
@given(negatives=st.integers(2, 12), positives=st.integers(2, 12), seed=st.integers(0, 50))
def test_wells_keep_their_frequencies_and_lose_their_labels(negatives, positives, seed):
    table = wells(negatives, positives)
    permuted = with_labels(table, permute_wells(table, seed))["Metadata_Label"]
    assert permuted.value_counts().to_dict() == table["Metadata_Label"].value_counts().to_dict()
    # As near to independence as whole wells allow: the number of true "in" that stay "in" is the expected one.
    kept = int(((table["Metadata_Label"] == "in") & (permuted == "in").to_numpy()).sum())
    assert abs(kept - positives**2 / (negatives + positives)) <= 1


def test_wells_are_permuted_within_each_compound_and_cell_line():
    """Each fold trains and tests on as many of each label as before, whatever is held out."""
    parts = [wells(8, 4).assign(Metadata_Compound=c, Metadata_CellLine=line, Metadata_Plate=c + line)
             for c, line in (("x", ""), ("y", "a"), ("y", "b"))]
    table = pd.concat(parts, ignore_index=True)
    permuted = with_labels(table, permute_wells(table, 3))
    for part, rows in zip(parts, (permuted[permuted["Metadata_Plate"] == p["Metadata_Plate"][0]] for p in parts),
                          strict=True):
        assert rows["Metadata_Label"].value_counts().to_dict() == {"out": 8, "in": 4}
        assert (rows["Metadata_Label"].to_numpy() == part["Metadata_Label"].to_numpy()).sum() == 6  # of 12: by chance


def test_where_a_compound_has_one_label_wells_are_permuted_over_all():
    table = pd.concat([wells(0, 6).assign(Metadata_Plate="Q"), wells(6, 0).assign(Metadata_Compound="d")])
    permuted = with_labels(table, permute_wells(table, 1))["Metadata_Label"]
    assert (permuted.to_numpy() == table["Metadata_Label"].to_numpy()).sum() == 6


def test_wells_that_are_not_named_keep_their_own_label():
    table = wells(4, 4)
    train = table.iloc[:6]
    labels = permute_wells(train, 1)
    assert set(labels) == {("P", w) for w in train["Metadata_Well"]}
    assert with_labels(table, labels)["Metadata_Label"].tolist()[6:] == ["in", "in"]
    assert with_labels(table, None) is table


def test_one_label_cannot_be_permuted():
    with pytest.raises(MorphobenchError, match="there is only one"):
        permute_wells(wells(3, 0), 1)


@settings(max_examples=30, deadline=None)
@given(labels=st.integers(2, 8), compounds=st.integers(3, 6), seed=st.integers(0, 50))
def test_permuted_compounds_are_as_alike_as_chance_has_it(labels, compounds, seed):
    """As many of each label; those that shared one share another as often as any two, neither always nor never."""
    table = pd.DataFrame({"Metadata_Compound": [f"c{m}{i}" for m in range(labels) for i in range(compounds)],
                          "Metadata_Label": [f"l{m}" for m in range(labels) for _ in range(compounds)]})
    permuted = with_labels(table, permute_labels(table, seed))["Metadata_Label"]
    assert permuted.value_counts().to_dict() == table["Metadata_Label"].value_counts().to_dict()
    together = pd.crosstab(table["Metadata_Label"], permuted.to_numpy()).to_numpy()
    assert together.max(axis=1).min() < compounds  # not one label under another name each
    pairs = (together * (together - 1)).sum() / 2
    expected = labels * compounds * (compounds - 1) / 2 * (compounds - 1) / (labels * compounds - 1)
    assert abs(pairs - expected) <= max(1.5, 0.2 * expected)
