"""Read the crop cache in batches, from any number of processes."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from dataclasses import field as attribute
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from benchmark.base.errors import MorphobenchError
from benchmark.crops import layout

#: Crops whose pixels are checked on opening, spread over the file.
SAMPLE = 32


@dataclass(eq=False)
class Crops:
    """Crops in a file. 12 bytes per crop are held in memory; pixels are read when asked for.

    The file is opened when a process first reads: an instance may be sent to workers and used after a fork.

    Attributes
    ----------
    path : Path
    key : str
        Hash of the assay, the settings and the sources.
    channels : tuple of str
    shape : (int, int, int)
        Channels, height and width of a crop.
    dtype : dtype
        uint8 or uint16.
    field : ndarray of int32, shape (N,)
        Row of each crop's field in ``assay.fields``; ascending.
    crop : ndarray of int32, shape (N,)
        Number of the tile in its field, or of the object.
    """

    path: Path
    key: str
    channels: tuple[str, ...]
    shape: tuple[int, int, int]
    dtype: np.dtype[Any]
    field: np.ndarray = attribute(repr=False)
    crop: np.ndarray = attribute(repr=False)
    _crc: np.ndarray = attribute(repr=False)
    _open: tuple[int, h5py.File] | None = attribute(default=None, repr=False)

    def __len__(self) -> int:
        return len(self.field)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": None}

    def batch(self, rows: np.ndarray) -> np.ndarray:
        """Read crops.

        Parameters
        ----------
        rows : ndarray of int, shape (n,)
            Numbers of crops, 0…N-1, in any order, repeats allowed.

        Returns
        -------
        ndarray of uint8 or uint16, shape (n, C, S, S)
            In the order asked for.

        Raises
        ------
        IndexError
            A number is out of range.
        MachineError
            The disk cannot be read.
        MorphobenchError
            A crop in the file differs from what was written: damaged bytes are never returned as pixels.
        """
        rows = np.asarray(rows)
        if rows.size and (rows.min() < 0 or rows.max() >= len(self)):
            raise IndexError(f"crops are numbered 0 to {len(self) - 1}")
        crops = self._crops()
        out = np.empty((len(rows), *self.shape), self.dtype)
        for i in np.argsort(rows, kind="stable").tolist():  # in the order of the file
            row = int(rows[i])
            try:
                layout.read_crop(crops, row, self._crc[row], out[i])
            except ValueError as error:
                raise MorphobenchError(f"holds a damaged crop ({error})", self.name_of(row), layout.AGAIN) from error
        return out

    def name_of(self, row: int) -> str:
        """A crop in words, for errors: file, field and number."""
        return f"{self.path}, field row {self.field[row]}, crop {self.crop[row]}"

    def of_fields(self, fields: np.ndarray) -> np.ndarray:
        """Numbers of the crops of some fields, ascending.

        Parameters
        ----------
        fields : ndarray
            Rows of ``assay.fields``, or one boolean per row.
        """
        fields = np.asarray(fields)
        if fields.dtype == bool:
            fields = np.flatnonzero(fields)
        return np.flatnonzero(np.isin(self.field, fields.astype(np.int32)))

    def boxes(self, rows: np.ndarray) -> np.ndarray:
        """Where crops were cut: (n, 4) int32, top, left, height and width in pixels of the field."""
        table = self._file()["table"]
        entries = [table[int(row)] for row in rows]
        return np.array([[r[c] for c in ("y", "x", "height", "width")] for r in entries], np.int32).reshape(-1, 4)

    def close(self) -> None:
        """Close the file if this process has it open; reading opens it again."""
        if self._open is not None and self._open[0] == os.getpid():
            self._open[1].close()
        self._open = None

    def _file(self) -> h5py.File:
        if self._open is None or self._open[0] != os.getpid():
            self._open = (os.getpid(), layout.open_file(self.path))
        return self._open[1]

    def _crops(self) -> h5py.Dataset:
        return self._file()["crops"]


def open_crops(path: Path, key: str) -> Crops:
    """Open a crop cache, checking that it is complete, current and, by a sample, undamaged.

    Parameters
    ----------
    path : Path
        From `benchmark.crops.build.build_crops`.
    key : str
        Of the crops it must hold, from `benchmark.crops.build.crop_key`.

    Raises
    ------
    MorphobenchError
        The file is missing, not a crop cache, incomplete, of other crops, or damaged.
    """
    with layout.open_file(path) as file:
        header = layout.read_header(file, path)
        if header.key != key:
            raise MorphobenchError("holds crops of another assay or other settings", str(path), layout.AGAIN)
        try:
            field, crop, crc, hashes = _read_table(file["table"], header, path)
        except layout.BROKEN as error:
            raise MorphobenchError(f"is damaged: its crop table cannot be read ({' '.join(str(error).split())[:120]})",
                                   str(path), layout.AGAIN) from error
    crops = Crops(path, key, header.channels, header.shape[1:], header.dtype, field, crop, crc)
    for row, pixels in zip(hashes, crops.batch(np.array(list(hashes))), strict=True):
        if layout.pixel_hash(pixels) != hashes[row]:
            raise MorphobenchError("holds a damaged crop (its pixels differ from their hash)", crops.name_of(row),
                                   layout.AGAIN)
    crops.close()  # so that workers forked later do not inherit it
    return crops


def _read_table(
    table: h5py.Dataset, header: layout.Header, path: Path
) -> tuple[np.ndarray, np.ndarray, np.ndarray, dict[int, int]]:
    """Columns of the crop table, checked against the digest; hashes of the sampled crops only."""
    n = len(table)
    field, crop, crc = np.empty(n, np.int32), np.empty(n, np.int32), np.empty(n, np.uint32)
    sample = np.unique(np.linspace(0, n - 1, min(SAMPLE, n)).astype(np.int64))
    hashes: dict[int, int] = {}
    hasher, start = hashlib.blake2b(digest_size=32), 0
    for rows in layout.pieces(table):
        stop = start + len(rows)
        field[start:stop], crop[start:stop], crc[start:stop] = rows["field"], rows["crop"], rows["crc"]
        hashes |= {int(i): int(rows["hash"][i - start]) for i in sample[(sample >= start) & (sample < stop)]}
        hasher.update(rows.tobytes())
        start = stop
    if hasher.hexdigest() != header.digest:
        raise MorphobenchError("is damaged: its crop table differs from its digest", str(path), layout.AGAIN)
    return field, crop, crc, hashes
