"""The official CSV files of BBBC021 become the field table: counts on the real ones, layouts and faults on fakes."""

import functools
from pathlib import Path

import pandas as pd
import pytest
from fake_bbbc import CONTENTS, PLATES, bbbc021_rows, write_bbbc021
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmark.assays.bbbc.bbbc021 import Bbbc021AssaySettings, dose_key, load_bbbc021, read_metadata, select
from benchmark.base.errors import FaultsError, MorphobenchError
from benchmark.base.tables import (
    BATCH,
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
from benchmark.quality.check import image_faults
from benchmark.workflow.study import load_study

TREATMENT = [c for c in TREATMENT_KEY if c in (COMPOUND, CONCENTRATION)]


def _load(root: Path, **changes):
    return load_bbbc021(Bbbc021AssaySettings(root=str(root), **changes), "fake", Path())


_read_once = functools.cache(read_metadata)


@pytest.fixture
def real(data_folder):
    """The real CSV files: fields and mechanisms."""
    return _read_once(data_folder / "bbbc021_metadata", data_folder)


def test_real_csv_files_hold_13200_fields(real):
    images, moa = real
    assert len(images) == 13_200 and len(images.drop_duplicates(WELL_KEY)) == 3_300
    assert images[PLATE].nunique() == 55 and images[COMPOUND].nunique() == 113  # DMSO is one of them
    assert set(images[BATCH]) == {f"Week{w}" for w in range(1, 11)}
    assert images.groupby(WELL_KEY)[SITE].agg(tuple).map(sorted).map(tuple).unique().tolist() == [(1, 2, 3, 4)]
    assert len(moa) == 103 and moa[COMPOUND].nunique() == 38 and moa[LABEL].nunique() == 12
    assert {"cyclohexamide"} <= set(moa[COMPOUND])  # the official spelling stays


@pytest.mark.parametrize(("taxol", "compounds", "fields", "treated", "plates"), [
    ("kensert2019", "labelled", 2_528, 1_208, 49), ("all", "labelled", 3_848, 2_528, 55),
    ("kensert2019", "all", 13_200 - 1_380, 1_208, 49), ("all", "all", 13_200, 2_528, 55),
])
def test_real_counts_of_each_rule(real, taxol, compounds, fields, treated, plates):
    table, left_out = select(*real, taxol, compounds)
    labelled = table[table[LABEL] != ""]
    assert len(table) == fields and len(labelled) == treated and labelled[PLATE].nunique() == plates
    dmso = table[table[CONTROL] == "negative"]
    assert len(dmso) == 1_320 and dmso[PLATE].nunique() == 55
    assert len(labelled.drop_duplicates(TREATMENT)) == 103
    assert labelled[COMPOUND].nunique() == 38 and labelled[LABEL].nunique() == 12
    # The plates' positive controls: six wells of taxol at 0.3 µM on each of 55 plates.
    assert (table[CONTROL] == "positive").sum() == (1_320 if taxol == "all" else 0)
    assert sum(int(str(f).split()[0]) for f in left_out) == 13_200 - fields
    per_mechanism = labelled.drop_duplicates(TREATMENT)[LABEL].value_counts().to_dict()
    assert per_mechanism == {
        "Microtubule destabilizers": 14, "Eg5 inhibitors": 12, "Aurora kinase inhibitors": 12,
        "Microtubule stabilizers": 9, "DNA damage": 9, "Epithelial": 8, "Protein synthesis": 8, "DNA replication": 8,
        "Protein degradation": 7, "Cholesterol-lowering": 6, "Kinase inhibitors": 5, "Actin disruptors": 5}


def test_real_taxol_wells_are_those_of_the_authors_code(real, data_folder):
    """Their rule works on texts ('0.3' in the concentration …); ours on numbers. The same fields must come out."""
    raw = pd.read_csv(data_folder / "bbbc021_metadata" / "BBBC021_v1_image.csv.gz")
    moa = pd.read_csv(data_folder / "bbbc021_metadata" / "BBBC021_v1_moa.csv")
    treatments = set(zip(moa["compound"], moa["concentration"], strict=True))
    kept = []
    for i, row in raw.iterrows():
        compound, concentration = row["Image_Metadata_Compound"], row["Image_Metadata_Concentration"]
        if compound == "taxol" and not (
                "Week1_" in row["Image_PathName_DAPI"] and "D0" in row["Image_Metadata_Well_DAPI"]
                and any(text in str(concentration) for text in ("0.3", "1.0", "3.0"))):
            continue
        if (compound, concentration) in treatments:
            kept.append(i)
    table, _ = select(*real, "kensert2019", "labelled")
    assert sorted(table.index) == kept
    taxol = table[table[COMPOUND] == "taxol"]
    assert len(taxol) == 36 and set(taxol[WELL]) == {"D03", "D04", "D05"} and set(taxol[BATCH]) == {"Week1"}


@pytest.mark.parametrize(("layout", "gz"), [("flat", False), ("nested", True)])
def test_both_layouts_are_found(tmp_path, layout, gz):
    write_bbbc021(tmp_path, layout, gz=gz)
    assay = _load(tmp_path)
    assert assay.channels == ("DNA", "Tubulin", "Actin") and assay.lock is None and "Caie" in assay.source
    assert image_faults(assay) == []
    fields = assay.fields
    assert set(fields[PLATE]) == set(PLATES) and set(fields[BATCH]) == {"Week1", "Week2"}
    row = fields[(fields[WELL] == "D05") & (fields[SITE] == 2)].iloc[0]
    prefix = "Week1/Week1_22123" if layout == "nested" else "Week1_22123"
    assert row["Path_Tubulin"].startswith(f"{prefix}/Week1_22123_D05_s2_w2") and row[CONCENTRATION] == 0.3
    assert row[LABEL] == "Microtubule stabilizers" and row[CONTROL] == "" and row[REPLICATE] == 1
    assert set(fields.loc[fields[COMPOUND] == "DMSO", CONTROL]) == {"negative"}
    assert set(fields.loc[fields[COMPOUND] == "DMSO", LABEL]) == {""}
    assert set(fields[COMPOUND]) == {"DMSO", "taxol", "docetaxel", "cyclohexamide", "emetine"}
    assert set(fields.loc[fields[COMPOUND] == "taxol", WELL]) == {"D04", "D05"}
    assert assay.labels == ["Microtubule stabilizers", "Protein synthesis"]


def test_each_plate_may_have_its_own_layout(tmp_path):
    write_bbbc021(tmp_path, "flat", rows=bbbc021_rows(PLATES[:1]))
    write_bbbc021(tmp_path, "nested", rows=bbbc021_rows(PLATES[1:]))
    write_bbbc021(tmp_path, rows=bbbc021_rows(), images=False)
    with pytest.raises(FaultsError):  # a folder without the wanted files is not the plate's
        write_bbbc021(tmp_path, rows=bbbc021_rows()[:1] * 2, images=False)
        _load(tmp_path)
    write_bbbc021(tmp_path / "b", "nested")
    (tmp_path / "b" / PLATES[0]).mkdir()
    assert set(_load(tmp_path / "b").fields["Path_DNA"].str.split("/").str[0]) == {"Week1", "Week2"}


def test_rules_on_the_fake(tmp_path):
    write_bbbc021(tmp_path)
    every = _load(tmp_path, taxol="all", compounds="all").fields
    assert len(every) == len(bbbc021_rows()) and set(every[COMPOUND]) == {c for c, *_ in CONTENTS}
    assert set(every.loc[every[CONTROL] == "positive", WELL]) == {"B11"}
    assert set(every.loc[every[COMPOUND] == "acyclovir", LABEL]) == {""}
    # An unlabelled concentration of a labelled compound is kept without a label, and never scored.
    bare = every[(every[COMPOUND] == "docetaxel") & (every[CONCENTRATION] == 0.0003)]
    assert len(bare) == 4 and set(bare[LABEL]) == {""}
    assay = _load(tmp_path, taxol="all", compounds="all")
    assert "acyclovir" not in set(assay.treated[COMPOUND]) and "acyclovir" not in set(assay.predicted[COMPOUND])
    few = _load(tmp_path, plates=("Week2_24121",), fields_per_well=1, single_compound_labels="leave_out")
    assert set(few.fields[PLATE]) == {"Week2_24121"} and set(few.fields[SITE]) == {1}
    assert few.labels == ["Protein synthesis"]  # docetaxel alone is left of its mechanism there
    assert "docetaxel" in str(few.left_out[-1])
    with pytest.raises(FaultsError, match="Did you mean Week2_24121"):
        _load(tmp_path, plates=("Week2_24112",))


def test_missing_plates_are_one_fault_with_the_command(tmp_path):
    write_bbbc021(tmp_path, rows=bbbc021_rows(PLATES[:1]))
    write_bbbc021(tmp_path, images=False)
    with pytest.raises(MorphobenchError) as caught:
        _load(tmp_path)
    assert "1 of 2 plates: Week2_24121" in str(caught.value)
    assert "morphobench assay fetch bbbc021 --plates Week2_24121" in str(caught.value)
    assert len(_load(tmp_path, plates=(PLATES[0],), single_compound_labels="leave_out").fields)


def test_metadata_without_images_and_nothing_at_all(tmp_path, monkeypatch):
    monkeypatch.setenv("MORPHOBENCH_DATA", str(tmp_path))
    with pytest.raises(MorphobenchError, match=r"BBBC021_v1_image.csv.*morphobench assay fetch bbbc021"):
        load_bbbc021(Bbbc021AssaySettings(), "b", Path())
    write_bbbc021(tmp_path / "bbbc021_metadata", images=False)
    with pytest.raises(MorphobenchError, match=r"none of its 2 plates is there.*morphobench assay fetch bbbc021"):
        load_bbbc021(Bbbc021AssaySettings(), "b", Path())
    write_bbbc021(tmp_path / "bbbc021")
    assert len(load_bbbc021(Bbbc021AssaySettings(), "b", Path()).fields)


def test_the_lock_is_found_beside_the_tables(tmp_path):
    write_bbbc021(tmp_path)
    (tmp_path / "lock.json").write_text("{}")
    assert _load(tmp_path).lock == tmp_path / "lock.json"


@pytest.mark.parametrize(("column", "value", "message"), [
    (8, "Week1", "Image_Metadata_Plate_DAPI is 'Week1', not a plate"), (8, "../x", "not a plate"),
    (9, "B2", "Image_Metadata_Well_DAPI is 'B2', not a well"), (10, "one", "Replicate is 'one'"),
    (11, "aspirin", "'aspirin', not in BBBC021_v1_compound"), (12, "0,3", "'0,3', not a concentration"),
    (12, "-1", "'-1', not a concentration"), (12, "inf", "not a concentration"),
    (2, "../../etc/B02_s1_w1.tif", "not the plain name"), (4, "/etc/B02_s1_w2.tif", "not the plain name"),
    (6, ".tif", "not the plain name"), (4, "B02_s2_w2.tif", "without the site"), (2, "B02_w1.tif", "without the site"),
])
def test_faults_name_file_and_row(tmp_path, column, value, message):
    rows = bbbc021_rows()
    rows[4][column] = value
    write_bbbc021(tmp_path, rows=rows, images=False)
    with pytest.raises(FaultsError) as caught:
        _load(tmp_path)
    assert message in str(caught.value) and "BBBC021_v1_image.csv, row 6" in str(caught.value)


def test_headers_and_broken_files_are_named(tmp_path):
    write_bbbc021(tmp_path, images=False, gz=True)
    packed = tmp_path / "BBBC021_v1_image.csv.gz"
    packed.write_bytes(packed.read_bytes()[:-40])
    with pytest.raises(MorphobenchError, match=r"image.csv.gz: is no whole gzip file"):
        _load(tmp_path)
    packed.write_bytes(b"not gzip")
    with pytest.raises(MorphobenchError, match="gzip"):
        _load(tmp_path)
    packed.unlink()
    write_bbbc021(tmp_path, images=False)
    moa = tmp_path / "BBBC021_v1_moa.csv"
    moa.write_text(moa.read_text().replace('"moa"', '"mechanism"'))
    with pytest.raises(MorphobenchError, match=r"BBBC021_v1_moa.csv: lacks the columns moa"):
        _load(tmp_path)
    write_bbbc021(tmp_path, images=False)
    moa.write_text(moa.read_text() + '"emetine",0.3,"Eg5 inhibitors"\n"emetine","x","Eg5"\n')
    with pytest.raises(FaultsError) as caught:
        _load(tmp_path)
    assert "emetine at 0.3 µM appears twice" in str(caught.value) and "'x', not a number" in str(caught.value)


def test_concentrations_written_otherwise_still_join(tmp_path):
    rows = bbbc021_rows()
    for row in rows:
        row[12] = {"0.300000": "0.30000000000000004", "5.000000": "5", "0.100000": "1e-1"}.get(row[12], row[12])
    write_bbbc021(tmp_path, rows=rows)
    assay = _load(tmp_path)
    assert len(assay.treated.drop_duplicates(TREATMENT)) == 5
    assert set(assay.treated[CONCENTRATION]) == {0.3, 1.0, 0.1, 5.0}


@settings(max_examples=200)
@given(st.integers(1, 999_999), st.integers(-9, 6))
def test_dose_keys_bear_rounding_and_tell_doses_apart(digits, power):
    """Six digits: what a program changes in the last bits makes no other treatment, a real change of dose does."""
    dose = float(f"{digits}e{power}")
    assert dose_key(dose) == dose_key(dose * (1 + 1e-12)) == dose_key(float(repr(dose)))
    assert dose_key(dose) != dose_key(dose * 1.001)


def test_the_study_loads_and_says_what_to_fetch(tmp_path, monkeypatch):
    monkeypatch.setenv("MORPHOBENCH_DATA", str(tmp_path))
    study = load_study("bbbc021")
    with pytest.raises(MorphobenchError, match="morphobench assay fetch bbbc021"):
        load_bbbc021(study.assay, study.name, Path())
    write_bbbc021(tmp_path / "bbbc021", "nested")
    assert len(load_bbbc021(study.assay, study.name, Path()).treated) == 16
