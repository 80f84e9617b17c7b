"""What is no fault and may not be meant is said."""

import pytest
from test_fieldtable import sound

from benchmark.assays.fieldtable import make_assay
from benchmark.assays.places import Origin
from benchmark.assays.remarks import remarks, substance
from benchmark.base.tables import CELL_LINE, COMPOUND, CONCENTRATION, LABEL


def said(**names):
    """Notes on a sound table in which c1 … c4 have other names."""
    table = sound()
    table[COMPOUND] = table[COMPOUND].replace(names)
    return " | ".join(map(str, make_assay("a", ".", table, ["DNA"]).left_out))


@pytest.mark.parametrize(("name", "expected"), [
    ("BRD-K12345678-001-01-9", "BRD-K12345678"), ("BRD-K12345678", "BRD-K12345678"),
    ("NCGC00015052-05", "NCGC00015052"),
    ("taxol lot 3", "taxol"), ("taxol (batch B7)", "taxol"), ("50-00-0", "50-00-0"), ("AG-1478", "AG-1478"),
    ("JCP2022_000001", "JCP2022_000001"), ("cpd-1", "cpd-1"), ("pilot 1", "pilot 1"), ("9" * 10 ** 5, "9" * 10 ** 5),
])
def test_batches_at_the_end_of_a_name(name, expected):
    assert substance(name) == expected


def test_names_that_differ_in_a_batch_alone():
    text = said(c1="BRD-K12345678-001-01-9", c3="BRD-K12345678-001-02-7")
    assert "2 names in Metadata_Compound differ from another in a batch at their end alone" in text
    assert "on both sides of a fold" in text and "pattern: '^(BRD-.\\d{8}|.*)'" in text
    assert said() == ""


@pytest.mark.parametrize("name", ["untreated", "Empty", "DMSO_0.5", "dmso 0.1", "water"])
def test_wells_without_a_compound_that_are_scored(name):
    assert "is scored as treatment" in said(c1=name)


def test_names_that_only_begin_with_the_letters_of_a_control():
    assert said(c1="DMSOxane") == ""


def test_labels_that_say_nothing():
    table = sound()
    table[LABEL] = table[LABEL].replace({"x": "unknown", "y": "vehicle"})
    text = " | ".join(map(str, make_assay("a", ".", table, ["DNA"]).left_out))
    assert "the label 'unknown' of Metadata_Label is scored as a mechanism of 2 compounds" in text
    assert "the label 'vehicle'" in text


def test_gene_names_that_became_dates_and_cell_lines_that_lack():
    assert "'1-Mar', as a spreadsheet writes gene names" in said(c1="1-Mar")
    table = sound()
    table[CELL_LINE] = ["U2OS"] * 8 + [""] * 2
    assert "is empty in 2 of 10 rows" in str(make_assay("a", ".", table, ["DNA"]).left_out[0])


def test_names_of_one_label_that_differ_in_a_hyphen_that_one_lacks_are_a_warning():
    table = sound()
    table[COMPOUND] = table[COMPOUND].replace({"c1": "MG-132", "c3": "MG132"})  # of one label
    (note,) = make_assay("a", ".", table, ["DNA"]).left_out
    assert note.warns and "'MG-132' and 'MG132'" in note.what and "both sides of a fold" in note.what
    assert said(c1="PD-169316", c3="PD-169317") == "" == said(c1="AZ-A", c2="AZA")  # of two labels


@pytest.mark.parametrize(("column", "unit"), [("Conc_nM", "nM"), ("dose (mM)", "mM"), ("Dose_uM", ""), ("um", ""),
                                              ("Conc µg/ml", "µg/ml"), ("M", ""), ("Concentration", "")])
def test_units_other_than_micromolar_in_the_name_of_the_column_are_a_warning(column, unit):
    notes = remarks(sound(), Origin("a.csv", {CONCENTRATION: column}))
    assert [n.warns for n in notes] == [True] * bool(unit) and all(f"its name says {unit}" in n.what for n in notes)
