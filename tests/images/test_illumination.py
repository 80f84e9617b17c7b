"""Illumination functions undo uneven light, are the same for both arms, and are written whole."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
from pydantic import ValidationError

from benchmark.assays.fieldtable import Assay
from benchmark.base.errors import MorphobenchError
from benchmark.base.tables import PLATE
from benchmark.images.illumination import FLOOR, build_illumination, illumination_function, mean_of_fields
from benchmark.images.settings import IlluminationSettings

RETROSPECTIVE = IlluminationSettings()


def vignette(height: int, width: int, depth: float) -> np.ndarray:
    """Light that falls off with the square of the distance to a centre that is not the middle; median 1."""
    y, x = np.mgrid[:height, :width]
    light = 1 - depth * (((y - 0.45 * height) / height) ** 2 + ((x - 0.55 * width) / width) ** 2)
    return light / np.median(light)


def shade(assay: Assay, lights: dict[str, np.ndarray], size: tuple[int, int]) -> Assay:
    """Draw cells (discs) of random place and brightness on every field, seen under the plate's light."""
    rng = np.random.default_rng(3)
    y, x = np.mgrid[: size[0], : size[1]]
    for i, row in assay.fields.iterrows():
        scene = np.full((3, *size), 400.0)
        for _ in range(60):
            at = rng.uniform(-10, size[0] + 10), rng.uniform(-10, size[1] + 10)  # some reach in from beyond
            scene[:, (y - at[0]) ** 2 + (x - at[1]) ** 2 < 36] += rng.uniform(100, 400)
        seen = rng.poisson(scene * lights[row[PLATE]]).astype(np.uint16)
        tifffile.imwrite(assay.root / f"f{i}.tif", seen, photometric="minisblack")
    return assay


def test_vignetting_is_recovered(make_tiny, tmp_path: Path):
    assay, _, key = make_tiny(plates=2, sites=4, labels=3, compounds=3)
    size = (120, 160)
    lights = {"P0": vignette(*size, 0.9), "P1": vignette(*size, 0.3)[::-1]}
    shade(assay, lights, size)
    found = build_illumination(assay, key, RETROSPECTIVE, tmp_path / "light")
    assert found is not None
    for plate, light in lights.items():
        for channel in assay.channels:
            function = found.function(plate, channel)
            assert function.shape == size and function.dtype == np.float32
            assert np.median(function) == pytest.approx(1, abs=0.01)
            error = np.abs(function / light - 1)
            assert error.mean() < 0.02 and error.max() < 0.07
    assert "all fields of a plate" in found.transductive


def test_even_light_gives_ones():
    function = illumination_function(np.full((90, 130), 37.0), 0.25)
    assert np.allclose(function, 1, atol=1e-6)
    bumpy = 100 + np.random.default_rng(0).normal(0, 3, (240, 320))
    assert np.abs(illumination_function(bumpy, 0.25) - 1).max() < 0.02


def test_dark_corners_are_not_raised_without_end():
    mean = np.full((100, 100), 50.0)
    mean[:30, :30] = 0
    function = illumination_function(mean, 0.05)
    assert function.min() == np.float32(FLOOR) and function[5, 5] == np.float32(FLOOR)


def test_the_mean_is_exact(make_tiny):
    assay, _, _ = make_tiny(plates=1)
    stack = [tifffile.imread(assay.root / f"f{i}.tif") for i in range(len(assay.fields))]
    assert np.array_equal(mean_of_fields(assay), np.stack(stack).astype(float).sum(axis=0) / len(stack))


def test_it_is_built_once_and_damage_is_noticed(make_tiny, tmp_path: Path):
    assay, _, key = make_tiny()
    made = build_illumination(assay, key, RETROSPECTIVE, tmp_path)
    assert made is not None
    path = made.path("P0", "DNA")
    assert np.array_equal(np.load(path, allow_pickle=False), made.function("P0", "DNA"))
    assert sorted(p.name for p in path.parent.iterdir() if p.name.startswith(".")) == []
    before = path.stat().st_mtime_ns
    again = build_illumination(assay, key, RETROSPECTIVE, tmp_path)
    assert again == made and path.stat().st_mtime_ns == before
    other = build_illumination(assay, key, IlluminationSettings(window=0.5), tmp_path)
    assert other is not None and other.key != made.key
    assert set(made.of_plate("P1").files) == {("P1", c) for c in assay.channels}
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(MorphobenchError, match="missing or damaged"):
        made.function("P0", "DNA")
    with pytest.raises(MorphobenchError, match="plate P9"):
        made.path("P9", "DNA")


def test_none_makes_nothing(make_tiny, tmp_path: Path):
    assay, _, key = make_tiny()
    assert build_illumination(assay, key, IlluminationSettings(method="none"), tmp_path / "x") is None
    assert not (tmp_path / "x").exists()
    assert IlluminationSettings(method="none").transductive is None


def test_few_fields_several_sizes_and_black_channels_are_refused(make_tiny, tmp_path: Path):
    assay, _, key = make_tiny(plates=1)
    few = replace(assay, fields=assay.fields.head(7))
    with pytest.raises(MorphobenchError, match=r"plate P0: has 7 field.*method: none"):
        build_illumination(few, key, RETROSPECTIVE, tmp_path / "a")
    tifffile.imwrite(assay.root / "f8.tif", np.ones((3, 32, 48), np.uint8), photometric="minisblack")
    with pytest.raises(MorphobenchError, match="32×32 and of 48×32"):
        build_illumination(assay, key, RETROSPECTIVE, tmp_path / "b")
    assert not (tmp_path / "b").exists() or not list((tmp_path / "b").rglob("index.json"))
    for i in range(9):
        planes = np.ones((3, 32, 32), np.uint8)
        planes[1] = 0
        tifffile.imwrite(assay.root / f"f{i}.tif", planes, photometric="minisblack")
    with pytest.raises(MorphobenchError, match="channel Tubulin: is black"):
        build_illumination(assay, key, RETROSPECTIVE, tmp_path / "c")


@pytest.mark.parametrize("given", [{"method": "prospective"}, {"window": 0.9}, {"windows": 0.2}])
def test_settings_refuse_nonsense(given):
    with pytest.raises(ValidationError):
        IlluminationSettings(**given)
