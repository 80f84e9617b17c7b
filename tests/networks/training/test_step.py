"""One step: its loss, and what it does where memory does not suffice."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from benchmark.base.errors import MorphobenchError
from benchmark.networks.feed.source import ArrayCrops
from benchmark.networks.settings import NetworkSettings, TrainingSettings
from benchmark.networks.training import step
from benchmark.networks.training.inputs import Examples, Recipe, Session
from benchmark.networks.training.learn import train_mode
from benchmark.networks.training.step import Stepper, class_weights, faster_in_bfloat16, forward, make_optimizer
from benchmark.networks.training.train import fine_tune
from benchmark.networks.weights.weights import load_backbone

CPU = torch.device("cpu")
#: Layer normalisation sees one crop at a time: cut batches must come to the same.
NET = NetworkSettings(backbone="test_vit", weights="none")
SIZE = 160


def stepper(settings: TrainingSettings | None = None, pieces: int = 1) -> Stepper:
    settings = settings or TrainingSettings()
    backbone = load_backbone(NET, 3, 3, 0)
    train_mode(backbone.model)
    return Stepper(backbone, make_optimizer(backbone.model, settings, CPU), torch.tensor([0.5, 1.0, 2.0]), settings,
                   False, pieces)


def batch(n: int = 8) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(n, 3, SIZE, SIZE, generator=generator), torch.arange(n) % 3


def limited(monkeypatch: pytest.MonkeyPatch, most: int) -> list[int]:
    """Make the network run out of memory above so many crops; sizes that went through."""
    sizes: list[int] = []

    def scarce(backbone, pixels, bfloat16):
        if len(pixels) > most:
            raise torch.OutOfMemoryError(f"{len(pixels)} crops")
        sizes.append(len(pixels))
        return forward(backbone, pixels, bfloat16)

    monkeypatch.setattr(step, "forward", scarce)
    return sizes


def test_the_class_weights_balance_and_leave_out_absent_classes():
    weights = class_weights(torch.tensor([0, 0, 0, 2]), 3)
    assert torch.allclose(weights, torch.tensor([4 / 9, 0, 4 / 3]))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_is_pytorchs_weighted_mean(smoothing):
    one, (pixels, goals) = stepper(TrainingSettings(label_smoothing=smoothing)), batch()
    scores = forward(one.backbone, pixels, False).detach()
    loss, right = one(pixels, goals, None, 1.0).tolist()
    assert loss / 8 == pytest.approx(float(cross_entropy(scores, goals, one.weights, label_smoothing=smoothing)),
                                     rel=1e-5)
    assert right == int((scores.argmax(1) == goals).sum())


def test_shares_divide_the_loss_between_a_crop_and_its_partner():
    pixels, goals = batch()
    alone, half, none = (stepper()._gradients(pixels, goals, None if s is None else torch.full((8,), s))[0]
                         for s in (None, 0.5, 1.0))
    assert torch.allclose(alone, none) and not torch.allclose(alone, half)
    other = stepper()._gradients(pixels, goals.flip(0), None)[0]
    assert torch.allclose(stepper()._gradients(pixels, goals, torch.zeros(8))[0], other)


def test_pieces_come_to_the_update_of_the_whole_batch():
    pixels, goals = batch()
    whole, cut = stepper(), stepper(pieces=4)
    found = [s(pixels, goals, None, 1.0) for s in (whole, cut)]
    assert torch.allclose(*found, rtol=1e-4)
    for a, b in zip(whole.backbone.model.parameters(), cut.backbone.model.parameters(), strict=True):
        assert torch.allclose(a.grad, b.grad, atol=1e-5)


def test_a_batch_is_halved_until_it_fits_and_stays_so(monkeypatch):
    sizes = limited(monkeypatch, 3)
    one, (pixels, goals) = stepper(), batch()
    one(pixels, goals, None, 1.0)
    assert one.pieces == 4 and sizes == [2, 2, 2, 2]
    one(pixels, goals, None, 1.0)
    assert sizes == [2] * 8
    one(pixels[:3], goals[:3], None, 1.0)  # never a piece of one crop
    assert sizes[8:] == [3]


def test_where_two_crops_are_too_many_it_is_said(monkeypatch):
    limited(monkeypatch, 1)
    one, (pixels, goals) = stepper(), batch()
    with pytest.raises(MorphobenchError, match="does not suffice to train on 2 crops"):
        one(pixels, goals, None, 1.0)


def test_a_training_short_of_memory_learns_the_same_and_notes_it(monkeypatch):
    pixels = np.random.default_rng(0).integers(0, 256, (16, 3, SIZE, SIZE)).astype(np.uint8)
    settings = TrainingSettings(epochs=1, batch=8)

    def run():
        return fine_tune(Examples(ArrayCrops(pixels), np.arange(16), np.arange(16) % 2, 2), Recipe(NET, settings),
                         Session(CPU))

    plenty = run()
    limited(monkeypatch, 4)
    scarce = run()
    assert scarce.losses == pytest.approx(plenty.losses, rel=1e-4)
    assert "2 pieces of about 4" in scarce.facts["memory"] and "batch normalisation" in scarce.facts["memory"]
    assert "memory" not in plenty.facts


def test_trying_bfloat16_changes_nothing_of_the_network_or_the_draws():
    backbone = load_backbone(NetworkSettings(backbone="test_efficientnet", weights="none"), 3, 3, 0)
    before = {k: v.clone() for k, v in backbone.model.state_dict().items()}
    torch.manual_seed(5)
    assert faster_in_bfloat16(backbone, (3, 32, 32), 4) in (True, False)
    drawn = torch.rand(1)
    torch.manual_seed(5)
    assert torch.equal(drawn, torch.rand(1))
    assert all(torch.equal(v, before[k]) for k, v in backbone.model.state_dict().items())
    assert all(p.grad is None for p in backbone.model.parameters())


def test_auto_takes_what_was_faster_and_notes_it(monkeypatch):
    pixels = np.zeros((4, 3, 32, 32), np.uint8)
    tiny, found = NetworkSettings(backbone="test_efficientnet", weights="none"), []
    for faster in (True, False):
        monkeypatch.setattr("benchmark.networks.training.train.faster_in_bfloat16", lambda *a, faster=faster: faster)
        found.append(fine_tune(Examples(ArrayCrops(pixels), np.arange(4), np.arange(4) % 2, 2),
                               Recipe(tiny, TrainingSettings(epochs=1, batch=4, bfloat16="auto")), Session(CPU)))
    assert [t.bfloat16 for t in found] == [t.facts["bfloat16"] for t in found] == [True, False]


def test_a_compiled_network_is_trained_through_and_the_plain_one_is_kept(monkeypatch):
    """Without the compiler behind it, which takes minutes: that weights are shared and names stay is ours."""
    tiny = NetworkSettings(backbone="test_efficientnet", weights="none")
    pixels = np.random.default_rng(0).integers(0, 256, (8, 3, 32, 32)).astype(np.uint8)
    compiled = torch.compile
    monkeypatch.setattr(torch, "compile", lambda model: compiled(model, backend="eager"))
    both = [TrainingSettings(epochs=1, batch=4, compile=c, graphs=c) for c in (False, True)]
    plain, through = (fine_tune(Examples(ArrayCrops(pixels), np.arange(8), np.arange(8) % 2, 2), Recipe(tiny, s),
                                Session(CPU)) for s in both)
    assert through.losses == pytest.approx(plain.losses, rel=1e-5)
    state = through.backbone.model.state_dict()
    assert state.keys() == plain.backbone.model.state_dict().keys()
    assert torch.allclose(state["classifier.weight"], plain.backbone.model.state_dict()["classifier.weight"], atol=1e-5)
