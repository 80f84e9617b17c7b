"""Reading planes of image files: PNG, BMP and TIFF (single page, multi-page, OME), 8 or 16 bit.

A file that cannot be read *completely* is an error that names it. Other readers are more lenient: some
return a truncated TIFF padded with zeros, and CellProfiler then counts no cells and reports success.
"""

from __future__ import annotations

import struct
import warnings
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import imagecodecs
import numpy as np
import pandas as pd
import tifffile
from PIL import Image

from benchmark.assays.fieldtable import Assay
from benchmark.base.errors import MorphobenchError
from benchmark.base.files import inside, usable
from benchmark.base.tables import path_column, plane_column
from benchmark.images.imagej import read_slices, slices_behind

SUFFIXES = (".png", ".tif", ".tiff", ".bmp")
#: Planes larger than this are refused before decoding: a small file may claim to be a huge image.
MAX_PIXELS = Image.MAX_IMAGE_PIXELS or 89_478_485
_AGAIN = "Copy it again from the microscope's disk, or leave the field out."
_CUT = "Cut the image into fields."
_EXPORT = "Export it again as 8- or 16-bit PNG or TIFF."
#: What the decoders raise on broken files, as opposed to errors in this code.
_BROKEN = (OSError, ValueError, TypeError, IndexError, KeyError, SyntaxError, EOFError, struct.error, zlib.error,
           RuntimeError, MemoryError, tifffile.TiffFileError)
_MODES = {"L": 1, "LA": 2, "RGB": 3, "RGBA": 4, "I;16": 1, "I;16B": 1}
warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # `_check` refuses what Pillow only warns of
_PNG_SAMPLES = {0: 1, 2: 3, 4: 2, 6: 4}  # PNG colour type → samples a pixel


class _Planes(NamedTuple):
    """What a file holds: number of planes, their (height, width) and dtype (``uint8`` or ``uint16``)."""

    n: int
    shape: tuple[int, int]
    dtype: np.dtype[Any]


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
    return _read(path, planes)


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
                               ", ".join(wanted), _EXPORT)
    return np.stack(stack)


def _read(path: Path, planes: Sequence[int]) -> list[np.ndarray]:
    """The wanted planes of any file; every failure of a decoder becomes one kind of error."""
    where = str(path)
    if path.suffix.lower() not in SUFFIXES:
        raise MorphobenchError(f"is {path.suffix or 'without a suffix'}, a file format that is not read", where,
                               f"Use {', '.join(SUFFIXES)} (JPEG and other lossy formats alter the pixels).")
    if not usable(path).is_file():
        raise MorphobenchError("does not exist" if not path.exists() else "is not a file", where,
                               "Check the file template and the root of the assay in the study.")
    if path.stat().st_size == 0:
        raise MorphobenchError("is empty", where, _AGAIN)
    try:
        if path.suffix.lower() in (".tif", ".tiff"):
            return _read_tiff(path, planes)
        return _read_flat(path, planes)
    except Image.DecompressionBombError as error:  # Pillow's own limit, by the header, before `_check` can look
        raise MorphobenchError(f"claims more pixels than the limit of {MAX_PIXELS}", where, _CUT) from error
    except _BROKEN as error:
        what = " ".join(str(error).split())[:200] or type(error).__name__
        raise MorphobenchError(f"cannot be read: truncated, corrupt or not an image ({what})", where, _AGAIN) from error


def _check(path: Path, held: _Planes, planes: Sequence[int]) -> None:
    """Refuse sizes, depths and plane indices that cannot be served, before anything is decoded."""
    if held.shape[0] * held.shape[1] > MAX_PIXELS:
        raise MorphobenchError(f"claims {held.shape[1]}×{held.shape[0]} pixels, over the limit of {MAX_PIXELS}",
                               str(path), _CUT)
    if held.dtype not in (np.uint8, np.uint16):
        raise MorphobenchError(f"holds {held.dtype} pixels, not 8- or 16-bit whole numbers", str(path), _EXPORT)
    for plane in planes:
        if not 0 <= plane < held.n:
            raise MorphobenchError(f"has no plane {plane}: it holds {held.n} (counted from 0)", str(path),
                                   "Correct `plane` of the channel in the study.")


def _png_depth(path: Path) -> tuple[int, int]:
    """Bit depth and colour type out of a PNG's header (IHDR); (0, 0) for other files."""
    with path.open("rb") as handle:
        head = handle.read(26)
    return (head[24], head[25]) if head[:8] == b"\x89PNG\r\n\x1a\n" and len(head) == 26 else (0, 0)


def _read_flat(path: Path, planes: Sequence[int]) -> list[np.ndarray]:
    """PNG and BMP."""
    kind = path.suffix[1:].upper()
    depth, colour = _png_depth(path)
    with Image.open(path, formats=(kind,)) as image:
        if image.mode not in _MODES and depth != 16:
            raise MorphobenchError(f"stores its pixels as {image.mode!r} (palette or bits), not as intensities",
                                   str(path), _EXPORT)
        deep = depth == 16 or image.mode.startswith("I;16")
        n = _PNG_SAMPLES.get(colour, 1) if depth == 16 else _MODES[image.mode]
        held = _Planes(n, (image.height, image.width), np.dtype(np.uint16 if deep else np.uint8))
        _check(path, held, planes)
        # Pillow silently cuts 16-bit colour down to 8 bits; libpng through imagecodecs does not.
        pixels = imagecodecs.png_decode(path.read_bytes()) if depth == 16 else np.asarray(image)
    pixels = pixels.reshape(*held.shape, held.n)
    return [np.ascontiguousarray(pixels[..., p], dtype=held.dtype) for p in planes]


def _read_tiff(path: Path, planes: Sequence[int]) -> list[np.ndarray]:
    """Pages of a TIFF, without thumbnails.

    Pages are taken from the file itself, not from OME-XML, which may name other files.
    """
    with tifffile.TiffFile(path) as tif:
        if not _chain_is_whole(path, bool(tif.is_bigtiff), tif.byteorder):
            raise MorphobenchError("is truncated: pages lie beyond the end of the file", str(path), _AGAIN)
        pages = [p for p in tif.pages if isinstance(p, tifffile.TiffPage) and not p.is_reduced]
        if not pages:
            raise MorphobenchError("holds no image", str(path), _AGAIN)
        first = pages[0]
        samples = first.samplesperpixel
        for page in pages:
            if (page.shape, page.dtype, page.samplesperpixel) != (first.shape, first.dtype, samples):
                raise MorphobenchError(f"has pages of differing size or depth ({first.shape} {first.dtype}, "
                                       f"{page.shape} {page.dtype})", str(path), _EXPORT)
        # A bilevel page has the dtype bool here and is refused with the floats.
        behind = slices_behind(first) if len(pages) == 1 else 1
        shape = (first.imagelength, first.imagewidth)
        held = _Planes(len(pages) * samples * behind, shape, np.dtype(first.dtype or "V1"))
        _check(path, held, planes)
        grey = first.photometric == tifffile.PHOTOMETRIC.PALETTE and all(_is_grey_ramp(p) for p in pages)
        if first.photometric in (tifffile.PHOTOMETRIC.PALETTE, tifffile.PHOTOMETRIC.MINISWHITE) and not grey:
            raise MorphobenchError(f"is {tifffile.PHOTOMETRIC(first.photometric).name.lower()}: its values are not "
                                   "intensities", str(path), _EXPORT)
        if behind > 1:
            return read_slices(path, first, planes, tif.filehandle.size)
        for number, page in enumerate(pages):
            _check_whole(path, number, page, tif.filehandle.size)
        decoded = {i: _decode(path, pages[i]) for i in sorted({p // samples for p in planes})}
        return [np.ascontiguousarray(decoded[p // samples][p % samples]) for p in planes]


def _is_grey_ramp(page: tifffile.TiffPage) -> bool:
    """Whether a page's palette maps each value to the same grey, so that its values are intensities after all.

    TIFFs of BBBC013 are like this. TIFF 6.0 section 5: 16-bit entries, red, green and blue; writers scale 8 bits by
    257 or by 256.
    """
    palette = page.colormap
    ramp = np.arange(2**page.bitspersample)
    return palette is not None and any(np.array_equal(palette, np.tile(ramp * scale, (3, 1)))
                                       for scale in (65535 // max(ramp[-1], 1), 65536 // len(ramp)))


def _chain_is_whole(path: Path, big: bool, order: str) -> bool:
    """Whether every page directory that a TIFF announces lies inside the file.

    tifffile skips pages that it cannot reach, so a truncated stack looks like a shorter one.
    TIFF 6.0 section 2: a directory is a count of entries, the entries, and the offset of the next.
    """
    count_format, entry, offset_format, start = ("Q", 20, "Q", 8) if big else ("H", 12, "I", 4)
    size = path.stat().st_size
    seen: set[int] = set()
    with path.open("rb") as handle:
        handle.seek(start)
        while True:
            (offset,) = struct.unpack(order + offset_format, handle.read(struct.calcsize("=" + offset_format)))
            if offset == 0:
                return bool(seen)
            if offset >= size or offset in seen:
                return False
            seen.add(offset)
            handle.seek(offset)
            (n,) = struct.unpack(order + count_format, handle.read(struct.calcsize("=" + count_format)))
            handle.seek(offset + struct.calcsize("=" + count_format) + n * entry)


def _check_whole(path: Path, number: int, page: tifffile.TiffPage, size: int) -> None:
    """Refuse a page whose strips lie beyond the end of the file, are missing or are too short.

    tifffile fills what is missing with zeros, so this has to be checked before decoding.
    """
    offsets, counts = page.dataoffsets, page.databytecounts
    short = len(offsets) != len(counts) or len(offsets) < int(np.prod(page.chunked))
    short = short or any(n <= 0 or start <= 0 or start + n > size for start, n in zip(offsets, counts, strict=False))
    short = short or (page.compression == 1 and sum(counts) < page.size * page.bitspersample // 8)
    if short:
        raise MorphobenchError(f"is truncated: page {number} needs more than the {size} bytes the file has", str(path),
                               _AGAIN)


def _decode(path: Path, page: tifffile.TiffPage) -> np.ndarray:
    """Pixels of a page as (samples, H, W); a compressed strip that decodes to too little is an error."""
    if page.compression != 1:
        wanted = page.size
        got = sum(0 if data is None else data.size for data, _, _ in page.segments())
        if got < wanted:
            raise MorphobenchError(f"is corrupt: its strips hold {got} of {wanted} pixels", str(path), _AGAIN)
    pixels = page.asarray()
    if page.samplesperpixel == 1:
        return pixels.reshape(1, page.imagelength, page.imagewidth)
    if page.planarconfig == tifffile.PLANARCONFIG.CONTIG:
        return np.moveaxis(pixels.reshape(page.imagelength, page.imagewidth, -1), -1, 0)
    return pixels.reshape(-1, page.imagelength, page.imagewidth)
