"""The crop cache holds what was imaged, belongs to its assay, and is written whole."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from benchmark.crops.cache import build_crops, cut, read_crops, scale_plane
from benchmark.crops.settings import CropSettings
from benchmark.errors import MorphobenchError
from benchmark.images.reading import read_field


@settings(max_examples=25, deadline=None)
@given(arrays(np.float32, (2, 40, 56), elements=st.floats(0, 255, width=32)))
def test_tiles_of_full_size_are_the_pixels_themselves(field):
    tiles = cut(field, (1, 1), 40)
    assert tiles.shape == (1, 2, 40, 40)
    assert np.array_equal(tiles[0], np.rint(field[:, :, 8:48]).astype(np.uint8))


def test_a_grid_cuts_row_by_row_and_keeps_the_mean_when_shrinking():
    field = np.zeros((1, 64, 64), np.float32)
    field[0, :32, 32:] = 200
    tiles = cut(field, (2, 2), 16)
    assert [round(float(t.mean())) for t in tiles] == [0, 200, 0, 0]


def test_scaling_is_linear_and_clipped():
    plane = np.array([[0, 100, 200, 300]], np.uint16)
    assert scale_plane(plane, 100, 200).tolist() == [[0.0, 0.0, 255.0, 255.0]]


def test_crops_equal_the_images_and_carry_their_metadata(make_tiny, tmp_path):
    assay, _, whole_hash = make_tiny(size=32, controls=2)
    chosen = CropSettings(size=32)
    build_crops(tmp_path / "c.h5", assay, whole_hash, chosen)
    crops = read_crops(tmp_path / "c.h5", assay, whole_hash, chosen)
    assert len(crops.pixels) == len(assay.treated) == 18
    assert "DMSO" not in set(crops.table["Metadata_Compound"])
    for i in (0, 7, 17):
        row = assay.treated.iloc[i]
        assert np.array_equal(crops.pixels[i], read_field(assay, row))
        assert crops.table["Metadata_Well"][i] == row["Metadata_Well"]


def test_scaling_to_controls_removes_a_plates_gain(make_tiny, tmp_path):
    assay, _, whole_hash = make_tiny(size=32, controls=2)
    chosen = CropSettings(size=32, intensity="controls", quantiles=(0.0, 1.0))
    build_crops(tmp_path / "c.h5", assay, whole_hash, chosen)
    crops = read_crops(tmp_path / "c.h5", assay, whole_hash, chosen)
    controls = assay.fields[(assay.fields["Metadata_Control"] == "negative") & (assay.fields["Metadata_Plate"] == "P0")]
    pixels = np.stack([read_field(assay, r)[0, ::4, ::4] for _, r in controls.iterrows()])
    raw = read_field(assay, assay.treated.iloc[0])[0].astype(float)
    expected = np.clip((raw - pixels.min()) * 255 / (pixels.max() - pixels.min()), 0, 255)
    assert np.abs(crops.pixels[0, 0] - expected).max() <= 1


def test_a_cache_of_other_settings_or_with_damage_is_refused(make_tiny, tmp_path):
    assay, _, whole_hash = make_tiny(size=32)
    path, chosen = tmp_path / "c.h5", CropSettings(size=32)
    build_crops(path, assay, whole_hash, chosen)
    before = path.stat().st_mtime_ns
    build_crops(path, assay, whole_hash, chosen)
    assert path.stat().st_mtime_ns == before
    with pytest.raises(MorphobenchError, match="other settings"):
        read_crops(path, assay, whole_hash, CropSettings(size=48))
    with pytest.raises(MorphobenchError, match="another assay"):
        read_crops(path, assay, "0" * 64, chosen)
    with h5py.File(path, "a") as file:
        file["crops"][3, 0, 5, 5] ^= 1
    with pytest.raises(MorphobenchError, match="damaged"):
        read_crops(path, assay, whole_hash, chosen)
    path.write_bytes(b"junk")
    with pytest.raises(MorphobenchError, match="not a readable crop cache"):
        read_crops(path, assay, whole_hash, chosen)


def test_controls_are_demanded_by_plate(make_tiny, tmp_path):
    assay, _, whole_hash = make_tiny(size=32, controls=0)
    with pytest.raises(MorphobenchError, match="plate P0"):
        build_crops(tmp_path / "c.h5", assay, whole_hash, CropSettings(size=32, intensity="controls"))
    assert not list(tmp_path.glob("*.h5*")) and not list(tmp_path.glob(".*tmp*"))
