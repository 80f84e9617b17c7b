"""What is learnt: stages by timm's own names, and that the rest stays to the bit."""

from __future__ import annotations

import numpy as np
import pytest
import timm
import torch

from benchmark.base.errors import MorphobenchError
from benchmark.networks.feed.source import ArrayCrops
from benchmark.networks.settings import NetworkSettings, TrainingSettings
from benchmark.networks.training.inputs import Examples, Recipe, Session
from benchmark.networks.training.learn import freeze, learnt, parameter_groups, stages, train_mode
from benchmark.networks.training.start import start_of
from benchmark.networks.training.train import fine_tune
from benchmark.networks.weights.weights import load_backbone

TINY = NetworkSettings(backbone="test_efficientnet", weights="none")


def skeleton(name: str) -> torch.nn.Module:
    """A network without memory for its weights."""
    with torch.device("meta"):
        return timm.create_model(name)


@pytest.mark.parametrize(("name", "first", "some", "last"), [
    ("resnet50", "conv1", ["layer1", "layer4"], "fc"),
    ("inception_v3", "Conv2d_1a_3x3", ["Mixed_5d", "Mixed_6e", "Mixed_7c"], "fc"),
    ("inception_resnet_v2", "conv2d_1a", ["repeat.0", "mixed_7a", "repeat_2.8"], "classif"),
    ("tf_efficientnet_lite0", "conv_stem", ["blocks.0", "blocks.6"], "classifier"),
    ("vit_tiny_patch16_224", "cls_token", ["blocks.0", "blocks.11"], "head"),
])
def test_stages_are_those_of_timm_from_input_to_output(name, first, some, last):
    model = skeleton(name)
    found = stages(model)
    assert next(iter(found)) == first and list(found)[-1] == last and set(some) <= set(found)
    assert sorted(p for group in found.values() for p in group) == sorted(n for n, _ in model.named_parameters())
    everything = learnt(model, f"from:{first}")
    assert everything == learnt(model, "full") == {n for n, _ in model.named_parameters()}
    assert learnt(model, f"from:{last}") >= learnt(model, "frozen") != set()
    assert learnt(model, "frozen") <= learnt(model, "head") < learnt(model, f"from:{some[-1]}") < everything


def test_the_front_part_of_names_means_the_first_of_them():
    model = skeleton("inception_resnet_v2")
    assert learnt(model, "from:repeat_1") == learnt(model, "from:repeat_1.0") > learnt(model, "from:repeat_1.1")


def test_what_follows_the_last_stage_is_the_head():
    assert learnt(skeleton("tf_efficientnet_lite0"), "head") == {
        "conv_head.weight", "bn2.weight", "bn2.bias", "classifier.weight", "classifier.bias"}
    assert learnt(skeleton("resnet50"), "head") == {"fc.weight", "fc.bias"}


def test_an_unknown_stage_is_refused_with_those_that_there_are():
    with pytest.raises(MorphobenchError, match=r"no stage 'layer9'.*conv_stem, blocks\.0 to blocks\.6, classifier"):
        learnt(skeleton("tf_efficientnet_lite0"), "from:layer9")
    with pytest.raises(MorphobenchError, match="no stage 'layer'"):
        learnt(skeleton("resnet50"), "from:layer")


@pytest.mark.parametrize(("learn", "changed"), [
    ("frozen", {"classifier"}), ("head", {"conv_head", "bn2", "classifier"}),
    ("from:blocks.4", {"blocks.4", "conv_head", "bn2", "classifier"}),
])
def test_layers_that_are_not_learnt_keep_weights_and_statistics(learn, changed):
    pixels = np.random.default_rng(0).integers(0, 256, (12, 3, 32, 32)).astype(np.uint8)
    settings = TrainingSettings(epochs=2, batch=4, learning_rate=1e-2, learn=learn, average="ema")
    before = load_backbone(TINY, 3, 2, 0).model.state_dict()
    trained = fine_tune(Examples(ArrayCrops(pixels), np.arange(12), np.arange(12) % 2, 2), Recipe(TINY, settings),
                        Session(torch.device("cpu")))
    after = trained.backbone.model.state_dict()
    moved = {name for name in after if not torch.equal(before[name], after[name])}
    assert all(any(name.startswith(f"{part}.") for part in changed) for name in moved)
    for part in changed:
        assert any(name.startswith(f"{part}.") for name in moved), part


def test_frozen_layers_are_in_evaluation_mode_and_learnt_ones_in_training_mode():
    model = timm.create_model("test_efficientnet")
    freeze(model, "from:blocks.3")
    train_mode(model)
    assert not model.bn1.training and not model.blocks[2].training
    assert model.blocks[3].training and model.bn2.training and model.training


def test_rates_fall_from_layer_to_layer_and_the_head_has_its_own():
    model = timm.create_model("test_efficientnet", num_classes=3)
    freeze(model, "from:blocks.1")
    settings = TrainingSettings(learning_rate=1.0, layer_decay=0.5, head_rate=3)
    peak = {id(p): g["peak"] for g in parameter_groups(model, settings) for p in g["params"]}
    named = {name: peak[id(p)] for name, p in model.named_parameters() if id(p) in peak}
    assert "conv_stem.weight" not in named and "blocks.0.0.conv.weight" not in named
    assert named["classifier.weight"] == named["classifier.bias"] == 3
    rates = [named[f"blocks.{i}.0.bn1.weight"] for i in (1, 2, 3, 4)]
    assert rates == sorted(rates) and rates[1] / rates[0] == 2 and rates[-1] < 1
    even = parameter_groups(model, TrainingSettings(learning_rate=1.0))
    assert {g["peak"] for g in even} == {1.0} and len(even) <= 4
    assert {(p.ndim > 1, g["weight_decay"] > 0) for g in even for p in g["params"]} == {(True, True), (False, False)}


def test_learning_from_scratch_needs_no_weights():
    lite = NetworkSettings()
    assert start_of(lite, TrainingSettings(learn="scratch")).weights == "none"
    assert start_of(lite, TrainingSettings()) == lite
