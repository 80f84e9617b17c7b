"""A user's CSV: what it says arrives in the field table, and everything wrong with it is listed at once."""

from pathlib import Path

import pandas as pd
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from benchmark.assays.table import TableAssaySettings, load_table, table_faults
from benchmark.base.errors import FaultsError
from benchmark.base.tables import (
    BATCH,
    CELL_LINE,
    COMPOUND,
    CONCENTRATION,
    CONTROL,
    LABEL,
    PLATE,
    REPLICATE,
    SITE,
    TREATMENT_KEY,
    WELL,
    WELL_KEY,
)

HEADER = "Plate,Position,Drug,Dose,MoA,Name\n"
ROWS = [f"W1_P1,{'AB'[s % 2]}{c:02d},{'DMSO' if c == 0 else f'drug {c}'},{'' if c == 0 else c / 10},"
        f"{'' if c == 0 else 'xy'[c % 2]},f{c}_{s}" for c in range(5) for s in range(2)]
SETTINGS = {
    "csv": "plan.csv", "negative_controls": ["DMSO"],
    "columns": {"batch": {"column": "Plate", "pattern": r"^(W\d+)_"}, "plate": "Plate", "well": "Position",
                "compound": "Drug", "concentration": "Dose", "label": "MoA"},
    "channels": {"DNA": {"file": "images/{Name}_dna.tif"}, "Actin": {"file": "images/{Name}.png", "plane": 2}},
}


@pytest.fixture
def plan(tmp_path):
    """Write a CSV and give the faults found in it."""
    def faults(text, encoding="utf-8", **changes):
        (tmp_path / "plan.csv").write_bytes(text.encode(encoding))
        return table_faults(TableAssaySettings(**{**SETTINGS, **changes}), "mine", tmp_path)
    return faults


def _csv(*rows):
    return HEADER + "\n".join(rows) + "\n"


def _said(faults):
    return "\n".join(map(str, faults))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_what_the_csv_says_arrives(plan, tmp_path, encoding):
    assay, faults = plan(_csv(*ROWS), encoding)
    assert faults == [] and assay.root == tmp_path and assay.channels == ("DNA", "Actin")
    assert len(assay.fields) == 10 and assay.labels == ["x", "y"] and not assay.simulated
    row = assay.fields[(assay.fields[COMPOUND] == "drug 3") & (assay.fields[WELL] == "A03")].iloc[0]
    assert dict(row) == {
        BATCH: "W1", PLATE: "W1_P1", WELL: "A03", SITE: 1, REPLICATE: 1, COMPOUND: "drug 3", CONCENTRATION: 0.3,
        LABEL: "y", CONTROL: "", CELL_LINE: "", "Path_DNA": "images/f3_0_dna.tif", "Plane_DNA": 0,
        "Path_Actin": "images/f3_0.png", "Plane_Actin": 2}
    controls = assay.fields[assay.fields[COMPOUND] == "DMSO"]
    assert set(controls[CONTROL]) == {"negative"} and set(controls[CONCENTRATION]) == {0.0}


def test_sites_are_counted_or_taken_and_cut(plan):
    rows = [r.replace("B0", "A0") for r in ROWS]  # two fields in each well
    assay, _ = plan(_csv(*rows))
    assert assay.fields.groupby(WELL_KEY)[SITE].agg(list).map(tuple).unique().tolist() == [(1, 2)]
    few, _ = plan(_csv(*rows), fields_per_well=1)
    assert len(few.fields) == 5 and set(few.fields[SITE]) == {1}
    # Site 2 comes before site 10.
    numbered = _csv(*(r + ("0" if i % 2 == 0 else "") for i, r in enumerate(rows)))
    numbered = numbered.replace("_00", "_10")
    site = {"column": "Name", "pattern": r"_(\d+)$"}
    taken, faults = plan(numbered, columns={**SETTINGS["columns"], "site": site}, fields_per_well=1)
    assert faults == [] and set(taken.fields[SITE]) == {1}


def test_constants_row_numbers_and_blanks(plan):
    rows = [r.replace("drug 1", " drug 1 ") for r in ROWS]
    assay, faults = plan(_csv(*rows), columns={**SETTINGS["columns"], "batch": {"value": 7}},
                         channels={"DNA": {"file": "f_{row}.tif"}})
    assert faults == [] and set(assay.fields[BATCH]) == {"7"} and "drug 1" in set(assay.fields[COMPOUND])
    assert sorted(assay.fields["Path_DNA"]) == sorted(f"f_{i}.tif" for i in range(10))


def test_everything_wrong_is_said_at_once(plan):
    rows = list(ROWS)
    rows[2] = rows[2].replace("0.1", "0;1")
    rows[3] = rows[3].replace("0.1", "inf")
    rows[4] = rows[4].replace("W1_P1", "Q_P1")
    rows[5] = rows[4].replace("Q_P1", "W1_P1").replace("A02", "B02")  # the same file again
    rows[6] = rows[6].replace("f3_0", "../../secret")
    assay, faults = plan(_csv(*rows, rows[9].replace("drug 4", "drug 3")), positive_controls=["taxol"])
    said = _said(faults)
    # the sound rows come back, so that their images can be looked at in the same go; they are not for use
    assert assay is not None and set(assay.fields.index) == {0, 1, 5, 7, 8, 9, 10}
    for message in ("row 4: the concentration is '0;1'", "row 5: the concentration is 'inf'",
                    "row 6: Plate is 'Q_P1'", "row 8, Name, 'images/../../secret_dna.tif'",
                    "each leads out of the assay's folder", "compound drug 3: the compound has several labels",
                    "row 12, plate W1_P1, well B04, site 2: names",
                    "positive_controls names 'taxol', a compound that no row has"):
        assert message in said, said


def test_equal_faults_are_one_with_its_rows(plan):
    _, faults = plan(_csv(*(r.replace("W1_", "V1_") for r in ROWS)))
    fault, = (f for f in faults if "pattern" in f.what)
    assert "10 rows (2, 3, 4, …)" in fault.where


def test_missing_columns_are_listed_with_what_there_is(plan):
    columns = {**SETTINGS["columns"], "well": "Well", "label": "Mechanism"}
    _, faults = plan(_csv(*ROWS), columns=columns, channels={"DNA": {"file": "{Nmae}.tif"}})
    said = _said(faults)
    for wanted in ("'Well', wanted for assay.columns.well", "'Mechanism'", "'Nmae', wanted for assay.channels.DNA.file",
                   "'Plate', 'Position', 'Drug', 'Dose', 'MoA', 'Name'"):
        assert wanted in said
    assert "separator" in _said(plan(_csv(*ROWS), separator=";")[1])


def test_templates_cannot_reach_attributes(plan):
    _, faults = plan(_csv(*ROWS), channels={"DNA": {"file": "{Name.__class__}.tif"}})
    assert "no column 'Name.__class__'" in _said(faults)
    _, faults = plan(_csv(*ROWS), channels={"DNA": {"file": "{Name.tif"}})
    assert "brace" in _said(faults)


def test_cells_are_not_templates_or_variables(plan, monkeypatch):
    monkeypatch.setenv("SECRET", "leaked")
    rows = [r.replace("f1_0", "{Drug}").replace("f1_1", "${SECRET}") for r in ROWS]
    assay, _ = plan(_csv(*rows))
    assert {"images/{Drug}.png", "images/${SECRET}.png"} <= set(assay.fields["Path_Actin"])


@pytest.mark.parametrize(("cell", "message"), [
    ("/etc/passwd", "leads out"), ("../x", "leads out"), ("a/../../../x", "leads out"), ("a\tb", "control characters"),
])
def test_cells_cannot_leave_the_root(plan, cell, message):
    rows = [*ROWS[:-1], ROWS[-1].replace("f4_1", cell)]
    _, faults = plan(_csv(*rows), channels={"DNA": {"file": "{Name}"}})
    fault, = faults
    assert message in str(fault) and "row 11" in str(fault)


def test_links_cannot_leave_the_root(plan, tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "in" / "images").symlink_to(tmp_path / "out")
    _, faults = plan(_csv(*ROWS), root="in")
    assert faults and all("leads out" in f.what for f in faults)


@pytest.mark.parametrize(("text", "message"), [
    ("", "is empty"), (HEADER, "no rows below"), (_csv(*ROWS, "a,b,c"), "row 12: has 3 cells where the header has 6"),
    (_csv(*ROWS).replace("MoA", "Drug"), "'Drug' appears 2 times"), (_csv(*ROWS, '"a,b'), "is not CSV"),
])
def test_broken_csv(plan, text, message):
    assert message in _said(plan(text)[1])


def test_other_encodings_are_named(plan):
    assert "not UTF-8" in _said(plan(_csv(*ROWS).replace("drug 1", "5µ"), "latin-1")[1])


def test_variables_are_filled_in_or_asked_for(plan, tmp_path, monkeypatch):
    monkeypatch.setenv("MY_DATA", str(tmp_path))
    assert plan(_csv(*ROWS), csv="${MY_DATA}/plan.csv")[1] == []
    monkeypatch.delenv("MY_DATA")
    assert "MY_DATA is not set" in _said(plan(_csv(*ROWS), csv="${MY_DATA}/plan.csv")[1])
    assert "does not exist" in _said(plan(_csv(*ROWS), csv="none.csv")[1])
    assert "is not a folder" in _said(plan(_csv(*ROWS), root="none")[1])


def test_lone_labels(plan):
    rows = [r for r in ROWS if "drug 4" not in r]
    assert "'x' has a single compound (drug 2)" in _said(plan(_csv(*rows))[1])
    assay, faults = plan(_csv(*rows), single_compound_labels="leave_out")
    assert faults == [] and assay.labels == ["y"] and len(assay.left_out) == 1
    # Said too when there are other faults.
    assert "single compound" in _said(plan(_csv(*rows).replace("0.1", "x"))[1])


def test_load_raises_everything(tmp_path):
    (tmp_path / "plan.csv").write_text(_csv(*ROWS).replace("0.1", "x").replace("0.2", "y"))
    with pytest.raises(FaultsError) as caught:
        load_table(TableAssaySettings(**SETTINGS), "mine", tmp_path)
    assert len(caught.value.faults) == 2


@pytest.mark.parametrize(("changes", "message"), [
    ({"columns": {"plate": "Plate"}}, "lacks well, compound, concentration, label"),
    ({"columns": {**SETTINGS["columns"], "dose": "Dose"}}, "dose"),
    ({"columns": {**SETTINGS["columns"], "batch": {"column": "a", "pattern": "("}}}, "not a regular expression"),
    ({"columns": {**SETTINGS["columns"], "batch": {"column": "a", "pattern": "a"}}}, "exactly one group"),
    ({"columns": {**SETTINGS["columns"], "batch": {"column": "a", "value": "a"}}}, "either"),
    ({"channels": {"D NA": {"file": "a"}}}, "letters and digits"), ({"channels": {}}, "at least 1"),
    ({"negative_controls": ["a"], "positive_controls": ["a"]}, "both a negative and a positive"),
    ({"separator": ""}, "at least 1"), ({"csvs": "a"}, "csvs"),
])
def test_settings_are_checked(changes, message):
    with pytest.raises(ValidationError, match=message):
        TableAssaySettings(**{**SETTINGS, **changes})


@settings(max_examples=15, deadline=None)
@given(st.dictionaries(st.sampled_from(["Plate", "Position", "Drug", "Dose", "MoA", "Name"]), st.text(max_size=8)))
def test_any_cell_gives_an_assay_or_faults(tmp_path_factory, cells):
    """Whatever stands in a row, the answer is an assay inside the root or a list of faults, never a crash."""
    folder = tmp_path_factory.mktemp("any")
    table = pd.DataFrame([r.split(",") for r in ROWS], columns=HEADER.strip().split(","))
    for column, text in cells.items():
        table.loc[9, column] = text.encode("utf-8", "ignore").decode()
    table.to_csv(folder / "plan.csv", index=False)
    assay, faults = table_faults(TableAssaySettings(**SETTINGS), "mine", folder)
    assert assay is not None or faults
    if faults:
        with pytest.raises(FaultsError):
            load_table(TableAssaySettings(**SETTINGS), "mine", folder)
    if assay is not None:
        assert all((folder / p).resolve().is_relative_to(folder.resolve()) for p in assay.fields["Path_DNA"])


BBBC021 = """
csv: ${MORPHOBENCH_DATA}/bbbc021_fields/labels.csv
separator: ";"
columns:
  batch: {column: plate, pattern: '^(Week\\d+)_'}
  plate: plate
  well: well
  replicate: replicate
  compound: compound
  concentration: concentration
  label: moa
channels:
  DNA: {file: "images/bbbc021v1_{row}.png", plane: 2}
  Tubulin: {file: "images/bbbc021v1_{row}.png", plane: 1}
  Actin: {file: "images/bbbc021v1_{row}.png", plane: 0}
"""


def test_real_fields_of_bbbc021(data_folder):
    assay = load_table(TableAssaySettings(**yaml.safe_load(BBBC021)), "bbbc021-fields", Path())
    fields = assay.fields
    assert len(fields) == 660 and len(assay.wells) == 165 and len(assay.labels) == 6
    assert len(fields[TREATMENT_KEY].drop_duplicates()) == 55
    assert fields[COMPOUND].nunique() == 18 and fields[PLATE].nunique() == 30 and fields[BATCH].nunique() == 7
    assert assay.channels == ("DNA", "Tubulin", "Actin") and set(fields[SITE]) == {1, 2, 3, 4}
    row = fields[fields["Path_DNA"] == "images/bbbc021v1_0.png"].iloc[0]
    assert (row[COMPOUND], row[CONCENTRATION], row[WELL], row[BATCH]) == ("anisomycin", 0.3, "B06", "Week4")
