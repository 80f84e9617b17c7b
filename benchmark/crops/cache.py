"""Build, verify and read the crop cache: uint8 crops of every scored field in one HDF5 file.

Layout: dataset ``crops`` (N, C, S, S) uint8, one crop a chunk; dataset ``field`` (N,) int32, index into the
field table; dataset ``tile`` (N,) int16; attributes ``key``, ``channels``, ``sha256`` (of ``crops``).
The key hashes the assay and the settings, so a file that carries the wanted key is current.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import torch
from torch.nn.functional import interpolate

from benchmark.assays.fieldtable import Assay
from benchmark.crops.settings import CropSettings
from benchmark.errors import MorphobenchError
from benchmark.files import digest, inside, whole
from benchmark.images.reading import read_plane
from benchmark.tables import CONTROL, FIELD_COLUMNS, PLATE, path_column, plane_column
from benchmark.tasks import RunTasks, run_serially

#: Raised when the way pixels become crops changes, so that old caches are not taken for new ones.
CROPPING = 1


@dataclass(frozen=True)
class CropSet:
    """Crops in memory, and what each of them is.

    Attributes
    ----------
    pixels : ndarray
        (N, C, S, S) uint8.
    table : DataFrame
        One row a crop: the field table's metadata columns and ``crop`` (int, the tile's number).
    channels : tuple of str
        Names of the C channels.
    key : str
        Hash of the assay and of the settings.
    """

    pixels: np.ndarray
    table: pd.DataFrame
    channels: tuple[str, ...]
    key: str


@dataclass(frozen=True)
class _PlateTask:
    """What a worker needs to crop one plate. Paths and planes are (fields, channels)."""

    root: Path
    rows: tuple[int, ...]
    paths: tuple[tuple[str, ...], ...]
    planes: tuple[tuple[int, ...], ...]
    scale_paths: tuple[tuple[str, ...], ...]
    scale_planes: tuple[tuple[int, ...], ...]
    settings: CropSettings


def crop_key(assay_hash: str, settings: CropSettings) -> str:
    """Hash that names the cache of an assay under some settings."""
    return digest([CROPPING, assay_hash, settings.model_dump(mode="json")])


def scale_plane(plane: np.ndarray, low: float, high: float) -> np.ndarray:
    """Map ``low``…``high`` linearly to 0…255 and clip; float32 of the same shape."""
    scaled = (plane.astype(np.float32) - np.float32(low)) * np.float32(255 / max(high - low, 1e-6))
    return np.clip(scaled, 0, 255)


def cut(field: np.ndarray, grid: tuple[int, int], size: int) -> np.ndarray:
    """Cut a field into a grid of tiles, centre-crop each to a square, and resize it.

    Parameters
    ----------
    field : ndarray
        (C, H, W) float32 in 0…255.

    Returns
    -------
    ndarray
        (rows x columns, C, size, size) uint8, tiles row by row. Shrinking is anti-aliased.
    """
    _, height, width = field.shape
    tall, wide = height // grid[0], width // grid[1]
    side = min(tall, wide)
    tiles = []
    for r in range(grid[0]):
        for c in range(grid[1]):
            top, left = r * tall + (tall - side) // 2, c * wide + (wide - side) // 2
            tiles.append(field[:, top : top + side, left : left + side])
    stack = torch.from_numpy(np.stack(tiles))
    if side != size:
        stack = interpolate(stack, size=(size, size), mode="bilinear", antialias=True, align_corners=False)
    return stack.round().clamp(0, 255).to(torch.uint8).numpy()


def _limits(task: _PlateTask) -> list[tuple[float, float]]:
    """Lower and upper intensity of each channel of a plate."""
    n_channels = len(task.paths[0])
    if task.settings.intensity == "bit_depth":
        first = [read_plane(inside(task.root, p), n) for p, n in zip(task.paths[0], task.planes[0], strict=True)]
        return [(0.0, float(np.iinfo(plane.dtype).max)) for plane in first]
    limits = []
    for c in range(n_channels):
        pixels = [
            # every 4th pixel each way: quantiles of millions of pixels need no more, and a plate stays small
            read_plane(inside(task.root, paths[c]), planes[c])[::4, ::4].ravel()
            for paths, planes in zip(task.scale_paths, task.scale_planes, strict=True)
        ]
        low, high = np.quantile(np.concatenate(pixels), task.settings.quantiles)
        limits.append((float(low), float(high)))
    return limits


def _crop_plate(task: _PlateTask) -> tuple[tuple[int, ...], np.ndarray]:
    """Crops of a plate: field rows, and (fields, tiles, C, S, S) uint8."""
    limits = _limits(task)
    crops = []
    for paths, planes in zip(task.paths, task.planes, strict=True):
        field = np.stack([
            scale_plane(read_plane(inside(task.root, path), plane), *limit)
            for path, plane, limit in zip(paths, planes, limits, strict=True)
        ])
        crops.append(cut(field, task.settings.grid, task.settings.size))
    return task.rows, np.stack(crops)


def _plate_tasks(assay: Assay, settings: CropSettings) -> list[_PlateTask]:
    paths = [path_column(c) for c in assay.channels]
    planes = [plane_column(c) for c in assay.channels]

    def columns(table: pd.DataFrame, names: list[str]) -> tuple[tuple[Any, ...], ...]:
        return tuple(table[names].itertuples(index=False, name=None))

    tasks = []
    for plate, rows in assay.treated.groupby(PLATE):
        on_plate = assay.fields[assay.fields[PLATE] == plate]
        scale = on_plate if settings.intensity == "plate" else on_plate[on_plate[CONTROL] == "negative"]
        if settings.intensity == "controls" and scale.empty:
            raise MorphobenchError(
                "has no negative controls, which crops.intensity: controls needs", f"plate {plate}",
                "Set intensity to plate or bit_depth.",
            )
        tasks.append(_PlateTask(assay.root, tuple(rows.index), columns(rows, paths), columns(rows, planes),
                                columns(scale, paths), columns(scale, planes), settings))
    return tasks


def build_crops(
    path: Path, assay: Assay, assay_hash: str, settings: CropSettings, run_tasks: RunTasks = run_serially
) -> None:
    """Write the crop cache of an assay to ``path``, whole; a current file is left alone.

    Raises
    ------
    MorphobenchError
        A file cannot be read (it is named), or controls are wanted and a plate has none.
    """
    key = crop_key(assay_hash, settings)
    if path.exists():
        _check_key(path, key)
        return
    tasks = _plate_tasks(assay, settings)
    tiles = settings.grid[0] * settings.grid[1]
    order = assay.treated.index.to_numpy(np.int32)
    position = {row: i for i, row in enumerate(order)}
    shape = (len(order) * tiles, len(assay.channels), settings.size, settings.size)
    sums: dict[int, str] = {}
    with whole(path) as tmp, h5py.File(tmp, "w") as file:
        crops = file.create_dataset("crops", shape, np.uint8, chunks=(1, *shape[1:]), compression="lzf")
        for rows, plate_crops in run_tasks(_crop_plate, tasks, "crops, by plate"):
            for row, field_crops in zip(rows, plate_crops, strict=True):
                start = position[row] * tiles
                crops[start : start + tiles] = field_crops
                sums[position[row]] = hashlib.sha256(field_crops.tobytes()).hexdigest()
        file["field"] = np.repeat(order, tiles)
        file["tile"] = np.tile(np.arange(tiles, dtype=np.int16), len(order))
        file.attrs["key"] = key
        file.attrs["channels"] = list(assay.channels)
        file.attrs["sha256"] = digest([sums[i] for i in range(len(order))], 64)


def _check_key(path: Path, key: str) -> None:
    try:
        with h5py.File(path, "r") as file:
            found = file.attrs.get("key")
    except OSError as error:
        raise MorphobenchError(f"is not a readable crop cache ({error})", str(path),
                               "Delete it and run again.") from error
    if found != key:
        raise MorphobenchError("holds crops of another assay or other settings", str(path),
                               "Delete it and run again.")


def read_crops(path: Path, assay: Assay, assay_hash: str, settings: CropSettings) -> CropSet:
    """Read a crop cache into memory, checking that it is current and undamaged.

    Raises
    ------
    MorphobenchError
        The file is unreadable, belongs to another assay or other settings, or its pixels do not match
        the checksum written with them.
    """
    key = crop_key(assay_hash, settings)
    _check_key(path, key)
    tiles = settings.grid[0] * settings.grid[1]
    with h5py.File(path, "r") as file:
        pixels = file["crops"][:]
        rows, tile = file["field"][:], file["tile"][:]
        stated = file.attrs["sha256"]
    by_field = pixels.reshape(-1, tiles, *pixels.shape[1:])
    if digest([hashlib.sha256(f.tobytes()).hexdigest() for f in by_field], 64) != stated:
        raise MorphobenchError("holds damaged crops (checksum differs)", str(path), "Delete it and run again.")
    table = assay.fields.loc[rows, FIELD_COLUMNS].reset_index(drop=True)
    table["crop"] = tile.astype(int)
    return CropSet(pixels, table, assay.channels, key)
