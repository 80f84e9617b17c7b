"""The layout of the crop cache's file, and how a complete and current one is recognised.

HDF5, so that any HDF5 reader with the LZ4 filter (registered number 32004, in hdf5plugin) opens it:

- ``crops`` (N, C, S, S) uint8 or uint16, one crop per chunk, LZ4;
- ``table`` (N,), one row per crop, see `ROW`;
- ``fields`` (F,) text, the names of the fields, and ``field_rows`` (F,) int32, their rows in the field table;
- ``statistics``, JSON: what was measured of each plate;
- attributes: `FORMAT`, schema version, key, assay hash, settings and sources as JSON, channels, digest of the table,
  and ``complete``, written last.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import imagecodecs
import numpy as np

from benchmark.base.errors import MorphobenchError
from benchmark.base.hdf5 import is_hdf5, reading
from benchmark.base.machine import MachineError, blaming_machine, trouble_of

FORMAT = "morphobench crops"
#: Increased when the layout or the way pixels become crops changes, which makes older files stale.
SCHEMA = 2
LZ4 = 32004
#: Field and position (in pixels of the field), BLAKE2b-64 of the pixels (C order, little-endian), and CRC-32 of the
#: chunk as stored, which is checked on reading, at a twentieth of the cost of decoding.
ROW = np.dtype([("field", "<i4"), ("crop", "<i4"), ("y", "<i4"), ("x", "<i4"), ("height", "<i4"), ("width", "<i4"),
                ("hash", "<u8"), ("crc", "<u4")])
#: Rows of the table read or written at once.
PIECE = 65536
AGAIN = "Delete it and run again."
#: What h5py and the decoders of its parts raise on damaged files.
BROKEN = (KeyError, ValueError, TypeError, AttributeError, IndexError, OSError, RuntimeError, OverflowError)


class Header(NamedTuple):
    """The attributes of a cache and the shape of its crops."""

    key: str
    channels: tuple[str, ...]
    shape: tuple[int, int, int, int]
    dtype: np.dtype[Any]
    digest: str


def encode(pixels: np.ndarray) -> bytes:
    """A crop as the HDF5 filter LZ4 stores it. LZ4 decoded fastest of the codecs measured."""
    return bytes(imagecodecs.lz4h5_encode(np.ascontiguousarray(pixels).tobytes()))


def decode(data: bytes, out: np.ndarray) -> None:
    """Decode a chunk into ``out``, a contiguous array of the crop's shape and type.

    Raises
    ------
    ValueError
        The chunk is not LZ4, or has another size.
    """
    flat: Any = out.reshape(-1).view(np.uint8)
    try:
        decoded = imagecodecs.lz4h5_decode(data, out=flat)
    except (RuntimeError, ValueError, TypeError, OverflowError) as error:
        raise ValueError(str(error)) from error
    if len(decoded) != len(flat):
        raise ValueError(f"decodes to {len(decoded)} bytes, not {len(flat)}")


def crc(data: bytes) -> int:
    """CRC-32 of a stored chunk."""
    return int(imagecodecs.zlibng_crc32(data))


def pixel_hash(pixels: np.ndarray) -> int:
    """BLAKE2b-64 of a crop's pixels."""
    raw = np.ascontiguousarray(pixels).astype(pixels.dtype.newbyteorder("<"), copy=False)
    return int.from_bytes(hashlib.blake2b(raw.tobytes(), digest_size=8).digest(), "little")


def chunk(crops: h5py.Dataset, row: int) -> bytes:
    """A crop's chunk as stored, bypassing HDF5's filters.

    Raises
    ------
    ValueError
        The file does not hold it.
    MachineError
        Its disk cannot be read.
    """
    try:
        mask, data = crops.id.read_direct_chunk((row, 0, 0, 0))
    except (OSError, RuntimeError, ValueError) as error:
        if trouble := trouble_of(error, str(crops.file.filename)):
            raise trouble from error
        raise ValueError(f"is not in the file ({' '.join(str(error).split())[:120]})") from error
    if mask:
        raise ValueError("was stored without its filter")
    return bytes(data)


def read_crop(crops: h5py.Dataset, row: int, checksum: int, out: np.ndarray) -> None:
    """Read one crop into ``out``, checked: its chunk must have the CRC-32 in the crop table.

    Raises
    ------
    ValueError
        The file does not hold it, or it is damaged.
    """
    data = chunk(crops, row)
    if crc(data) != checksum:
        raise ValueError("checksum differs")
    decode(data, out)


def create_crops(file: h5py.File, crop: tuple[int, int, int], dtype: np.dtype[Any]) -> h5py.Dataset:
    """The empty data set ``crops``, which grows as crops are written."""
    creation = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    creation.set_chunk((1, *crop))
    creation.set_obj_track_times(False)
    creation.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    # Optional: the filter itself need not be installed, since chunks are encoded and decoded here.
    creation.set_filter(LZ4, h5py.h5z.FLAG_OPTIONAL, (0,))
    space = h5py.h5s.create_simple((0, *crop), (h5py.h5s.UNLIMITED, *crop))
    kind = h5py.h5t.STD_U8LE if dtype == np.uint8 else h5py.h5t.STD_U16LE
    return h5py.Dataset(h5py.h5d.create(file.id, b"crops", kind, space, creation))


def pieces(table: h5py.Dataset) -> Iterator[np.ndarray]:
    """The crop table, `PIECE` rows at a time."""
    for start in range(0, len(table), PIECE):
        yield table[start : start + PIECE]


def is_ours(path: Path) -> bool:
    """Whether a file is a crop cache of any schema, complete or not.

    Raises
    ------
    MorphobenchError
        It is an HDF5 file that cannot be opened, so that this cannot be known.
    MachineError
        The same, and the machine is at fault: the file may be sound.
    """
    try:
        with blaming_machine(path):
            if not path.is_file() or not is_hdf5(path):
                return False
            with reading(path) as file:
                return bool(file.attrs.get("format") == FORMAT)
    except MachineError:
        raise
    except (OSError, RuntimeError, KeyError, ValueError) as error:
        raise MorphobenchError(f"is not a complete crop cache ({' '.join(str(error).split())[:120]})", str(path),
                               AGAIN) from error


def open_file(path: Path) -> h5py.File:
    """Open a cache for reading.

    Raises
    ------
    MorphobenchError
        It is missing, or is not a crop cache.
    """
    if not path.is_file():
        raise MorphobenchError("does not exist", str(path), "Run the study again: crops are built where missing.")
    if not is_ours(path):
        raise MorphobenchError("is not a crop cache of morphobench", str(path), "Move it away and run again.")
    with blaming_machine(path):
        return reading(path)


def _attribute(file: h5py.File, name: str, where: str) -> Any:
    """An attribute, None where the file has none."""
    try:
        return file.attrs.get(name)
    except BROKEN as error:
        raise MorphobenchError(f"is damaged: its attribute {name} cannot be read ({error})", where, AGAIN) from error


def read_header(file: h5py.File, path: Path) -> Header:
    """The header of an open cache, its structure checked.

    Raises
    ------
    MorphobenchError
        It was written by another version, is not complete, or its parts do not fit together.
    """
    where = str(path)
    schema, complete = _attribute(file, "schema", where), _attribute(file, "complete", where)
    if np.ndim(schema) or schema != SCHEMA:
        raise MorphobenchError(f"is of schema {schema}, and this version reads {SCHEMA}", where, AGAIN)
    if np.ndim(complete) or not complete:
        raise MorphobenchError("is not complete", where, AGAIN)
    try:
        crops, table = file["crops"], file["table"]
        channels = tuple(map(str, json.loads(file.attrs["channels"])))
        settings = json.loads(file.attrs["settings"])
        size = int(settings["size"])
        sound = (
            isinstance(crops, h5py.Dataset) and isinstance(table, h5py.Dataset) and table.dtype == ROW
            and crops.shape[1:] == (len(channels), size, size) and crops.chunks == (1, *crops.shape[1:])
            and crops.dtype == np.dtype(f"uint{settings['depth']}") and table.shape == crops.shape[:1]
            and len(crops) > 0 and crops.id.get_num_chunks() == len(crops)
            and len(file["fields"]) == len(file["field_rows"])
        )
        header = Header(str(file.attrs["key"]), channels, crops.shape, crops.dtype, str(file.attrs["digest"]))
    except BROKEN as error:
        if trouble := trouble_of(error, path):
            raise trouble from error
        raise MorphobenchError(f"lacks parts of a crop cache ({error})", where, AGAIN) from error
    if not sound:
        raise MorphobenchError("is damaged: its parts do not fit together", where, AGAIN)
    return header
