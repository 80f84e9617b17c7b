"""Each network trains by the one loop, on any number of channels, at crop sizes of the study's choice."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import save_file

from benchmark.base.errors import MorphobenchError
from benchmark.methods.kinds.finetuned import FinetunedMethod
from benchmark.methods.kinds.frozen import FrozenMethod
from benchmark.networks.architectures.layers.multiscale import MultiScaleCNN
from benchmark.networks.feed.source import ArrayCrops
from benchmark.networks.predict import probabilities, run_model
from benchmark.networks.settings import NetworkSettings, TrainingSettings
from benchmark.networks.training.inputs import Examples, Recipe, Session
from benchmark.networks.training.train import fine_tune
from benchmark.networks.weights.location import weights_identity
from benchmark.networks.weights.timm_models import create
from benchmark.networks.weights.weights import load_backbone

CPU = torch.device("cpu")


def fields(n: int, channels: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """(n, C, S, S) uint8 fields of two classes: few large or many small bright squares."""
    rng = np.random.default_rng(0)
    targets = np.arange(n) % 2
    pixels = rng.integers(20, 40, (n, channels, size, size))
    for i, target in enumerate(targets):
        side, number = (3, 40) if target else (20, 3)
        for y, x in rng.integers(0, size - side, (number, 2)):
            pixels[i, :, y : y + side, x : x + side] = 200
    return pixels.astype(np.uint8), targets.astype(np.int64)


def assert_it_learns(network: NetworkSettings, size: int, channels: int, epochs: int = 4, batch: int = 8,
                     rate: float = 1e-3) -> None:
    torch.set_num_threads(1)
    n = 16
    pixels, targets = fields(n, channels, size)
    source, rows = ArrayCrops(pixels), np.arange(n)
    settings = TrainingSettings(epochs=epochs, batch=batch, learning_rate=rate, augmentation="none")
    trained = fine_tune(Examples(source, rows, targets, 2), Recipe(network, settings), Session(CPU))
    assert trained.losses[-1] < 0.9 * min(trained.losses[0], np.log(2)), trained.losses  # and better than guessing
    p = probabilities(trained.backbone, source, rows, CPU)
    assert p.shape == (n, 2) and np.allclose(p.sum(1), 1) and (p >= 0).all()


@pytest.mark.parametrize(("settings", "channels", "rate"), [
    ({"backbone": "mcnn"}, 2, 2e-4),
    ({"backbone": "mil"}, 3, 1e-3),
    ({"backbone": "mil", "pooling": "attention"}, 5, 1e-3),
    ({"backbone": "mil", "pooling": "mean", "instances": "resnet18", "weights": "none"}, 1, 1e-3),
])
def test_our_networks_learn(settings, channels, rate):
    assert_it_learns(NetworkSettings(**settings), 75, channels, rate=rate)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "size"), [("resnet50", 75), ("inception_v3", 75), ("inception_resnet_v2", 75)])
def test_the_papers_networks_learn_from_random_weights(name, size):
    assert_it_learns(NetworkSettings(backbone=name, weights="none"), size, 3)


@pytest.mark.parametrize("channels", [2, 5])
def test_a_vision_transformer_takes_other_sizes_than_its_own(channels):
    network = NetworkSettings(backbone="vit_tiny_patch16_224", weights="none")
    assert_it_learns(network, 96, channels, epochs=8, batch=4, rate=2e-4)


def test_position_embeddings_of_a_file_follow_the_crop(tmp_path):
    """At its own size the network is timm's, at another its embeddings are resampled; the file is the same."""
    torch.manual_seed(0)
    plain = create("test_vit", 3)
    save_file(plain.state_dict(), tmp_path / "test_vit.safetensors")
    ours = load_backbone(NetworkSettings(backbone="test_vit", weights=str(tmp_path)), 3, 1000)
    assert torch.equal(ours.model.pos_embed, plain.pos_embed) and ours.input_size == 160
    with torch.no_grad():
        for size in (160, 96):
            assert ours.model.eval()(torch.rand(1, 3, size, size)).isfinite().all()


def test_a_network_of_one_size_only_says_so():
    backbone = load_backbone(NetworkSettings(backbone="pit_ti_224", weights="none"), 3, 2)
    with pytest.raises(MorphobenchError, match=r"cannot take crops of 96 px.*224 px"):
        run_model(backbone, ArrayCrops(np.zeros((1, 3, 96, 96), np.uint8)), np.array([0]), CPU)


@pytest.mark.parametrize(("channels", "size"), [(1, 64), (8, 65), (3, 100), (4, 130)])
def test_the_multi_scale_network_takes_any_size_and_sees_every_pixel(channels, size):
    torch.manual_seed(0)
    model = MultiScaleCNN(channels, 4)
    x = torch.rand(1, channels, size, size)
    assert model(x).shape == (1, 4)
    for place in ((0, 0), (size - 1, size - 1), (0, size - 1)):
        changed = x.clone()
        changed[0, 0, place[0], place[1]] += 50
        assert not torch.allclose(model(changed), model(x))
    assert MultiScaleCNN(channels, 0)(x).shape == (1, 512)


def test_the_multi_scale_network_at_512_pixels_is_the_published_chain_of_layers():
    """Where 64 divides the size all pooling is plain: 2^i before and 2^(6-i) after each path, and 2 after mixing."""
    torch.manual_seed(0)
    model = MultiScaleCNN(1, 3)
    x = torch.rand(1, 1, 512, 512)
    pool = torch.nn.functional.max_pool2d
    with torch.no_grad():
        scales = [pool(p(pool(x, 2**i)), 2 ** (6 - i)) for i, p in enumerate(model.paths)]
        joined = torch.cat(scales, 1)
        assert joined.shape == (1, 208, 8, 8)
        mixed = pool(model.mix(joined).relu(), 2).flatten(1)
        assert torch.allclose(model(x), model.classifier(model.hidden(mixed).relu()), atol=1e-5)


def test_the_multi_scale_network_has_no_weights_and_no_small_crops(tmp_path):
    for weights in ("auto", "none"):
        network = NetworkSettings(backbone="mcnn", weights=weights)
        assert load_backbone(network, 2, 3).source == "from scratch" == weights_identity(network)
    with pytest.raises(ValidationError, match="from scratch"):
        NetworkSettings(backbone="mcnn", weights=str(tmp_path))
    with pytest.raises(MorphobenchError, match="48 px"):
        run_model(load_backbone(NetworkSettings(backbone="mcnn"), 1, 2), ArrayCrops(np.zeros((1, 1, 48, 48), np.uint8)),
                  np.array([0]), CPU)


def test_instances_have_the_weights_of_their_network(tmp_path):
    plain, mil = (load_backbone(NetworkSettings(backbone=name), 4, 3) for name in ("tf_efficientnet_lite0", "mil"))
    assert (mil.sha256, mil.source, mil.input_size) == (plain.sha256, plain.source, plain.input_size)
    assert torch.equal(mil.mean, plain.mean)
    assert torch.equal(mil.model.network.conv_stem.weight, plain.model.conv_stem.weight)
    state = create("test_efficientnet", 3).state_dict()
    save_file(state, tmp_path / "test_efficientnet.safetensors")
    own = NetworkSettings(backbone="mil", instances="test_efficientnet", weights=str(tmp_path))
    assert torch.equal(load_backbone(own, 3, 2).model.network.conv_stem.weight, state["conv_stem.weight"])
    assert weights_identity(own) == weights_identity(own.model_copy(update={"backbone": "test_efficientnet"}))


def test_settings_of_pooling_are_for_mil_alone_and_change_no_other_key():
    assert set(NetworkSettings().model_dump()) == {"backbone", "weights", "normalisation"}
    mil = NetworkSettings(backbone="mil", pooling="mean")
    assert NetworkSettings.model_validate(mil.model_dump()) == mil and mil.model_dump()["pooling"] == "mean"
    for wrong in ({"pooling": "mean"}, {"instances": "resnet50"}, {"backbone": "mil", "instances": "mcnn"}):
        with pytest.raises(ValidationError):
            NetworkSettings.model_validate(wrong)
    for backbone in ("mil", "mcnn"):
        with pytest.raises(ValidationError, match="no frozen features"):
            FrozenMethod(name="a", kind="cnn_frozen", network=NetworkSettings(backbone=backbone))


def test_records_say_what_was_trained_and_from_what():
    texts = [FinetunedMethod(name="a", kind="cnn_finetuned", network=NetworkSettings(**n)).summary()
             for n in ({"backbone": "mcnn"}, {"backbone": "mil", "pooling": "attention"}, {"weights": "none"}, {})]
    assert "multi-scale CNN of Godinez et al. 2017 trained from random weights" in texts[0]
    assert "gated attention pooling" in texts[1] and "fine-tuned in all layers" in texts[1]
    assert "trained from random weights" in texts[2] and "fine-tuned in all layers" in texts[3]
