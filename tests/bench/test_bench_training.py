"""The benchmarks of training compare the same work, and the plain loop is the fold that it stands for."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from benchmark.bench import training as bench_training
from benchmark.bench.ratio import interleaved
from benchmark.bench.training import (
    CLASSES,
    bfloat16_step,
    decoded,
    fed_step,
    plain_fold,
    plainly_augmented,
    whole_fold,
)
from benchmark.networks.feed.source import ArrayCrops
from benchmark.networks.settings import NetworkSettings, TrainingSettings
from benchmark.networks.training.step import Stepper

NET = NetworkSettings(backbone="test_efficientnet", weights="none")
CPU = torch.device("cpu")


def crops(n: int = 20, channels: int = 3, dtype: type = np.uint8) -> ArrayCrops:
    most = np.iinfo(dtype).max
    return ArrayCrops(np.random.default_rng(0).integers(0, most, (n, channels, 32, 32)).astype(dtype))


@pytest.mark.parametrize("augmentation", ["standard", "kensert2019"])
def test_fed_and_bare_steps_are_as_many_and_as_large(monkeypatch, augmentation):
    sizes: dict[int, list[int]] = {}

    def counted(self, pixels, goals, shares, factor, step=Stepper.__call__):
        sizes.setdefault(id(self), []).append(len(pixels))
        return step(self, pixels, goals, shares, factor)

    monkeypatch.setattr(Stepper, "__call__", counted)
    settings = TrainingSettings(batch=4, augmentation=augmentation)
    ratio = fed_step(crops(), 20, NET, settings, CPU, steps=3, repeats=2)
    assert ratio.ours_seconds > 0 and ratio.rival_seconds > 0 and augmentation in ratio.what
    assert list(sizes.values()) == [[4] * 9, [4] * 9]


def test_bfloat16_is_set_against_float32(monkeypatch):
    seen: list[bool] = []
    make = bench_training._stepper
    monkeypatch.setattr(bench_training, "_stepper", lambda *a: seen.append(a[-1]) or make(*a))
    ratio = bfloat16_step(NET, TrainingSettings(batch=4), (3, 32, 32), steps=1, repeats=1)
    assert seen == [True, False] and ratio.times > 0 and "test_efficientnet in bfloat16" in ratio.what


@pytest.mark.parametrize(("channels", "dtype"), [(3, np.uint8), (2, np.uint16)])
def test_a_whole_fold_is_timed_both_ways_on_the_same_crops(tmp_path, channels, dtype):
    source = crops(20, channels, dtype)
    ratio = whole_fold(source, 20, NET, TrainingSettings(batch=4, epochs=1), CPU, tmp_path, most=15, repeats=1)
    assert ratio.ours_seconds > 0 and ratio.rival_seconds > 0
    assert ratio.what == "a fold of 12 + 3 crops of 32 px, 1 epochs, float32"
    stored = sorted(tmp_path.glob("*.png"))
    assert len(stored) == 15
    for path in stored:
        most = np.iinfo(dtype).max
        assert decoded(path, channels) == pytest.approx(source.pixels[int(path.stem)].astype(np.float32) / most)


def test_the_plain_loop_learns_what_it_is_shown(tmp_path):
    """Crops whose class is their brightness: a loop that decoded, dealt out or trained wrongly would be at chance."""
    rng = np.random.default_rng(0)
    goals = np.arange(96) % CLASSES
    pixels = (30 + 38 * goals[:, None, None, None] + rng.integers(0, 8, (96, 3, 32, 32))).astype(np.uint8)
    paths = [bench_training._store(ArrayCrops(pixels), row, tmp_path) for row in range(96)]
    settings = TrainingSettings(batch=8, epochs=12, learning_rate=3e-3, gain=0.0, offset=0.0)
    p = plain_fold(paths[:72], goals[:72], paths[72:], NET, settings, 3, CPU)
    assert p.shape == (24, CLASSES) and p.sum(axis=1) == pytest.approx(1, abs=1e-5)
    assert (p.argmax(axis=1) == goals[72:]).mean() > 0.5


def test_plain_augmentation_turns_and_scales_within_bounds():
    rng, settings = np.random.default_rng(0), TrainingSettings(gain=0.25, offset=0.03)
    crop = rng.random((3, 8, 8)).astype(np.float32)
    found = [plainly_augmented(crop, settings, rng) for _ in range(20)]
    assert all(f.shape == crop.shape and f.min() >= 0 and f.max() <= 1 for f in found)
    still = plainly_augmented(crop, TrainingSettings(gain=0.0, offset=0.0), rng)
    assert np.allclose(np.sort(still, axis=None), np.sort(crop, axis=None))
    assert len({f.tobytes() for f in found}) == 20


def test_functions_take_turns_and_a_warm_up_does_not_count():
    calls: list[str] = []
    seconds = interleaved([lambda: calls.append("a"), lambda: calls.append("b")], 2, warm_up=True)
    assert calls == ["a", "b"] * 3 and len(seconds) == 2 and all(0 <= s < 1 for s in seconds)
