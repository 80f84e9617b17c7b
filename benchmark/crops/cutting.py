"""From the stored pixels of one field to its crops, under any intensity scheme and crop rule."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np

from benchmark.base.errors import MorphobenchError
from benchmark.crops.settings import CropSettings
from benchmark.images.intensity import (
    kensert2019_bbbc014_tile,
    kensert2019_field,
    kensert2019_table,
    kept,
    refuse_depth,
    scale_plane,
)
from benchmark.images.tiles import (
    BBBC014_SIDE,
    BBBC014_TILES,
    Box,
    cell_boxes,
    cut,
    grid_boxes,
    original_box,
    resize,
    to_whole,
    window_boxes,
)

#: Name of the channel of zeros that kensert2019_bbbc014 puts first.
EMPTY_CHANNEL = "Empty"


class Crop(NamedTuple):
    """A crop, the number of its tile or object, and where in the field it was cut."""

    pixels: np.ndarray
    number: int
    box: Box


@dataclass(frozen=True)
class Plate:
    """What the fields of a plate have in common.

    Attributes
    ----------
    settings : CropSettings
    statistics : sequence of (float, float)
        One pair per channel: low and high (``standard``), mean and standard deviation (``kensert2019``); else empty.
    gains : list of ndarray
        1 / illumination function of each channel, (H, W) float32; empty without correction.
    """

    settings: CropSettings
    statistics: Sequence[tuple[float, float]] = ()
    gains: Sequence[np.ndarray] = ()


def crop_channels(channels: Sequence[str], settings: CropSettings) -> tuple[str, ...]:
    """Names of the channels that crops have."""
    return (EMPTY_CHANNEL, *channels) if settings.intensity == "kensert2019_bbbc014" else tuple(channels)


def crop_dtype(settings: CropSettings) -> np.dtype:
    """Type of the cached values."""
    return np.dtype(np.uint8 if settings.depth == 8 else np.uint16)


def field_crops(
    planes: np.ndarray, plate: Plate, centres: np.ndarray | None = None, mask: np.ndarray | None = None, where: str = ""
) -> Iterator[Crop]:
    """The crops of one field, one after the other.

    Parameters
    ----------
    planes : ndarray of uint8 or uint16, shape (C, H, W)
        Stored values.
    centres : ndarray of `benchmark.crops.cells.CENTRE`, optional
        Cells of the field, for ``kind: cells``.
    mask : ndarray of int, shape (H, W), optional
        Object numbers, for ``mask: true``.
    where : str
        The field in words, for errors.

    Raises
    ------
    MorphobenchError
        The field does not suit the scheme, differs in size from its illumination function or mask, or has a cell
        that is missing from its mask.
    """
    settings = plate.settings
    if settings.intensity == "kensert2019":
        return _kensert2019(planes, plate, where)
    if settings.intensity == "kensert2019_bbbc014":
        return _kensert2019_bbbc014(planes, settings.size, where)
    return _scaled(planes, plate, centres, mask, where)


def _kensert2019(planes: np.ndarray, plate: Plate, where: str) -> Iterator[Crop]:
    top = np.iinfo(planes.dtype).max
    _refuse_small(planes.shape, 2, where)
    tables = np.stack([kensert2019_table(top, moments) for moments in plate.statistics])
    levels, threshold = kensert2019_field(planes, tables)
    for number, box in enumerate(window_boxes(planes.shape[1:], 2, 2)):
        if kept(cut(planes, box), threshold):
            size = plate.settings.size
            yield Crop(resize(cut(levels, box), size, size), number, box)


def _kensert2019_bbbc014(planes: np.ndarray, size: int, where: str) -> Iterator[Crop]:
    refuse_depth(planes, where)
    shape = planes.shape[1:]
    square = np.stack([cv2.resize(p, (BBBC014_SIDE, BBBC014_SIDE), interpolation=cv2.INTER_AREA) for p in planes])
    for number, box in enumerate(window_boxes(square.shape[1:], BBBC014_TILES, BBBC014_TILES)):
        pixels = resize(kensert2019_bbbc014_tile(cut(square, box)), size, size)
        yield Crop(pixels, number, original_box(box, shape, square.shape[1:]))


def _scaled(
    planes: np.ndarray, plate: Plate, centres: np.ndarray | None, mask: np.ndarray | None, where: str
) -> Iterator[Crop]:
    settings, dtype = plate.settings, crop_dtype(plate.settings)
    for other, what in ((plate.gains[0] if plate.gains else None, "illumination function"), (mask, "mask")):
        if other is not None and other.shape != planes.shape[1:]:
            raise MorphobenchError(f"is {planes.shape[2]}×{planes.shape[1]} pixels, and its {what} "
                                   f"{other.shape[1]}×{other.shape[0]}", where, "Delete the run and start again.")
    limits = plate.statistics or [(0.0, float(np.iinfo(planes.dtype).max))] * len(planes)
    top = int(np.iinfo(dtype).max)
    field = np.stack([scale_plane(p, *limits[c], top, plate.gains[c] if plate.gains else None)
                      for c, p in enumerate(planes)])
    if centres is None:
        _refuse_small(planes.shape, max(settings.grid), where)
        boxes = grid_boxes(planes.shape[1:], settings.grid)
        numbers = list(range(len(boxes)))
    else:
        assert settings.box is not None  # the settings refuse cell crops without one
        boxes, numbers = cell_boxes(centres["x"], centres["y"], settings.box), centres["number"].tolist()
    if mask is not None:
        _refuse_other_numbers(mask, numbers, where)
    for number, box in zip(numbers, boxes, strict=True):
        piece = cut(field, box)
        if mask is not None:
            piece = piece * (cut(mask[None], box) == number)
        yield Crop(to_whole(resize(piece, settings.size, settings.size), dtype), number, box)


def _refuse_other_numbers(mask: np.ndarray, numbers: Sequence[int], where: str) -> None:
    """Refuse a mask that lacks a cell: its crop would be black, and the other cells' numbers may be shifted."""
    lacking = np.setdiff1d(numbers, np.flatnonzero(np.bincount(mask.ravel())))
    if len(lacking):
        raise MorphobenchError(f"has {len(lacking)} cell(s) that its mask lacks, number {lacking[0]} the first", where,
                               "Save the mask after the last step of the pipeline that changes the cells.")


def _refuse_small(shape: tuple[int, ...], cuts: int, where: str) -> None:
    if min(shape[1:]) < cuts:
        raise MorphobenchError(f"is {shape[2]}×{shape[1]} pixels, too small for {cuts} tiles each way", where,
                               "Use a smaller crops.grid.")
