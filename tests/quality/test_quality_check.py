"""All faults of an assay's images are found at once; its hash names its content and nothing else."""

import os
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import tifffile
from PIL import Image

from benchmark.assays.fieldtable import make_assay
from benchmark.base.errors import MorphobenchError
from benchmark.base.tables import COMPOUND, LABEL
from benchmark.quality import check
from benchmark.quality.check import assay_hash, check_images, file_hashes, image_faults


def _table(n=8):
    return pd.DataFrame([
        {"Metadata_Batch": "1", "Metadata_Plate": "P", "Metadata_Well": f"A{i // 2:02d}", "Metadata_Site": i % 2,
         "Metadata_Replicate": 1, "Metadata_Compound": f"c{i // 2}", "Metadata_Concentration": 1.0,
         "Metadata_Label": "x" if i < n // 2 else "y", "Metadata_Control": "", "Path_One": f"{i}.png",
         "Plane_One": 0, "Path_Two": f"{i}.png", "Plane_Two": 1} for i in range(n)])


@pytest.fixture
def assay(tmp_path):
    rng = np.random.default_rng(0)
    (tmp_path / "root").mkdir()
    for i in range(8):
        Image.fromarray(rng.integers(0, 255, (20, 30, 3)).astype(np.uint8)).save(tmp_path / "root" / f"{i}.png")
    return make_assay("small", tmp_path / "root", _table(), ["One", "Two"])


def _picture(assay, i):
    with Image.open(assay.root / f"{i}.png") as image:
        return np.array(image)


def test_sound_images_have_no_faults(assay):
    steps = []
    assert image_faults(assay, progress=lambda done, total: steps.append((done, total))) == []
    assert steps == [(i, 8) for i in range(1, 9)]


def test_every_fault_is_found_at_once(assay):
    root = assay.root
    (root / "0.png").unlink()
    (root / "1.png").write_bytes((root / "1.png").read_bytes()[:-300])
    Image.fromarray(_picture(assay, 2)[:10]).save(root / "2.png")
    Image.fromarray(_picture(assay, 3)[..., 0]).save(root / "3.png")  # has no plane 1
    pixels = _picture(assay, 4)
    pixels[..., 1] = 7
    Image.fromarray(pixels).save(root / "4.png")
    deep = _picture(assay, 5)[..., 0].astype(np.uint16) * 7
    Image.fromarray(deep).save(root / "5.png")
    texts = [str(f) for f in image_faults(assay)]
    for i, message in {0: "does not exist", 1: "cannot be read", 2: "is 30×10 pixels, where most are 30×20",
                       3: "no plane 1", 4: "constant: every pixel is 7", 5: "is uint16, where most are uint8"}.items():
        mine = [t for t in texts if f"well A{i // 2:02d}, site {i % 2}" in t]
        assert mine and all(f"{i}.png" in t for t in mine)
        assert any(message in t for t in mine), (message, mine)
    assert not [t for t in texts if "well A03" in t]


def test_faults_are_told_by_field_and_those_of_the_table_apart(assay):
    root = assay.root
    (root / "1.png").write_bytes((root / "1.png").read_bytes()[:-300])
    pixels = _picture(assay, 4)
    pixels[..., 1] = 7
    Image.fromarray(pixels).save(root / "4.png")
    Image.fromarray(_picture(assay, 0)).save(root / "6.png")
    found = check_images(assay)
    assert set(found.of_fields) == {1, 4}
    one, two = found.of_fields[1]  # both channels lie in the file
    assert one.where.endswith("site 1, One, 1.png") and two.where.endswith("site 1, Two, 1.png")
    assert [f.what for f in found.of_fields[4]] == ["is constant: every pixel is 7"]
    assert len(found.of_table) == 1 and "another well" in found.of_table[0].what
    assert list(found.faults) == image_faults(assay) and len(found.faults) == 3


def test_a_bad_file_of_two_fields_is_told_of_both(assay):
    table = _table()
    table.loc[1, "Path_Two"] = "2.png"
    shared = make_assay("x", assay.root, table, ["One", "Two"])
    (assay.root / "2.png").write_bytes(b"no image")
    found = check_images(shared).of_fields
    assert set(found) == {1, 2}
    assert [f.where for f in found[1]] == ["plate P, well A00, site 1, Two, 2.png"]


@pytest.mark.parametrize("compression", [None, "zlib", "lzw"])
def test_a_tiff_cut_off_anywhere_is_found(tmp_path, compression):
    """Readers elsewhere fill what is missing with zeros: the picture is whole at its top and black below."""
    rng = np.random.default_rng(0)
    for i in range(8):
        tifffile.imwrite(tmp_path / f"{i}.tif", rng.integers(0, 999, (64, 48)).astype(np.uint16),
                         compression=compression, rowsperstrip=8)
    table = _table().assign(Path_One=[f"{i}.tif" for i in range(8)]).drop(columns=["Path_Two", "Plane_Two"])
    cut = make_assay("x", tmp_path, table, ["One"])
    assert image_faults(cut) == []
    raw = (tmp_path / "3.tif").read_bytes()
    for share in (0.2, 0.5, 0.9, 0.999):
        (tmp_path / "3.tif").write_bytes(raw[: int(len(raw) * share)])
        assert set(check_images(cut).of_fields) == {3}, share


def test_the_same_picture_in_two_wells_is_a_leak(assay):
    """Also under another name, in another compression, and in one channel only."""
    Image.fromarray(_picture(assay, 1)).save(assay.root / "6.png", compress_level=1)
    pixels = _picture(assay, 5)
    pixels[..., 1] = _picture(assay, 4)[..., 1]  # rows 4 and 5 are sites of one well
    Image.fromarray(pixels).save(assay.root / "5.png")
    faults = image_faults(assay)
    assert len(faults) == 2
    leak, = (f for f in faults if "another well" in f.what)
    assert "plate P, well A03, site 0, One and Two" in leak.where
    assert "plate P, well A00, site 1" in leak.what
    same, = (f for f in faults if "of the same well" in f.what)
    assert "well A02, site 1" in same.where and same.where.endswith("Two")


def test_one_plane_for_two_channels_is_found(tmp_path, assay):
    table = _table()
    table["Plane_Two"] = 0
    fault, = image_faults(make_assay("x", assay.root, table, ["One", "Two"]))
    assert fault.what == "two channels of the field hold the same picture" and fault.where.startswith("8 fields: ")


def test_hash_follows_content_and_not_place(tmp_path, assay):
    hashes = file_hashes(assay)
    assert list(hashes) == [f"{i}.png" for i in range(8)]
    first = assay_hash(assay, hashes)
    assert len(first) == 64
    shutil.copytree(assay.root, tmp_path / "elsewhere")
    moved = make_assay("other name", tmp_path / "elsewhere", _table(), ["One", "Two"])
    assert assay_hash(moved, file_hashes(moved, workers=1)) == first
    Image.fromarray(255 - _picture(moved, 3)).save(moved.root / "3.png")
    assert assay_hash(moved, file_hashes(moved)) != first


@pytest.mark.parametrize(("column", "value"), [
    ("Metadata_Batch", "2"), ("Metadata_Concentration", 2.0), (COMPOUND, "other"), (LABEL, "y"), ("Plane_One", 2),
])
def test_hash_follows_every_column(assay, column, value):
    table = _table()
    table.loc[table["Metadata_Well"] == "A00", column] = value
    if column == "Metadata_Batch":
        table[column] = value
    if column == LABEL:
        table.loc[table[COMPOUND] == "c2", LABEL] = "x"  # keep two compounds a label
    changed = make_assay("small", assay.root, table, ["One", "Two"])
    hashes = file_hashes(assay)
    assert assay_hash(changed, hashes) != assay_hash(assay, hashes)


def test_hash_follows_the_order_of_channels(assay):
    other = make_assay("small", assay.root, _table(), ["Two", "One"])
    hashes = file_hashes(assay)
    assert assay_hash(other, hashes) != assay_hash(assay, hashes)


def test_missing_file_or_hash_is_named(assay):
    hashes = file_hashes(assay)
    del hashes["4.png"]
    with pytest.raises(MorphobenchError, match=r"4\.png"):
        assay_hash(assay, hashes)
    (assay.root / "2.png").unlink()
    with pytest.raises(MorphobenchError, match=r"2\.png"):
        file_hashes(assay)


def test_hashes_are_remembered_until_a_file_changes(make_tiny, tmp_path, monkeypatch):
    assay, hashes, _ = make_tiny()
    known = tmp_path / "hashes.json"
    for path in assay.root.iterdir():  # long ago: a file of this very moment is not remembered
        os.utime(path, ns=(10**18, 10**18))
    assert file_hashes(assay, known=known) == hashes and known.exists()
    read: list[str] = []
    real = check.sha256_file
    monkeypatch.setattr(check, "sha256_file", lambda path: read.append(path.name) or real(path))
    assert file_hashes(assay, known=known) == hashes and read == []
    changed = assay.root / "f1.tif"
    raw = bytearray(changed.read_bytes())
    raw[-1] ^= 1
    changed.write_bytes(raw)  # the same size, another content
    again = file_hashes(assay, known=known)
    assert read == ["f1.tif"] and again["f1.tif"] != hashes["f1.tif"]
    assert {k: v for k, v in again.items() if k != "f1.tif"} == {k: v for k, v in hashes.items() if k != "f1.tif"}
    read.clear()
    moved = replace(assay, root=tmp_path / "moved")
    assay.root.rename(moved.root)
    file_hashes(moved, known=known)
    assert len(read) == len(hashes)  # remembered for another folder


def test_what_is_scored_and_the_profiles_are_part_of_the_assay(make_tiny):
    assay, hashes, whole_hash = make_tiny()
    assert assay_hash(replace(assay, scoring="controls"), hashes) != whole_hash
    assert assay_hash(replace(assay, features_hash="0" * 64), hashes) != whole_hash
    assert assay_hash(replace(assay, name="other"), hashes) == whole_hash
