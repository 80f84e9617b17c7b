"""Fine-tuning learns, repeats itself, and weighs classes by the training crops alone."""

from __future__ import annotations

import threading
import tracemalloc

import numpy as np
import pytest
import torch
from stripes import CPU, stripes

from benchmark.base.errors import MorphobenchError
from benchmark.networks import embed
from benchmark.networks.embed import field_means
from benchmark.networks.feed.source import ArrayCrops
from benchmark.networks.predict import probabilities
from benchmark.networks.settings import NetworkSettings, TrainingSettings
from benchmark.networks.training.inputs import Examples, Recipe, Session
from benchmark.networks.training.train import fine_tune
from benchmark.networks.weights.weights import load_backbone


def tune(pixels: np.ndarray, targets: np.ndarray, settings: TrainingSettings, seed: int = 0, **network: str):
    """Fine-tune a two-class network on an array."""
    return fine_tune(Examples(ArrayCrops(pixels), np.arange(len(pixels)), targets, 2),
                     Recipe(NetworkSettings(**network), settings, seed), Session(CPU))


@pytest.mark.parametrize(("augmentation", "depth"), [
    ("standard", np.uint8), pytest.param("kensert2019", np.uint16, marks=pytest.mark.slow)])
def test_fine_tuning_learns_new_crops_and_repeats_bit_for_bit(augmentation, depth):
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    pixels, targets = stripes(64, rng)
    fresh, truth = stripes(32, rng)
    scale = np.iinfo(depth).max // 255
    pixels, fresh = pixels.astype(depth) * depth(scale), fresh.astype(depth) * depth(scale)
    # 40 steps: batch normalisation needs them to forget the statistics of ImageNet
    settings = TrainingSettings(epochs=5, batch=8, learning_rate=1e-3, augmentation=augmentation)
    runs = [tune(pixels, targets, settings, 1) for _ in range(2)]
    p = probabilities(runs[0].backbone, ArrayCrops(fresh), np.arange(32), CPU)
    assert np.allclose(p.sum(axis=1), 1)
    # Over two seeds: with batches of 8 and so few steps, one seed's accuracy depends on the release of PyTorch.
    other = probabilities(tune(pixels, targets, settings, 2).backbone, ArrayCrops(fresh), np.arange(32), CPU)
    assert np.mean([(q.argmax(axis=1) == truth).mean() for q in (p, other)]) >= 0.8
    assert np.array_equal(p, probabilities(runs[1].backbone, ArrayCrops(fresh), np.arange(32), CPU))
    assert runs[0].losses[-1] < runs[0].losses[0]
    assert runs[0].images == 5 * 64


@pytest.mark.slow
def test_the_raw_values_of_the_paper_can_be_learnt_from():
    rng = np.random.default_rng(0)
    (pixels, targets), (fresh, truth) = stripes(64, rng), stripes(32, rng)
    settings = TrainingSettings(epochs=6, batch=8, learning_rate=1e-3)
    right = []
    for seed in (0, 1):  # over two, as above
        trained = tune(pixels, targets, settings, seed, normalisation="none")
        p = probabilities(trained.backbone, ArrayCrops(fresh), np.arange(32), CPU)
        right.append((p.argmax(axis=1) == truth).mean())
    assert np.mean(right) >= 0.75


def test_only_the_rows_given_are_trained_on():
    """The rest of the source may be anything: a number of a crop is all that is followed."""
    pixels, targets = stripes(24, np.random.default_rng(3))
    rows = np.arange(24)[::3]
    other = np.random.default_rng(4).integers(0, 256, pixels.shape).astype(np.uint8)
    other[rows] = pixels[rows]
    settings = TrainingSettings(epochs=1, batch=4)
    losses = [fine_tune(Examples(ArrayCrops(p), rows, targets[rows], 2), Recipe(NetworkSettings(), settings),
                        Session(CPU)).losses
              for p in (pixels, other)]
    assert losses[0] == losses[1]


class Damaged(ArrayCrops):
    """A cache whose crop 11 cannot be read."""

    def batch(self, rows: np.ndarray) -> np.ndarray:
        if 11 in rows:
            raise MorphobenchError("holds a damaged crop", "crops.h5, crop 11")
        return super().batch(rows)


def test_a_damaged_crop_stops_the_training_and_leaves_no_thread():
    pixels, targets = stripes(16, np.random.default_rng(1))
    before = threading.active_count()
    with pytest.raises(MorphobenchError, match="damaged crop"):
        fine_tune(Examples(Damaged(pixels), np.arange(16), targets, 2),
                  Recipe(NetworkSettings(), TrainingSettings(epochs=1, batch=4)), Session(CPU))
    assert threading.active_count() == before


class Drawn:
    """As many crops as one likes, drawn when they are read; remembers the largest batch asked for."""

    shape = (3, 32, 32)
    dtype = np.dtype(np.uint8)
    most = 0

    def batch(self, rows: np.ndarray) -> np.ndarray:
        self.most = max(self.most, len(rows))
        return ((rows[:, None, None, None] + np.arange(32)) % 256 + np.zeros((3, 32, 1))).astype(np.uint8)


def test_frozen_features_of_many_crops_need_a_few_batches_and_the_fields():
    """4,000 crops of 20 fields are 12 MB, of which one or two batches of 64 are ever held."""
    source, rows = Drawn(), np.arange(4000)
    tiny = load_backbone(NetworkSettings(backbone="test_efficientnet", weights="none"), 3, 0)
    field_means(tiny, source, rows[:8], rows[:8] % 20, CPU)  # what is imported and cached once
    tracemalloc.start()
    fields, values = field_means(tiny, source, rows, rows % 20, CPU)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert fields.tolist() == list(range(20)) and values.shape == (20, 256)
    assert source.most == 64
    assert peak < 4e6


def test_a_short_last_batch_is_spread_so_no_step_sees_one_crop():
    pixels, targets = stripes(17, np.random.default_rng(1))
    trained = tune(pixels, targets, TrainingSettings(epochs=1, batch=16))
    assert np.isfinite(trained.losses[0])


def test_a_rate_that_explodes_is_said_so():
    pixels, targets = stripes(16, np.random.default_rng(1))
    wild = TrainingSettings(epochs=4, batch=4, learning_rate=1e18)
    with pytest.raises(MorphobenchError, match="no longer finite"):
        tune(pixels, targets, wild)


def test_frozen_features_of_separate_channels_do_not_see_each_other():
    pixels, _ = stripes(4, np.random.default_rng(2))
    changed = pixels.copy()
    changed[:, 2] = 0
    rows = np.arange(4)
    a, b = (field_means(load_backbone(NetworkSettings(), 3, 0), ArrayCrops(p), rows, rows, CPU, separately=True)[1]
            for p in (pixels, changed))
    width = a.shape[1] // 3
    assert a.shape == (4, 3 * 1280)
    assert np.allclose(a[:, : 2 * width], b[:, : 2 * width], atol=1e-5)
    assert not np.allclose(a[:, 2 * width :], b[:, 2 * width :], atol=1e-2)


def test_frozen_features_of_a_field_are_the_mean_of_its_crops(monkeypatch):
    monkeypatch.setattr(embed, "BATCH", 2)
    pixels, _ = stripes(7, np.random.default_rng(2))
    source, rows, field = ArrayCrops(pixels), np.array([6, 0, 3, 2, 5]), np.array([9, 4, 9, 9, 4])
    backbone = load_backbone(NetworkSettings(), 3, 0)
    fields, values = field_means(backbone, source, rows, field, CPU)
    _, single = field_means(backbone, source, rows, np.arange(5), CPU)
    assert fields.tolist() == [4, 9]
    np.testing.assert_allclose(values, [single[[1, 4]].mean(0), single[[0, 2, 3]].mean(0)], atol=1e-4)
