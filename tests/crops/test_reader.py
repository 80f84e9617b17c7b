"""Reading: any rows in any order, from any process; damage never becomes a number."""

from __future__ import annotations

import multiprocessing
import pickle
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from crop_assays import field_pixels
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmark.base.errors import MorphobenchError
from benchmark.crops import layout
from benchmark.crops.build import build_crops, crop_key
from benchmark.crops.reader import Crops, open_crops
from benchmark.crops.settings import CropSettings
from benchmark.crops.verify import verify_crops

RAW = CropSettings(size=32, intensity="bit_depth", grid=(2, 2))


@pytest.fixture
def cache(make_tiny, tmp_path) -> tuple[Path, Crops, np.ndarray, Any]:
    """A cache of 18 fields with 4 tiles each, and its pixels by the images themselves."""
    assay, _, whole_hash = make_tiny(size=64)
    path = tmp_path / "cache" / "c.h5"
    build_crops(path, assay, whole_hash, RAW)
    fields = np.stack([field_pixels(assay, i) for i in range(18)])
    tiles = fields.reshape(18, 3, 2, 32, 2, 32).transpose(0, 2, 4, 1, 3, 5).reshape(72, 3, 32, 32)
    return path, open_crops(path, crop_key(whole_hash, RAW)), tiles, assay


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(st.integers(0, 71), max_size=90))
def test_a_batch_is_the_rows_asked_for(cache, rows):
    _, crops, pixels, _ = cache
    assert np.array_equal(crops.batch(np.array(rows, np.int64)), pixels[np.array(rows, np.int64)])


def test_rows_that_do_not_exist_are_refused(cache):
    _, crops, _, _ = cache
    for row in (-1, 72):
        with pytest.raises(IndexError, match="0 to 71"):
            crops.batch(np.array([0, row]))


def test_fields_and_crops_find_each_other(cache):
    _, crops, _, assay = cache
    assert crops.of_fields(np.array([3, 1])).tolist() == [4, 5, 6, 7, 12, 13, 14, 15]
    wanted = (assay.fields["Metadata_Compound"] == "cpd-11").to_numpy()
    rows = crops.of_fields(wanted)
    assert set(assay.fields.loc[crops.field[rows], "Metadata_Compound"]) == {"cpd-11"} and len(rows) == 8
    assert crops.crop[6] == 2
    assert crops.boxes(np.array([6, 1])).tolist() == [[32, 0, 32, 32], [0, 32, 32, 32]]
    assert len(crops.of_fields(np.zeros(len(assay.fields), bool))) == 0


def _read(crops: Crops, rows: np.ndarray) -> int:
    return int(crops.batch(rows).astype(int).sum())


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_processes_read_the_same(cache, start):
    """After a fork with the file already open, and by pickling to fresh processes."""
    _, crops, pixels, _ = cache
    crops.batch(np.arange(3))
    jobs = [np.arange(i, 72, 3) for i in range(12)]
    with multiprocessing.get_context(start).Pool(2) as pool:
        found = [r.get(120) for r in [pool.apply_async(_read, (crops, rows)) for rows in jobs]]
    assert found == [int(pixels[rows].astype(int).sum()) for rows in jobs]
    assert _read(crops, jobs[0]) == found[0]


def test_a_pickle_is_small_and_holds_no_open_file(cache):
    _, crops, pixels, _ = cache
    crops.batch(np.arange(2))
    again = pickle.loads(pickle.dumps(crops))
    assert np.array_equal(again.batch(np.array([70])), pixels[70:71])


def flip(path: Path, where: int) -> None:
    content = bytearray(path.read_bytes())
    content[where] ^= 4
    path.write_bytes(bytes(content))


def place_of(path: Path, row: int) -> tuple[int, int]:
    with h5py.File(path, "r") as file:
        info = file["crops"].id.get_chunk_info_by_coord((row, 0, 0, 0))
    return info.byte_offset, info.size


@pytest.mark.parametrize("part", [0.0, 0.4, 0.999])
def test_one_flipped_bit_is_found_and_named(cache, part):
    path, crops, pixels, assay = cache
    start, size = place_of(path, 41)
    flip(path, start + int(part * size))
    fresh = pickle.loads(pickle.dumps(crops))
    with pytest.raises(MorphobenchError, match="field row 10, crop 1"):
        fresh.batch(np.array([3, 41]))
    assert np.array_equal(fresh.batch(np.array([40, 42])), pixels[[40, 42]])
    (fault,) = verify_crops(path)
    well = assay.fields.loc[10, "Metadata_Well"]
    assert fault.where == f"plate P1, well {well}, site 1, crop 1" and "checksum differs" in fault.what


def test_a_crop_swapped_for_another_is_found(cache):
    """Whole chunks, each sound in itself, in each other's place."""
    path, _, _, _ = cache
    with h5py.File(path, "a") as file:
        crops = file["crops"]
        one, two = layout.chunk(crops, 5), layout.chunk(crops, 60)
        crops.id.write_direct_chunk((5, 0, 0, 0), two)
        crops.id.write_direct_chunk((60, 0, 0, 0), one)
    assert len(verify_crops(path)) == 2


def test_pixels_replaced_along_with_their_checksum_are_found(cache):
    path, _, pixels, _ = cache
    other = layout.encode(255 - pixels[0])
    with h5py.File(path, "a") as file:
        file["crops"].id.write_direct_chunk((0, 0, 0, 0), other)
        rows = file["table"][:1]
        rows["crc"] = layout.crc(other)
        file["table"][:1] = rows
        key = file.attrs["key"]
    whats = [f.what for f in verify_crops(path)]
    assert any("hash" in w for w in whats) and any("digest" in w for w in whats)
    with pytest.raises(MorphobenchError, match="table differs"):
        open_crops(path, key)


def test_other_keys_missing_foreign_and_broken_files_are_refused(cache, tmp_path):
    path, crops, _, _ = cache
    with pytest.raises(MorphobenchError, match="another assay or other settings"):
        open_crops(path, "0" * 16)
    with pytest.raises(MorphobenchError, match="does not exist"):
        open_crops(tmp_path / "none.h5", crops.key)
    (tmp_path / "x.h5").write_bytes(b"junk")
    with pytest.raises(MorphobenchError, match="not a crop cache"):
        open_crops(tmp_path / "x.h5", crops.key)
    assert "not a crop cache" in verify_crops(tmp_path / "x.h5")[0].what
    content = path.read_bytes()
    for keep in (0.2, 0.6, 0.98):
        path.write_bytes(content[: int(keep * len(content))])
        with pytest.raises(MorphobenchError):
            open_crops(path, crops.key)
        assert len(verify_crops(path)) >= 1


@pytest.mark.parametrize("part", ["crops", "table", "fields"])
def test_missing_parts_are_named(cache, part):
    path, crops, _, _ = cache
    with h5py.File(path, "a") as file:
        del file[part]
    with pytest.raises(MorphobenchError, match="lacks parts"):
        open_crops(path, crops.key)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([np.uint8, np.uint16]), st.booleans())
def test_chunks_hold_any_pixels(seed, dtype, noisy):
    rng = np.random.default_rng(seed)
    high = np.iinfo(dtype).max if noisy else 3
    pixels = rng.integers(0, high + 1, (3, 17, 17)).astype(dtype)
    out = np.empty_like(pixels)
    layout.decode(layout.encode(pixels), out)
    assert np.array_equal(out, pixels)


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=200))
def test_junk_chunks_raise_and_do_nothing_else(data):
    with pytest.raises(ValueError):
        layout.decode(data, np.empty((2, 9, 9), np.uint8))
