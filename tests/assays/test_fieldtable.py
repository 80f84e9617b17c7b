"""The field table's checks: each fault is found, named by row or well, and none hides another."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmark.assays.fieldtable import field_table_faults, lone_labels, make_assay
from benchmark.base.errors import FaultsError
from benchmark.base.tables import (
    BATCH,
    COMPOUND,
    CONCENTRATION,
    CONTROL,
    FIELD_KEY,
    LABEL,
    PLATE,
    SITE,
    WELL,
    path_column,
    plane_column,
)


def sound(n_compounds=4, sites=2):
    rows = []
    for c in range(n_compounds + 1):
        for site in range(1, sites + 1):
            rows.append({
                BATCH: "1", PLATE: "P", WELL: f"A{c:02d}", SITE: site, "Metadata_Replicate": 1,
                COMPOUND: f"c{c}" if c else "DMSO", CONCENTRATION: float(c), LABEL: "xy"[c % 2] if c else "",
                CONTROL: "" if c else "negative", path_column("DNA"): f"{c}_{site}.tif", plane_column("DNA"): 0})
    return pd.DataFrame(rows)


def test_a_sound_table_has_no_faults():
    assert field_table_faults(sound(), ["DNA"]) == []


@pytest.mark.parametrize(("row", "column", "value", "message"), [
    (4, WELL, " ", "Metadata_Well is empty"),
    (4, COMPOUND, "", "Metadata_Compound is empty"),
    (4, CONCENTRATION, np.nan, "not a number"),
    (4, CONCENTRATION, -1.0, "at least 0"),
    (4, CONTROL, "dmso", "not one of"),
    (4, LABEL, "", "is empty and the well is no control"),
    (4, SITE, 2, "twice"),
    (4, path_column("DNA"), "1_1.tif", "same image planes"),
    (4, LABEL, "z", "the well's rows disagree on Metadata_Label"),
    (4, LABEL, "z", "compound has several labels"),
    (4, COMPOUND, "other", "the well's rows disagree on Metadata_Compound"),
    (4, BATCH, "2", "several batches"),
])
def test_each_fault_is_found(row, column, value, message):
    table = sound()
    table.loc[row, column] = value
    texts = [str(f) for f in field_table_faults(table, ["DNA"])]
    assert any(message in t for t in texts), texts
    assert all(f"row {row + 2}" in t or "A02" in t or "c2" in t or "plate P" in t for t in texts)


def test_faults_do_not_hide_one_another():
    table = sound()
    table.loc[2, CONCENTRATION] = -1.0
    table.loc[5, SITE] = 1
    table.loc[8, CONTROL] = "what"
    texts = " ".join(str(f) for f in field_table_faults(table, ["DNA", "not a word"][:1]))
    assert all(f"row {i + 2}" in texts for i in (2, 5, 8))


def test_missing_columns_and_empty_tables_and_odd_channels():
    fault, = field_table_faults(sound().drop(columns=[LABEL, PLATE]), ["DNA"])
    assert LABEL in fault.what and PLATE in fault.what
    fault, = field_table_faults(sound().iloc[:0], ["DNA"])
    assert "no rows" in fault.what
    table = sound().rename(columns={"Path_DNA": "Path_D NA", "Plane_DNA": "Plane_D NA"})
    assert any("plain word" in f.what for f in field_table_faults(table, ["D NA"]))


def test_lone_labels_are_refused_or_left_out():
    table = sound(3)  # y: c1 and c3; x: c2 alone
    assert lone_labels(table) == {"x": "c2"}
    with pytest.raises(FaultsError, match=r"'x' has a single compound \(c2\)"):
        make_assay("a", ".", table, ["DNA"])
    assay = make_assay("a", ".", table, ["DNA"], single_compound_labels="leave_out")
    assert assay.labels == ["y"] and "c2" not in set(assay.fields[COMPOUND])
    assert "DMSO" in set(assay.fields[COMPOUND])
    fault, = assay.left_out
    assert "c2" in str(fault)


def test_controls_are_not_scored():
    table = sound()
    table.loc[table[COMPOUND] == "DMSO", LABEL] = "DMSO"
    assay = make_assay("a", ".", table, ["DNA"])
    assert assay.labels == ["x", "y"] and "DMSO" not in set(assay.treated[COMPOUND])
    assert len(assay.wells) == 5


@settings(max_examples=25, deadline=None)
@given(st.randoms(use_true_random=False))
def test_order_of_rows_does_not_matter(random):
    table = sound()
    order = list(table.index)
    random.shuffle(order)
    mixed = make_assay("a", ".", table.loc[order].reset_index(drop=True), ["DNA"]).fields
    pd.testing.assert_frame_equal(mixed, make_assay("a", ".", table, ["DNA"]).fields)
    assert not mixed.duplicated(FIELD_KEY).any()


@pytest.mark.parametrize(("column", "other"), [(COMPOUND, "C2"), (COMPOUND, "c2 "), (LABEL, "X"), (PLATE, "p"),
                                               (BATCH, "\uff11")])
def test_one_thing_in_two_spellings_is_refused(column, other):
    """A compound in two spellings would be tested by what was trained on it, batches be left out by halves."""
    table = sound()
    rows = table[WELL] == "A04"
    table.loc[rows, column] = other
    texts = [str(f) for f in field_table_faults(table, ["DNA"])]
    assert any(f"{column} is spelt in 2 ways" in t and repr(other) in t for t in texts)


def test_things_that_differ_are_no_spellings_of_one_another():
    table = sound()
    table[COMPOUND] = table[COMPOUND].replace({"c1": "AB-1", "c2": "AB1", "c3": "AB-11", "c4": "α-1"})
    assert field_table_faults(table, ["DNA"]) == []
