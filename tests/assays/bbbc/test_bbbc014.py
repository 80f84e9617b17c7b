"""BBBC014's plate: file names of every copy, plate map, labels and doses."""

import re
from pathlib import Path

import pytest
from fake_bbbc import bbbc014_doses, well_names, write_bbbc014, write_plate, write_platemap

from benchmark.assays.bbbc.bbbc014 import PLATEMAP, Bbbc014AssaySettings, load_bbbc014
from benchmark.assays.bbbc.translocation import read_platemap
from benchmark.base.errors import FaultsError, MorphobenchError
from benchmark.base.tables import CELL_LINE, COMPOUND, CONCENTRATION, CONTROL, LABEL, PLATE, REPLICATE, WELL
from benchmark.folds.make import make_split
from benchmark.images.reading import read_field
from benchmark.quality.check import image_faults
from benchmark.workflow.study import load_study


def _load(root: Path):
    return load_bbbc014(Bbbc014AssaySettings(root=str(root)), "fake", Path())


def test_the_fetched_layout(tmp_path):
    write_bbbc014(tmp_path)
    assay = _load(tmp_path)
    assert assay.channels == ("NFkB", "DNA") and assay.scoring == "controls" and image_faults(assay) == []
    fields = assay.fields.set_index(WELL)
    assert len(fields) == 96 and fields[PLATE].nunique() == 1 and set(fields[COMPOUND]) == {"TNFa"}
    assert set(fields.loc["A01":"D12", CELL_LINE]) == {"MCF7"} and set(fields.loc["E01":"H12", CELL_LINE]) == {"A549"}
    assert fields.loc["A03", "Path_NFkB"] == "BBBC014_v1_images/Channel 1-03-A-03-00.Bmp"
    assert fields.loc["H12", "Path_DNA"] == "BBBC014_v1_images/Channel 2-96-H-12-00.Bmp"
    assert fields.loc["C07", REPLICATE] == 3 and fields.loc["G07", REPLICATE] == 3
    # 10^-7 mol/L is 0.1 µM.
    assert fields.loc["A01", CONCENTRATION] == 0.1 and fields.loc["E03", CONCENTRATION] == 0.01
    assert fields.loc["B02", CONCENTRATION] == pytest.approx(10**-1.5, rel=1e-5)


def test_labels_are_those_of_the_authors_code(tmp_path):
    """Theirs: 64 wells in the order of their index list, labelled 1,1,1,1,0,0,0,0 again and again."""
    write_bbbc014(tmp_path)
    assay = _load(tmp_path)
    chosen = [i for i in range(96) if i % 12 in (0, 1, 2, 3, 8, 9, 10, 11)]
    theirs = {well_names()[i]: ["nuclear"] * 4 + ["cytoplasmic"] * 4 for i in chosen}
    theirs = {well: labels[n % 8] for n, (well, labels) in enumerate(theirs.items())}
    ours = assay.treated.set_index(WELL)
    assert ours[LABEL].to_dict() == theirs
    assert set(ours.loc[ours[LABEL] == "nuclear", CONTROL]) == {"positive"}
    assert set(ours.loc[ours[LABEL] == "cytoplasmic", CONTROL]) == {"negative"}
    assert sorted(assay.responses[WELL].str[1:].unique()) == ["05", "06", "07", "08"] and len(assay.predicted) == 96
    assert assay.labels == ["cytoplasmic", "nuclear"]


@pytest.mark.parametrize("name", [
    "Channel {channel}-{number:02d}-{row}-{column:02d}.Bmp", "channel {channel}-{number:02d}-{row}-{column:02d}-00.BMP",
    "Channel{channel}-{number:02d}-{row}-{column:02d}.tif", "Channel {channel}-{number:02d}-{row}-{column:02d}-00.tiff",
])
def test_names_of_other_copies_in_the_root_itself(tmp_path, name):
    write_plate(tmp_path, name)
    write_platemap(tmp_path / PLATEMAP, bbbc014_doses())
    (tmp_path / "Thumbs.db").write_bytes(b"x")
    assay = _load(tmp_path)
    assert image_faults(assay) == [] and len(assay.fields) == 96
    # Channel 2 is the nuclear stain: dark but for one disc; the reporter of a low dose is bright around it.
    reporter, dna = read_field(assay, assay.fields.set_index(WELL).loc["A12"])
    assert reporter[dna > 100].mean() < 50 < 100 < reporter[dna < 50].mean()


def test_the_folder_of_images_may_be_the_root(tmp_path):
    write_bbbc014(tmp_path)
    (tmp_path / "lock.json").write_text("{}")
    assay = _load(tmp_path / "BBBC014_v1_images")
    assert len(assay.fields) == 96 and assay.lock == tmp_path / "lock.json"


def test_what_is_missing_is_said_with_the_command(tmp_path):
    with pytest.raises(MorphobenchError, match=r"no images of BBBC014.*morphobench assay fetch bbbc014"):
        _load(tmp_path)
    write_bbbc014(tmp_path)
    (tmp_path / "BBBC014_v1_images" / "Channel 2-15-B-03-00.Bmp").unlink()
    with pytest.raises(FaultsError, match=r"1 of 192 images are missing: B03 \(DNA\)"):
        _load(tmp_path)
    write_bbbc014(tmp_path)
    (tmp_path / PLATEMAP).unlink()
    with pytest.raises(MorphobenchError, match=r"holds no BBBC014_v1_platemap_all.txt.*assay fetch bbbc014"):
        _load(tmp_path)


def test_doubled_and_misnumbered_files(tmp_path):
    write_bbbc014(tmp_path)
    folder = tmp_path / "BBBC014_v1_images"
    (folder / "Channel 1-01-A-01.tif").write_bytes(b"x")
    (folder / "Channel 1-05-A-05-00.Bmp").rename(folder / "Channel 1-06-A-05-00.Bmp")
    with pytest.raises(FaultsError) as caught:
        _load(tmp_path)
    assert "channel 1 has several files" in str(caught.value) and "well A01" in str(caught.value)
    assert "says well number 6, and A05 is number 5" in str(caught.value)


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_plate_maps_of_any_system(tmp_path, end):
    write_platemap(tmp_path / "map.txt", bbbc014_doses(), end)
    doses = read_platemap(tmp_path / "map.txt")
    assert list(doses) == well_names() and doses["A01"] == 1e-7 and doses["H11"] == 1e-12
    grid = [bbbc014_doses()[i:i + 12] for i in range(0, 96, 12)]
    (tmp_path / "grid.txt").write_text(end.join("\t".join(row) for row in grid), newline="")
    assert read_platemap(tmp_path / "grid.txt") == doses


@pytest.mark.parametrize(("entry", "number"), [
    ("10^-7", 1e-7), ("10^(-7.5)", 3.16228e-8), ("3x10^-8", 3e-8), ("1e-7", 1e-7), ("0", 0.0), ("10^−9", 1e-9),
])
def test_entries_of_a_plate_map(tmp_path, entry, number):
    write_platemap(tmp_path / "map.txt", [entry] * 96)
    assert set(read_platemap(tmp_path / "map.txt").values()) == {number}


@pytest.mark.parametrize("entry", ["high", "-1", "nan", "inf", "10^", "10^-7^2", "1,5.", "10^9999"])
def test_entries_that_are_no_doses(tmp_path, entry):
    entries = bbbc014_doses()
    entries[14] = entry
    write_platemap(tmp_path / "map.txt", entries)
    with pytest.raises(FaultsError, match=re.escape(entry) + r".*no dose") as caught:
        read_platemap(tmp_path / "map.txt")
    assert "map.txt, entry 14 (well B03)" in str(caught.value)


def test_maps_that_do_not_fit(tmp_path):
    write_platemap(tmp_path / "map.txt", bbbc014_doses()[:95])
    with pytest.raises(MorphobenchError, match=r"95 entries.*96 wells"):
        read_platemap(tmp_path / "map.txt")
    write_bbbc014(tmp_path)
    write_platemap(tmp_path / PLATEMAP, bbbc014_doses()[::-1])  # the plate the wrong way round
    with pytest.raises(FaultsError, match="is not above the highest of columns 9-12"):
        _load(tmp_path)


def test_the_study_trains_on_one_cell_line_and_predicts_the_other(tmp_path, monkeypatch):
    write_bbbc014(tmp_path / "bbbc014")
    monkeypatch.setenv("MORPHOBENCH_DATA", str(tmp_path))
    study = load_study("bbbc014")
    assay = load_bbbc014(study.assay, study.name, Path())
    split = make_split(assay, "a" * 64, study.split)
    assert [f.name for f in split.folds] == ["A549", "MCF7"]
    for fold, rows in zip(split.folds, ("EFGH", "ABCD"), strict=True):
        assert len(fold.test) == len(fold.train) == 32 and len(fold.response) == 16
        assert {w[0] for _, w in (*fold.test, *fold.response)} == set(rows)
        assert {w[0] for _, w in fold.train} == set("ABCDEFGH") - set(rows)
