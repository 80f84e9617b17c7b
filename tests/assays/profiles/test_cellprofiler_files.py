"""Existing output of CellProfiler, in every form that its exports take, from one simulated run.

The SQLite files are written here after the schema of CellProfiler 4.2.8.1's exporttodatabase.py; that the module itself
writes the same is tested on a real run in tests/cellprofiler/test_cellprofiler_files_real.py.
"""

import csv
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmark.assays.profiles.cellprofiler_files import find_output, is_output, read_cells
from benchmark.assays.profiles.profile_table import ProfileTableSettings, load_profile_table
from benchmark.base.errors import FaultsError, MorphobenchError
from benchmark.base.tables import COMPOUND, CONTROL, LABEL, PLATE, SITE, WELL

NAMES = ("Nuclei", "Cells", "Cytoplasm")
COUNTS = (3, 2, 0, 4)


def make_run(names=NAMES, counts=COUNTS, seed=0, plate="P1", wells=None):
    """Tables as CellProfiler measures them; cells are numbered against their nuclei, so that only parents join them."""
    rng = np.random.default_rng(seed)
    nuclei, cells, cytoplasm = names
    images, objects = [], {name: [] for name in names}
    for i, count in enumerate(counts, 1):
        images.append({
            "ImageNumber": i, **{f"Count_{n}": float(count) for n in names}, "FileName_DNA": f"{plate}_{i}.tif",
            "PathName_DNA": "/data/images", "Metadata_Plate": plate, "Metadata_Site": i + 8,
            "Metadata_Well": wells[i - 1] if wells else f"A0{i}", "ImageQuality_Focus_DNA": rng.normal()})
        for k in range(1, count + 1):
            for name, parents in ((nuclei, {}), (cells, {nuclei: count + 1 - k}),
                                  (cytoplasm, {cells: k, nuclei: count + 1 - k})):
                objects[name].append({
                    "ImageNumber": i, "ObjectNumber": k, "AreaShape_Area": rng.normal(100, 10),
                    "AreaShape_Center_X": rng.uniform(0, 500), "Location_Center_X": rng.uniform(0, 500),
                    "Number_Object_Number": k, **{f"Parent_{p}": n for p, n in parents.items()},
                    "Texture_Entropy_DNA": np.inf if rng.uniform() < 0.2 else rng.normal() * 1e-7})
    return {"Image": pd.DataFrame(images), **{n: pd.DataFrame(rows) for n, rows in objects.items()}}


def write_csvs(run, folder, prefix="", separator=",", only=None, suffix=".csv"):
    """As ExportToSpreadsheet: plain numbers, ``nan`` and ``inf``, and a header alone where nothing was found."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, table in run.items():
        if only is None or name in only:
            if table.empty:
                table = pd.DataFrame(columns=["ImageNumber", "ObjectNumber"])
            table.to_csv(folder / f"{prefix}{name}{suffix}", index=False, sep=separator, na_rep="nan",
                         lineterminator="\r\n")
    return folder


def write_side_by_side_csv(run, folder):
    """As ExportToSpreadsheet with objects combined: names of objects above the header, rows filled up with nan."""
    write_csvs(run, folder, only=["Image"])
    kinds = [n for n in run if n != "Image"]
    parts = [run[k].set_index(["ImageNumber", "ObjectNumber"]) for k in kinds]
    wide = pd.concat(parts, axis=1, keys=kinds).reset_index()
    with (folder / "DATA.csv").open("w", newline="") as handle:
        writer = csv.writer(handle)
        writer.writerow(["Image", kinds[0], *(k for k, p in zip(kinds, parts, strict=True) for _ in p)])
        writer.writerow(["ImageNumber", "ObjectNumber", *(c for p in parts for c in p)])
        writer.writerows([["nan" if v != v else v for v in row] for row in wide.to_numpy().tolist()])
    return folder


def quoted(name):
    return '"' + name.replace('"', '""') + '"'


def sql_type(column):
    if pd.api.types.is_string_dtype(column):
        return "TEXT"
    return "INTEGER" if pd.api.types.is_integer_dtype(column) or column.name.endswith("Number") else "float"


def write_sqlite(run, path, form="separate", prefix=""):
    """As ExportToDatabase: not finite is NULL, columns named after their table, objects apart or side by side."""
    path.parent.mkdir(parents=True, exist_ok=True)
    kinds = sorted(n for n in run if n != "Image")
    with closing(sqlite3.connect(path)) as database, database:
        database.execute(f"CREATE TABLE {prefix}Per_Experiment (CellProfiler_Version TEXT)")
        image = run["Image"].set_index("ImageNumber").add_prefix("Image_").reset_index()
        own = {k: run[k].drop(columns="ObjectNumber").set_index("ImageNumber").add_prefix(f"{k}_").reset_index()
               for k in kinds}
        tables = {"Image": (image, ["ImageNumber"])}
        if form == "combined":
            parts = [run[k].set_index(["ImageNumber", "ObjectNumber"]).add_prefix(f"{k}_") for k in kinds]
            tables["Object"] = (pd.concat(parts, axis=1).reset_index(), ["ImageNumber", "ObjectNumber"])
        else:
            tables |= {k: (own[k], ["ImageNumber", f"{k}_Number_Object_Number"]) for k in kinds}
        for name, (table, key) in tables.items():
            columns = ", ".join(f"{quoted(c)} {sql_type(table[c])}" for c in table)
            keys = ", ".join(map(quoted, key))
            database.execute(f'CREATE TABLE "{prefix}Per_{name}" ({columns}, PRIMARY KEY ({keys}))')
            rows = [[None if isinstance(v, float) and not np.isfinite(v) else v for v in row]
                    for row in table.astype(object).to_numpy().tolist()]
            marks = ", ".join("?" * len(table.columns))
            database.executemany(f'INSERT INTO "{prefix}Per_{name}" VALUES ({marks})', rows)
        if form == "view":
            joins = "".join(f' INNER JOIN "{prefix}Per_{k}" USING (ImageNumber)' for k in kinds[1:])
            database.execute(f'CREATE VIEW "{prefix}Per_Object" AS SELECT *, 1 AS ObjectNumber FROM '
                             f'"{prefix}Per_{kinds[0]}"{joins}')
    return path


def read(path, plate="Metadata_Plate", well="Metadata_Well", prefixes=None, separator=","):
    return read_cells(find_output(path, separator), plate, well, prefixes)[:2]


def expected(run, names=NAMES):
    """The join by hand: for each cell of the run the rows of its nucleus and cytoplasm."""
    nuclei, cells, cytoplasm = (run[n].set_index(["ImageNumber", "ObjectNumber"]) for n in names)
    images = run["Image"].set_index("ImageNumber")
    rows = []
    for (image, number), cell in cells.iterrows():
        row = {PLATE: images.at[image, "Metadata_Plate"], WELL: images.at[image, "Metadata_Well"],
               SITE: images.at[image, "Metadata_Site"]}
        for name, part in ((names[1], cell), (names[2], cytoplasm.loc[(image, number)]),
                           (names[0], nuclei.loc[(image, int(cell[f"Parent_{names[0]}"]))])):
            row |= {f"{name}_{c}": np.float32(part[c]) for c in ("AreaShape_Area", "Texture_Entropy_DNA")}
        rows.append(row)
    return pd.DataFrame(rows).replace([np.inf, -np.inf], np.nan)


def assert_same(table, wanted):
    assert set(table) == set(wanted)
    pd.testing.assert_frame_equal(table[list(wanted)], wanted, check_dtype=False, check_exact=True)


FORMS = {
    "csv": lambda run, at: write_csvs(run, at),
    "csv with a prefix": lambda run, at: write_csvs(run, at, "MyExpt_"),
    "csv side by side": write_side_by_side_csv,
    "sqlite": lambda run, at: write_sqlite(run, at / "DefaultDB.db"),
    "sqlite with a prefix": lambda run, at: write_sqlite(run, at / "x.sqlite", prefix="MyExpt_"),
    "sqlite side by side": lambda run, at: write_sqlite(run, at / "x.sqlite3", "combined", "My_"),
    "sqlite with a view": lambda run, at: write_sqlite(run, at / "x.db", "view"),
    "folder of sqlite": lambda run, at: write_sqlite(run, at / "P1" / "x.db").parents[1],
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_table_of_cells(tmp_path, form):
    run = make_run()
    path = FORMS[form](run, tmp_path / "my run's 100% ?#µ")
    assert is_output(path)
    table, notes = read(path)
    assert_same(table, expected(run))
    features = [c for c in table if not c.startswith("Metadata_")]
    assert (table[features].dtypes == np.float32).all() and table[SITE].tolist()[:4] == [9, 9, 9, 10]
    said = "\n".join(map(str, notes))
    assert "positions or numbers of objects" in said and "do not pair off" not in said
    assert ("infinite values" in said) == (not is_output(Path(path)) or "csv" in form)


@settings(max_examples=15, deadline=None)
@given(st.randoms(use_true_random=False), st.sampled_from(["csv", "sqlite"]))
def test_the_order_of_rows_says_nothing(tmp_path_factory, random, form):
    run = make_run()
    for name in NAMES:
        run[name] = run[name].sample(frac=1, random_state=random.randrange(1000))
    table, _ = read(FORMS[form](run, tmp_path_factory.mktemp("any")))
    wanted = expected(make_run())
    key = "Cells_AreaShape_Area"
    assert_same(table.sort_values(key, ignore_index=True), wanted.sort_values(key, ignore_index=True))


def test_numbers_of_images_count_within_a_folder_alone(tmp_path):
    runs = [make_run(seed=i, plate=f"P{i}") for i in range(3)]
    for i, run in enumerate(runs):
        write_csvs(run, tmp_path / "plates" / f"batch{i // 2}" / f"p{i}", "MyExpt_")
    (tmp_path / "plates" / "plan.csv").write_text("Plate,Well\nP0,A01\n")
    table, _ = read(tmp_path / "plates")
    assert_same(table, pd.concat([expected(r) for r in runs], ignore_index=True))
    # The same with prefixes in one folder, where MyExpt_ begins like MyExpt_2_.
    for i, run in enumerate(runs):
        write_csvs(run, tmp_path / "flat", ("MyExpt_", "MyExpt_2_", "")[i])
    flat, _ = read(tmp_path / "flat")
    assert_same(flat.sort_values([PLATE, "Cells_AreaShape_Area"], ignore_index=True),
                table.sort_values([PLATE, "Cells_AreaShape_Area"], ignore_index=True))


def test_an_export_without_a_single_cell_adds_nothing(tmp_path):
    write_csvs(make_run(plate="P1"), tmp_path / "a")
    write_csvs(make_run(plate="P2", counts=(0, 0)), tmp_path / "b")
    table, notes = read(tmp_path)
    assert_same(table, expected(make_run()))
    assert not [n for n in notes if "left out: not every export" in str(n)]
    shutil.rmtree(tmp_path / "a")
    with pytest.raises(MorphobenchError, match="holds no Cells"):
        read(tmp_path)


@pytest.mark.parametrize("form", ["csv", "sqlite", "sqlite side by side", "csv side by side"])
def test_objects_of_any_name(tmp_path, form):
    names = ("Kern", "Kern_Zelle", "Plasma")  # one begins like another
    run = make_run(names)
    path = FORMS[form](run, tmp_path / "x")
    table, _ = read(path)
    assert_same(table, expected(run, names))
    assert "Kern_Zelle_AreaShape_Area" not in read(path, prefixes=["Plasma_"])[0]
    with pytest.raises(MorphobenchError, match=r"no feature that starts with Cells_.*Kern_Zelle"):
        read(path, prefixes=["Cells_"])


def test_cytominer_databases_have_hashes_of_tables_beside_numbers_of_images(tmp_path):
    """Two runs in one file, told apart by a TableNumber beyond what a float can hold."""
    tables = [2**62 + 1, 2**62 + 2]
    runs = [make_run(seed=i, plate=f"P{i}") for i in range(2)]
    with closing(sqlite3.connect(tmp_path / "BR1.sqlite")) as database:
        for name in ("Image", *NAMES):
            whole = pd.concat([r[name].assign(TableNumber=t) for r, t in zip(runs, tables, strict=True)])
            whole.replace([np.inf, -np.inf], np.nan).set_index(
                ["TableNumber", "ImageNumber", *(["ObjectNumber"] if name != "Image" else [])]
            ).add_prefix(f"{name}_").to_sql(name, database)
    table, _ = read(tmp_path / "BR1.sqlite")
    assert_same(table, pd.concat([expected(r) for r in runs], ignore_index=True))


def test_objects_that_do_not_pair_off_or_lack_a_table_are_left_out_with_a_note(tmp_path):
    run = make_run()
    run["Speckles"] = pd.DataFrame({"ImageNumber": 1, "ObjectNumber": [1, 2, 3], "Parent_Cells": [1, 1, 2],
                                    "AreaShape_Area": 1.0})
    run["Image"]["Count_Ghosts"] = 2.0
    table, notes = read(write_csvs(run, tmp_path / "a"))
    assert_same(table, expected(run))
    said = "\n".join(map(str, notes))
    assert "Speckles left out: they do not pair off with Cells" in said
    assert "Ghosts left out: they are counted and have no table" in said
    less = make_run(plate="P2")
    write_csvs(less, tmp_path / "b", only=["Image", "Nuclei", "Cells"])
    with pytest.raises(FaultsError) as caught:
        read(tmp_path)
    assert "1 of 2 exports have no table of Cytoplasm: b/Image.csv" in str(caught.value)
    assert "1 of 2 exports have no table of Speckles" in str(caught.value) and "(Cells_, Nuclei_)" in str(caught.value)
    table, notes = read(tmp_path, prefixes=["Nuclei_", "Cells_"])
    assert not [c for c in table if c.startswith("Cytoplasm")] and len(table) == 18
    assert "Cytoplasm left out: not every export has them" in "\n".join(map(str, notes))


def test_a_cell_without_cytoplasm_has_missing_values_and_features_of_some_exports_go(tmp_path):
    run = make_run()
    run["Cytoplasm"] = run["Cytoplasm"].iloc[1:].reset_index(drop=True)
    del run["Image"]["Count_Cytoplasm"]
    more = make_run(plate="P2", seed=1)
    more["Nuclei"]["Granularity_1_DNA"] = 1.0
    write_csvs(run, tmp_path / "a")
    write_csvs(more, tmp_path / "b")
    table, notes = read(tmp_path)
    missing = table["Cytoplasm_AreaShape_Area"].isna()
    assert missing.tolist() == [True] + [False] * 17 and table["Cells_AreaShape_Area"].notna().all()
    assert "1 features of Nuclei left out: not every export has them (Granularity_1_DNA)" in "\n".join(map(str, notes))


def test_a_database_is_only_read_and_names_in_it_are_no_sql(tmp_path):
    run = make_run()
    run["Image"]['Metadata_Gene"; DROP TABLE Per_Cells; --'] = "x"
    run["Cells"]['Texture_"Odd" [name]'] = 1.0
    path = write_sqlite(run, tmp_path / "x.db")
    with closing(sqlite3.connect(path)) as database, database:
        database.execute('CREATE TABLE "we""ird; name" (ImageNumber INTEGER, ObjectNumber INTEGER)')
        database.execute("CREATE VIEW Per_Trap AS SELECT 1 AS ImageNumber, randomblob(1000000000) AS Trap_X")
    before, beside = path.read_bytes(), sorted(p.name for p in tmp_path.iterdir())
    path.chmod(0o444)
    table, _ = read(path)
    assert len(table) == 9 and path.read_bytes() == before and sorted(p.name for p in tmp_path.iterdir()) == beside
    assert (table['Cells_Texture_"Odd" [name]'] == 1).all()


def spoilt(run, name, change):
    """The run with one table changed."""
    return {**run, name: change(run[name])}


@pytest.mark.parametrize("form", ["csv", "sqlite"])
@pytest.mark.parametrize(("name", "change", "message"), [
    ("Image", lambda t: t.drop(columns="Metadata_Well"), "has no column"),
    ("Image", lambda t: t.assign(Metadata_Plate=["P1", "", "P1", "P1"]), r"row 3: Metadata_Plate is empty"),
    ("Image", lambda t: t.iloc[:3], r"4 objects belong to no image"),
    ("Nuclei", lambda t: t.iloc[:-1], r"1 images have more or fewer Nuclei.*4 has 3 of 4.*remove Count_Nuclei"),
    ("Nuclei", lambda t: t.assign(Texture_Entropy_DNA="many"), "many"),
])
def test_tables_that_do_not_fit_together(tmp_path, form, name, change, message):
    path = FORMS[form](spoilt(make_run(), name, change), tmp_path / "x")
    options = ProfileTableSettings(profiles=str(path), negative_controls=["c"], columns={
        "plate": "Metadata_Plate", "well": "Metadata_Well", "compound": {"value": "c"},
        "concentration": {"value": 1}, "label": {"value": "l"}})
    with pytest.raises(MorphobenchError, match=message):
        if "no column" in message:
            load_profile_table(options, "mine", tmp_path)
        else:
            read(path)


def test_what_stands_there_twice(tmp_path):
    run = make_run()
    twice = spoilt(run, "Cells", lambda t: pd.concat([t, t.iloc[[4]]]))
    with pytest.raises(FaultsError, match=r"1 objects appear twice, the ObjectNumber 2 of the image 2"):
        read(write_csvs(twice, tmp_path / "a"))
    with pytest.raises(FaultsError, match="the image 4 appears twice"):
        read(write_csvs(spoilt(run, "Image", lambda t: t.assign(ImageNumber=[1, 2, 4, 4])), tmp_path / "b"))
    write_csvs(run, tmp_path / "c" / "new")
    write_csvs(make_run(seed=1), tmp_path / "c" / "old")  # the same images, measured again
    with pytest.raises(FaultsError, match=r"old/Image\.csv, plate P1, well A01: the same images"):
        read(tmp_path / "c")
    shutil.copy(write_csvs(run, tmp_path / "d") / "Cells.csv", tmp_path / "d" / "Cells.txt")
    with pytest.raises(MorphobenchError, match="Cells are in two files"):
        read(tmp_path / "d")
    both = write_sqlite(run, tmp_path / "x.db")
    with closing(sqlite3.connect(both)) as database, database:
        database.execute("CREATE TABLE Per_Object (ImageNumber INTEGER, ObjectNumber INTEGER, "
                         "Spots_Number_Object_Number INTEGER)")
    with pytest.raises(MorphobenchError, match="a table of all objects and tables of single kinds"):
        read(both)


def test_exports_of_different_pipelines_are_not_mixed(tmp_path):
    write_csvs(make_run(), tmp_path / "a")
    write_csvs(spoilt(make_run(plate="P2"), "Cells", lambda t: t.drop(columns="Parent_Nuclei")), tmp_path / "b")
    with pytest.raises(FaultsError, match=r"Cells have other parents than in a/Cells\.csv"):
        read(tmp_path)


def test_what_is_no_output(tmp_path):
    run = make_run()
    (tmp_path / "empty").mkdir()
    with pytest.raises(MorphobenchError, match=r"holds no table of images.*Image.csv.*assay.separator"):
        read(tmp_path / "empty")
    assert len(read(write_csvs(run, tmp_path / "text", separator="\t", suffix=".txt"), separator="\t")[0]) == 9
    with pytest.raises(MorphobenchError, match=r"Image.csv: holds images and no table of objects"):
        read(write_csvs(run, tmp_path / "images", only=["Image"]))
    (tmp_path / "x.db").write_bytes(b"no database at all, but long enough to look")
    (tmp_path / "y.db").write_bytes(b"")
    for name in ("x.db", "y.db"):
        with pytest.raises(MorphobenchError, match="is not a SQLite database"):
            read(tmp_path / name)
    with pytest.raises(MorphobenchError, match="cannot be read"):
        read(tmp_path / "none.db")


@pytest.mark.parametrize("cut", ["within a row", "within a row, and saved again", "within the last number",
                                 "after a row", "to nothing"])
def test_a_csv_that_is_cut_off(tmp_path, cut):
    path = write_csvs(make_run(), tmp_path / "x") / "Cytoplasm.csv"
    whole = path.read_bytes()
    rows = whole.splitlines(keepends=True)
    path.write_bytes({"within a row": whole[:-60], "within a row, and saved again": whole[:-60] + b"\r\n",
                      "within the last number": whole.rstrip()[:-2],
                      "after a row": b"".join(rows[:-1]), "to nothing": b""}[cut])
    with pytest.raises(MorphobenchError, match=r"cut off|truncated|4 has 3 of 4"):
        read(tmp_path / "x")


def test_a_database_that_is_cut_off_or_still_written(tmp_path):
    path = write_sqlite(make_run(counts=(40, 50)), tmp_path / "x.db")
    whole = path.read_bytes()
    path.write_bytes(whole[:len(whole) // 2])
    with pytest.raises(MorphobenchError, match="cannot be read as a SQLite database"):
        read(path)
    path.write_bytes(whole)
    (tmp_path / "x.db-wal").write_bytes(b"pages")
    with pytest.raises(MorphobenchError, match="was not closed by the program that wrote it"):
        read(path)


# --- as an assay ----------------------------------------------------------------------------------------------------

WELLS = [f"{r}{c:02d}" for r in "AB" for c in range(1, 5)]
PLAN = pd.DataFrame({"plate": "P1", "well": WELLS, "drug": ["DMSO"] * 2 + ["a", "b", "c", "d", "a", "b"],
                     "dose": [0] * 2 + [1] * 6, "moa": [""] * 2 + list("xxyyxx")})
MAPPED = {"plate": "plate", "well": "well", "compound": "drug", "concentration": "dose", "label": "moa"}


@pytest.mark.parametrize("form", ["csv", "sqlite side by side"])
def test_an_assay_of_existing_output(tmp_path, form):
    run = make_run(counts=(2, 1, 3, 2, 1, 2, 0, 1), wells=WELLS)
    path = FORMS[form](run, tmp_path / "out")
    PLAN.to_csv(tmp_path / "plan.csv", index=False)
    options = {"profiles": str(path.relative_to(tmp_path)), "negative_controls": ["DMSO"]}
    assay = load_profile_table(ProfileTableSettings(**options, metadata="plan.csv", columns=MAPPED), "mine", tmp_path)
    assert len(assay.fields) == 7 and len(assay.features) == 12 and assay.labels == ["x", "y"]
    assert "1 wells of the metadata left out" in str(assay.left_out[-1])  # the well without a cell
    # The plan as metadata of the images, under names with or without Image_.
    wide = {**run, "Image": run["Image"].assign(**{f"Metadata_{c}": PLAN[c] for c in ("drug", "dose", "moa")})}
    path = FORMS[form](wide, tmp_path / "wide")
    columns = {"plate": "Image_Metadata_Plate", "well": "Metadata_Well", "compound": "Metadata_drug",
               "concentration": "Metadata_dose", "label": "Image_Metadata_moa"}
    options["profiles"] = str(path)
    own = load_profile_table(ProfileTableSettings(**options, columns=columns), "mine", tmp_path)
    assert own.features.equals(assay.features)
    assert own.fields[[WELL, COMPOUND, LABEL, CONTROL]].equals(assay.fields[[WELL, COMPOUND, LABEL, CONTROL]])
    assert own.features_hash != assay.features_hash and len(own.features_hash) == 64


def test_the_hash_of_a_folder_covers_every_table_and_nothing_else(tmp_path):
    folder = write_csvs(make_run(), tmp_path / "x")
    first = find_output(folder, ",").sha256
    (folder / "Experiment.csv").write_text("Key,Value\nRun_Timestamp,today\n")
    assert find_output(folder, ",").sha256 == first and len(first) == 64
    path = folder / "Nuclei.csv"
    path.write_bytes(path.read_bytes().replace(b"0.", b"1.", 1))
    assert find_output(folder, ",").sha256 != first


@pytest.mark.parametrize("form", ["csv side by side", "sqlite side by side"])
def test_objects_side_by_side_may_differ_in_number(tmp_path, form):
    """An image with three nuclei and two cells: the row that is filled up belongs to the nuclei alone."""
    run = make_run()
    for name in ("Cells", "Cytoplasm"):
        gone = (run[name]["ImageNumber"] == 1) & (run[name]["ObjectNumber"] == 3)
        run[name] = run[name][~gone].reset_index(drop=True)
        run["Image"].loc[0, f"Count_{name}"] = 2.0
    assert_same(read(FORMS[form](run, tmp_path / "x"))[0], read(write_csvs(run, tmp_path / "apart"))[0])
