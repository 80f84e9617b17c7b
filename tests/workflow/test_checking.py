"""`assay check` prints the faults of the table and of the images in one go."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import tifffile
import yaml
from fake_bbbc import write_bbbc013, write_bbbc014, write_bbbc021
from typer.testing import CliRunner

from benchmark.assays.fetching.fetch import fetch_assay
from benchmark.cli import app

STUDY = {
    "name": "mine", "methods": [{"name": "count", "kind": "cell_count"}],
    "assay": {
        "kind": "table", "csv": "plan.csv", "channels": {"DNA": {"file": "{File}"}},
        "columns": {"plate": "Plate", "well": "Well", "compound": "Drug", "concentration": "Dose", "label": "MoA"},
    },
}


def test_faults_of_table_and_images_come_together(tmp_path):
    rng = np.random.default_rng(0)
    rows = ["Plate,Well,Drug,Dose,MoA,File"]
    for i in range(8):
        rows.append(f"P1,A{i:02d},drug {i},1,{'xy'[i % 2]},f{i}.tif")
        tifffile.imwrite(tmp_path / f"f{i}.tif", rng.integers(0, 999, (20, 20 + (i == 5)), dtype=np.uint16))
    rows[3] = rows[3].replace(",1,", ",much,")
    rows.append(rows[1])
    (tmp_path / "f1.tif").unlink()
    (tmp_path / "f3.tif").write_bytes((tmp_path / "f3.tif").read_bytes()[:-200])
    (tmp_path / "f6.tif").write_bytes((tmp_path / "f4.tif").read_bytes())
    (tmp_path / "plan.csv").write_text("\n".join(rows))
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(STUDY))
    result = CliRunner().invoke(app, ["assay", "check", str(tmp_path / "mine.yaml")], catch_exceptions=False)
    assert result.exit_code == 1
    for words in ("'much'", "same image planes", "f1.tif", "f3.tif", "f5.tif", "well A06"):
        assert words in result.output, (words, result.output)


def check(folder, assay, **more):
    """Exit status and output of `assay check` on a study with this assay."""
    methods = [{"name": "position", "kind": "baseline", "feature": "position"}]  # needs no pipeline that fits
    (folder / "mine.yaml").write_text(yaml.safe_dump({**STUDY, "methods": methods, "assay": assay, **more}))
    result = CliRunner().invoke(app, ["assay", "check", str(folder / "mine.yaml")], catch_exceptions=False)
    return result.exit_code, result.output


@pytest.mark.parametrize(("kind", "write", "platemap"), [
    ("bbbc013", write_bbbc013, "BBBC013_v1_platemap_all.txt"),
    ("bbbc014", write_bbbc014, "BBBC014_v1_platemap_all.txt"),
])
def test_a_plates_images_and_doses_are_complained_about_together(tmp_path, monkeypatch, kind, write, platemap):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / kind)
    split = {} if kind == "bbbc013" else {"split": "leave-one-cell-line-out"}
    assert check(tmp_path, {"kind": kind, "root": kind}, **split)[0] == 0
    next((tmp_path / kind).glob("*/*Channel*2-05*")).unlink()
    lines = (tmp_path / kind / platemap).read_bytes().splitlines()
    # More than an error on the terminal would list: the check shows them all.
    (tmp_path / kind / platemap).write_bytes(b"\n".join([*lines[:1], *[b"much"] * 30, *lines[31:]]))
    status, output = check(tmp_path, {"kind": kind, "root": kind})
    assert status == 1 and "1 of 192 images are missing: A05 (DNA)" in output
    assert output.count("'much' is no dose") == 30 and "31 fault(s)" in output


def test_all_rows_of_the_official_tables_are_complained_about(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_bbbc021(tmp_path / "b")
    table = tmp_path / "b" / "BBBC021_v1_image.csv"
    table.write_text(table.read_text().replace('"0.000000"', '"none"'))
    (tmp_path / "b" / "BBBC021_v1_moa.csv").write_text("compound,concentration,moa\ntaxol,x,\n")
    status, output = check(tmp_path, {"kind": "bbbc021", "root": "b"})
    assert status == 1 and output.count("is 'none', not a concentration") == 8 and "concentration is 'x'" in output
    table.unlink()
    (tmp_path / "b" / "BBBC021_v1_moa.csv").write_text("compound\nx\n")
    status, output = check(tmp_path, {"kind": "bbbc021", "root": "b"})
    assert status == 1 and "holds no BBBC021_v1_image.csv" in output and "lacks the columns concentration" in output


def test_images_and_tables_that_differ_from_the_lock_file_come_with_the_others(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    root = tmp_path / "bbbc021"
    write_bbbc021(root)
    fetch_assay("bbbc021", tmp_path, base_url="http://127.0.0.1:9/")  # all is there: it is locked as it is
    assay = {"kind": "bbbc021", "root": "bbbc021", "single_compound_labels": "leave_out"}
    assert check(tmp_path, assay)[0] == 0
    lost, changed = sorted((root / "Week1_22123").glob("*B02*_w1*.tif"))
    lost.unlink()
    raw = bytearray(changed.read_bytes())
    raw[-1] ^= 1  # a sound picture all the same
    changed.write_bytes(raw)
    moa = root / "BBBC021_v1_moa.csv"
    moa.write_text(moa.read_text().replace("Protein synthesis", "protein synthesis"))
    status, output = check(tmp_path, assay)
    assert status == 1 and "3 fault(s)" in output, output
    for words in (f"{lost.name}: does not exist", f"{changed.name}: changed since", "moa.csv: changed since"):
        assert words in output, (words, output)


def test_faults_of_profiles_and_their_metadata_come_together(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = [{"Metadata_Plate": "P", "Metadata_Well": f"A{i + 1:02d}", "drug": f"c{i}", "dose": 1, "moa": "xy"[i % 2],
             "Cells_A": 0.5 + 3 * i % 8, "Cells_B": i % 3} for i in range(8)]
    assay = {"kind": "profile_table", "profiles": "p.csv", "columns": {
        "plate": "Metadata_Plate", "well": "Metadata_Well", "compound": "drug", "concentration": "dose",
        "label": "moa"}}
    table = pd.DataFrame(rows)
    table.to_csv("p.csv", index=False)
    status, output = check(tmp_path, assay)
    assert status == 0 and "8 wells, 8 compounds, 2 labels, 2 features in 8 rows; no fault found" in output
    assert "fields" not in output
    table.astype({"dose": object, "Cells_B": object}).replace({"dose": {1: "much"}, "Cells_B": {2: "two"}}).to_csv(
        "p.csv", index=False)
    status, output = check(tmp_path, assay)
    assert status == 1 and "'much', not a number" in output and "Cells_B holds 'two'" in output


@pytest.mark.parametrize(("wells", "words"), [
    (["r01c01", "r02c03", "Aa01", "H12", "A01.a1", "B-02", "B 3", "b4"],
     "in two ways: four in each row of 96 ('A01.a1', 'Aa01'"),
    (["r01c01", "r02c03", "well 3", "H12", "x", "y", "z", "b4"], "4 of 8 wells have names that give no row and column"),
    (list("12345678"), "assumed: wells are numbers up to 8: read as places of a plate of 12, counted along its rows"),
])
def test_wells_that_a_method_cannot_place_are_told_before_it_runs(tmp_path, monkeypatch, wells, words):
    monkeypatch.chdir(tmp_path)
    columns = {"plate": "Metadata_Plate", "well": "Metadata_Well", "compound": "drug", "concentration": "dose",
               "label": "moa"}
    pd.DataFrame([{"Metadata_Plate": "P", "Metadata_Well": well, "drug": f"c{i}", "dose": 1, "moa": "xy"[i % 2],
                   "Cells_A": 0.5 + 3 * i % 8, "Cells_B": i % 3} for i, well in enumerate(wells)]
                 ).to_csv("p.csv", index=False)
    status, output = check(tmp_path, {"kind": "profile_table", "profiles": "p.csv", "columns": columns})
    assert words in output and status == ("assumed" not in words), output
    methods = [{"name": "near", "kind": "profile", "profile": {"normalise": "training"}, "decision": "nearest"}]
    assert check(tmp_path, {"kind": "profile_table", "profiles": "p.csv", "columns": columns}, methods=methods)[0] == 0


def test_a_plate_with_one_control_well_is_told_before_the_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    rows = [{"Metadata_Plate": plate, "Metadata_Well": f"A{i + 1:02d}", "drug": f"c{i}" if i < 4 else "DMSO",
             "dose": int(i < 4), "moa": "xy"[i % 2] if i < 4 else "", "Cells_A": rng.normal(), "Cells_B": rng.normal()}
            for plate, n in (("P1", 6), ("P2", 5)) for i in range(n)]
    pd.DataFrame(rows).to_csv("p.csv", index=False)
    assay = {"kind": "profile_table", "profiles": "p.csv", "negative_controls": ["DMSO"], "columns": {
        "plate": "Metadata_Plate", "well": "Metadata_Well", "compound": "drug", "concentration": "dose",
        "label": "moa"}}
    for normalise, words in (("controls", "1 of 2 plates have fewer than two wells of them (P2)"),
                             ("plate", "no fault found")):
        method = {"name": "near", "kind": "profile", "decision": "nearest", "profile": {"normalise": normalise}}
        assert words in check(tmp_path, assay, methods=[method])[1]
