"""Planes come back as stored, and a file that is not whole is never read in silence."""

import imagecodecs
import numpy as np
import pandas as pd
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from benchmark.assays.fieldtable import Assay
from benchmark.base.errors import MorphobenchError
from benchmark.images.reading import read_field, read_plane

STACK = np.random.default_rng(0).integers(0, 4096, (3, 40, 50)).astype(np.uint16)
COLOUR = np.ascontiguousarray(np.moveaxis(STACK, 0, -1))
GREY8, COLOUR8 = (STACK[0] >> 4).astype(np.uint8), (COLOUR >> 4).astype(np.uint8)

STACKS = {
    "pages": {"photometric": "minisblack"},
    "strips": {"photometric": "minisblack", "rowsperstrip": 8},
    "big-endian": {"photometric": "minisblack", "byteorder": ">"},
    "bigtiff": {"photometric": "minisblack", "bigtiff": True},
    "lzw": {"photometric": "minisblack", "compression": "lzw", "rowsperstrip": 8},
    "deflate": {"photometric": "minisblack", "compression": "deflate"},
    "tiles": {"photometric": "minisblack", "tile": (16, 16), "compression": "lzw"},
    "separate": {"photometric": "rgb", "planarconfig": "separate"},
}


@pytest.mark.parametrize("kind", STACKS)
def test_tiff_stacks_give_each_plane_as_stored(tmp_path, kind):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, STACK, **STACKS[kind])
    for i in range(3):
        np.testing.assert_array_equal(read_plane(path, i), STACK[i])
        assert read_plane(path, i).dtype == np.uint16


def test_ome_tiff_flattens_its_leading_axes(tmp_path):
    data = np.random.default_rng(1).integers(0, 255, (2, 3, 20, 30)).astype(np.uint8)
    tifffile.imwrite(tmp_path / "a.ome.tif", data, metadata={"axes": "ZCYX"}, photometric="minisblack")
    np.testing.assert_array_equal(read_plane(tmp_path / "a.ome.tif", 4), data[1, 1])


def test_ome_tiff_never_opens_another_file(tmp_path):
    """OME-XML may name other files; a plane comes from the file asked for or not at all."""
    xml = ('<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Image ID="Image:0"><Pixels ID="Pixels:0" '
           'DimensionOrder="XYCZT" Type="uint16" SizeX="50" SizeY="40" SizeC="2" SizeZ="1" SizeT="1">'
           '<TiffData IFD="0" FirstC="1"><UUID FileName="other.ome.tif">urn:uuid:1</UUID></TiffData>'
           "</Pixels></Image></OME>")
    tifffile.imwrite(tmp_path / "other.ome.tif", STACK[1])
    tifffile.imwrite(tmp_path / "a.ome.tif", STACK[0], description=xml, metadata=None)
    np.testing.assert_array_equal(read_plane(tmp_path / "a.ome.tif", 0), STACK[0])
    with pytest.raises(MorphobenchError, match="no plane 1"):
        read_plane(tmp_path / "a.ome.tif", 1)


def test_colour_images_give_channels(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", COLOUR, photometric="rgb")
    (tmp_path / "deep.png").write_bytes(imagecodecs.png_encode(COLOUR))
    Image.fromarray(COLOUR8).save(tmp_path / "a.png")
    Image.fromarray(COLOUR8).save(tmp_path / "a.bmp")
    for i in range(3):
        np.testing.assert_array_equal(read_plane(tmp_path / "a.tif", i), STACK[i])
        np.testing.assert_array_equal(read_plane(tmp_path / "deep.png", i), STACK[i])  # Pillow would cut to 8 bits
        np.testing.assert_array_equal(read_plane(tmp_path / "a.png", i), COLOUR8[..., i])
        np.testing.assert_array_equal(read_plane(tmp_path / "a.bmp", i), COLOUR8[..., i])


def test_grey_images(tmp_path):
    Image.fromarray(STACK[0]).save(tmp_path / "deep.png")
    Image.fromarray(GREY8).save(tmp_path / "a.png")
    Image.fromarray(GREY8).save(tmp_path / "a.Bmp")
    np.testing.assert_array_equal(read_plane(tmp_path / "deep.png", 0), STACK[0])
    np.testing.assert_array_equal(read_plane(tmp_path / "a.png", 0), GREY8)
    np.testing.assert_array_equal(read_plane(tmp_path / "a.Bmp", 0), GREY8)
    with pytest.raises(MorphobenchError, match=r"a\.png: has no plane 1: it holds 1"):
        read_plane(tmp_path / "a.png", 1)


@pytest.fixture(scope="module")
def whole_files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    for kind, options in STACKS.items():
        tifffile.imwrite(folder / f"{kind}.tif", STACK, **options)
    (folder / "deep.png").write_bytes(imagecodecs.png_encode(COLOUR))
    Image.fromarray(COLOUR8).save(folder / "a.png")
    Image.fromarray(COLOUR8).save(folder / "a.bmp")
    return folder


@settings(max_examples=150, deadline=None)
@given(st.sampled_from([*(f"{k}.tif" for k in STACKS), "deep.png", "a.png", "a.bmp"]), st.floats(0, 1),
       st.integers(0, 2))
def test_a_truncated_file_is_an_error_or_gives_its_true_pixels(whole_files, name, share, plane):
    """Cut anywhere. (A file may end in padding, so losing the last bytes can be harmless.)"""
    path = whole_files / name
    true, content = read_plane(path, plane), path.read_bytes()
    cut = whole_files / f"cut-{name}"
    keep = int(share * (len(content) - 1))
    cut.write_bytes(content[:keep])
    try:
        np.testing.assert_array_equal(read_plane(cut, plane), true)
        assert keep > len(content) - 64
    except MorphobenchError as error:
        assert cut.name in str(error)


@pytest.mark.parametrize("kind", ["lzw", "deflate", "tiles"])
def test_damage_inside_compressed_strips_is_found(tmp_path, whole_files, kind):
    content = bytearray((whole_files / f"{kind}.tif").read_bytes())
    with tifffile.TiffFile(whole_files / f"{kind}.tif") as tif:
        start = tif.pages[0].dataoffsets[0]
    content[start + 20 : start + 80] = bytes(60)
    (tmp_path / "bad.tif").write_bytes(content)
    with pytest.raises(MorphobenchError, match=r"bad\.tif"):
        read_plane(tmp_path / "bad.tif", 0)


def test_flipped_byte_in_png_is_found(tmp_path, whole_files):
    content = bytearray((whole_files / "a.png").read_bytes())
    content[len(content) // 2] ^= 255
    (tmp_path / "bad.png").write_bytes(content)
    with pytest.raises(MorphobenchError, match=r"bad\.png"):
        read_plane(tmp_path / "bad.png", 0)


@pytest.mark.parametrize(("name", "pixels", "message"), [
    ("float.tif", STACK[0].astype(np.float32), "float32"),
    ("deep.tif", STACK[0].astype(np.uint32), "uint32"),
    ("signed.tif", STACK[0].astype(np.int16), "int16"),
    ("bits.tif", STACK[0] > 2000, "bool"),
])
def test_other_depths_are_refused(tmp_path, name, pixels, message):
    tifffile.imwrite(tmp_path / name, pixels)
    with pytest.raises(MorphobenchError, match=message):
        read_plane(tmp_path / name, 0)


def test_what_is_no_image_is_named(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"x")
    (tmp_path / "empty.tif").touch()
    (tmp_path / "junk.tif").write_bytes(b"junk" * 100)
    (tmp_path / "junk.png").write_bytes(b"junk" * 100)
    Image.fromarray(COLOUR8).quantize(8).save(tmp_path / "palette.png")
    Image.fromarray(COLOUR8).save(tmp_path / "jpeg.png", format="JPEG")
    for name, message in {"a.jpg": r"\.jpg.*Use .*\.tif", "empty.tif": "empty", "junk.tif": "corrupt",
                          "junk.png": "corrupt", "palette.png": "palette", "jpeg.png": "JPEG image",
                          "none.png": "does not exist"}.items():
        with pytest.raises(MorphobenchError, match=message) as caught:
            read_plane(tmp_path / name, 0)
        assert name in caught.value.fault.where


def test_a_huge_image_is_refused_before_it_is_decoded(tmp_path, monkeypatch):
    monkeypatch.setattr("benchmark.images.formats.MAX_PIXELS", 1999)
    tifffile.imwrite(tmp_path / "a.tif", STACK[0])
    Image.fromarray(GREY8).save(tmp_path / "a.png")
    for name in ("a.tif", "a.png"):
        with pytest.raises(MorphobenchError, match="over the limit"):
            read_plane(tmp_path / name, 0)


def _row(**files):
    return pd.Series({f"Path_{c}": f for c, (f, _) in files.items()} | {f"Plane_{c}": p for c, (_, p) in files.items()})


def test_field_stacks_channels_in_the_assays_order(tmp_path):
    Image.fromarray(COLOUR8).save(tmp_path / "a.png")
    Image.fromarray(GREY8).save(tmp_path / "b.png")
    row = _row(Blue=("a.png", 2), Red=("a.png", 0), Other=("b.png", 0))
    field = read_field(Assay("x", tmp_path, pd.DataFrame(), ("Blue", "Red", "Other")), row)
    np.testing.assert_array_equal(field, np.stack([COLOUR8[..., 2], COLOUR8[..., 0], GREY8]))


def test_field_refuses_unequal_channels_and_files_outside(tmp_path):
    root = tmp_path / "root"
    root.mkdir()
    Image.fromarray(GREY8).save(root / "a.png")
    Image.fromarray(GREY8[:20]).save(root / "b.png")
    Image.fromarray(GREY8).save(tmp_path / "outside.png")
    assay = Assay("x", root, pd.DataFrame(), ("One", "Two"))
    with pytest.raises(MorphobenchError, match="differ in size"):
        read_field(assay, _row(One=("a.png", 0), Two=("b.png", 0)))
    with pytest.raises(MorphobenchError, match="leads out"):
        read_field(assay, _row(One=("a.png", 0), Two=("../outside.png", 0)))


def test_a_palette_that_is_a_grey_ramp_is_intensities_and_any_other_is_not(tmp_path):
    ramp = np.tile(np.arange(256), (3, 1))
    for scale in (257, 256):
        tifffile.imwrite(tmp_path / "ramp.tif", GREY8, photometric="palette", colormap=(ramp * scale).astype(np.uint16))
        np.testing.assert_array_equal(read_plane(tmp_path / "ramp.tif", 0), GREY8)
    odd = (ramp * 257).astype(np.uint16)
    odd[1, 7] += 1
    for colormap in (odd, (ramp[:, ::-1] * 257).astype(np.uint16)):
        tifffile.imwrite(tmp_path / "odd.tif", GREY8, photometric="palette", colormap=colormap)
        with pytest.raises(MorphobenchError, match="palette"):
            read_plane(tmp_path / "odd.tif", 0)


def test_the_plate_of_bbbc013_reads_as_grey(data_folder):
    plane = read_plane(data_folder / "bbbc013" / "Channel1-01-A-01.tif", 0)
    assert plane.shape == (640, 640) and plane.dtype == np.uint8 and plane.max() > 50
