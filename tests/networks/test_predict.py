"""Averages over views, dropout passes and snapshots, and how much they differ."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from benchmark.networks import predict as module
from benchmark.networks.feed.source import ArrayCrops
from benchmark.networks.predict import predict, probabilities
from benchmark.networks.settings import NetworkSettings, TrainingSettings
from benchmark.networks.training.inputs import Examples, Recipe, Session
from benchmark.networks.training.step import forward
from benchmark.networks.training.train import fine_tune
from benchmark.networks.weights.weights import load_backbone

CPU = torch.device("cpu")
TINY = NetworkSettings(backbone="test_efficientnet", weights="none")
ROWS = np.arange(9)


@pytest.fixture
def crops() -> ArrayCrops:
    return ArrayCrops(np.random.default_rng(0).integers(0, 256, (9, 3, 32, 32)).astype(np.uint8))


def ask(backbone, crops, snapshots=(), rows=ROWS, seed=0, **settings):
    return predict(backbone, snapshots, crops, rows, CPU, TrainingSettings.model_validate(settings), False, seed)


def test_one_pass_is_what_the_network_says_and_has_no_spread(crops):
    backbone = load_backbone(TINY, 3, 4, 0)
    found = ask(backbone, crops)
    assert np.array_equal(found.p, probabilities(backbone, crops, ROWS, CPU))
    assert found.spread is None and found.passes == 1


def test_with_all_eight_views_a_turned_crop_is_the_same_crop(crops):
    backbone = load_backbone(TINY, 3, 4, 0)
    turned = ArrayCrops(np.ascontiguousarray(np.rot90(crops.pixels, 1, (2, 3))[..., ::-1]))
    plain, other = ask(backbone, crops), ask(backbone, turned)
    assert not np.allclose(plain.p, other.p, atol=1e-4)
    a, b = ask(backbone, crops, tta=True), ask(backbone, turned, tta=True)
    np.testing.assert_allclose(a.p, b.p, atol=1e-6)
    assert a.passes == 8 and 0 < a.spread < 0.5 and a.spread == pytest.approx(b.spread, rel=1e-3)
    assert np.allclose(a.p.sum(axis=1), 1)


@pytest.mark.parametrize("name", ["test_efficientnet", "test_resnet", "test_vit", "inception_v3"])
def test_passes_with_dropout_differ_and_leave_the_network_as_it_was(name):
    """timm's networks drop by a layer or by a function: both are reached."""
    size = 160 if name == "test_vit" else 80
    crops = ArrayCrops(np.random.default_rng(0).integers(0, 256, (3, 3, size, size)).astype(np.uint8))
    backbone = load_backbone(NetworkSettings(backbone=name, weights="none"), 3, 4, 0, dropout=0.5)
    before = {k: v.clone() for k, v in backbone.model.state_dict().items()}
    options = {"mc_dropout": 4, "dropout": 0.5}
    a, again, other = (ask(backbone, crops, rows=ROWS[:3], seed=s, **options) for s in (0, 0, 1))
    assert a.passes == 4 and a.spread > 0
    assert np.array_equal(a.p, again.p) and not np.array_equal(a.p, other.p)
    assert all(torch.equal(v, before[k]) for k, v in backbone.model.state_dict().items())
    plain = ask(backbone, crops, rows=ROWS[:3])
    assert np.array_equal(plain.p, ask(backbone, crops, rows=ROWS[:3]).p)
    assert not any(m.training for m in backbone.model.modules())


def test_dropout_does_not_disturb_draws_elsewhere(crops):
    backbone = load_backbone(TINY, 3, 4, 0, dropout=0.5)
    torch.manual_seed(7)
    wanted = torch.rand(1)
    torch.manual_seed(7)
    ask(backbone, crops, mc_dropout=2, dropout=0.5)
    assert torch.equal(torch.rand(1), wanted)


def test_snapshots_of_one_schedule_are_averaged(crops):
    settings = TrainingSettings(epochs=4, batch=4, snapshots=2, learning_rate=1e-2)
    trained = fine_tune(Examples(crops, ROWS, ROWS % 4, 4), Recipe(TINY, settings), Session(CPU))
    assert len(trained.snapshots) == 2
    found = ask(trained.backbone, crops, trained.snapshots)
    single = []
    for state in trained.snapshots:
        trained.backbone.model.load_state_dict(state)
        single.append(probabilities(trained.backbone, crops, ROWS, CPU))
    np.testing.assert_allclose(found.p, np.mean(single, axis=0), atol=1e-12)
    assert found.spread == pytest.approx(np.std(single, axis=0).mean()) and found.passes == 2
    assert np.abs(single[0] - single[1]).max() > 1e-3


def test_prediction_goes_on_by_halves_where_memory_does_not_suffice(crops, monkeypatch):
    backbone = load_backbone(TINY, 3, 4, 0)
    plenty = ask(backbone, crops).p

    def scarce(backbone, pixels, bfloat16):
        if len(pixels) > 2:
            raise torch.OutOfMemoryError
        return forward(backbone, pixels, bfloat16)

    monkeypatch.setattr(module, "forward", scarce)
    np.testing.assert_allclose(ask(backbone, crops).p, plenty, atol=1e-6)
    monkeypatch.setattr(module, "forward", lambda *a: (_ for _ in ()).throw(torch.OutOfMemoryError()))
    with pytest.raises(torch.OutOfMemoryError):
        ask(backbone, crops)
