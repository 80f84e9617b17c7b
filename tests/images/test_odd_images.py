"""Images that users have and programs write: each is one clear error with place and remedy, or the right pixels."""

from __future__ import annotations

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image

from benchmark.base.errors import MorphobenchError
from benchmark.images.reading import look_into, read_plane

RNG = np.random.default_rng(0)
STACK = RNG.integers(0, 60000, (5, 24, 32)).astype(np.uint16)
GREY = (STACK[0] >> 8).astype(np.uint8)
COLOUR = np.ascontiguousarray(np.moveaxis((STACK[:4] >> 8).astype(np.uint8), 0, -1))
OME = {"axes": "CZYX"}


def _tiff(pixels, **options):
    return lambda path: tifffile.imwrite(path, pixels, **options)


def _png(pixels, mode=None, **options):
    def write(path):
        image = Image.fromarray(pixels)
        (image.convert(mode) if mode else image).save(path, format="png", **options)
    return write


def _bytes(content):
    return lambda path: path.write_bytes(content)


def _huge(path):
    """Its header says 30 000 × 30 000 pixels, in a few bytes."""
    tifffile.imwrite(path, np.zeros((64, 64), np.uint8), compression="zlib")
    raw = bytearray(path.read_bytes())
    with tifffile.TiffFile(path) as tif:
        for name in ("ImageWidth", "ImageLength"):
            tag = tif.pages[0].tags[name]
            raw[tag.valueoffset:tag.valueoffset + 2] = (30000).to_bytes(2, "little")
    path.write_bytes(raw)


REFUSED = {
    "signed.tif": (_tiff(STACK[0].astype(np.int16)), "holds signed 16-bit (int16) pixels", "8- or 16-bit PNG or TIFF"),
    "float.tif": (_tiff(STACK[0].astype(np.float32) / 65535), "floating-point (float32)", "8- or 16-bit"),
    "double.tif": (_tiff(STACK[0] / 65535), "floating-point (float64)", "8- or 16-bit"),
    "deep.tif": (_tiff(STACK[0].astype(np.uint32)), "holds uint32 pixels", "8- or 16-bit"),
    "bits.tif": (_tiff(STACK[0] > 9000), "1-bit (bool)", "8- or 16-bit"),
    "bits.png": (_png(GREY, "1"), "1-bit", "8- or 16-bit"),
    "four.png": (_png(GREY, "P", bits=4), "palette", "8- or 16-bit"),
    "palette.png": (_png(COLOUR[..., :3], "P"), "'P' (palette", "8- or 16-bit"),
    "white.tif": (_tiff(GREY, photometric="miniswhite"), "miniswhite", "8- or 16-bit"),
    "volume.tif": (_tiff(STACK, volumetric=True, tile=(5, 16, 16), photometric="minisblack"), "a volume of 5 planes",
                   "a stack of pages"),
    "empty.tif": (_bytes(b""), "is empty", "Copy it again"),
    "page.tif": (_bytes(b"<!DOCTYPE html><html>Log in</html>"), "is a web page", "Export"),
    "page.png": (_bytes(b"\n<html><body>404"), "is a web page", "Export"),
    "lfs.tif": (_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n"), "pointer of Git LFS", ""),
    "zip.tif": (_bytes(b"PK\x03\x04" + bytes(100)), "a zip archive", ""),
    "text.tif": (_bytes(b"nothing of the kind"), "truncated, corrupt or not an image", "Copy it again"),
    "png.tif": (_png(GREY), "is a PNG image under the name of a .tif file", ""),
    "tif.png": (_tiff(GREY), "is a TIFF image under the name of a .png file", ""),
    "huge.tif": (_huge, "claims 30000×30000 pixels, over the limit", "Cut the image into fields"),
    "photo.jpg": (lambda path: Image.fromarray(GREY).save(path), ".jpg, a file format that is not read", "Use .png"),
    "none": (_bytes(b"x"), "without a suffix", "Use .png"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_intensities_is_one_error_with_place_and_remedy(tmp_path, name):
    write, what, remedy = REFUSED[name]
    path = tmp_path / name
    write(path)
    with pytest.raises(MorphobenchError) as caught:
        read_plane(path, 0)
    fault = caught.value.fault
    assert what in fault.what and remedy in fault.remedy and fault.where == str(path), fault


@pytest.mark.parametrize("cut", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("name", ["jpeg.tif", "whole.tif", "imagej.tif", "whole.png"])
def test_a_jpeg_in_disguise_and_truncated_files_are_errors(tmp_path, name, cut):
    path = tmp_path / name
    if name == "jpeg.tif":
        Image.fromarray(GREY).save(path, format="jpeg")
    elif name == "whole.png":
        Image.fromarray(GREY).save(path)
    else:
        tifffile.imwrite(path, STACK, imagej=name == "imagej.tif")
    raw = path.read_bytes()
    path.write_bytes(raw[: int(cut * len(raw))])
    with pytest.raises(MorphobenchError, match="JPEG image" if name == "jpeg.tif" else "truncated") as caught:
        read_plane(path, 0)
    assert caught.value.fault.where == str(path)


@pytest.mark.parametrize(("name", "write", "n", "kind"), [
    ("pages.tif", _tiff(STACK, photometric="minisblack", metadata=None), 5, "a stack of 5 pages"),
    ("imagej.tif", _tiff(STACK, imagej=True, metadata={"axes": "ZYX"}), 5, "a stack of ImageJ: 5 slices"),
    ("hyper.tif", _tiff(STACK[:4].reshape(2, 2, 24, 32), imagej=True, metadata={"axes": "ZCYX"}), 4,
     "a stack of ImageJ: 2 channels, 2 slices"),
    ("one-directory.tif", _tiff(STACK, photometric="minisblack", metadata={"axes": "ZYX"}, truncate=True), 5,
     "a stack of 5 pages"),
    ("big-endian.tif", _tiff(STACK, imagej=True, byteorder=">"), 5, "a stack of ImageJ: 5 channels"),
    ("stack.ome.tif", _tiff(STACK[:4].reshape(2, 2, 24, 32), metadata=OME, photometric="minisblack"), 4,
     "OME-TIFF: 2 z, 2 channels"),
    ("rgb.tif", _tiff(COLOUR[..., :3], photometric="rgb"), 3, "red, green and blue"),
    ("rgba.tif", _tiff(COLOUR, photometric="rgb", extrasamples=["unassalpha"]), 4, "red, green, blue and alpha"),
    ("rgb.png", _png(COLOUR[..., :3]), 3, "red, green and blue"), ("rgba.png", _png(COLOUR), 4, "alpha"),
    ("alpha.png", _png(COLOUR[..., :2], None), 2, "grey and alpha"), ("rgb.bmp", _png(COLOUR[..., :3]), 3, "red"),
    ("deep.png", lambda path: path.write_bytes(imagecodecs.png_encode(np.moveaxis(STACK[:3], 0, -1).copy())), 3, "red"),
])
def test_a_file_tells_how_many_planes_it_holds_and_of_what_kind(tmp_path, name, write, n, kind):
    path = tmp_path / name
    if name.endswith(".bmp"):
        Image.fromarray(COLOUR[..., :3]).save(path)
    else:
        write(path)
    held, planes = look_into(path, range(n))
    assert held.n == n and kind in held.kind
    stored = STACK if planes[0].dtype == np.uint16 else STACK >> 8
    np.testing.assert_array_equal(planes, stored[:n])
    with pytest.raises(MorphobenchError, match=f"no plane {n}: it holds {n}"):
        read_plane(path, n)


def test_a_header_of_a_stack_that_was_copied_along_with_one_image_counts_for_nothing(tmp_path):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, STACK[0], description="ImageJ=1.53t\nimages=5\nslices=5\n", metadata=None)
    held, planes = look_into(path, [0])
    assert held.n == 1
    np.testing.assert_array_equal(planes[0], STACK[0])


def test_a_single_pixel_is_read_as_it_is(tmp_path):
    tifffile.imwrite(tmp_path / "one.tif", STACK[0][:1, :1])
    assert read_plane(tmp_path / "one.tif", 0).tolist() == STACK[0][:1, :1].tolist()
