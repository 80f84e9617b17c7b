"""Bad crop caches: opened by a run (`open_crops`) and looked at by `crops verify`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pytest
import tifffile
from bad_input import Case, command, each, reader_refuses
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmark.assays.fieldtable import make_assay
from benchmark.base.errors import MorphobenchError
from benchmark.base.tables import BATCH, COMPOUND, CONCENTRATION, CONTROL, LABEL, PLATE, REPLICATE, SITE, WELL
from benchmark.crops.build import build_crops, crop_key
from benchmark.crops.reader import open_crops
from benchmark.crops.settings import CropSettings
from benchmark.crops.verify import verify_crops

TILES = CropSettings(size=32, intensity="bit_depth", grid=(2, 2))
KEY = crop_key("h" * 16, TILES)


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> bytes:
    """A sound cache of 16 crops of four fields."""
    folder, rng, rows = tmp_path_factory.mktemp("cache"), np.random.default_rng(0), []
    for i in range(4):
        tifffile.imwrite(folder / f"f{i}.tif", rng.integers(0, 255, (64, 64), dtype=np.uint8))
        rows.append({BATCH: "1", PLATE: "P", WELL: f"A{i:02d}", SITE: 1, REPLICATE: 1, COMPOUND: f"c{i}",
                     CONCENTRATION: 1.0, LABEL: "xy"[i % 2], CONTROL: "", "Path_DNA": f"f{i}.tif", "Plane_DNA": 0})
    build_crops(folder / "c.h5", make_assay("tiny", folder, pd.DataFrame(rows), ("DNA",)), "h" * 16, TILES)
    return (folder / "c.h5").read_bytes()


def attributes(**values: Any) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        with h5py.File(path, "a") as file:
            for name, value in values.items():
                file.attrs[name] = value
    return change


def instead(name: str, value: Any) -> Callable[[Path], None]:
    """Another data set, group or link under a name."""
    def change(path: Path) -> None:
        with h5py.File(path, "a") as file:
            del file[name]
            if value is None:
                file.create_group(name)
            else:
                file[name] = value
    return change


def keeping(share: float) -> Callable[[Path], Any]:
    return lambda path: path.write_bytes(path.read_bytes()[:int(share * path.stat().st_size)])


def another_hdf5(path: Path) -> None:
    path.unlink()
    h5py.File(path, "w").close()


AGAIN = "Delete it and run again"
CASES = [
    Case("cut in half", keeping(0.5), rf"c\.h5: is not a complete crop cache.*{AGAIN}"),
    Case("a few bytes", lambda path: path.write_bytes(path.read_bytes()[:8]),
         r"c\.h5: is not a (complete )?crop cache"),
    Case("empty", keeping(0), r"c\.h5: is not a crop cache of morphobench. Move it away"),
    Case("another HDF5 file", another_hdf5, r"c\.h5: is not a crop cache of morphobench. Move it away"),
    Case("NumPy objects", lambda path: np.array([{}], object).dump(path), "is not a crop cache of morphobench"),
    Case("of another version", attributes(schema=99), f"is of schema 99, and this version reads 2. {AGAIN}"),
    Case("a version that is a list", attributes(schema=np.array([2, 2])), f"is of schema .*{AGAIN}"),
    Case("not complete", attributes(complete=False), f"is not complete. {AGAIN}"),
    Case("complete and not", attributes(complete=np.array([True, False])), f"is not complete. {AGAIN}"),
    Case("of another assay", attributes(key="0" * 16), f"another assay or other settings. {AGAIN}"),
    Case("channels that are no JSON", attributes(channels="{"), f"lacks parts of a crop cache.*{AGAIN}"),
    Case("a size of 1e400", attributes(settings='{"size": 1e400, "depth": 8}'), f"lacks parts.*{AGAIN}"),
    Case("a size of 5000 digits", attributes(settings=f'{{"size": {"9" * 5000}, "depth": 8}}'),
         f"lacks parts.*{AGAIN}"),
    Case("settings of 50,000 levels", attributes(settings="[" * 50_000), f"lacks parts.*{AGAIN}"),
    Case("crops of another size", attributes(settings=json.dumps({"size": 64, "depth": 8})), f"is damaged.*{AGAIN}"),
    Case("crops of another shape", instead("crops", np.zeros((16, 1, 8, 8), np.uint8)), f"is damaged.*{AGAIN}"),
    Case("a group in place of crops", instead("crops", None), f"lacks parts.*{AGAIN}"),
    Case("a link to another file", instead("crops", h5py.ExternalLink("/etc/passwd", "x")), f"lacks parts.*{AGAIN}"),
    Case("a link to itself", instead("crops", h5py.SoftLink("/crops")), f"lacks parts.*{AGAIN}"),
    Case("a table of other columns", instead("table", np.zeros(16)), f"is damaged.*{AGAIN}"),
    Case("a digest of another table", attributes(digest="0" * 64), f"differs from its digest. {AGAIN}"),
]


@pytest.mark.parametrize("case", each(CASES))
def test_a_bad_cache_is_refused(tmp_path, whole, case):
    path = tmp_path / "c.h5"
    path.write_bytes(whole)
    case.draw(path)
    reader_refuses(tmp_path, case.says, lambda: open_crops(path, KEY))
    status, output = command(tmp_path, "crops", "verify", "c.h5")
    assert (status == 1 and output.startswith("- ")) or case.name == "of another assay", output


@pytest.mark.parametrize("rows", [np.zeros(4), np.zeros((4, 2), np.int32)], ids=["numbers", "pairs"])
def test_a_list_of_fields_of_another_kind_is_a_fault(tmp_path, whole, rows):
    path = tmp_path / "c.h5"
    path.write_bytes(whole)
    instead("fields" if rows.ndim == 1 else "field_rows", rows)(path)
    fault, = verify_crops(path)
    assert "cannot be read" in fault.what and AGAIN in fault.remedy


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("any") / "c.h5"


@pytest.fixture(scope="module")
def written(tmp_path_factory, whole) -> np.ndarray:
    """The pixels of the sound cache."""
    path = tmp_path_factory.mktemp("sound") / "c.h5"
    path.write_bytes(whole)
    return open_crops(path, KEY).batch(np.arange(16))


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=4),
       st.floats(0.01, 1))
def test_any_bytes_are_a_sound_cache_or_an_error(place, whole, written, changes, keep):
    """Whatever happened to a file: what is opened has the pixels that were written, or it is refused."""
    content = bytearray(whole if keep > 0.2 else whole[:int(keep * 5 * len(whole))])
    for where, value in changes:
        # Half of them among the first bytes, where the structure is.
        at = int(where * 2 * len(content)) if where < 0.5 else int((where - 0.5) * 2 * min(len(content), 8000))
        content[at] = value
    place.write_bytes(bytes(content))
    assert isinstance(verify_crops(place), list)
    try:
        crops = open_crops(place, KEY)
        pixels = crops.batch(np.arange(len(crops)))
    except MorphobenchError:
        return
    assert np.array_equal(pixels, written)
