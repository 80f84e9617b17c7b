"""Quality measures: CellProfiler's own slope, known spectra, and each defect moves its measure and no other."""

from __future__ import annotations

import cv2
import numpy as np
import pandas as pd
import pytest

from benchmark.base.tables import FIELD_KEY
from benchmark.images.focus import power_slope
from benchmark.quality import measures as quality
from benchmark.quality.measures import ROUNDING, column, measure_quality, noise_level, plane_quality

#: Image → plane → Image_ImageQuality_PowerLogLogSlope, as CellProfiler wrote it.
GOLDEN = {
    "bbbc021v1_28.png": {2: -0.16600924730300903, 1: -0.9977604150772095, 0: -1.0658613443374634},
    "bbbc021v1_545.png": {2: -0.5311351418495178, 1: -1.723103642463684, 0: -1.3758666515350342},
}


def spectrum_noise(exponent: float, size: int = 256, seed: int = 0) -> np.ndarray:
    """Noise whose amplitude falls as frequency to the power of ``exponent``."""
    rng = np.random.default_rng(seed)
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(size), np.fft.fftfreq(size)))
    frequency[0, 0] = 1
    return np.fft.ifft2(np.fft.fft2(rng.normal(size=(size, size))) / frequency**exponent).real


def cells(seed: int = 0, size: int = 128, n: int = 25) -> np.ndarray:
    """(size, size) uint16: soft discs on a noisy background."""
    rng = np.random.default_rng(seed)
    plane = np.zeros((size, size))
    for y, x in rng.integers(8, size - 8, (n, 2)):
        cv2.circle(plane, (int(x), int(y)), 5, 800.0, -1)
    return np.clip(cv2.GaussianBlur(plane, (0, 0), 0.8) + rng.normal(300, 10, plane.shape), 0, 4095).astype(np.uint16)


def rps_slope(image: np.ndarray) -> float:
    """`MeasureImageQuality.calculate_power_spectrum` with `centrosome.radial_power_spectrum.rps`, line by line."""
    image = image.astype(float)
    radii2 = np.arange(image.shape[0])[:, None] ** 2 + np.arange(image.shape[1]) ** 2
    radii2 = np.minimum(radii2, np.flipud(radii2))
    radii2 = np.minimum(radii2, np.fliplr(radii2))
    power = np.abs(np.fft.fft2(image - image.mean())) ** 2
    radii = np.floor(np.sqrt(radii2)).astype(int) + 1
    labels = np.arange(2, np.floor(min(image.shape) / 8.0)).astype(int)
    sums = [power[radii == k].sum() for k in labels]
    design = np.stack([np.log(labels), np.ones(len(labels))], axis=1)
    return float(np.linalg.lstsq(design, np.log(sums), rcond=None)[0][0])


@pytest.mark.parametrize("shape", [(128, 128), (101, 150), (160, 97), (40, 300)])
def test_slope_is_that_of_cellprofilers_algorithm(shape):
    image = np.random.default_rng(1).integers(0, 65535, shape).astype(np.uint16)
    image[5:30, 8:40] //= 3
    assert power_slope(image) == pytest.approx(rps_slope(image), abs=1e-4)


def test_slope_is_cellprofilers_own_on_real_fields(data_folder):
    """PowerLogLogSlope of CellProfiler 4.2.8.1 on two fields of BBBC021, as its shards hold them."""
    from benchmark.images.reading import read_planes

    for name, planes in GOLDEN.items():
        found = read_planes(data_folder / "bbbc021_fields" / "images" / name, sorted(planes))
        assert [power_slope(p) for p in found] == pytest.approx([planes[k] for k in sorted(planes)], abs=1e-5)


@pytest.mark.parametrize("exponent", [0.0, 1.0, 1.5])
def test_slope_of_known_spectra(exponent):
    """Power summed over a ring: amplitude f^-a gives 1 - 2a."""
    slopes = [power_slope(spectrum_noise(exponent, seed=s)) for s in range(4)]
    assert np.mean(slopes) == pytest.approx(1 - 2 * exponent, abs=0.2)


def test_slope_does_not_hang_on_scale_and_falls_with_blur():
    plane = cells()
    assert power_slope(plane * 3.0 + 100) == pytest.approx(power_slope(plane), abs=1e-3)
    slopes = [power_slope(cv2.GaussianBlur(plane.astype(np.float32), (0, 0), s)) for s in (1, 2, 4)]
    assert slopes == sorted(slopes, reverse=True) and slopes[-1] < power_slope(plane) - 2
    assert power_slope(np.full((64, 64), 7, np.uint8)) == 0 and power_slope(plane[:20]) == 0


@pytest.mark.parametrize("sigma", [0.7, 2.0, 10.0, 50.0])
def test_noise_is_told_from_what_is_shown(sigma):
    rng = np.random.default_rng(0)
    ramp = np.add.outer(np.arange(200), np.arange(200)) * 20.0
    plane = np.clip(ramp + 500 + rng.normal(0, sigma, ramp.shape), 0, 65535).round().astype(np.uint16)
    assert noise_level(plane) == pytest.approx(np.hypot(sigma, ROUNDING), rel=0.06)
    assert noise_level(ramp.astype(np.uint16)) == ROUNDING


def test_each_defect_moves_its_measure():
    rng = np.random.default_rng(3)
    sound = cells()
    measured = plane_quality(sound)
    assert measured["Maximum"] == sound.max() and measured["AtMaximum"] == (sound == sound.max()).mean() < 1e-3
    assert measured["Foreground"] == pytest.approx((sound > 334).mean(), abs=0.005)
    saturated = plane_quality(np.minimum(sound, 1000))
    assert saturated["AtMaximum"] == (sound >= 1000).mean() > 0.05
    empty = plane_quality(rng.normal(300, 10, sound.shape).round().astype(np.uint16))
    assert empty["Contrast"] == pytest.approx(4.7, abs=0.5) and measured["Contrast"] > 60  # 3.09 + 1.64
    assert empty["Foreground"] < 0.002 and empty["Slope"] > measured["Slope"] + 0.5
    debris = sound.copy()
    debris[40:70, 40:70] = 4095
    dirty = plane_quality(debris)
    assert dirty["Bright"] > 4 * measured["Bright"] and dirty["Patch"] == 900 / sound.size > 3 * measured["Patch"]
    rescaled = plane_quality((debris // 16).astype(np.uint8))
    assert rescaled["Patch"] == dirty["Patch"] and rescaled["Bright"] == pytest.approx(dirty["Bright"] / 16, abs=1)


def test_planes_at_the_ends_of_their_range_are_measured():
    for plane in (np.full((64, 64), 255, np.uint8), np.zeros((64, 64), np.uint16), np.eye(64, dtype=np.uint8)):
        values = plane_quality(plane)
        assert set(values) == set(quality.MEASURES) and np.isfinite(list(values.values())).all()
        assert values["Foreground"] == 0  # nothing stands out from what rounding alone makes


def test_every_field_is_measured_once_and_found_again(make_tiny, tmp_path, monkeypatch):
    assay, _, its_hash = make_tiny(size=40, sites=2)
    monkeypatch.setattr(quality, "CHUNK", 5)
    table = measure_quality(assay, its_hash, tmp_path)
    pd.testing.assert_frame_equal(table[FIELD_KEY], assay.fields[FIELD_KEY])
    assert list(table.columns) == FIELD_KEY + [column(m, c) for c in assay.channels for m in quality.MEASURES]
    assert len(list(tmp_path.glob("quality-*/*.parquet"))) == 8  # two plates of 18 fields
    lost = sorted(tmp_path.glob("quality-*/*.parquet"))[3]
    lost.unlink()
    done: list[int] = []
    real = quality.plane_quality
    monkeypatch.setattr(quality, "plane_quality", lambda plane: done.append(1) or real(plane))
    pd.testing.assert_frame_equal(measure_quality(assay, its_hash, tmp_path), table)
    assert len(done) == 3 * 3 and measure_quality(assay, "other", tmp_path).equals(table)
