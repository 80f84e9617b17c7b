"""Bad output of CellProfiler: folders of CSV files, and SQLite files."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from bad_input import STUDY, Case, command_refuses, each

COLUMNS = {"plate": "Metadata_Plate", "well": "Metadata_Well", "compound": "Metadata_Drug",
           "concentration": {"value": 1}, "label": "Metadata_MoA"}


def tables(plate: str = "P1", seed: int = 0) -> dict[str, pd.DataFrame]:
    """Four images with two nuclei each."""
    rng = np.random.default_rng(seed)
    images = pd.DataFrame({"ImageNumber": range(1, 5), "Count_Nuclei": 2, "Metadata_Plate": plate,
                           "FileName_DNA": [f"{plate}{i}" for i in range(4)],
                            "Metadata_Well": [f"A{i}" for i in range(1, 5)],
                           "Metadata_Drug": [f"{plate} d{i}" for i in range(4)], "Metadata_MoA": list("xyxy")})
    nuclei = pd.DataFrame({"ImageNumber": np.repeat(range(1, 5), 2), "ObjectNumber": [1, 2] * 4,
                           "AreaShape_Area": rng.normal(100, 9, 8), "Intensity_MeanIntensity_DNA": rng.normal(size=8)})
    return {"Image": images, "Nuclei": nuclei}


def study(folder: Path, name: str) -> None:
    block = {"kind": "profile_table", "profiles": name, "columns": COLUMNS}
    (folder / "mine.yaml").write_text(yaml.safe_dump({**STUDY, "assay": block}))


def csvs(then: Callable[[Path], Any] = lambda out: None, **images: Any):
    """Draws a folder of ExportToSpreadsheet, with other columns of the images, and spoils it."""
    def draw(folder: Path) -> None:
        study(folder, "out")
        (folder / "out").mkdir()
        for name, table in tables().items():
            table.assign(**(images if name == "Image" else {})).to_csv(folder / "out" / f"{name}.csv", index=False)
        then(folder / "out")
    return draw


def edited(name: str, change: Callable[[bytes], bytes]):
    return csvs(lambda out: (out / name).write_bytes(change((out / name).read_bytes())))


def write_database(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path)) as database, database:
        for name, table in tables().items():
            keys = [c for c in ("ImageNumber", "ObjectNumber") if c in table]
            table.set_index(keys).add_prefix(f"{name}_").to_sql(f"Per_{name}", database)
        for statement in statements:
            database.execute(statement)


def database(*statements: str, then: Callable[[Path], Any] = lambda path: None):
    """Draws a file of ExportToDatabase, and spoils it."""
    def draw(folder: Path) -> None:
        study(folder, "x.db")
        write_database(folder / "x.db", *statements)
        then(folder / "x.db")
    return draw


def file(content: bytes, name: str = "x.db"):
    def draw(folder: Path) -> None:
        study(folder, name)
        (folder / name).write_bytes(content)
    return draw


def only(*statements: str):
    """A database of these tables alone."""
    def draw(folder: Path) -> None:
        study(folder, "x.db")
        with closing(sqlite3.connect(folder / "x.db")) as made, made:
            for statement in statements:
                made.execute(statement)
    return draw


def two_plates(folder: Path) -> None:
    study(folder, "out")
    for plate in ("P1", "P2"):
        (folder / "out" / plate).mkdir(parents=True)
        for name, table in tables(plate, seed=len(plate)).items():
            table.to_csv(folder / "out" / plate / f"{name}.csv", index=False)
    (folder / "out" / "P2" / "Image.csv").write_bytes(bytes(300))


def linked_to_itself(out: Path) -> None:
    (out / "Image.csv").unlink()
    (out / "Image.csv").symlink_to("Image.csv")


def number(old: bytes, new: bytes) -> Callable[[bytes], bytes]:
    def change(content: bytes) -> bytes:
        assert old in content
        return content.replace(old, new, 1)
    return change


AGAIN = "(Export|copy) .*again"
CASES = [
    Case("an empty folder", lambda folder: (study(folder, "out"), (folder / "out").mkdir()),
         "holds no table of images.*Image.csv"),
    Case("missing", lambda folder: study(folder, "out"), "out: does not exist. Correct assay.profiles"),
    Case("an empty table of images", edited("Image.csv", lambda b: b""), "no table of images|Image.csv.*empty"),
    Case("a table of images in UTF-16", edited("Image.csv", lambda b: b.decode().encode("utf-16")),
         "no table of images|Image.csv.*(UTF-8|cannot)"),
    Case("images without rows", edited("Image.csv", lambda b: b.splitlines(True)[0]), f"has no images.*{AGAIN}"),
    Case("an empty table of objects", edited("Nuclei.csv", lambda b: b""), rf"Nuclei\.csv is empty.*{AGAIN}"),
    Case("binary objects", edited("Nuclei.csv", lambda b: bytes(range(256)) * 9),
         r"Nuclei\.csv is not UTF-8 text. Save it as"),
    Case("objects cut off", edited("Nuclei.csv", lambda b: b[:-9]), rf"Nuclei\.csv: .*cut off.*{AGAIN}"),
    Case("objects that are thinned out", edited("Nuclei.csv", lambda b: b"".join(b.splitlines(True)[:-1])),
         "1 images have more or fewer Nuclei.*has 1 of 2"),
    Case("a column twice", edited("Nuclei.csv", number(b"AreaShape_Area", b"ObjectNumber")),
         "'ObjectNumber' appears 2"),
    Case("an image 1e400", edited("Nuclei.csv", number(b"\n1,1,", b"\n1e400,1,")),
         "row 2 .*1 objects belong to no image"),
    Case("an object 1e400", edited("Nuclei.csv", number(b"\n1,1,", b"\n1,1e400,")), "row 2: ObjectNumber is no whole"),
    Case("an object 1e30", edited("Nuclei.csv", number(b"\n1,1,", b"\n1,1e30,")), "row 2: ObjectNumber is no whole"),
    Case("images numbered twice", csvs(ImageNumber=[1, 1, 3, 4]), rf"Image\.csv: the image 1 appears twice.*{AGAIN}"),
    Case("counts that are words", csvs(Count_Nuclei="many"), r"Image\.csv: .*'many'"),
    Case("no compounds", csvs(lambda out: pd.read_csv(out / "Image.csv").drop(columns="Metadata_Drug").to_csv(
        out / "Image.csv", index=False)), "has no column 'Metadata_Drug'.*It has"),
    Case("a link to itself", csvs(linked_to_itself), r"no readable table of images\. Put Image\.csv beside"),
    Case("one plate of two unreadable", two_plates, "P2"),
    Case("text named SQLite", file(b"no database, but long enough"), rf"x\.db: is not a SQLite database.*{AGAIN}"),
    Case("an empty SQLite file", file(b""), rf"x\.db: is not a SQLite database.*{AGAIN}"),
    Case("SQLite cut off", database(then=lambda path: path.write_bytes(path.read_bytes()[:5000])),
         rf"x\.db: cannot be read as a SQLite database.*{AGAIN}"),
    Case("SQLite without tables", only("CREATE TABLE a (b)", "DROP TABLE a"), "no table of images.*Per_Image"),
    Case("SQLite of other tables", only("CREATE TABLE a (b)"), "no table of images.*Per_Image"),
    Case("a view in place of images", only("CREATE TABLE t (ImageNumber)", "CREATE VIEW Per_Image AS SELECT * FROM t"),
         "no table of images"),
    Case("images without objects", database("DROP TABLE Per_Nuclei"),
         "images and no table of objects.*Export the objects"),
    Case("a schema of nonsense", database("PRAGMA writable_schema=ON",
                                          "UPDATE sqlite_master SET sql='garbage' WHERE name='Per_Nuclei'"),
         f"cannot be read as a SQLite database.*malformed.*{AGAIN}"),
    Case("a number that is a word", database("UPDATE Per_Nuclei SET Nuclei_AreaShape_Area='big'"),
         "AreaShape_Area holds 'big', and measurements are numbers"),
    Case("a number that is bytes", database("UPDATE Per_Nuclei SET Nuclei_AreaShape_Area=x'80ff'"),
         "AreaShape_Area holds .*measurements are numbers"),
    Case("a plate in Latin-1", database("UPDATE Per_Image SET Image_Metadata_Plate=CAST(x'b550' AS TEXT)"),
         r"x\.db: cannot be read as a SQLite database.*UTF-8"),
    Case("another program's log", database(then=lambda path: path.with_name("x.db-wal").write_bytes(b"pages")),
         "was not closed by the program that wrote it.*Let it finish; x.db-wal"),
    Case("another program's journal", database(then=lambda path: path.with_name("x.db-journal").write_bytes(b"pages")),
         "was not closed by the program that wrote it.*Let it finish; x.db-journal"),
    Case("an array of MATLAB", file(b"MATLAB 5.0", "x.mat"), "neither parquet nor CSV by its name"),
]


@pytest.mark.parametrize("case", each(CASES))
def test_bad_output_is_refused(tmp_path, case):
    case.draw(tmp_path)
    command_refuses(tmp_path, case.says, "assay", "check", "mine.yaml")


@pytest.fixture
def locked(tmp_path) -> Iterator[Path]:
    """A database that another connection is writing to."""
    database()(tmp_path)
    with closing(sqlite3.connect(tmp_path / "x.db", isolation_level=None)) as writer:
        writer.execute("BEGIN EXCLUSIVE")
        yield tmp_path


def test_a_database_that_is_being_written_is_refused(locked):
    says = r"x\.db: is locked: another program.*Let that program finish"
    command_refuses(locked, says, "assay", "check", "mine.yaml")
