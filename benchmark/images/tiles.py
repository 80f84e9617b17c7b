"""Where crops lie in a field, and how a piece of a field becomes a square of the network's input size."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np

#: BBBC014 in Kensert et al. 2019: fields are resized to this side, and cut into 4 x 4 tiles.
BBBC014_SIDE, BBBC014_TILES = 1024, 4


class Box(NamedTuple):
    """A rectangle of a field in pixels: its top left corner and its size. It may reach beyond the field."""

    y: int
    x: int
    height: int
    width: int


def grid_boxes(shape: tuple[int, int], grid: tuple[int, int]) -> list[Box]:
    """Tiles of a grid (rows, columns), row by row, each cropped to a square around its centre.

    The aspect ratio of cells is kept; the sides of a tile that is not square are not used, nor are rows and columns
    at the bottom and the right that do not fill a tile.

    Parameters
    ----------
    shape : (int, int)
        Height and width of the field.
    """
    tall, wide = shape[0] // grid[0], shape[1] // grid[1]
    side = min(tall, wide)
    return [Box(r * tall + (tall - side) // 2, c * wide + (wide - side) // 2, side, side)
            for r in range(grid[0]) for c in range(grid[1])]


def window_boxes(shape: tuple[int, int], rows: int, columns: int) -> list[Box]:
    """Tiles of Kensert et al. 2019, in the order of their ``slide_window``: column by column, top to bottom.

    Each has 1/``rows`` of the height and 1/``columns`` of the width: 512×640 of BBBC021's 1024×1280 with 2 × 2.
    """
    tall, wide = shape[0] // rows, shape[1] // columns
    return [Box(r * tall, c * wide, tall, wide) for c in range(columns) for r in range(rows)]


def cell_boxes(x: np.ndarray, y: np.ndarray, side: int) -> list[Box]:
    """Squares of ``side`` pixels centred on points (x to the right, y down, pixel centres at whole numbers).

    The centre is rounded to the nearest pixel (halves up), which becomes pixel ``side // 2`` of the square. Squares
    at the border reach beyond the field.
    """
    half = side // 2
    return [Box(int(np.floor(b + 0.5)) - half, int(np.floor(a + 0.5)) - half, side, side)
            for a, b in zip(x, y, strict=True)]


def cut(field: np.ndarray, box: Box) -> np.ndarray:
    """The piece of ``field`` (C, H, W) inside ``box``; zero beyond the field.

    Returns
    -------
    ndarray, shape (C, box.height, box.width)
        A view if the box lies within the field.
    """
    _, height, width = field.shape
    top, left = max(box.y, 0), max(box.x, 0)
    bottom, right = min(box.y + box.height, height), min(box.x + box.width, width)
    if (top, left, bottom, right) == (box.y, box.x, box.y + box.height, box.x + box.width):
        return field[:, top:bottom, left:right]
    piece = np.zeros((len(field), box.height, box.width), field.dtype)
    if bottom > top and right > left:
        piece[:, top - box.y : bottom - box.y, left - box.x : right - box.x] = field[:, top:bottom, left:right]
    return piece


def resize(piece: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resize each plane of (C, h, w), whatever the aspect ratio: OpenCV's INTER_AREA.

    When shrinking, a pixel is the mean of the area it covers, which avoids aliasing; when enlarging, OpenCV
    interpolates linearly. Whole-number types are rounded by OpenCV.
    """
    if piece.shape[1:] == (height, width):
        return piece
    out = np.empty((len(piece), height, width), piece.dtype)
    for plane, target in zip(piece, out, strict=True):
        cv2.resize(plane, (width, height), dst=target, interpolation=cv2.INTER_AREA)
    return out


def to_whole(values: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Round float values to the nearest whole numbers of ``dtype``, clipped to its range."""
    return np.clip(np.rint(values), 0, np.iinfo(dtype).max).astype(dtype)


def original_box(box: Box, shape: tuple[int, int], resized: tuple[int, int]) -> Box:
    """``box`` of a field resized from ``shape`` to ``resized``, in pixels of the original, to the nearest pixel."""
    tall, wide = shape[0] / resized[0], shape[1] / resized[1]
    return Box(round(box.y * tall), round(box.x * wide), round(box.height * tall), round(box.width * wide))
