"""Reading TIFF files: single pages, stacks, OME-TIFF, ImageJ's stacks with a single directory."""

from __future__ import annotations

import re
import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tifffile

from benchmark.base.errors import MorphobenchError
from benchmark.images.formats import AGAIN, EXPORT, Held, check_held, colours


def read_tiff(path: Path, planes: Sequence[int]) -> tuple[Held, list[np.ndarray]]:
    """What a TIFF holds, without thumbnails, and some of its planes.

    Pages are taken from the file itself, not from OME-XML, which may name other files.

    Raises
    ------
    MorphobenchError
        As `benchmark.images.reading.read_plane`; what the decoders raise on broken files passes through.
    """
    with tifffile.TiffFile(path) as tif:
        if not _chain_is_whole(path, bool(tif.is_bigtiff), tif.byteorder):
            raise MorphobenchError("is truncated: pages lie beyond the end of the file", str(path), AGAIN)
        pages = [p for p in tif.pages if isinstance(p, tifffile.TiffPage) and not p.is_reduced]
        if not pages:
            raise MorphobenchError("holds no image", str(path), AGAIN)
        first, samples = pages[0], pages[0].samplesperpixel
        _check_alike(path, pages)
        behind = _behind_one_directory(path, tif, first) if len(pages) == 1 else 1
        count = len(pages) * behind
        # A bilevel page has the dtype bool here and is refused with the floats.
        held = Held(count * samples, (first.imagelength, first.imagewidth), np.dtype(first.dtype or "V1"),
                    _kind(tif, count, samples) if count * samples > 1 else "pages")
        check_held(path, held, planes)
        grey = first.photometric == tifffile.PHOTOMETRIC.PALETTE and all(_is_grey_ramp(p) for p in pages)
        if first.photometric in (tifffile.PHOTOMETRIC.PALETTE, tifffile.PHOTOMETRIC.MINISWHITE) and not grey:
            raise MorphobenchError(f"is {tifffile.PHOTOMETRIC(first.photometric).name.lower()}: its values are not "
                                   "intensities", str(path), EXPORT)
        for number, page in enumerate(pages):
            _check_whole(path, number, page, tif.filehandle.size)
        wanted = sorted({p // samples for p in planes})
        decoded = {i: _decode_behind(tif, first, i) if behind > 1 else _decode(path, pages[i]) for i in wanted}
        return held, [np.ascontiguousarray(decoded[p // samples][p % samples]) for p in planes]


def _check_alike(path: Path, pages: Sequence[tifffile.TiffPage]) -> None:
    """Refuse pages that differ, and volumes."""
    first = pages[0]
    for page in pages:
        if (page.shape, page.dtype, page.samplesperpixel) != (first.shape, first.dtype, first.samplesperpixel):
            raise MorphobenchError(f"has pages of differing size or depth ({first.shape} {first.dtype}, "
                                   f"{page.shape} {page.dtype})", str(path), EXPORT)
    if first.imagedepth > 1:
        raise MorphobenchError(f"holds a volume of {first.imagedepth} planes in one page, which is not read", str(path),
                               "Export it as a stack of pages, or as one file a plane.")


def _behind_one_directory(path: Path, tif: tifffile.TiffFile, page: tifffile.TiffPage) -> int:
    """Images that lie one behind the other behind a file's only directory, counted from its header and its size.

    ImageJ writes stacks so (always above 4 GB), MetaMorph does, and tifffile where it is asked to. A header that was
    copied along with a single image announces more than there is room for, and counts for nothing.
    """
    announced = 1
    if tif.is_imagej:
        announced = int((tif.imagej_metadata or {}).get("images", 1))
    elif tif.is_stk:
        announced = int((tif.stk_metadata or {}).get("NumberPlanes", 1))
    elif tif.is_shaped and tif.shaped_metadata and tif.shaped_metadata[0].get("truncated"):
        announced = int(np.prod(tif.shaped_metadata[0]["shape"])) // max(page.size, 1)
    if announced <= 1 or page.compression != 1 or not page.is_contiguous or page.nbytes == 0:
        return 1
    room = (tif.filehandle.size - page.dataoffsets[0]) // page.nbytes
    if 1 < room < announced:
        raise MorphobenchError(f"is truncated: it announces {announced} images and has room for {room}", str(path),
                               AGAIN)
    return announced if room >= announced else 1


def _decode_behind(tif: tifffile.TiffFile, page: tifffile.TiffPage, i: int) -> np.ndarray:
    """Pixels (samples, H, W) of image ``i`` of those behind one directory."""
    tif.filehandle.seek(page.dataoffsets[0] + i * page.nbytes)
    stored = np.dtype(page.dtype or "V1").newbyteorder(tif.byteorder)
    pixels = tif.filehandle.read_array(stored, page.size).astype(stored.newbyteorder("="))
    return _samples_first(page, pixels)


def _kind(tif: tifffile.TiffFile, count: int, samples: int) -> str:
    """What a file's planes are, in words."""
    words = colours(samples) if samples > 1 else ""
    if count > 1:
        sizes = {}
        if tif.is_ome:
            found = re.findall(r'\bSize([CZT])="(\d+)"', (tif.ome_metadata or "").split("<TiffData")[0])
            sizes = {{"C": "channels", "Z": "z", "T": "time"}[axis]: int(n) for axis, n in found}
        elif tif.is_imagej:
            sizes = {axis: int((tif.imagej_metadata or {}).get(axis, 1)) for axis in ("channels", "slices", "frames")}
        axes = ", ".join(f"{n} {axis}" for axis, n in sizes.items() if n > 1)
        name = "OME-TIFF" if tif.is_ome else "a stack of ImageJ" if tif.is_imagej else f"a stack of {count} pages"
        words = f"{name}{': ' if axes else ''}{axes}{', each ' if words else ''}{words}"
    return words


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
                               AGAIN)


def _decode(path: Path, page: tifffile.TiffPage) -> np.ndarray:
    """Pixels of a page as (samples, H, W); a compressed strip that decodes to too little is an error."""
    if page.compression != 1:
        wanted = page.size
        got = sum(0 if data is None else data.size for data, _, _ in page.segments())
        if got < wanted:
            raise MorphobenchError(f"is corrupt: its strips hold {got} of {wanted} pixels", str(path), AGAIN)
    return _samples_first(page, page.asarray())


def _samples_first(page: tifffile.TiffPage, pixels: np.ndarray) -> np.ndarray:
    """Pixels of a page as (samples, H, W)."""
    if page.samplesperpixel == 1:
        return pixels.reshape(1, page.imagelength, page.imagewidth)
    if page.planarconfig == tifffile.PLANARCONFIG.CONTIG:
        return np.moveaxis(pixels.reshape(page.imagelength, page.imagewidth, -1), -1, 0)
    return pixels.reshape(-1, page.imagelength, page.imagewidth)
