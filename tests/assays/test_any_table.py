"""Cells of a user's table that mean the same, nothing, or what nobody meant: refused, merged or left out in words.

Both kinds of assay whose tables are the user's own are given the same cells: fields of images, and profiles.
"""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmark.assays.profiles.profile_table import ProfileTableSettings, load_profile_table
from benchmark.assays.spelling import spellings, well_key
from benchmark.assays.table import TableAssaySettings, load_table
from benchmark.assays.words import is_missing
from benchmark.base.errors import FaultsError, MorphobenchError
from benchmark.base.tables import (
    BATCH,
    COMPOUND,
    CONCENTRATION,
    CONTROL,
    FIELD_KEY,
    LABEL,
    PLATE,
    TREATMENT_KEY,
    WELL,
    WELL_KEY,
)

COLUMNS = {"plate": "Barcode", "well": "Position", "compound": "Drug", "concentration": "Dose", "label": "MoA"}


def cells():
    """Six compounds of three labels and DMSO, twice on each of two plates."""
    rows = []
    for plate in ("P1", "P2"):
        for i in range(16):
            c = i // 2 if i < 12 else None
            rows.append((plate, f"{'AB'[i // 8]}{i % 8 + 1:02d}", "DMSO" if c is None else f"cpd-{'abcdef'[c]}",
                         "" if c is None else "1", "" if c is None else f"MOA{c // 2}", str(len(rows))))
    return pd.DataFrame(rows, columns=["Barcode", "Position", "Drug", "Dose", "MoA", "Name"])


def load_images(table, folder, **changes):
    table.to_csv(folder / "plan.csv", index=False)
    options = {"csv": "plan.csv", "columns": COLUMNS, "channels": {"DNA": {"file": "{Name}.tif"}},
               "negative_controls": ["DMSO"], **changes}
    return load_table(TableAssaySettings(**options), "mine", folder)


def load_profiles(table, folder, **changes):
    rng = np.random.default_rng(0)
    table = table.assign(Cells_AreaShape_Area=rng.normal(size=len(table)), Nuclei_Texture_X=rng.normal(size=len(table)))
    table.to_csv(folder / "plan.csv", index=False)
    options = {"profiles": "plan.csv", "columns": COLUMNS, "negative_controls": ["DMSO"], **changes}
    return load_profile_table(ProfileTableSettings(**options), "mine", folder)


def said(assay):
    return "\n".join(map(str, assay.left_out))


@pytest.fixture(params=[load_images, load_profiles])
def load(request, tmp_path):
    return lambda table, **changes: request.param(table, tmp_path, **changes)


@pytest.fixture
def refused(load):
    """The faults of a table, and that there is one only."""
    def fault(table, **changes):
        with pytest.raises(FaultsError) as caught:
            load(table, **changes)
        only, = caught.value.faults
        return str(only)
    return fault


def test_a_sound_table_has_no_remarks(load):
    assay = load(cells())
    assert assay.left_out == () and assay.losses == () and len(assay.wells) == 32


# --- one thing under several spellings ------------------------------------------------------------------------------

@pytest.mark.parametrize(("one", "other", "words"), [
    ("cpd-{}", "cpd-{}\u200b", "'cpd-0' and 'cpd-0\\u200b'; 'cpd-1' and"),
    ("529{}", "529{}.0", "'5290' and '5290.0'; "),
    ("cpd-{}", "CPD {}", "(they differ in capitals and blanks, hyphens or underscores)"),
    ("a{}|b", "b|a{}", "'a0|b' and 'b|a0'; "),
])
def test_compounds_in_two_spellings_are_refused(refused, one, other, words):
    """The other half of a compound's wells would train the model that it is tested by."""
    table = cells()
    names = {f"cpd-{c}": i for i, c in enumerate("abcdef")}
    table["Drug"] = [v if v == "DMSO" else (one if p == "P1" else other).format(names[v])
                     for v, p in zip(table["Drug"], table["Barcode"], strict=True)]
    fault = refused(table)
    assert fault.startswith("plan.csv: Drug has 6 names that are spelt in several ways: ") and words in fault
    assert "; and 3 more" in fault


def test_a_label_in_two_spellings_is_refused(refused):
    table = cells().replace({"MoA": {"MOA0": "a|b"}})
    table.loc[table["Drug"] == "cpd-b", "MoA"] = "b|a"
    fault = refused(table, single_compound_labels="leave_out")
    assert "MoA is spelt in 2 ways: 'a|b', 'b|a' (they differ in the order of parts)" in fault


@pytest.mark.parametrize(("one", "other"), [("12", "0012"), ("12", "12.0"), ("P 1", "P-1")])
def test_a_plate_in_two_spellings_is_refused(refused, one, other):
    fault = refused(cells().replace({"Barcode": {"P1": one, "P2": other}}))
    assert "plan.csv: Barcode is spelt in 2 ways" in fault and repr(one) in fault and repr(other) in fault


def test_a_well_in_two_spellings_on_one_plate_is_refused(refused):
    table = cells()
    table.loc[1, "Position"] = "a1"
    assert refused(table).startswith("plan.csv, plate P1: Position is spelt in 2 ways: 'A01', 'a1'")


def test_wells_of_two_plates_may_be_padded_in_two_ways(load):
    table = cells()
    table.loc[table["Barcode"] == "P2", "Position"] = table["Position"].str.replace("0", "")
    assert len(load(table).wells) == 32


def test_identifiers_that_a_spreadsheet_cut_short_are_refused(refused):
    table = cells().replace({"Barcode": {"P1": "1.23E+11", "P2": "1.24E+11"}})
    fault = refused(table)
    assert "plan.csv, 32" in fault and "Barcode holds numbers in scientific notation, '1.23E+11', '1.24E+11'" in fault


def test_a_control_in_another_spelling_is_pointed_at(refused):
    assert "negative_controls names 'dmso', a compound that no row has. Is it 'DMSO'?" in refused(
        cells().replace({"Dose": {"": "0"}}), negative_controls=["dmso"], unlabelled="keep")


# --- words for a missing value --------------------------------------------------------------------------------------

def with_words():
    """Two compounds more, whose label is `NA` and `nan`."""
    more = cells().iloc[:4].assign(Drug=["x", "x", "y", "y"], MoA=["NA", "NA", "nan", "nan"], Name=list("abcd"),
                                   Position=["D01", "D02", "D03", "D04"])
    return pd.concat([cells(), more], ignore_index=True)


def test_words_for_a_missing_label_are_no_label(load, refused):
    fault = refused(with_words())
    assert "(" in fault and "MoA is empty and the well is no control. 'NA', 'nan' count as empty." in fault
    for how, wells in (("keep", 36), ("leave_out", 32)):
        assay = load(with_words(), unlabelled=how)
        assert assay.labels == ["MOA0", "MOA1", "MOA2"] and len(assay.wells) == wells
        assert "plan.csv: 4 cells of MoA count as empty: 'NA' (2), 'nan' (2)" in said(assay)
    loss, = assay.losses
    assert (loss.lost, loss.total, loss.asked) == (4, 36, True)


@pytest.mark.parametrize(("column", "word"), [("Drug", "None"), ("Drug", "#N/A"), ("Barcode", "NA"), ("Position", "-")])
def test_no_compound_plate_or_well_is_called_by_such_a_word(load, column, word):
    table = cells()
    table.loc[[3, 5], column] = word
    with pytest.raises(FaultsError, match=rf"rows 5, 7: {column} is empty. '{word}' counts as empty"):
        load(table)


def test_a_control_may_be_called_by_such_a_word(load):
    assay = load(cells().replace({"Drug": {"DMSO": "None"}}), negative_controls=["None"])
    assert (assay.wells[CONTROL] == "negative").sum() == 8 and assay.left_out == ()


# --- wells without a label ------------------------------------------------------------------------------------------

def test_unlabelled_rows_are_one_fault_kept_or_left_out(load, refused):
    table = cells()
    table.loc[table["Drug"].isin(["cpd-e", "cpd-f"]), "MoA"] = ""
    fault = refused(table)
    assert "plan.csv, 8 " in fault and "10, 11, 12, …" in fault and "MoA is empty and the well is no control" in fault
    assert "Set assay.unlabelled to leave_out" in fault
    kept, less = load(table, unlabelled="keep"), load(table, unlabelled="leave_out")
    assert len(kept.wells) == 32 and kept.labels == less.labels == ["MOA0", "MOA1"] and len(less.wells) == 24
    assert "8 " in said(less) and "MoA is empty" in said(less)
    loss, = less.losses
    assert (loss.lost, loss.total, loss.asked, loss.where) == (8, 32, True, "plan.csv") and kept.losses == ()


def test_what_else_is_wrong_with_rows_that_are_left_out_does_not_matter(load):
    table = cells()
    rows = table["Drug"] == "cpd-f"
    table.loc[rows, ["Drug", "Dose", "MoA"]] = ["NA", "", "NA"]
    table.loc[table["Drug"] == "cpd-e", "MoA"] = "MOA1"
    assert len(load(table, unlabelled="leave_out").wells) == 28


def test_a_well_is_not_left_out_by_half(tmp_path):
    table = cells()
    table.loc[1, ["Position", "MoA"]] = ["A01", ""]
    with pytest.raises(FaultsError, match=r"plan.csv, plate P1, well A01: 1 wells have rows with and without MoA"):
        load_images(table, tmp_path, unlabelled="leave_out")


def test_wells_that_the_metadata_do_not_name_are_refused_or_left_out(tmp_path):
    plan = cells()
    plan[plan["Drug"] != "cpd-f"].to_csv(tmp_path / "meta.csv", index=False)
    bare = plan[["Barcode", "Position"]]
    options = {"metadata": "meta.csv", "plate_column": "Barcode", "well_column": "Position"}
    with pytest.raises(FaultsError, match=r"4 of 32 wells have no metadata.*Set assay.unlabelled to leave_out"):
        load_profiles(bare, tmp_path, **options)
    options |= {"unlabelled": "leave_out", "single_compound_labels": "leave_out"}
    assay = load_profiles(bare, tmp_path, **options)
    assert len(assay.wells) == 28 - 4 and len(assay.features) == 28  # cpd-e is alone with its label
    assert "4 of 32 wells left out: the metadata do not name them" in said(assay)
    loss, lone = assay.losses
    assert (loss.lost, loss.total, loss.asked, loss.warns) == (4, 32, False, True) and lone.asked
    # A plate that is spelt in another way is no plate without metadata.
    with pytest.raises(FaultsError, match="plate 'p1', well 'A01' here is plate 'P1', well 'A01' there"):
        load_profiles(bare.replace({"Barcode": {"P1": "p1"}}), tmp_path, **options)


# --- doses, vehicles, sites -----------------------------------------------------------------------------------------

def test_doses_as_dispensed_are_one_treatment(load):
    table = cells()
    treated = table["Drug"] != "DMSO"
    table.loc[treated, "Dose"] = [f"{10 + x:.3f}" for x in np.random.default_rng(3).normal(0, 0.01, treated.sum())]
    assay = load(table)
    assert len(assay.treated[TREATMENT_KEY].drop_duplicates()) == 6
    assert "doses of one compound, each less than 5 % from the next, were taken for one dose" in said(assay)
    assay = load(table, doses="as_written")
    assert len(assay.treated[TREATMENT_KEY].drop_duplicates()) > 6 and "intervals are too narrow" in said(assay)


def test_a_vehicle_with_the_label_of_the_controls_is_refused(refused):
    table = cells()
    table.loc[table["Drug"] == "DMSO", "MoA"] = "vehicle"
    table.loc[[12, 13, 14], ["Drug", "Dose", "MoA"]] = [["DMSO_0.1", "1", "vehicle"], ["DMSO_0.5", "1", "vehicle"],
                                                      ["DMSO", "", "vehicle"]]
    assert refused(table) == (
        "plan.csv: the label 'vehicle' of MoA is that of the negative control 'DMSO' and of 'DMSO_0.1', 'DMSO_0.5', "
        "which are not listed as such and would be scored as a mechanism. Add them to assay.negative_controls, or give "
        "another label.")


def test_rows_of_a_well_that_nothing_tells_apart_are_said(load):
    table = pd.concat([cells(), cells().assign(Name=[f"again {i}" for i in range(32)])], ignore_index=True)
    assert "up to 2" in said(load(table)) and "no column" in said(load(table))


def test_sites_that_were_made_float_are_in_their_order(tmp_path):
    table = cells().loc[lambda t: t.index.repeat(11)].reset_index(drop=True)
    table = table.assign(Site=[f"{i % 11 + 1}.0" for i in range(len(table))], Name=[str(i) for i in range(len(table))])
    assay = load_images(table, tmp_path, columns={**COLUMNS, "site": "Site"}, fields_per_well=2)
    assert set(assay.fields["Metadata_Site"]) == {1, 2} and assay.left_out == ()
    loss, = assay.losses
    assert (loss.things, loss.lost, loss.total, loss.asked) == ("fields", 9 * 32, 11 * 32, True)
    table.loc[4, "Site"] = "NA"
    with pytest.raises(FaultsError, match=r"plan.csv, row 6: Site is empty"):
        load_images(table, tmp_path, columns={**COLUMNS, "site": "Site"})


def test_many_wrong_doses_are_one_fault(refused):
    table = cells()
    treated = table["Drug"] != "DMSO"
    table.loc[treated, "Dose"] = [f"{i} uM" for i in range(treated.sum())]
    fault = refused(table)
    assert "plan.csv, 24 rows (2, 3, 4, …): the concentration is '0 uM', '1 uM', '2 uM' and 21 more, not" in fault


# --- any table ------------------------------------------------------------------------------------------------------

CELL = st.one_of(
    st.sampled_from(["", "NA", "nan", "None", "-", "1", "1.0", "01", "1E+5", "-1", "inf", "1e-400", "9.98", "1_0",
                     "DMSO", "dmso", "cpd-a", "CPD-A", "cpd-b\u200b", "a|b", "b|a", "A01", "A1", "P1", "MOA0",
                     "unknown", "=1+1", "<b>", "\u202e", "untreated", "1-Mar", "BRD-K12345678-001-01-9"]),
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\n\0"), max_size=6))


@settings(max_examples=60, deadline=None)
@given(st.sampled_from([load_images, load_profiles]), st.sampled_from(["refuse", "keep", "leave_out"]),
       st.lists(st.tuples(st.integers(0, 31), st.sampled_from(list(COLUMNS.values())), CELL), max_size=6))
def test_any_table_keeps_its_promises_or_is_refused(tmp_path_factory, load, unlabelled, changes):
    table = cells()
    for row, column, text in changes:
        table.loc[row, column] = text
    try:
        assay = load(table, tmp_path_factory.mktemp("any"), unlabelled=unlabelled, single_compound_labels="leave_out")
    except MorphobenchError:
        return
    fields = assay.fields
    assert list(fields.index) == list(range(len(fields))) and not fields.duplicated(FIELD_KEY).any()
    assert np.isfinite(fields[CONCENTRATION]).all() and (fields[CONCENTRATION] >= 0).all()
    for column in (PLATE, WELL, BATCH, COMPOUND):
        assert not fields[column].map(is_missing).any()
    for column in (PLATE, COMPOUND, LABEL, BATCH):
        assert spellings(fields[column]) == []
    assert all(spellings(wells, well_key) == [] for _, wells in fields.groupby(PLATE)[WELL])
    treated = assay.treated
    assert not treated[LABEL].map(is_missing).any() and (treated.groupby(COMPOUND)[LABEL].nunique() == 1).all()
    assert (treated.groupby(LABEL)[COMPOUND].nunique() > 1).all()
    assert not set(treated[LABEL]) & set(fields.loc[fields[CONTROL] == "negative", LABEL]) - {""}
    bare = (fields[LABEL] == "") & (fields[CONTROL] == "")
    assert unlabelled == "keep" or not bare.any()
    for _, doses in fields.groupby(COMPOUND)[CONCENTRATION]:
        values = np.sort(doses[doses > 0].unique())
        assert (values[1:] > 1.05 * values[:-1]).all() or "fine" in said(assay)
    lost = sum(loss.lost for loss in assay.losses)
    assert len(fields) + lost >= 32
    if assay.features is not None:
        assert set(map(tuple, fields[WELL_KEY].to_numpy())) <= set(map(tuple, assay.features[WELL_KEY].to_numpy()))
