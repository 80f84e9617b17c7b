"""Faults of images come one a cause, with a guess why; a plate that differs is not dropped in silence."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import tifffile
from PIL import Image

from benchmark.assays.fieldtable import make_assay
from benchmark.base.account import warnings_of
from benchmark.base.errors import FaultsError
from benchmark.base.tables import FIELD_KEY
from benchmark.quality.check import check_images, image_faults
from benchmark.quality.fields import sound_assay, without_flagged, without_lost

PLATES, WELLS = 6, 4


def draw(root, write=lambda path, pixels, plate: tifffile.imwrite(path, pixels)):
    """Six plates of four wells, one field each, one channel; ``write`` writes a file."""
    rng = np.random.default_rng(0)
    rows = []
    for plate in range(PLATES):
        (root / f"P{plate}").mkdir(parents=True, exist_ok=True)
        for well in range(WELLS):
            name = f"P{plate}/a{well}.tif"
            write(root / name, rng.integers(0, 4000, (24, 32)).astype(np.uint16), plate)
            rows.append({"Metadata_Batch": "1", "Metadata_Plate": f"P{plate}", "Metadata_Well": f"A{well + 1:02d}",
                         "Metadata_Site": 1, "Metadata_Replicate": 1, "Metadata_Compound": f"c{well}",
                         "Metadata_Concentration": 1.0, "Metadata_Label": "xy"[well % 2], "Metadata_Control": "",
                         "Path_DNA": name, "Plane_DNA": 0})
    return make_assay("six", root, pd.DataFrame(rows), ["DNA"])


def renamed(assay, change):
    return replace(assay, fields=assay.fields.assign(Path_DNA=[change(name) for name in assay.fields["Path_DNA"]]))


@pytest.mark.parametrize(("change", "what", "remedy"), [
    (lambda name: name.upper(), "a name that differs in capitals or accents does: P0/a0.tif", "Capitals count"),
    (lambda name: name[:-4], "with another suffix it does: P0/a0.tif", "Correct the suffix"),
    (lambda name: f"{name}f", "with another suffix it does: P0/a0.tif", "Correct the suffix"),
    (lambda name: f"images/{name}", "there is no folder images below", "assay.root"),
    (lambda name: name.replace("a", "b"), "does not exist", "assay.root"),
])
def test_files_that_are_not_there_are_one_fault_with_its_cause(tmp_path, change, what, remedy):
    fault, = image_faults(renamed(draw(tmp_path), change))
    assert "does not exist" in fault.what and what in fault.what and remedy in fault.remedy, fault
    assert fault.where.startswith("24 files, 24 fields (all of plates P0, P1, P2 and 3 more): plate P0, well A01, ")
    assert fault.where.endswith(" and 21 more")


@pytest.mark.parametrize("place", ["data", "data/root/deeper"])
def test_a_root_beside_the_right_one_is_named(tmp_path, place):
    draw(tmp_path / place)
    (tmp_path / "data" / "root").mkdir(parents=True, exist_ok=True)
    assay = replace(draw(tmp_path / "elsewhere"), root=tmp_path / "data" / "root")
    fault, = image_faults(assay)
    assert f"it does below {tmp_path / place}" in fault.what
    assert fault.remedy == f"Set assay.root to {tmp_path / place}."


def test_causes_stay_apart_and_each_field_keeps_its_own_words(tmp_path):
    assay = draw(tmp_path)
    (tmp_path / "P0" / "a0.tif").rename(tmp_path / "P0" / "A0.tif")
    (tmp_path / "P0" / "a1.tif").unlink()
    for well in (0, 1):
        path = tmp_path / "P3" / f"a{well}.tif"
        path.write_bytes(path.read_bytes()[:-100 * (well + 1)])
    found = check_images(assay)
    assert [f.what.split(":")[0].split(";")[0] for f in found.faults] == ["does not exist", "does not exist",
                                                                         "is truncated"]
    assert set(found.of_fields) == {0, 1, 12, 13} and found.of_fields[13][0].where.endswith("DNA, P3/a1.tif")


DEPTHS = {
    "8 of 16 bits": (lambda path, pixels, plate: tifffile.imwrite(
        path, (pixels >> 4).astype(np.uint8) if plate == 4 else pixels), "is uint8, where most are uint16"),
    "12 bits as they are": (lambda path, pixels, plate: tifffile.imwrite(path, pixels * (1 if plate == 4 else 16)),
                            "holds 12-bit values as they are, where plate P0 has them times 16"),
    "12 bits scaled": (lambda path, pixels, plate: tifffile.imwrite(path, pixels * (16 if plate == 4 else 1)),
                       "holds 12-bit values times 16, where plate P0 has them as they are"),
    "another size": (lambda path, pixels, plate: tifffile.imwrite(path, pixels[:, : 16 if plate == 4 else 32]),
                     "is 16×24 pixels, where most are 32×24"),
}


@pytest.mark.parametrize("kind", DEPTHS)
def test_a_plate_of_another_depth_is_named_and_not_left_out(tmp_path, kind):
    write, words = DEPTHS[kind]
    assay = draw(tmp_path / "root", write)
    fault, = image_faults(assay)
    assert fault.what == words and fault.where.startswith("4 files, 4 fields (all of plate P4): ")
    for _ in range(2):  # the second time by the record of the check
        with pytest.raises(FaultsError, match="would lose whole plates") as caught:
            sound_assay(assay, tmp_path / "checked")
        fault, = caught.value.faults
        assert fault.where == "plate P4" and words in fault.what and "take its rows out" in fault.remedy


def test_fourteen_and_sixteen_bits_that_use_the_whole_range_are_no_fault(tmp_path):
    write = lambda path, pixels, plate: tifffile.imwrite(path, pixels * 16 + (plate < 3))  # noqa: E731
    assert image_faults(draw(tmp_path, write)) == []


def test_what_is_left_out_is_counted_and_asked_for_or_not(tmp_path):
    assay = draw(tmp_path / "root")
    assert sound_assay(assay, tmp_path / "checked").assay.losses == ()
    for plate in (0, 1, 2):
        (tmp_path / "root" / f"P{plate}" / "a0.tif").write_bytes(b"no image")
    sound = sound_assay(assay, tmp_path / "checked")
    fields, wells = sound.assay.losses
    assert (fields.things, fields.lost, fields.total, fields.asked) == ("fields", 3, 24, False)
    assert (wells.things, wells.lost, wells.total) == ("wells", 3, 24)
    assert len(warnings_of(sound.assay.losses)) == 2 and "3 of 24 fields left out (12.5 %)" in str(fields)
    lost = sound.assay.fields.loc[sound.assay.fields["Metadata_Plate"] == "P5", FIELD_KEY].assign(reason="no cells")
    fewer = without_lost(sound, lost, 0.5)
    assert fewer.assay.losses[:2] == sound.assay.losses
    assert [(x.where, x.things, x.lost, x.total, x.warns) for x in fewer.assay.losses[2:]] == [
        ("", "wells", 4, 21, True), ("plate P5", "fields", 4, 4, True)]
    flags = sound.assay.fields.loc[[7], FIELD_KEY].assign(reason="out of focus")
    asked = without_flagged(sound, flags).assay.losses[2:]
    assert [(x.things, x.lost, x.asked, x.warns) for x in asked] == [("fields", 1, True, False),
                                                                    ("wells", 1, True, False)]


@pytest.mark.parametrize(("write", "words"), [
    (lambda path, pixels, plate: tifffile.imwrite(path, np.stack([pixels, pixels + 1, pixels + 2]),
                                                  photometric="minisblack"),
     "each holds 3 planes (a stack of 3 pages)"),
    (lambda path, pixels, plate: tifffile.imwrite(path, np.stack([pixels, pixels + 1]), imagej=True,
                                                  metadata={"axes": "ZYX"}), "2 planes (a stack of ImageJ: 2 slices)"),
    (lambda path, pixels, plate: tifffile.imwrite(path, np.stack([pixels] * 3, -1), photometric="rgb"),
     "each holds 3 planes (red, green and blue)"),
])
def test_a_plane_that_is_not_given_is_asked_for_where_there_are_several(tmp_path, write, words):
    given = draw(tmp_path / "root", write)
    assert image_faults(given) == []
    sound_assay(given, tmp_path / "checked")  # its record is not taken for one of an assay that does not say
    assay = replace(given, only_plane=("DNA",))
    fault, = image_faults(assay)
    assert words in fault.what and "Set assay.channels.DNA.plane (0 to " in fault.remedy and "24 files" in fault.where
    with pytest.raises(FaultsError, match="the study does not say which"):
        sound_assay(assay, tmp_path / "checked")
    # files with a single plane among them are no fault, and a single plane is the only one
    assert image_faults(replace(draw(tmp_path / "plain"), only_plane=("DNA",))) == []


def test_tiny_images_are_named_as_such(tmp_path):
    fault, = image_faults(draw(tmp_path, lambda path, pixels, plate: tifffile.imwrite(path, pixels[:1, :1])))
    assert "is 1×1 pixels, too small" in fault.what


def test_missing_channels_of_a_colour_image_are_named(tmp_path):
    def grey(path, pixels, plate):
        Image.fromarray((pixels >> 4).astype(np.uint8)).save(path.with_suffix(".png"))

    assay = renamed(draw(tmp_path, grey), lambda name: name.replace(".tif", ".png"))
    fault, = image_faults(replace(assay, fields=assay.fields.assign(Plane_DNA=2)))
    assert fault.what == "has no plane 2: it holds 1 (counted from 0)" and fault.where.startswith("24 files")
