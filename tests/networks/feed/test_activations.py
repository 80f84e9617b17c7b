"""Activations below what is learnt stand for the network below: same training, same predictions."""

from __future__ import annotations

from dataclasses import replace

import h5py
import numpy as np
import pytest
import torch
from stripes import CPU, stripes

from benchmark.base.errors import MorphobenchError
from benchmark.networks.feed import activations
from benchmark.networks.feed.activations import open_activations, store_activations
from benchmark.networks.feed.cutting import cut
from benchmark.networks.feed.feeding import place
from benchmark.networks.feed.held import hold
from benchmark.networks.feed.source import ArrayCrops
from benchmark.networks.predict import predict
from benchmark.networks.settings import NetworkSettings, TrainingSettings
from benchmark.networks.training.inputs import Examples, Recipe, Session
from benchmark.networks.training.presets import resolved
from benchmark.networks.training.start import sharable
from benchmark.networks.training.train import fine_tune
from benchmark.networks.weights.weights import load_backbone


@pytest.mark.parametrize(("name", "learn", "size", "point"), [
    ("tf_efficientnet_lite0", "frozen", 64, "classifier"), ("tf_efficientnet_lite0", "head", 64, "conv_head"),
    ("tf_efficientnet_lite0", "from:blocks.5", 64, "blocks.5"), ("resnet18", "from:layer3", 64, "layer3"),
    ("resnet18", "head", 64, "fc"), ("convnext_atto", "from:stages.3", 64, "stages.3"),
    ("vit_tiny_patch16_224", "frozen", 32, "head"),
])
def test_both_halves_are_the_network_and_share_its_tensors(name, learn, size, point):
    torch.set_num_threads(1)
    weights = "auto" if name.startswith("tf") else "none"
    backbone = load_backbone(NetworkSettings(backbone=name, weights=weights), 3, 4)
    found = cut(backbone, learn, (3, size, size))
    assert found is not None and found.name == point
    backbone.model.eval()
    found.above.model.eval()
    x = torch.rand(2, 3, size, size)
    with torch.no_grad():
        assert torch.allclose(found.above.model(found.below(x)), backbone.model(x), atol=1e-4)
    own = {p.data_ptr() for p in backbone.model.parameters()}
    assert {p.data_ptr() for p in found.above.model.parameters()} <= own
    assert all(a.training is False for a in backbone.model.modules())


def test_a_network_that_cannot_be_cut_there_says_so():
    backbone = load_backbone(NetworkSettings(backbone="vit_tiny_patch16_224", weights="none"), 3, 4)
    assert cut(backbone, "from:blocks.6", (3, 32, 32)) is None
    assert cut(backbone, "full", (3, 32, 32)) is None


def stored(tmp_path, pixels, settings, network=None):
    network, path = network or NetworkSettings(), tmp_path / "a.h5"
    source = ArrayCrops(pixels)
    assert store_activations(path, "k", source, len(pixels), network, settings, CPU) == ""
    return open_activations(path, "k")


@pytest.mark.parametrize(("learn", "extra"), [
    ("frozen", {}), ("head", {"tta": True}), ("from:blocks.6", {"average": "ema"}),
    ("head", {"dropout": 0.2, "mc_dropout": 3}), ("head", {"snapshots": 2}),
])
def test_training_on_activations_is_training_on_crops(tmp_path, learn, extra):
    torch.set_num_threads(1)
    pixels, targets = stripes(24, np.random.default_rng(0))
    # SGD: AdamW's first steps follow the signs of gradients, also of those that are nothing but rounding.
    settings = resolved(TrainingSettings(learn=learn, epochs=2, batch=8, learning_rate=1e-2, optimizer="sgd", **extra),
                        "tf_efficientnet_lite0")
    assert settings.augmentation == "views" and sharable(NetworkSettings(), settings)
    found, rows = stored(tmp_path, pixels, settings), np.arange(16)
    held = replace(found, held=hold(found, 24 * found.views, CPU, "activations"))
    p = []
    for source in (ArrayCrops(pixels), found, held):
        trained = fine_tune(Examples(source, rows, targets[rows], 2), Recipe(NetworkSettings(), settings, 3),
                            Session(CPU))
        p.append(predict(trained.backbone, trained.snapshots, source, np.arange(16, 24), CPU, settings, False, 3).p)
        # What comes out is the whole network, wherever it was trained.
        assert np.allclose(p[-1], predict(trained.backbone, trained.snapshots, ArrayCrops(pixels), np.arange(16, 24),
                                          CPU, settings, False, 3).p, atol=1e-4)
    # Rounding differs below, by batches of another size.
    assert np.allclose(p[0], p[1], atol=1e-3) and np.array_equal(p[1], p[2])
    assert place(found) == "activations in a file" and place(held) == "activations in memory"


def test_one_view_is_stored_where_one_is_looked_at(tmp_path):
    pixels, _ = stripes(4, np.random.default_rng(0))
    settings = resolved(TrainingSettings(learn="frozen", augmentation="none"), "tf_efficientnet_lite0")
    found = stored(tmp_path, pixels, settings)
    assert found.views == 1 and found.batch(np.array([3, 0])).shape == (2, 1280)


def test_what_changes_from_epoch_to_epoch_below_is_not_shared():
    for other in ({"augmentation": "standard"}, {"mix": "mixup"}, {"learn": "full"}):
        settings = TrainingSettings(**{"learn": "head", "augmentation": "views", **other})
        assert not sharable(NetworkSettings(), settings)


def test_a_damaged_or_foreign_file_is_named(tmp_path):
    pixels, _ = stripes(4, np.random.default_rng(0))
    settings = resolved(TrainingSettings(learn="frozen"), "tf_efficientnet_lite0")
    found = stored(tmp_path, pixels, settings)
    with pytest.raises(MorphobenchError, match="other crops or another network"):
        open_activations(found.path, "other")
    with h5py.File(found.path) as file:
        offset, size = file["activations"].id.get_chunk_info(0).byte_offset, found.path.stat().st_size
    raw = bytearray(found.path.read_bytes())
    raw[offset + 7] ^= 255
    assert offset < size
    found.path.write_bytes(raw)
    with pytest.raises(MorphobenchError, match="damaged activations"):
        open_activations(found.path, "k").batch(np.array([0]))
    found.path.write_bytes(b"nothing")
    with pytest.raises(MorphobenchError, match="not a file of activations"):
        open_activations(found.path, "k")


def test_too_small_a_disk_is_said_and_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(activations.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 1000})())
    pixels, _ = stripes(4, np.random.default_rng(0))
    settings = resolved(TrainingSettings(learn="frozen"), "tf_efficientnet_lite0")
    why = store_activations(tmp_path / "a.h5", "k", ArrayCrops(pixels), 4, NetworkSettings(), settings, CPU)
    assert "too many" in why and not list(tmp_path.iterdir())
