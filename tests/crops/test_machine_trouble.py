"""File systems without locks, full disks and disks that fail: a sound cache is never called damaged."""

from __future__ import annotations

import errno
import fcntl
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from stripes import CPU

from benchmark.base import hdf5
from benchmark.base.machine import MachineError
from benchmark.crops import layout
from benchmark.crops.build import build_crops, crop_key
from benchmark.crops.reader import open_crops
from benchmark.crops.settings import CropSettings
from benchmark.crops.verify import verify_crops
from benchmark.networks.feed.activations import open_activations, store_activations
from benchmark.networks.feed.source import ArrayCrops
from benchmark.networks.settings import NetworkSettings, TrainingSettings

RAW = CropSettings(size=32, intensity="bit_depth", grid=(2, 2))
NO_LOCKS = "#include <errno.h>\nint flock(int fd, int op) { errno = ENOLCK; return -1; }\n"
#: Writes and reads a file as caches are, then as HDF5 does by default.
SCRIPT = """
import sys
from pathlib import Path
from benchmark.base.hdf5 import reading, writing
from benchmark.base.machine import trouble_of
try:
    with writing(Path(sys.argv[1])) as file:
        file["a"] = [1, 2]
    with reading(Path(sys.argv[1])) as file:
        print(file["a"][:].tolist())
except OSError as error:
    print(trouble_of(error, "place"))
"""


@pytest.fixture
def cache(make_tiny, tmp_path) -> tuple[Path, str]:
    assay, _, whole_hash = make_tiny(size=64)
    path = tmp_path / "cache" / "c.h5"
    build_crops(path, assay, whole_hash, RAW)
    return path, crop_key(whole_hash, RAW)


@pytest.fixture(scope="module")
def no_locks(tmp_path_factory) -> Path:
    """A library that makes every lock fail, as NFS without a lock server does."""
    if not shutil.which("gcc"):
        pytest.skip("no C compiler")
    folder = tmp_path_factory.mktemp("shim")
    (folder / "nolock.c").write_text(NO_LOCKS)
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", folder / "nolock.so", folder / "nolock.c"], check=True)
    return folder / "nolock.so"


@pytest.mark.parametrize(("locking", "said"), [
    (None, "[1, 2]"), ("FALSE", "[1, 2]"), ("TRUE", "place: the file system grants no locks. Unset HDF5_USE_FILE_"),
])
def test_files_are_written_and_read_where_there_are_no_locks(no_locks, tmp_path, locking, said):
    environ = {**os.environ, "LD_PRELOAD": str(no_locks)}
    environ.pop("HDF5_USE_FILE_LOCKING", None)
    environ |= {"HDF5_USE_FILE_LOCKING": locking} if locking else {}
    done = subprocess.run([sys.executable, "-c", SCRIPT, str(tmp_path / "a.h5")], env=environ, capture_output=True,
                          text=True, check=True)
    assert done.stdout.startswith(said)


def test_a_cache_that_another_program_has_locked_is_read(cache):
    path, key = cache
    with path.open("rb") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        assert len(open_crops(path, key)) == 72 and verify_crops(path) == []


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EIO, errno.EACCES, errno.ESTALE])
def test_a_sound_cache_is_never_to_be_deleted(cache, monkeypatch, number):
    path, key = cache

    def fail(*_: object) -> None:
        raise OSError(f"unable to read (errno = {number}, error message = '{os.strerror(number)}')")

    for name in ("reading", "is_hdf5", "pieces", "chunk"):
        with monkeypatch.context() as patch:
            patch.setattr(layout, name, fail)
            faults = verify_crops(path)
            assert len(faults) == 1 and faults[0].where == str(path) and "Delete it" not in faults[0].remedy
    with pytest.raises(MachineError):
        layout.chunk(SimpleNamespace(id=SimpleNamespace(read_direct_chunk=fail), file=SimpleNamespace(filename="c")), 0)
    assert verify_crops(path) == [] and len(open_crops(path, key)) == 72


def test_a_full_disk_while_crops_are_written_leaves_nothing(make_tiny, tmp_path):
    assay, _, whole_hash = make_tiny(size=64)
    path = tmp_path / "cache" / "c.h5"
    with small_files(20_000), pytest.raises(MachineError, match="larger than the file system allows") as caught:
        build_crops(path, assay, whole_hash, RAW)
    assert str(path.parent) in str(caught.value) and list(path.parent.iterdir()) == []


def test_a_full_disk_while_activations_are_written_leaves_nothing(tmp_path):
    pixels = np.zeros((8, 3, 64, 64), np.uint8)
    path, settings = tmp_path / "a" / "a.h5", TrainingSettings(learn="head")
    more = ("k", ArrayCrops(pixels), 8, NetworkSettings(weights="none"), settings, CPU)
    with small_files(20_000), pytest.raises(MachineError, match="larger than the file system allows"):
        store_activations(path, *more)
    assert list(path.parent.iterdir()) == []
    assert store_activations(path, *more) == ""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("benchmark.networks.feed.activations.reading", failing)
        with pytest.raises(MachineError, match="do not delete it"):
            open_activations(path, "k")
    assert open_activations(path, "k").path == path


def failing(*_: object) -> None:
    raise OSError(errno.EIO, "Input/output error")


@contextmanager
def small_files(size: int) -> Iterator[None]:
    """No file may grow beyond ``size`` bytes: as on a full disk, a write fails half-way."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_file_that_cannot_be_read_is_not_taken_for_another_kind(tmp_path):
    (tmp_path / "a").write_bytes(hdf5.SIGNATURE + b"x")
    (tmp_path / "b").write_bytes(b"")
    assert hdf5.is_hdf5(tmp_path / "a") and not hdf5.is_hdf5(tmp_path / "b")
    with pytest.raises(OSError, match="directory"):
        hdf5.is_hdf5(tmp_path)
