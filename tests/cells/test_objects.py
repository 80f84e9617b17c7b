"""Which columns are features, and how tables of objects join."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmark.cells.objects import BOOKKEEPING, BOOKKEEPING_COLUMN, base_object, join_objects, partners


def table(images, numbers, **parents):
    return pd.DataFrame({"ImageNumber": images, "ObjectNumber": numbers, **parents})


NUCLEI = table([1, 1, 2], [1, 2, 1])
CELLS = table([1, 1, 2], [1, 2, 1], Parent_Nuclei=[2, 1, 1])
CYTOPLASM = table([2, 1, 1], [1, 1, 2], Parent_Cells=[1, 1, 2], Parent_Nuclei=[1, 2, 1])


@pytest.mark.parametrize(("column", "place"), [
    ("ImageNumber", True), ("TableNumber", True), ("Location_Center_X", True), ("Parent_Nuclei", True),
    ("Children_Cells_Count", True), ("Number_Object_Number", True), ("AreaShape_Center_X", True),
    ("AreaShape_BoundingBoxMinimum_X", True), ("Neighbors_FirstClosestObjectNumber_Adjacent", True),
    ("Mean_Speckles_Location_Center_X", True), ("Mean_Speckles_AreaShape_Center_Y", True),
    ("Mean_Speckles_Number_Object_Number", True), ("TrackObjects_Label_50", True), ("Metadata_Well", True),
    ("FileName_DNA", True), ("AreaShape_Area", False), ("Mean_Speckles_AreaShape_Area", False),
    ("Neighbors_NumberOfNeighbors_Adjacent", False), ("AreaShape_EulerNumber", False),
    ("RadialDistribution_MeanFrac_DNA_1of4", False), ("Intensity_MeanIntensity_Number", False),
])
def test_where_and_which_is_no_feature(column, place):
    assert (BOOKKEEPING.fullmatch(column) is not None) == place
    assert (BOOKKEEPING_COLUMN.fullmatch(f"Cells_{column}") is not None) == place


def test_the_base_under_usual_and_any_names():
    assert base_object({}) is None
    assert base_object({"Worms": pd.DataFrame()}) == "Worms"
    assert base_object({"Spots": NUCLEI, "Nuclei": NUCLEI}) == "Nuclei"
    assert base_object({"Nuclei": NUCLEI, "Cells": CELLS, "Cytoplasm": CYTOPLASM}) == "Cells"
    # Every pair of the three pairs off: the middle one stands for the cell, whatever it is called.
    for nuclei, cells, cytoplasm in (("Kerne", "Zellen", "Plasma"), ("a", "z", "m"), ("z", "m", "a")):
        renamed = {
            nuclei: NUCLEI, cells: CELLS.rename(columns={"Parent_Nuclei": f"Parent_{nuclei}"}),
            cytoplasm: CYTOPLASM.rename(columns={"Parent_Nuclei": f"Parent_{nuclei}",
                                                 "Parent_Cells": f"Parent_{cells}"}),
        }
        assert base_object(renamed) == cells
    # Speckles pair off with nothing, so they cannot be the base, though first by name.
    speckles = table([1, 1, 1], [1, 2, 3], Parent_b=[1, 1, 2])
    assert base_object({"A": speckles, "b": NUCLEI, "c": table([1, 1], [1, 2], Parent_b=[1, 2])}) == "b"


def test_partners_either_way_round():
    assert partners(CELLS, NUCLEI, "Nuclei", "Cells").tolist() == [1, 0, 2]
    assert partners(CELLS, CYTOPLASM, "Cytoplasm", "Cells").tolist() == [1, 2, 0]
    assert partners(NUCLEI, CELLS, "Cells", "Nuclei").tolist() == [1, 0, 2]


def test_without_parent_without_partner():
    lone = table([1, 1, 1], [1, 2, 3], Parent_Nuclei=[0, 2, 0])
    assert partners(lone, NUCLEI, "Nuclei", "Cells").tolist() == [-1, 1, -1]
    missing = table([1, 1], [1, 2], Parent_Cells=[np.nan, 2])
    assert partners(CELLS, missing, "Cytoplasm", "Cells").tolist() == [-1, 1, -1]
    assert partners(CELLS, NUCLEI.iloc[:0], "Nuclei", "Cells").tolist() == [-1, -1, -1]


def test_who_does_not_pair_off_is_left_out():
    speckles = table([1, 1, 2], [1, 2, 1], Parent_Cells=[1, 1, 1])
    two_in_one = table([1, 1, 2], [1, 2, 1], Parent_Nuclei=[1, 1, 1])
    assert partners(two_in_one, NUCLEI, "Nuclei", "Cells") is None
    rows, left_out = join_objects({"Nuclei": NUCLEI, "Cells": CELLS, "Speckles": speckles, "Strays": NUCLEI}, "Cells")
    assert list(rows) == ["Nuclei"] and left_out == ["Speckles", "Strays"]


@given(st.lists(st.tuples(st.integers(1, 3), st.integers(1, 6)), unique=True, max_size=12), st.randoms())
def test_partners_are_what_a_merge_finds(keys, random):
    """Each cell has a partner of its own or none; against pandas' merge."""
    shuffled = random.sample(keys, len(keys))
    cells = pd.DataFrame(keys, columns=["ImageNumber", "ObjectNumber"], dtype=np.int64)
    others = pd.DataFrame(shuffled[:len(keys) // 2], columns=["ImageNumber", "Parent_Cells"], dtype=np.int64)
    others["ObjectNumber"] = np.arange(1, len(others) + 1)
    found = partners(cells, others, "Others", "Cells")
    merged = cells.merge(others.assign(row=np.arange(len(others))), how="left",
                         left_on=["ImageNumber", "ObjectNumber"], right_on=["ImageNumber", "Parent_Cells"])
    assert found.tolist() == merged["row"].fillna(-1).astype(int).tolist()


@pytest.mark.parametrize("column", ["Cells_Big_Location_Center_X", "Filtered_Nuclei_Number_Object_Number",
                                    "Filtered_Nuclei_Parent_Cells"])
def test_positions_and_numbers_are_no_features_where_an_objects_name_has_an_underscore(column):
    assert BOOKKEEPING_COLUMN.fullmatch(column)
    assert not BOOKKEEPING_COLUMN.fullmatch("Filtered_Nuclei_AreaShape_Area")
