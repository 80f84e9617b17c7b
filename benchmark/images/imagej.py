"""ImageJ's stacks of more than 4 GB: a single page directory, and the other slices right behind the first.

ImageJ writes only the first directory of a stack that TIFF cannot address (ij.io.TiffEncoder), and the number of
images in its description. Readers that go by directories see one slice.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tifffile

from benchmark.base.errors import MorphobenchError

_IMAGES = re.compile(r"^images=(\d{1,9})\s*$", re.MULTILINE)


def slices_behind(page: tifffile.TiffPage) -> int:
    """Number of slices of a stack of ImageJ that has this page alone as its directory; 1 for any other file."""
    found = _IMAGES.search(page.description) if page.description.startswith("ImageJ=") else None
    return max(int(found[1]), 1) if found and page.compression == 1 else 1


def read_slices(path: Path, page: tifffile.TiffPage, planes: Sequence[int], size: int) -> list[np.ndarray]:
    """Slices of a stack as `slices_behind` finds it.

    Parameters
    ----------
    page : TiffPage
        The only directory.
    planes : sequence of int
        From 0; each is one that the file announces.
    size : int
        Bytes of the file.

    Returns
    -------
    list of ndarray, (H, W) uint8 or uint16

    Raises
    ------
    MorphobenchError
        The file ends before the last slice, or a slice has several samples a pixel.
    """
    n, start = slices_behind(page), page.dataoffsets[0]
    shape, dtype = (page.imagelength, page.imagewidth), np.dtype(page.dtype).newbyteorder(page.parent.byteorder)
    length = int(np.prod(shape)) * dtype.itemsize
    if page.samplesperpixel != 1 or len(page.dataoffsets) != 1:
        raise MorphobenchError(f"is a stack of ImageJ whose {n} slices have a single directory and are no grey images",
                               str(path), "Open it in ImageJ and save the slices apart.")
    if start + n * length > size:
        raise MorphobenchError(f"is truncated: its {n} slices need more than the {size} bytes the file has", str(path),
                               "Copy it again from the microscope's disk, or leave the field out.")
    read = [np.fromfile(path, dtype, length // dtype.itemsize, offset=start + plane * length) for plane in planes]
    return [pixels.reshape(shape).astype(dtype.newbyteorder("="), copy=False) for pixels in read]
