"""What image files may hold, and what is said of those that cannot be used."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from benchmark.base.errors import MorphobenchError

SUFFIXES = (".png", ".tif", ".tiff", ".bmp")
#: Planes larger than this are refused before decoding: a small file may claim to be a huge image.
MAX_PIXELS = Image.MAX_IMAGE_PIXELS or 89_478_485
CUT = "Cut the image into fields."
AGAIN = "Copy it again from the microscope's disk, or leave the field out."
EXPORT = "Export it again as 8- or 16-bit PNG or TIFF."
_COLOURS = {2: "grey and alpha", 3: "red, green and blue", 4: "red, green, blue and alpha"}
#: Depths that people meet, in their words.
_DEPTHS = {"int8": "signed 8-bit (int8)", "int16": "signed 16-bit (int16)", "float16": "floating-point (float16)",
           "float32": "floating-point (float32)", "float64": "floating-point (float64)", "bool": "1-bit (bool)"}
#: First bytes → what a file is that was given the name of an image.
_MAGIC = ((b"\xff\xd8\xff", "a JPEG image"), (b"\x89PNG", "a PNG image"), (b"II*\0", "a TIFF image"),
          (b"MM\0*", "a TIFF image"), (b"BM", "a BMP image"), (b"GIF8", "a GIF image"), (b"\x89HDF", "an HDF5 file"),
          (b"PK\x03\x04", "a zip archive"), (b"\x1f\x8b", "a gzip archive"), (b"%PDF", "a PDF document"),
          (b"\xd0\xcf\x11\xe0", "a file of Zeiss or Microsoft Office"), (b"ZISRAWFILE", "a CZI image"),
          (b"version https://git-lfs", "a pointer of Git LFS, not the image itself (`git lfs pull`)"))


class Held(NamedTuple):
    """What a file holds: number of planes, their (height, width) and dtype (``uint8`` or ``uint16``), and their kind.

    ``kind`` says in words what the planes are where there are several: ``red, green and blue``, ``pages``.
    """

    n: int
    shape: tuple[int, int]
    dtype: np.dtype[Any]
    kind: str = "pages"


def colours(samples: int) -> str:
    """What the samples of a pixel are, in words."""
    return _COLOURS.get(samples, f"{samples} samples a pixel")


def check_held(path: Path, held: Held, planes: Sequence[int]) -> None:
    """Refuse sizes, depths and plane indices that cannot be served, before anything is decoded."""
    if held.shape[0] * held.shape[1] > MAX_PIXELS:
        raise MorphobenchError(f"claims {held.shape[1]}×{held.shape[0]} pixels, over the limit of {MAX_PIXELS}",
                               str(path), CUT)
    if held.dtype not in (np.uint8, np.uint16):
        depth = _DEPTHS.get(held.dtype.name, held.dtype.name)
        raise MorphobenchError(f"holds {depth} pixels, not 8- or 16-bit whole numbers", str(path), EXPORT)
    for plane in planes:
        if not 0 <= plane < held.n:
            raise MorphobenchError(f"has no plane {plane}: it holds {held.n} (counted from 0)", str(path),
                                   "Correct `plane` of the channel in the study.")


def other_kind(path: Path) -> str:
    """What a file is that its suffix says it is not, in words; empty where it may be what the suffix says."""
    with path.open("rb") as handle:
        head = handle.read(512)
    if head.lstrip().lower().startswith((b"<!doctype html", b"<html")):
        return "a web page (an error or login page that a download saved under this name?)"
    if head.lstrip().startswith((b"<?xml", b"<OME")):
        return "an XML document"
    own = {".png": "a PNG image", ".tif": "a TIFF image", ".tiff": "a TIFF image", ".bmp": "a BMP image"}
    kind = next((words for start, words in _MAGIC if head.startswith(start)), "")
    return "" if kind == own.get(path.suffix.lower()) else kind
