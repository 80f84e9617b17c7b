"""No part of an export is skipped without a word: a folder of several plates, one of which is spoilt."""

import gzip
import shutil
import sqlite3
from contextlib import closing

import pytest
from test_cellprofiler_files import NAMES, make_run, read, write_csvs, write_sqlite

from benchmark.assays.profiles.profile_table import ProfileTableSettings, load_profile_table
from benchmark.base.errors import FaultsError, MorphobenchError
from benchmark.base.tables import PLATE


@pytest.fixture
def plates(tmp_path):
    """Exports of two plates, in folders of their own."""
    for plate in ("P1", "P2"):
        write_csvs(make_run(plate=plate, seed=int(plate[1])), tmp_path / "out" / plate, "My_")
    return tmp_path / "out"


def _spoil(how):
    def change(folder):
        image = folder / "P1" / "My_Image.csv"
        text = image.read_text()
        match how:
            case "no ImageNumber":
                image.write_text(text.replace("ImageNumber,", "Number,"))
            case "semicolons":
                image.write_text(text.replace(",", ";"))
            case "all in semicolons":
                for path in image.parent.iterdir():
                    path.write_text(path.read_text().replace(",", ";"))
            case "latin1":
                image.write_bytes(text.replace("/data/images", "/\u00b5").encode("latin-1"))
            case "utf16":
                image.write_bytes(text.encode("utf-16"))
            case "renamed":
                image.rename(image.with_name("My_Image (1).csv"))
            case "prefix lost":
                image.rename(image.with_name("Your_Image.csv"))
            case "gzipped":
                image.with_name("My_Image.csv.gz").write_bytes(gzip.compress(image.read_bytes()))
                image.unlink()
            case "gone":
                image.unlink()
            case "empty":
                image.write_text("")
            case "header only":
                image.write_text(text.splitlines(keepends=True)[0])
            case "no objects":
                for name in NAMES:
                    (image.parent / f"My_{name}.csv").unlink()
            case "one kind lacks":
                (image.parent / "My_Cytoplasm.csv").unlink()
            case "objects in latin1":
                path = image.with_name("My_Cells.csv")
                path.write_bytes(path.read_bytes().replace(b"ImageNumber", b"\xb5ImageNumber", 1))
            case "objects gzipped":
                path = image.with_name("My_Cells.csv")
                path.with_name("My_Cells.csv.gz").write_bytes(gzip.compress(path.read_bytes()))
                path.unlink()
            case "a copy":
                shutil.copy(image.with_name("My_Cells.csv"), image.with_name("My_Cells (1).csv"))
    return change


@pytest.mark.parametrize(("how", "message"), [
    ("no ImageNumber", r"out/P1: holds tables of objects \(My_Cells.csv, .*no readable table of images: My_Image.csv "
                       "has no column ImageNumber"),
    ("semicolons", r"out/P1: holds tables of objects.*My_Image.csv has columns parted by semicolons.*assay.separator"),
    ("all in semicolons", r"out/P1: My_Cells.csv, .* has columns parted by semicolons"),
    ("latin1", r"out/P1: holds tables of objects.*My_Image.csv is not UTF-8 text. Save it as `CSV UTF-8`"),
    ("utf16", r"out/P1: holds tables of objects.*My_Image.csv is not UTF-8 text"),
    ("renamed", r"out/P1: holds tables of objects.*My_Image \(1\).csv is not named as one"),
    ("prefix lost", r"out/P1: holds tables of objects.*no readable table of images"),
    ("gzipped", r"out/P1: holds tables of objects.*My_Image.csv.gz is gzipped. Unpack it"),
    ("gone", r"out/P1: holds tables of objects.*no readable table of images. Put Image.csv beside them"),
    ("empty", r"out/P1: holds tables of objects.*My_Image.csv is empty"),
    ("header only", r"P1/My_Image.csv: has no images"),
    ("no objects", r"P1/My_Image.csv: holds images and no table of objects"),
    ("one kind lacks", r"1 of 2 exports have no table of Cytoplasm: P1/My_Image.csv"),
    ("objects in latin1", r"out/P1: My_Cells.csv is not UTF-8 text"),
    ("objects gzipped", r"out/P1: My_Cells.csv.gz is gzipped"),
    ("a copy", r"out/P1: My_Cells \(1\).csv has the name of a copy"),
])
def test_a_plate_that_cannot_be_read_is_one_fault_that_names_it(plates, how, message):
    _spoil(how)(plates)
    with pytest.raises(MorphobenchError, match=message) as caught:
        read(plates)
    assert len(getattr(caught.value, "faults", [caught.value])) == 1


def test_other_files_of_the_folder_are_passed_over_and_links_followed(plates, tmp_path):
    whole, _ = read(plates)
    (plates / "plan.csv").write_text("Plate,Well\nP1,A01\n")
    (plates / "P1" / "My_Experiment.csv").write_text("Key,Value\nRun_Timestamp,today\n")
    (plates / "readme.txt").write_bytes(b"5 \xb5M")
    (plates / ".hidden.csv").write_bytes(b"\xff")
    assert read(plates)[0].equals(whole)
    (tmp_path / "disk").mkdir()
    shutil.move(plates / "P2", tmp_path / "disk" / "P2")
    assert set(read(plates)[0][PLATE]) == {"P1"}
    (plates / "P2").symlink_to(tmp_path / "disk" / "P2")
    (plates / "P1" / "loop").symlink_to(plates)
    assert read(plates)[0].equals(whole)


def test_one_database_of_several_cannot_be_read(tmp_path):
    for plate in ("P1", "P2"):
        write_sqlite(make_run(plate=plate, seed=int(plate[1])), tmp_path / "dbs" / f"{plate}.db")
    (tmp_path / "dbs" / "Thumbs.db").write_bytes(b"pictures")
    assert set(read(tmp_path / "dbs")[0][PLATE]) == {"P1", "P2"}
    whole = (tmp_path / "dbs" / "P2.db").read_bytes()
    (tmp_path / "dbs" / "P2.db").write_bytes(b"")
    with pytest.raises(MorphobenchError, match=r"P2.db: is not a SQLite database"):
        read(tmp_path / "dbs")
    (tmp_path / "dbs" / "P2.db").write_bytes(whole)
    with closing(sqlite3.connect(tmp_path / "dbs" / "P2.db")) as database, database:
        database.execute("DROP TABLE Per_Image")
    with pytest.raises(MorphobenchError, match=r"P2.db: holds no table of images.*it has Per_Cells"):
        read(tmp_path / "dbs")
    with closing(sqlite3.connect(tmp_path / "dbs" / "P1.db")) as database, database:
        database.execute("DROP TABLE Per_Cytoplasm")
    (tmp_path / "dbs" / "P2.db").write_bytes(whole)
    with pytest.raises(MorphobenchError, match=r"1 of 2 exports have no table of Cytoplasm: P1.db"):
        read(tmp_path / "dbs")


def test_a_database_beside_csv_files_is_the_same_run_or_a_fault(plates):
    write_sqlite(make_run(plate="P1", seed=1), plates / "P1" / "DefaultDB.db")
    _, notes = read(plates)
    assert "DefaultDB.db, Per_Image left out: the CSV files hold the same wells" in "\n".join(map(str, notes))
    write_sqlite(make_run(plate="P3", seed=3), plates / "P3.db")
    with pytest.raises(FaultsError, match=r"P3.db, Per_Image has 4 wells that the CSV files do not have \(P3 A01"):
        read(plates)


@pytest.mark.parametrize("form", ["csv", "sqlite"])
def test_images_without_metadata_are_refused_by_the_names_of_columns(tmp_path, form):
    run = make_run()
    run["Image"] = run["Image"][["ImageNumber", "Count_Cells", "FileName_DNA"]]
    path = write_csvs(run, tmp_path / "out") if form == "csv" else write_sqlite(run, tmp_path / "out.db")
    columns = {"plate": "Metadata_Plate", "well": "Metadata_Well", "compound": "Metadata_cpd",
               "concentration": "Metadata_dose", "label": "Metadata_moa"}
    with pytest.raises(FaultsError) as caught:
        load_profile_table(ProfileTableSettings(profiles=str(path), columns=columns), "mine", tmp_path)
    said = str(caught.value)
    assert "the table of images has no columns 'Metadata_Plate', 'Metadata_Well', 'Metadata_cpd'" in said
    assert "It has: " in said and "'Count_Cells'" in said and "Image_" not in said and len(caught.value.faults) == 1
    assert "assay.metadata" in said and "assay.plate_column" in said and "assay.well_column" in said
    (tmp_path / "plan.csv").write_text("p,w,c,d,m\nP1,A01,a,1,x\n")
    mapped = dict(zip(columns, "pwcdm", strict=True))
    with pytest.raises(FaultsError, match=r"has no column Metadata_Plate.*Set assay.plate_column.*FileName_DNA"):
        load_profile_table(ProfileTableSettings(profiles=str(path), columns=mapped, metadata="plan.csv"), "mine",
                           tmp_path)
