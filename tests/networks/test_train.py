"""Fine-tuning learns, repeats itself, and weighs classes by the training crops alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from benchmark.errors import MorphobenchError
from benchmark.networks.features import frozen_features
from benchmark.networks.settings import NetworkSettings, TrainingSettings
from benchmark.networks.train import class_weights, fine_tune, one_cycle, probabilities, resolve_device

CPU = torch.device("cpu")


def stripes(n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """(n, 3, 48, 48) uint8 crops of two classes that differ in the pitch of their texture."""
    targets = np.arange(n) % 2
    x = np.arange(48)
    pixels = rng.normal(100, 12, (n, 3, 48, 48))
    for i, t in enumerate(targets):
        pixels[i, 1] += 60 * np.sin(2 * np.pi * x / (4 if t else 12) + rng.uniform(0, 6))[None, :]
    return np.clip(pixels, 0, 255).astype(np.uint8), targets.astype(np.int64)


def test_fine_tuning_learns_new_crops_and_repeats_bit_for_bit():
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    pixels, targets = stripes(64, rng)
    fresh, truth = stripes(32, rng)
    # 40 steps: batch normalisation needs them to forget the statistics of ImageNet
    settings = TrainingSettings(epochs=5, batch=8, learning_rate=1e-3)
    runs = [fine_tune(pixels, targets, 2, NetworkSettings(), settings, CPU, 1) for _ in range(2)]
    p = probabilities(runs[0].backbone, fresh, CPU)
    assert np.allclose(p.sum(axis=1), 1)
    assert (p.argmax(axis=1) == truth).mean() >= 0.9
    assert np.array_equal(p, probabilities(runs[1].backbone, fresh, CPU))
    assert runs[0].losses[-1] < runs[0].losses[0]
    assert runs[0].images == 5 * 64


def test_the_class_weights_balance_and_leave_out_absent_classes():
    weights = class_weights(torch.tensor([0, 0, 0, 2]), 3)
    assert torch.allclose(weights, torch.tensor([4 / 9, 0, 4 / 3]))


def test_the_schedule_rises_to_one_and_ends_near_zero():
    factors = [one_cycle(i, 100, 0.2) for i in range(100)]
    assert max(factors) == 1.0 and factors.index(1.0) in (19, 20)
    assert factors[0] < 0.1 and factors[-1] < 0.01
    assert factors[20:] == sorted(factors[20:], reverse=True)


def test_a_short_last_batch_is_spread_so_no_step_sees_one_crop():
    pixels, targets = stripes(17, np.random.default_rng(1))
    trained = fine_tune(pixels, targets, 2, NetworkSettings(), TrainingSettings(epochs=1, batch=16), CPU, 0)
    assert np.isfinite(trained.losses[0])


def test_a_rate_that_explodes_is_said_so():
    pixels, targets = stripes(16, np.random.default_rng(1))
    wild = TrainingSettings(epochs=4, batch=4, learning_rate=1e18)
    with pytest.raises(MorphobenchError, match="no longer finite"):
        fine_tune(pixels, targets, 2, NetworkSettings(), wild, CPU, 0)


def test_frozen_features_of_separate_channels_do_not_see_each_other():
    pixels, _ = stripes(4, np.random.default_rng(2))
    changed = pixels.copy()
    changed[:, 2] = 0
    (a, backbone), (b, _) = (frozen_features(p, NetworkSettings(), "separately", CPU) for p in (pixels, changed))
    width = a.shape[1] // 3
    assert a.shape == (4, 3 * 1280) and len(backbone.sha256) == 64
    assert np.allclose(a[:, : 2 * width], b[:, : 2 * width], atol=1e-5)
    assert not np.allclose(a[:, 2 * width :], b[:, 2 * width :], atol=1e-2)


def test_devices_that_are_not_there_are_refused():
    assert resolve_device("auto").type in ("cpu", "cuda")
    with pytest.raises(MorphobenchError, match="no device"):
        resolve_device("abacus")
    if not torch.cuda.is_available():
        with pytest.raises(MorphobenchError, match="no CUDA GPU"):
            resolve_device("cuda")
