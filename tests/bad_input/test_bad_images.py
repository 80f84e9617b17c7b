"""Bad images: one field of eight is bad, and the check says which, why and what to do."""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from bad_input import ROWS, Case, command, command_refuses, each, write_study
from PIL import Image

from benchmark.base.errors import MorphobenchError
from benchmark.images.reading import read_plane

RNG = np.random.default_rng(5)
DEEP = RNG.integers(0, 999, (8, 8), dtype=np.uint16)
GREY = DEEP.astype(np.uint8)


def image(write: Callable[[Path], Any], name: str = "f1.tif", **assay: Any):
    """Draws a study whose second image is written by ``write``."""
    def draw(folder: Path) -> None:
        write_study(folder, rows=[r.replace("f1.tif", name) for r in ROWS], **assay)
        write(folder / name)
    return draw


def tiff(pixels: np.ndarray, **more: Any):
    return image(lambda path: tifffile.imwrite(path, pixels, **more))


def png(mode: str | None, pixels: np.ndarray = GREY):
    picture = Image.fromarray(pixels)
    return image(lambda path: (picture if mode is None else picture.convert(mode)).save(path), "f1.png")


def png_of_header(width: int, height: int):
    """A PNG that claims a size and holds next to nothing."""
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    content = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    content += chunk(b"IDAT", zlib.compress(b"x")) + chunk(b"IEND", b"")
    return image(lambda path: path.write_bytes(content), "f1.png")


def tiff_of_header(tags: list[tuple[int, int, int, int]], following: int = 0):
    """A TIFF with one directory."""
    entries = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    content = b"II*\0\x08\0\0\0" + struct.pack("<H", len(tags)) + entries + struct.pack("<I", following)
    return image(lambda path: path.write_bytes(content))


def grey_tags(side: int) -> list[tuple[int, int, int, int]]:
    return [(256, 4, 1, side), (257, 4, 1, side), (258, 3, 1, 16), (259, 3, 1, 1), (262, 3, 1, 1), (273, 4, 1, 122),
            (277, 3, 1, 1), (278, 4, 1, side), (279, 4, 1, 2 * side * side)]


def imagej(path: Path, slices: int = 5, cut: int = 0, byteorder: str = ">") -> np.ndarray:
    """As ImageJ writes more than 4 GB: one directory, and all slices one after the other."""
    stack = RNG.integers(0, 999, (slices, 8, 8), dtype=np.uint16)
    tifffile.imwrite(path, stack[0], description=f"ImageJ=1.53t\nimages={slices}\nslices={slices}\n", metadata=None,
                     photometric="minisblack", byteorder=byteorder)
    with path.open("ab") as handle:
        handle.write(stack[1:].astype(f"{byteorder}u2").tobytes()[:-cut or None])
    return stack


def fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


HERE = r"plate P1, well A02, site 1, DNA, f1\.\w+"
AGAIN, EXPORT, CUT = "Copy it again", "Export it again as 8- or 16-bit PNG or TIFF", "Cut the image into fields"
CASES = [
    Case("empty", image(lambda path: path.write_bytes(b"")), f"{HERE}: is empty.*{AGAIN}"),
    Case("missing", image(lambda path: path.unlink()), f"{HERE}: does not exist.*file template and assay.root"),
    Case("a folder", image(lambda path: (path.unlink(), path.mkdir())), f"{HERE}: is not a file"),
    Case("a pipe", image(fifo), f"{HERE}: is not a file"),
    Case("text", image(lambda path: path.write_text("no image")), f"{HERE}: cannot be read.*not an image.*{AGAIN}"),
    Case("truncated", image(lambda path: path.write_bytes(path.read_bytes()[:-40])), f"{HERE}: is truncated.*{AGAIN}"),
    Case("float", tiff(DEEP.astype(np.float32)), f"{HERE}: holds .*float32.* pixels.*{EXPORT}"),
    Case("float of NaN", tiff(np.full((8, 8), np.nan, np.float32)), f"{HERE}: holds .*float32.*{EXPORT}"),
    Case("signed 16-bit", tiff(DEEP.astype(np.int16)), f"{HERE}: holds signed 16-bit .int16. pixels.*{EXPORT}"),
    Case("32-bit", tiff(DEEP.astype(np.uint32)), f"{HERE}: holds uint32 pixels.*{EXPORT}"),
    Case("complex", tiff(DEEP.astype(np.complex64)), f"{HERE}: holds complex64 pixels.*{EXPORT}"),
    Case("bits", tiff(DEEP > 500), f"{HERE}: holds 1-bit .bool. pixels.*{EXPORT}"),
    Case("another depth", tiff(GREY), "f1.tif.*uint8, where most are uint16.*depth"),
    Case("a palette in PNG", png("P"), f"{HERE}: stores its pixels as 'P'.*{EXPORT}"),
    Case("one bit in PNG", png("1"), f"{HERE}: stores its pixels as 1-bit.*{EXPORT}"),
    Case("a palette in TIFF", tiff(GREY, photometric="palette", colormap=RNG.integers(0, 65535, (3, 256), np.uint16)),
         f"{HERE}: is palette.*{EXPORT}"),
    Case("white is zero", tiff(DEEP, photometric="miniswhite"), f"{HERE}: is miniswhite.*{EXPORT}"),
    Case("a single pixel", tiff(np.array([[5]], np.uint16)),
         f"{HERE}: is 1×1 pixels, where most are 8×8.*not thumbnails"),
    Case("one line of pixels", tiff(DEEP[:1]), f"{HERE}: is 8×1 pixels, where most are 8×8.*not thumbnails"),
    Case("no pixel", png_of_header(0, 8), f"{HERE}: cannot be read.*{AGAIN}"),
    Case("constant", tiff(np.full((8, 8), 7, np.uint16)), f"{HERE}: is constant: every pixel is 7"),
    Case("30,000 pixels in PNG", png_of_header(30_000, 30_000), f"{HERE}: claims more pixels than the limit.*{CUT}"),
    Case("2^31 pixels in PNG", png_of_header(2**31 - 1, 2**31 - 1), f"{HERE}: claims more pixels than.*{CUT}"),
    Case("30,000 pixels in TIFF", tiff_of_header(grey_tags(30_000)), f"{HERE}: claims 30000×30000 pixels.*{CUT}"),
    Case("12,000 pixels in PNG", png_of_header(12_000, 12_000), f"{HERE}: claims .*pixels.*{CUT}"),
    Case("PNG without pixels", png_of_header(8, 8), f"{HERE}: cannot be read: truncated.*{AGAIN}"),
    Case("a TIFF whose directory follows itself", tiff_of_header(grey_tags(8), 8), f"{HERE}: is truncated.*{AGAIN}"),
    Case("a TIFF without entries", tiff_of_header([]), f"{HERE}: holds .*pixels.*{EXPORT}"),
    Case("a stack of ImageJ cut off", image(lambda path: imagej(path, cut=30)),
         f"{HERE}: is truncated: it announces 5 images.*{AGAIN}"),
    Case("JPEG", image(lambda path: Image.fromarray(GREY).save(path), "f1.jpg"), f"{HERE}: is .jpg.*lossy"),
    Case("JPEG named TIFF", image(lambda path: Image.fromarray(GREY).save(path, "jpeg")), f"{HERE}: is a JPEG"),
    Case("GIF named PNG", image(lambda path: Image.fromarray(GREY).save(path, "gif"), "f1.png"), f"{HERE}: is a GIF"),
    Case("NumPy objects named TIFF", image(lambda path: np.array([{}], object).dump(path)), f"{HERE}: cannot be read"),
    Case("the picture of another well", image(lambda path: path.write_bytes((path.parent / "f0.tif").read_bytes())),
         "well A02.*same picture as plate P1, well A01.*would leak.*correct the table"),
    Case("a channel that no image has", image(lambda path: None, channels={
        "DNA": {"file": "{File}"}, "Actin": {"file": "{File}", "plane": 1}}), "has no plane 1: it holds 1"),
]


@pytest.mark.parametrize("case", each(CASES))
def test_a_bad_image_is_named(tmp_path, case):
    case.draw(tmp_path)
    command_refuses(tmp_path, case.says, "assay", "check", "mine.yaml")


@pytest.mark.parametrize("byteorder", ["<", ">"])
def test_a_stack_of_imagej_with_one_directory_gives_every_slice(tmp_path, byteorder):
    stack = imagej(tmp_path / "a.tif", byteorder=byteorder)
    for i, plane in enumerate(stack):
        read = read_plane(tmp_path / "a.tif", i)
        assert np.array_equal(read, plane) and read.dtype == np.uint16 and read.dtype.isnative
    with pytest.raises(MorphobenchError, match="no plane 5: it holds 5"):
        read_plane(tmp_path / "a.tif", 5)


def test_a_stack_that_imagej_wrote_with_all_its_directories_is_read_by_them(tmp_path):
    stack = RNG.integers(0, 999, (3, 8, 8), dtype=np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", stack, imagej=True)
    assert all(np.array_equal(read_plane(tmp_path / "a.tif", i), stack[i]) for i in range(3))


def test_alpha_beside_the_intensities_is_passed_over(tmp_path):
    Image.fromarray(GREY).convert("LA").save(tmp_path / "a.png")
    assert np.array_equal(read_plane(tmp_path / "a.png", 0), GREY)


def test_a_description_of_nested_entities_is_not_followed(tmp_path):
    bomb = '<!DOCTYPE l [<!ENTITY a "aaaa">' + "".join(
        f'<!ENTITY {chr(98 + i)} "{("&" + chr(97 + i) + ";") * 10}">' for i in range(9)) + "]><OME>&j;</OME>"
    tiff(DEEP, description='<?xml version="1.0"?>' + bomb, metadata=None)(tmp_path)
    assert command(tmp_path, "assay", "check", "mine.yaml")[0] == 0


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_an_image_that_may_not_be_read_is_named(tmp_path):
    image(lambda path: path.chmod(0))(tmp_path)
    command_refuses(tmp_path, f"{HERE}: .*[Pp]ermission", "assay", "check", "mine.yaml")
