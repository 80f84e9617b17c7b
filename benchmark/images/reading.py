"""Reading planes of image files: PNG, BMP and TIFF (single page, multi-page, OME), 8 or 16 bit.

A file that cannot be read *completely* is an error that names it. Other readers are more lenient: some
return a truncated TIFF padded with zeros, and CellProfiler then counts no cells and reports success.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from pathlib import Path

import imagecodecs
import numpy as np
import pandas as pd
import tifffile
from PIL import Image

from benchmark.assays.fieldtable import Assay
from benchmark.base.errors import MorphobenchError
from benchmark.base.files import inside
from benchmark.base.tables import path_column, plane_column
from benchmark.images.formats import AGAIN, CUT, EXPORT, MAX_PIXELS, SUFFIXES, Held, check_held, colours, other_kind
from benchmark.images.tiff import read_tiff

#: What the decoders raise on broken files, as opposed to errors in this code.
_BROKEN = (OSError, ValueError, TypeError, IndexError, KeyError, SyntaxError, EOFError, struct.error, zlib.error,
           RuntimeError, MemoryError, tifffile.TiffFileError)
_MODES = {"L": 1, "LA": 2, "RGB": 3, "RGBA": 4, "I;16": 1, "I;16B": 1}
_PNG_SAMPLES = {0: 1, 2: 3, 4: 2, 6: 4}  # PNG colour type → samples a pixel


def read_plane(path: Path, plane: int) -> np.ndarray:
    """One plane of an image file.

    Parameters
    ----------
    path : Path
        PNG, BMP or TIFF.
    plane : int
        Zero-based. In a colour image the index of the channel (red 0, green 1, blue 2); in a
        multi-page or OME-TIFF the index of the page in the order of the file, which is that of the
        leading axes flattened; in pages of colour, ``page × channels + channel``.

    Returns
    -------
    ndarray of shape (H, W), uint8 or uint16
        Values as stored, not scaled.

    Raises
    ------
    MorphobenchError
        The file is missing, in a format that is not read, corrupt, truncated, not 8- or 16-bit, or has no such plane.
    """
    return read_planes(path, (plane,))[0]


def read_planes(path: Path, planes: Sequence[int]) -> list[np.ndarray]:
    """Several planes of one file, opened once; see `read_plane`."""
    return look_into(path, planes)[1]


def read_field(assay: Assay, row: pd.Series) -> np.ndarray:
    """All channels of one field.

    Parameters
    ----------
    assay : Assay
        Gives the root folder and the order of the channels.
    row : Series
        A row of ``assay.fields``.

    Returns
    -------
    ndarray of shape (C, H, W), uint8 or uint16
        Channels in the order of ``assay.channels``.

    Raises
    ------
    MorphobenchError
        As `read_plane`; also when the channels differ in size or dtype.
    """
    wanted: dict[str, list[int]] = {}
    for channel in assay.channels:
        wanted.setdefault(str(row[path_column(channel)]), []).append(int(row[plane_column(channel)]))
    read = {
        (relative, plane): pixels
        for relative, planes in wanted.items()
        for plane, pixels in zip(planes, read_planes(inside(assay.root, relative), planes), strict=True)
    }
    stack = [read[str(row[path_column(c)]), int(row[plane_column(c)])] for c in assay.channels]
    kinds = {(p.shape, p.dtype.name) for p in stack}
    if len(kinds) > 1:
        raise MorphobenchError(f"the channels of one field differ in size or depth: {sorted(kinds)}",
                               ", ".join(wanted), EXPORT)
    return np.stack(stack)


def look_into(path: Path, planes: Sequence[int]) -> tuple[Held, list[np.ndarray]]:
    """What a file holds, and some of its planes; every failure of a decoder becomes one kind of error.

    Raises
    ------
    MorphobenchError
        As `read_plane`.
    """
    where = str(path)
    if not path.is_file():
        raise MorphobenchError("does not exist" if not path.exists() else "is not a file", where,
                               "Check the file template and the root of the assay in the study.")
    if path.suffix.lower() not in SUFFIXES:
        raise MorphobenchError(f"is {path.suffix or 'without a suffix'}, a file format that is not read", where,
                               f"Use {', '.join(SUFFIXES)} (JPEG and other lossy formats alter the pixels).")
    if path.stat().st_size == 0:
        raise MorphobenchError("is empty", where, AGAIN)
    try:
        return read_tiff(path, planes) if path.suffix.lower() in (".tif", ".tiff") else _read_flat(path, planes)
    except Image.DecompressionBombError as error:  # Pillow's own limit, by the header, before ours can be looked at
        raise MorphobenchError(f"claims more pixels than the limit of {MAX_PIXELS}", where, CUT) from error
    except _BROKEN as error:
        what = " ".join(str(error).split())[:200] or type(error).__name__
        other = other_kind(path)
        if other:
            raise MorphobenchError(f"is {other} under the name of a {path.suffix} file", where, EXPORT) from error
        raise MorphobenchError(f"cannot be read: truncated, corrupt or not an image ({what})", where, AGAIN) from error


def _png_depth(path: Path) -> tuple[int, int]:
    """Bit depth and colour type out of a PNG's header (IHDR); (0, 0) for other files."""
    with path.open("rb") as handle:
        head = handle.read(26)
    return (head[24], head[25]) if head[:8] == b"\x89PNG\r\n\x1a\n" and len(head) == 26 else (0, 0)


def _read_flat(path: Path, planes: Sequence[int]) -> tuple[Held, list[np.ndarray]]:
    """PNG and BMP."""
    kind = path.suffix[1:].upper()
    depth, colour = _png_depth(path)
    with Image.open(path, formats=(kind,)) as image:
        if (image.mode not in _MODES and depth != 16) or 0 < depth < 8:
            how = f"{depth}-bit" if depth < 8 and image.mode != "P" else repr(image.mode)
            raise MorphobenchError(f"stores its pixels as {how} (palette or bits), not as intensities", str(path),
                                   EXPORT)
        deep = depth == 16 or image.mode.startswith("I;16")
        n = _PNG_SAMPLES.get(colour, 1) if depth == 16 else _MODES[image.mode]
        held = Held(n, (image.height, image.width), np.dtype(np.uint16 if deep else np.uint8), colours(n))
        check_held(path, held, planes)
        # Pillow silently cuts 16-bit colour down to 8 bits; libpng through imagecodecs does not.
        pixels = imagecodecs.png_decode(path.read_bytes()) if depth == 16 else np.asarray(image)
    pixels = pixels.reshape(*held.shape, held.n)
    return held, [np.ascontiguousarray(pixels[..., p], dtype=held.dtype) for p in planes]
