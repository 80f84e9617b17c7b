"""The cache holds what each scheme makes of the images, whole, in order, and nothing half-written is left."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import h5py
import numpy as np
import pandas as pd
import pytest
import tifffile
from crop_assays import field_pixels, repaint, some_cells

from benchmark.base.errors import MorphobenchError
from benchmark.base.tables import CONTROL, PLATE
from benchmark.crops import layout
from benchmark.crops.build import build_crops, crop_key, crop_source
from benchmark.crops.reader import Crops, open_crops
from benchmark.crops.settings import CropSettings
from benchmark.crops.verify import verify_crops
from benchmark.images.illumination import build_illumination
from benchmark.images.settings import IlluminationSettings
from tests.images.test_intensity import paper_field

RAW = CropSettings(size=32, intensity="bit_depth")


def made(path: Path, assay: Any, whole_hash: str, settings: CropSettings, **more: Any) -> Crops:
    build_crops(path, assay, whole_hash, settings, **more)
    source = crop_source(more.get("illumination"), more.get("cells"))
    return open_crops(path, crop_key(whole_hash, settings, source))


def controls_of(assay: Any, plate: str) -> np.ndarray:
    rows = assay.fields.index[(assay.fields[PLATE] == plate) & (assay.fields[CONTROL] == "negative")]
    return np.stack([field_pixels(assay, row) for row in rows])


def test_stored_values_come_back(make_tiny, tmp_path):
    assay, _, whole_hash = make_tiny(size=32, controls=2)
    crops = made(tmp_path / "c.h5", assay, whole_hash, RAW)
    assert len(crops) == len(assay.predicted) == 18
    assert crops.field.tolist() == assay.predicted.index.tolist()
    assert np.array_equal(crops.batch(np.arange(18)), np.stack([field_pixels(assay, i) for i in crops.field]))
    assert "DMSO" not in set(assay.fields.loc[crops.field, "Metadata_Compound"])
    assert verify_crops(tmp_path / "c.h5") == []


def test_kensert2019_from_files_to_crops(make_tiny, tmp_path):
    """Each plate's own controls, the paper's tiles in its order, empty tiles dropped, squashed by area."""
    assay, _, whole_hash = make_tiny(controls=2, sites=2, labels=2, compounds=2)
    assay = repaint(assay, (64, 80))
    settings = CropSettings(size=32, intensity="kensert2019")
    crops = made(tmp_path / "c.h5", assay, whole_hash, settings)
    expected = []
    for row, field in assay.predicted.iterrows():
        tiles, keep = paper_field(field_pixels(assay, row), controls_of(assay, field[PLATE]))
        for number, (tile, kept) in enumerate(zip(tiles, keep, strict=True)):
            if kept:
                small = cv2.resize(np.moveaxis(tile, 0, 2), (32, 32), interpolation=cv2.INTER_AREA)
                expected.append((row, number, np.moveaxis(small, 2, 0)))
    assert len(expected) < 4 * len(assay.predicted)  # some were dropped
    assert list(zip(crops.field, crops.crop, strict=True)) == [e[:2] for e in expected]
    assert np.array_equal(crops.batch(np.arange(len(crops))), np.stack([e[2] for e in expected]))
    assert crops.boxes(np.array([0])).tolist() == [[32, 0, 32, 40]]  # the first tile, top left, is empty


def test_kensert2019_bbbc014_from_files_to_crops(make_tiny, tmp_path):
    assay, _, whole_hash = make_tiny(plates=1, labels=2, compounds=2)
    assay = repaint(assay, (96, 136), np.uint8, channels=2)
    crops = made(tmp_path / "c.h5", assay, whole_hash, CropSettings(size=256, intensity="kensert2019_bbbc014"))
    assert crops.channels == ("Empty", "DNA", "Tubulin") and len(crops) == 64
    stack = np.dstack([np.zeros((96, 136), np.uint8), *field_pixels(assay, 1)])
    square = cv2.resize(stack, (1024, 1024), interpolation=cv2.INTER_AREA).astype("uint8")
    x = square[512:768, 256:512].astype(np.float32)  # column 1, row 2: tile 6
    x[..., 1:] = 2.0 * np.sqrt(x[..., 1:] + 3.0 / 8.0)
    x[..., 1:] = ((x[..., 1:] - x[..., 1:].min()) * 255) / (x[..., 1:].max() - x[..., 1:].min())
    assert (crops.field[22], crops.crop[22]) == (1, 6)
    assert np.array_equal(np.moveaxis(crops.batch(np.array([22]))[0], 0, 2), x.astype("uint8"))


@pytest.mark.parametrize("depth", [8, 16])
@pytest.mark.parametrize("scale_from", ["controls", "plate"])
def test_standard_scales_each_plate_to_exact_quantiles(make_tiny, tmp_path, depth, scale_from):
    assay, _, whole_hash = make_tiny(controls=2, labels=2, compounds=2)
    assay = repaint(assay, (32, 32))
    settings = CropSettings(size=32, depth=depth, scale_from=scale_from, quantiles=(0.01, 0.95))
    crops = made(tmp_path / "c.h5", assay, whole_hash, settings)
    assert crops.dtype == np.dtype(f"uint{depth}")
    top = 2**depth - 1
    for n in (0, 5, len(crops) - 1):
        plate = assay.fields.loc[crops.field[n], PLATE]
        rows = assay.fields.index[assay.fields[PLATE] == plate]
        whole = np.stack([field_pixels(assay, r) for r in rows])
        seen = controls_of(assay, plate) if scale_from == "controls" else whole
        low, high = np.quantile(seen, (0.01, 0.95), axis=(0, 2, 3))
        raw = field_pixels(assay, crops.field[n])
        exact = np.clip((raw - low[:, None, None]) / (high - low)[:, None, None], 0, 1) * top
        assert np.abs(crops.batch(np.array([n]))[0] - exact).max() <= 0.51 + top * 2e-6


def test_standard_corrects_illumination_first(make_tiny, tmp_path):
    """Twice the light on the left half: crops of the corrected images equal those of evenly lit ones."""
    assay, _, whole_hash = make_tiny(controls=4, labels=2, compounds=2)
    assay = repaint(assay, (64, 64))
    light = build_illumination(assay, whole_hash, IlluminationSettings(), tmp_path / "light")
    assert light is not None
    settings = CropSettings(size=32, quantiles=(0.01, 0.95))
    crops = made(tmp_path / "c.h5", assay, whole_hash, settings, illumination=light)
    row, plate = int(crops.field[3]), assay.fields.loc[crops.field[3], PLATE]
    functions = np.stack([light.function(plate, c) for c in assay.channels]).astype(float)
    corrected = controls_of(assay, plate) / functions
    low, high = np.quantile(corrected, (0.01, 0.95), axis=(0, 2, 3))
    field = field_pixels(assay, row) / functions
    scaled = np.clip((field - low[:, None, None]) * 255 / (high - low)[:, None, None], 0, 255)
    small = np.stack([cv2.resize(p, (32, 32), interpolation=cv2.INTER_AREA) for p in scaled])
    assert np.abs(crops.batch(np.array([3]))[0] - small).max() < 0.8  # half a level, and the grid of the histogram
    with pytest.raises(MorphobenchError, match="take no illumination"):
        build_crops(tmp_path / "d.h5", assay, whole_hash, RAW, illumination=light)


@pytest.mark.parametrize("mask", [False, True])
def test_cell_crops_are_centred_padded_and_masked(make_tiny, tmp_path, mask):
    assay, _, whole_hash = make_tiny(labels=2, compounds=2)
    assay = repaint(assay, (60, 70), np.uint8)
    cells = some_cells(assay, (60, 70), tmp_path)
    settings = CropSettings(size=32, kind="cells", box=32, intensity="bit_depth", mask=mask)
    crops = made(tmp_path / "c.h5", assay, whole_hash, settings, cells=cells)
    assert len(crops) == len(cells.table) == 4 * (len(assay.predicted) - 1)
    assert assay.predicted.index[1] not in set(crops.field)
    pixels = crops.batch(np.arange(len(crops)))
    ordered = cells.table.sort_values(["Metadata_Plate", "Metadata_Well", "Metadata_Site", "Metadata_ObjectNumber"])
    assert crops.crop.tolist() == ordered["Metadata_ObjectNumber"].tolist()
    for n, (_, cell) in enumerate(ordered.iterrows()):
        field = field_pixels(assay, crops.field[n]).astype(int)
        if mask:
            path = cells.masks((cell["Metadata_Plate"], cell["Metadata_Well"], cell["Metadata_Site"]))
            field = field * (cv2.imread(str(path), cv2.IMREAD_UNCHANGED) == cell["Metadata_ObjectNumber"])
        around = np.pad(field, ((0, 0), (40, 40), (40, 40)))
        y, x = round(cell["y"]) + 40 - 16, round(cell["x"]) + 40 - 16
        assert np.array_equal(pixels[n], around[:, y : y + 32, x : x + 32])


def test_cells_that_make_no_sense_are_refused(make_tiny, tmp_path):
    assay, _, whole_hash = make_tiny(labels=2, compounds=2)
    cells = some_cells(assay, (32, 32), tmp_path)
    settings = CropSettings(size=32, kind="cells", box=16, intensity="bit_depth", mask=True)
    table = cells.table
    for wrong, words in ((table.drop(columns="x"), "lacks the columns x"),
                         (table.assign(y=np.nan), "not finite numbers"),
                         (pd.concat([table, table.head(1)]), "holds an object twice")):
        with pytest.raises(MorphobenchError, match=words):
            build_crops(tmp_path / "c.h5", assay, whole_hash, settings, cells=replace(cells, table=wrong))
    with pytest.raises(MorphobenchError, match=r"well A01.*has no mask"):
        build_crops(tmp_path / "c.h5", assay, whole_hash, settings, cells=replace(cells, masks=lambda key: None))
    tifffile.imwrite(tmp_path / "mask-P0-A01-1.tif", np.ones((32, 40), np.uint16))
    with pytest.raises(MorphobenchError, match="32×32 pixels, and its mask 40×32"):
        build_crops(tmp_path / "c.h5", assay, whole_hash, settings, cells=cells)
    other = np.arange(32 * 32, dtype=np.uint16).reshape(32, 32)
    other[other == 2] = 0
    tifffile.imwrite(tmp_path / "mask-P0-A01-1.tif", other)
    with pytest.raises(MorphobenchError, match=r"well A01.*has 1 cell\(s\) that its mask lacks, number 2"):
        build_crops(tmp_path / "c.h5", assay, whole_hash, settings, cells=cells)
    assert not list(tmp_path.glob("*c.h5*"))


def test_any_number_of_channels(make_tiny, tmp_path):
    assay, _, whole_hash = make_tiny(labels=2, compounds=2)
    for channels in (1, 2):
        few = repaint(assay, (32, 32), np.uint8, channels=channels)
        crops = made(tmp_path / f"{channels}.h5", few, whole_hash, RAW)
        assert crops.shape == (channels, 32, 32)
        assert np.array_equal(crops.batch(np.array([1]))[0], field_pixels(few, crops.field[1]))


def backwards(function: Callable[[Any], Any], tasks: Sequence[Any], label: str = "") -> Iterator[Any]:
    """A scheduler whose tasks finish in the worst order."""
    yield from [function(task) for task in tasks][::-1]


def test_the_order_in_which_workers_finish_changes_nothing(make_tiny, tmp_path):
    assay, _, whole_hash = make_tiny(controls=2, sites=3)
    settings = CropSettings(size=32, grid=(2, 1))
    build_crops(tmp_path / "a.h5", assay, whole_hash, settings)
    build_crops(tmp_path / "b.h5", assay, whole_hash, settings, run_tasks=backwards)
    with h5py.File(tmp_path / "a.h5", "r") as a, h5py.File(tmp_path / "b.h5", "r") as b:
        assert np.array_equal(a["table"][:], b["table"][:]) and dict(a.attrs) == dict(b.attrs)
        assert a["crops"].id.get_storage_size() == b["crops"].id.get_storage_size()
        assert all(layout.chunk(a["crops"], n) == layout.chunk(b["crops"], n) for n in range(len(a["table"])))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.h5", "b.h5", "images"]


def test_what_the_file_says_of_itself(make_tiny, tmp_path):
    assay, _, whole_hash = make_tiny(controls=2)
    build_crops(tmp_path / "c.h5", assay, whole_hash, CropSettings(size=32))
    with h5py.File(tmp_path / "c.h5", "r") as file:
        crops = file["crops"]
        assert crops.chunks == (1, 3, 32, 32) and crops.dtype == np.uint8
        assert crops.id.get_create_plist().get_filter(0)[0] == 32004  # LZ4, as registered with the HDF Group
        assert file.attrs["assay_hash"] == whole_hash and file.attrs["complete"]
        assert CropSettings.model_validate_json(file.attrs["settings"]) == CropSettings(size=32)


def test_a_current_cache_is_left_alone_and_a_stale_one_replaced(make_tiny, tmp_path):
    assay, _, whole_hash = make_tiny(size=32)
    path = tmp_path / "c.h5"
    build_crops(path, assay, whole_hash, RAW)
    before = path.stat().st_mtime_ns
    build_crops(path, assay, whole_hash, RAW)
    assert path.stat().st_mtime_ns == before
    build_crops(path, assay, "0" * 64, RAW)
    assert open_crops(path, crop_key("0" * 64, RAW))
    for attribute, value in (("schema", 1), ("complete", False)):
        with h5py.File(path, "a") as file:
            file.attrs[attribute] = value
        with pytest.raises(MorphobenchError):
            open_crops(path, crop_key("0" * 64, RAW))
        build_crops(path, assay, "0" * 64, RAW)
        assert verify_crops(path) == []


@pytest.mark.parametrize("kind", ["text", "hdf5"])
def test_a_foreign_file_is_never_overwritten(make_tiny, tmp_path, kind):
    assay, _, whole_hash = make_tiny(size=32)
    path = tmp_path / "c.h5"
    if kind == "text":
        path.write_text("my thesis")
    else:
        with h5py.File(path, "w") as file:
            file["crops"] = np.arange(3)
    before = path.read_bytes()
    with pytest.raises(MorphobenchError, match="not a crop cache of morphobench"):
        build_crops(path, assay, whole_hash, RAW)
    assert path.read_bytes() == before


def test_failures_name_the_cause_and_leave_nothing(make_tiny, tmp_path):
    assay, _, whole_hash = make_tiny(size=32, controls=0)
    path = tmp_path / "out" / "c.h5"
    with pytest.raises(MorphobenchError, match=r"plate P0, P1: has no negative controls.*scale_from"):
        build_crops(path, assay, whole_hash, CropSettings(size=32))
    broken = assay.root / assay.fields.loc[7, "Path_DNA"]
    broken.write_bytes(broken.read_bytes()[:2000])
    with pytest.raises(MorphobenchError, match=broken.name):
        build_crops(path, assay, whole_hash, RAW)
    assert not path.parent.exists() or list(path.parent.iterdir()) == []
    with pytest.raises(MorphobenchError, match="need cell centres"):
        build_crops(path, assay, whole_hash, CropSettings(kind="cells", box=32))


def test_empty_fields_alone_make_no_cache(make_tiny, tmp_path):
    assay, _, whole_hash = make_tiny(controls=1, labels=2, compounds=2)
    assay = repaint(assay, (32, 32), channels=1)
    for i in assay.predicted.index:
        tifffile.imwrite(assay.root / assay.fields.loc[i, "Path_DNA"], np.full((32, 32), 7, np.uint16))
    with pytest.raises(MorphobenchError, match="no field gave a crop"):
        build_crops(tmp_path / "c.h5", assay, whole_hash, CropSettings(size=32, intensity="kensert2019"))
    assert not list(tmp_path.glob("*c.h5*"))


def test_a_killed_build_leaves_nothing_that_looks_whole_and_is_swept_up(make_tiny, tmp_path):
    """kill -9 in the middle; the next build removes what it left, but not the folder of a living one."""
    assay, _, whole_hash = make_tiny(size=32, sites=4)
    path = tmp_path / "out" / "c.h5"
    code = textwrap.dedent(f"""
        import sys, time
        from pathlib import Path
        from benchmark.crops import build
        with build._workshop(Path({str(path)!r})) as place:
            (place / "crops.h5").write_bytes(b"half")
            print("ready", flush=True)
            time.sleep(600)
    """)
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        build_crops(path, assay, whole_hash, RAW)
        assert len(list(path.parent.glob(".*.building"))) == 1  # alive: left alone
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert len(list(path.parent.glob(".*.building"))) == 1 and path.exists()
    time.sleep(0.1)
    build_crops(path, assay, "1" * 64, RAW)
    assert [p.name for p in path.parent.iterdir()] == ["c.h5"]


def test_negative_controls_have_a_cache_of_their_own(make_tiny, tmp_path):
    assay, _, whole_hash = make_tiny(labels=2, compounds=2, controls=2)
    settings = CropSettings(size=32, scale_from="controls")
    build_crops(tmp_path / "c.h5", assay, whole_hash, settings, controls=True)
    key = crop_key(whole_hash, settings, controls=True)
    assert key != crop_key(whole_hash, settings)
    fields = assay.fields.loc[open_crops(tmp_path / "c.h5", key).field]
    assert set(fields["Metadata_Control"]) == {"negative"} and len(fields) == 4
    scored = replace(assay, scoring="controls")  # there controls are what is predicted
    assert not len(scored.unscored_controls)
