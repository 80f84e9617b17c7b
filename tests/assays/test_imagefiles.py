"""Paths as other programs write them: read where they can only mean one file, else refused once for each cause."""

from __future__ import annotations

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmark.assays.imagefiles import ChannelFile, add_files

ROWS = 5


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "data"
    for i in range(ROWS):
        (folder / "P1").mkdir(parents=True, exist_ok=True)
        (folder / "P1" / f"a {i}.tif").touch()
    return folder


def read(root, files, template="{File}"):
    """Paths of a table with these cells, the faults, the notes, and the rows with a fault."""
    table, bad, faults = pd.DataFrame(index=range(len(files))), set(), []
    notes = add_files({"DNA": ChannelFile(file=template)}, pd.DataFrame({"File": files}), table, root, "plan.csv", bad,
                      faults)
    return table["Path_DNA"].tolist(), faults, notes, bad


@pytest.mark.parametrize(("spelt", "note"), [
    ("P1\\a {i}.tif", "backslashes are read as /"), (" P1/a {i}.tif\u00a0", "blanks around a path are dropped"),
    ("file:///{root}/P1/a%20{i}.tif", "file:// before a path is dropped"), ("P1/../P1/./a {i}.tif", ""),
    ("file://localhost/{root}/P1/a {i}.tif", "file:// before a path is dropped"),
    ("file:/{root}/P1/a {i}.tif", "file:// before a path is dropped"), ("/{root}/P1/a {i}.tif", ""),
    (".\\P1\\a {i}.tif", "backslashes are read as /"),
])
def test_spellings_of_other_programs_are_read_and_said(root, spelt, note):
    files = [spelt.format(i=i, root=str(root)[1:]) for i in range(ROWS)]
    paths, faults, notes, bad = read(root, files)
    assert paths == [f"P1/a {i}.tif" for i in range(ROWS)] and faults == [] and bad == set()
    said = [f"plan.csv, 5 rows (2, 3, 4 and 2 more), File: {note}, in 5 paths"]
    assert [str(n) for n in notes] == (said if note else [])


def test_a_path_is_taken_as_it_is_spelt_where_that_file_is_there(root):
    odd = ["P1\\b.tif", " c.tif"]
    for name in odd:
        (root / name).touch()
    assert read(root, odd)[0] == odd and read(root, odd)[2] == []


@pytest.mark.parametrize(("spelt", "what", "remedy"), [
    ("s3://bucket/a {i}.tif", "each is a URL (s3://)", "Copy the images to a folder"),
    ("https://x.org/a {i}.tif", "each is a URL (https://)", "set assay.root"),
    ("gs:/bucket/a {i}.tif", "each is a URL (gs://)", ""),
    ("C:\\screen\\P1\\a {i}.tif", "each is a path of another machine; below", "Take C:/screen/ off these cells"),
    ("file:///D:/P1/a {i}.tif", "each is a path of another machine; below", "Take D:/ off these cells"),
    ("\\\\server\\share\\P1\\a {i}.tif", "each is a path of another machine", "Take //server/share/ off these cells"),
    ("/mnt/nowhere/P1/a {i}.tif", "each is a path of another machine; below", "Take /mnt/nowhere/ off"),
    ("/mnt/nowhere/b{i}.tif", "each is an absolute path that does not exist here", "Set assay.root"),
    ("E:/b{i}.tif", "each is an absolute path that does not exist here", "Set assay.root"),
    ("../other/P2/x{i}.tif", "each leads out of the assay's folder", "Set assay.root to {other}/P2"),
    ("{other}/P2/x{i}.tif", "each leads out of the assay's folder", "Set assay.root to {other}/P2"),
    ("link/P2/x{i}.tif", "link is a link to {other}", "Set assay.root to {other}"),
    ("circle/{i}.tif", "links lead in a circle", ""), ("a\tb{i}", "control characters", "Check the CSV"),
    ("P1/" + "x" * 300 + "{i}.tif", "more than 255 bytes", ""),
    ("", "the cell File is empty", "Fill it in"), (" nan ", "the cell File is empty ('nan')", "Fill it in"),
])
def test_what_cannot_be_used_is_one_fault_with_its_cause_and_remedy(root, tmp_path, spelt, what, remedy):
    other = tmp_path / "other"
    (other / "P2").mkdir(parents=True)
    for i in range(ROWS):
        (other / "P2" / f"x{i}.tif").touch()
    (root / "link").symlink_to(other)
    (root / "circle").symlink_to(root / "circle")
    files = [spelt.replace("{i}", str(i)).replace("{other}", str(other)) for i in range(ROWS)] + ["P1/a 0.tif"]
    paths, faults, _, bad = read(root, files)
    fault, = faults
    assert bad == set(range(ROWS)) and paths[-1] == "P1/a 0.tif"
    assert fault.where.startswith("plan.csv, 5 rows (2, 3, 4 and 2 more), File")
    assert what.replace("{other}", str(other)) in fault.what, fault
    assert remedy.replace("{other}", str(other)) in fault.remedy, fault


def test_each_empty_column_is_a_fault_of_its_own_and_of_a_template_as_well(root):
    table, bad, faults = pd.DataFrame(index=range(2)), set(), []
    cells = pd.DataFrame({"A": ["", "a 0.tif"], "B": ["a 1.tif", ""], "C": ["", ""]})
    channels = {"One": ChannelFile(file="P1/{A}{C}"), "Two": ChannelFile(file="P1/{B}{C}", plane=3)}
    add_files(channels, cells, table, root, "plan.csv", bad, faults)
    assert [str(f).split(". ")[0] for f in faults] == ["plan.csv, row 2, A: the cell A is empty",
                                                      "plan.csv, row 3, B: the cell B is empty"]
    assert table["Plane_One"].tolist() == [0, 0] and table["Plane_Two"].tolist() == [3, 3]  # C may be empty


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=30))
def test_any_text_gives_a_path_below_the_root_or_one_fault(tmp_path_factory, text):
    folder = tmp_path_factory.mktemp("any")
    paths, faults, _, bad = read(folder, [text])
    assert len(faults) == len(bad) <= 1
    if not bad:
        assert (folder / paths[0]).resolve().is_relative_to(folder.resolve())
