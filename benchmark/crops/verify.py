"""Check a whole crop cache: `morphobench crops verify`."""

from __future__ import annotations

import hashlib
from pathlib import Path

import h5py
import numpy as np

from benchmark.base.errors import Fault, MorphobenchError
from benchmark.base.machine import trouble_of
from benchmark.crops import layout


def verify_crops(path: Path) -> list[Fault]:
    """Everything wrong with a crop cache: every crop is read and its pixels are hashed again.

    Crops are read one after the other, so memory does not grow with their number.

    Returns
    -------
    list of Fault
        Empty for an intact file. Damaged crops are named by field and number. A file whose structure is broken has
        that one fault; so has one that the machine cannot read, which may be sound.
    """
    try:
        with layout.open_file(path) as file:
            header = layout.read_header(file, path)
            names = _field_names(file)
            faults: list[Fault] = []
            hasher, start, last = hashlib.blake2b(digest_size=32), 0, (-1, -1)
            for rows in layout.pieces(file["table"]):
                hasher.update(rows.tobytes())
                faults += _crop_faults(file["crops"], rows, start, header, names)
                faults += _order_faults(rows, last, path)
                start, last = start + len(rows), (int(rows["field"][-1]), int(rows["crop"][-1]))
            if hasher.hexdigest() != header.digest:
                faults.append(Fault("the crop table differs from its digest", str(path), layout.AGAIN))
            return faults
    except MorphobenchError as error:
        return [error.fault]
    except layout.BROKEN as error:
        if trouble := trouble_of(error, path):
            return [trouble.fault]
        return [Fault(f"cannot be read ({' '.join(str(error).split())[:120]})", str(path), layout.AGAIN)]


def _field_names(file: h5py.File) -> dict[int, str]:
    return dict(zip(file["field_rows"][:].tolist(), file["fields"].asstr()[:], strict=True))


def _crop_faults(
    crops: h5py.Dataset, rows: np.ndarray, start: int, header: layout.Header, names: dict[int, str]
) -> list[Fault]:
    """Crops that do not decode to the pixels that were hashed, and crops of unknown fields."""
    faults = []
    pixels = np.empty(header.shape[1:], header.dtype)
    for i, row in enumerate(rows):
        field = int(row["field"])
        where = f"{names.get(field, f'field row {field}')}, crop {row['crop']}"
        if field not in names:
            faults.append(Fault("belongs to a field that the cache does not know", where, layout.AGAIN))
        try:
            layout.read_crop(crops, start + i, row["crc"], pixels)
            if layout.pixel_hash(pixels) != row["hash"]:
                raise ValueError("pixels differ from their hash")
        except ValueError as error:
            faults.append(Fault(f"the crop is damaged ({error})", where, layout.AGAIN))
    return faults


def _order_faults(rows: np.ndarray, last: tuple[int, int], path: Path) -> list[Fault]:
    """Crops that occur twice or out of order (by field, then number)."""
    place = np.concatenate([[last[0]], rows["field"]]).astype(np.int64)
    number = np.concatenate([[last[1]], rows["crop"]]).astype(np.int64)
    rising = (place[1:] > place[:-1]) | ((place[1:] == place[:-1]) & (number[1:] > number[:-1]))
    if rising.all():
        return []
    return [Fault(f"{int((~rising).sum())} crops occur twice or out of order", str(path), layout.AGAIN)]
