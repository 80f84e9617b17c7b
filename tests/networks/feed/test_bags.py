"""Bags of crops: what is drawn of them, that every crop is looked at, and training and prediction on them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmark.networks.feed.augment import augment, draw
from benchmark.networks.feed.bags import Bags, mean_by_owner
from benchmark.networks.feed.feeding import feed_of
from benchmark.networks.feed.source import ArrayCrops
from benchmark.networks.predict import predict, scores_of
from benchmark.networks.settings import NetworkSettings, TrainingSettings
from benchmark.networks.training import step
from benchmark.networks.training.averaging import RECALIBRATION_CROPS
from benchmark.networks.training.checkpoint import Checkpoint
from benchmark.networks.training.inputs import Examples, Recipe, Session
from benchmark.networks.training.step import forward
from benchmark.networks.training.train import Trained, fine_tune
from benchmark.networks.weights.weights import load_backbone

CPU = torch.device("cpu")
TINY = NetworkSettings(backbone="mil", instances="test_efficientnet", weights="none", bag="field", bag_size=3)
#: Bags of 1 to 7 crops, not in the order of the crops.
SIZES = (2, 5, 1, 7, 3, 4)


def bags(size: int = 3, lengths: tuple[int, ...] = SIZES, pixels: np.ndarray | None = None) -> Bags:
    count = sum(lengths)
    if pixels is None:
        pixels = np.random.default_rng(0).integers(0, 256, (count, 3, 32, 32)).astype(np.uint8)
    order = np.random.default_rng(1).permutation(count)
    return Bags(ArrayCrops(pixels), tuple(np.split(order, np.cumsum(lengths)[:-1])), size)


some = {"lengths": st.lists(st.integers(1, 9), min_size=1, max_size=6), "size": st.integers(1, 5),
        "seed": st.integers(0, 2**31)}


@settings(max_examples=60, deadline=None)
@given(**some)
def test_each_bag_gives_as_many_crops_of_its_own_and_none_twice_before_all_once(lengths, size, seed):
    held = bags(size, tuple(lengths))
    rows = np.random.default_rng(seed).permutation(len(lengths))
    drawn = held.drawn(rows, torch.Generator().manual_seed(seed))
    assert drawn.shape == (len(rows), min(size, max(lengths)))
    assert np.array_equal(drawn, held.drawn(rows, torch.Generator().manual_seed(seed)))
    for row, crops in zip(rows, drawn, strict=True):
        own, often = np.unique(crops, return_counts=True)
        assert set(own) <= set(held.members[row]) and np.ptp(often) <= 1
        assert len(own) == min(len(crops), lengths[row])


@settings(max_examples=60, deadline=None)
@given(**some, most=st.integers(1, 12))
def test_every_crop_of_a_bag_is_looked_at_once_with_its_own(lengths, size, seed, most):
    held = bags(size, tuple(lengths))
    rows = np.random.default_rng(seed).permutation(len(lengths))
    batches, owners = held.parts(rows, most)
    parts = [part for batch in batches for part in batch]
    assert len(parts) == len(owners)
    assert all(batch.size <= max(most, batch.shape[1]) and batch.shape[1] <= size for batch in batches)
    for position, row in enumerate(rows):
        own = [part for part, owner in zip(parts, owners, strict=True) if owner == position]
        assert sorted(np.concatenate(own)) == sorted(held.members[row])
        assert len(own) == -(-lengths[row] // size) and np.ptp([len(part) for part in own]) <= 1


@settings(max_examples=30, deadline=None)
@given(owners=st.lists(st.integers(0, 3), max_size=12), seed=st.integers(0, 2**31))
def test_parts_of_a_bag_count_alike(owners, seed):
    owner = np.array([0, 1, 2, 3, *owners])
    values = np.random.default_rng(seed).random((len(owner), 3))
    wanted = [values[owner == i].mean(axis=0) for i in range(4)]
    np.testing.assert_allclose(mean_by_owner(values, owner), wanted)
    assert mean_by_owner(values, None) is values


def test_an_epoch_draws_anew_and_each_crop_has_its_own_augmentation():
    held, s = bags(), TrainingSettings()
    feed = feed_of(held, load_backbone(TINY, 3, 2), s.learn, CPU)
    generator = torch.Generator().manual_seed(1)
    first, second = (feed.drawn(np.arange(6), generator) for _ in range(2))
    assert not np.array_equal(np.sort(first), np.sort(second))
    draws = draw(s, first.size, 3, generator)
    given_, start = torch.cat(list(feed.training(first, [4, 2], draws, None, generator))), 0
    assert given_.shape == (6, 3, 3, 32, 32)
    for bag, crops in zip(given_, first, strict=True):
        for crop, number in zip(bag, crops, strict=True):
            alone = augment(torch.from_numpy(held.crops.pixels[number : number + 1]), draws.part(start, start + 1))
            assert torch.equal(crop, alone[0])
            start += 1


@pytest.mark.parametrize("pooling", ["noisy_and", "attention", "mean"])
def test_prediction_is_the_mean_over_parts_of_what_the_network_says(pooling):
    network = TINY.model_copy(update={"pooling": pooling})
    held, backbone, s = bags(), load_backbone(network, 3, 4), TrainingSettings()
    rows, wanted = np.array([3, 0, 5, 1]), []
    backbone.model.eval()
    for own in (held.members[row] for row in rows):
        count = -(-len(own) // 3)
        with torch.no_grad():
            each = [forward(backbone, torch.from_numpy(held.crops.pixels[own[i::count]])[None] / 255, False).softmax(1)
                    for i in range(count)]
        wanted.append(torch.cat(each).mean(0).numpy())
    found = predict(backbone, (), held, rows, CPU, s, False, 0)
    assert found.spread is None and np.allclose(found.p, wanted, atol=1e-5)
    logs = torch.from_numpy(scores_of(feed_of(held, backbone, s.learn, CPU), rows, False))
    assert torch.allclose(logs.softmax(1), torch.from_numpy(np.array(wanted)), atol=1e-5)


def test_bags_are_turned_whole_and_passes_over_their_views_have_a_spread():
    held, backbone = bags(), load_backbone(TINY, 3, 4)
    turned = bags(pixels=np.ascontiguousarray(np.rot90(held.crops.pixels, 1, (2, 3))[..., ::-1]))
    plain, views = ([predict(backbone, (), b, np.arange(6), CPU, TrainingSettings(tta=tta), False, 0)
                     for b in (held, turned)] for tta in (False, True))
    assert not np.allclose(plain[0].p, plain[1].p, atol=1e-4)
    np.testing.assert_allclose(views[0].p, views[1].p, atol=1e-6)
    assert views[0].passes == 8 and 0 < views[0].spread < 0.5 and np.allclose(views[0].p.sum(axis=1), 1)


def blinking(n: int, rng: np.random.Generator) -> tuple[Bags, np.ndarray]:
    """Bags of three crops of noise; of class 1 are those of which one has stripes."""
    targets = np.arange(n) % 2
    pixels = rng.normal(100, 12, (n, 3, 3, 40, 40))
    for i in np.flatnonzero(targets):
        pixels[i, rng.integers(3), 1] += 60 * np.sin(2 * np.pi * np.arange(40) / 4)[None, :]
    crops = np.clip(pixels, 0, 255).astype(np.uint8).reshape(n * 3, 3, 40, 40)
    return Bags(ArrayCrops(crops), tuple(np.arange(n * 3).reshape(n, 3)), 3), targets.astype(np.int64)


def test_a_network_learns_which_bags_hold_what_one_of_their_crops_shows():
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    (held, targets), (fresh, truth) = blinking(24, rng), blinking(16, rng)
    network = NetworkSettings(backbone="mil", pooling="attention", bag="field", bag_size=3)
    s = TrainingSettings(epochs=4, batch=6, learning_rate=1e-3, augmentation="none")
    trained = fine_tune(Examples(held, np.arange(24), targets, 2), Recipe(network, s, 1), Session(CPU))
    assert trained.images == 4 * 24 * 3 and trained.losses[-1] < trained.losses[0] / 2
    p = predict(trained.backbone, (), fresh, np.arange(16), CPU, s, False, 1).p
    assert (p.argmax(axis=1) == truth).mean() >= 0.8


ROWS = np.arange(12)


def small(s: TrainingSettings, checkpoint: Checkpoint | None = None, stop_after: int = 99,
          held: Bags | None = None) -> Trained:
    def on_epoch(epoch: int, loss: float) -> None:
        if epoch + 1 == stop_after:
            raise KeyboardInterrupt

    return fine_tune(Examples(held or bags(lengths=SIZES * 2), ROWS, ROWS % 3, 3, ROWS >= 9), Recipe(TINY, s),
                     Session(CPU, checkpoint, on_epoch))


@pytest.mark.parametrize("more", [{"average": "ema"}, {"early_stopping": 3, "recalibrate": True},
                                  {"snapshots": 2, "augmentation": "kensert2019"}, {"learn": "frozen"}])
def test_a_stopped_training_on_bags_comes_to_the_same_to_the_bit(tmp_path, more):
    s = TrainingSettings.model_validate({"epochs": 4, "batch": 4, "learning_rate": 1e-3, **more})
    unbroken, checkpoint = small(s), Checkpoint(tmp_path / "c", "key")
    with pytest.raises(KeyboardInterrupt):
        small(s, checkpoint, 2)
    torch.manual_seed(99)
    resumed = small(s, checkpoint)
    assert resumed.before[0] > 0 and resumed.losses == unbroken.losses and resumed.facts == unbroken.facts
    for name, tensor in unbroken.backbone.model.state_dict().items():
        assert torch.equal(tensor, resumed.backbone.model.state_dict()[name]), name


def test_a_checkpoint_of_other_bags_is_not_gone_on_from(tmp_path):
    s, checkpoint = TrainingSettings(epochs=3, batch=4), Checkpoint(tmp_path / "c", "key")
    with pytest.raises(KeyboardInterrupt):
        small(s, checkpoint, 2)
    other = bags(lengths=SIZES[::-1] * 2)
    assert small(s, checkpoint, held=other).before == (0, 0)


def test_statistics_are_taken_anew_over_so_many_crops_at_most(monkeypatch):
    monkeypatch.setattr("benchmark.networks.training.train.RECALIBRATION_CROPS", 10)
    seen = []
    monkeypatch.setattr("benchmark.networks.training.train.recalibrate",
                        lambda model, batches, run: seen.extend(len(b.flatten(0, 1)) for b in batches))
    small(TrainingSettings(epochs=1, batch=2))
    assert sum(seen) == 9 and RECALIBRATION_CROPS > 10  # three bags of three


def test_bags_that_do_not_fit_in_memory_are_cut_between_bags_and_come_to_the_same(monkeypatch):
    """Layer normalisation sees one crop at a time."""
    network = TINY.model_copy(update={"instances": "test_vit"})
    s, targets = TrainingSettings(epochs=1, batch=8), np.arange(8) % 2
    pixels = np.random.default_rng(0).integers(0, 256, (16, 3, 160, 160)).astype(np.uint8)
    held = bags(2, (2,) * 8, pixels)
    plenty = fine_tune(Examples(held, np.arange(8), targets, 2), Recipe(network, s), Session(CPU))
    sizes = []

    def scarce(backbone, inputs, bfloat16):
        if len(inputs) > 2:
            raise torch.OutOfMemoryError
        sizes.append(inputs.shape[:2])
        return forward(backbone, inputs, bfloat16)

    monkeypatch.setattr(step, "forward", scarce)
    found = fine_tune(Examples(held, np.arange(8), targets, 2), Recipe(network, s), Session(CPU))
    assert sizes == [(2, 2)] * 4 and found.losses == pytest.approx(plenty.losses, rel=1e-4)
    assert "for 8 bags at once" in found.facts["memory"]


def test_what_is_faster_is_tried_on_bags(monkeypatch):
    shapes = []
    monkeypatch.setattr("benchmark.networks.training.train.faster_in_bfloat16",
                        lambda backbone, shape, batch: bool(shapes.append((batch, *shape))))
    small(TrainingSettings(epochs=1, batch=4, bfloat16="auto"))
    assert shapes == [(4, 3, 3, 32, 32)]
