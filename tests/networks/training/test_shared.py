"""A trunk, and what each fold adds to it."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from stripes import CPU, stripes

from benchmark.networks.feed.source import ArrayCrops
from benchmark.networks.predict import probabilities
from benchmark.networks.settings import NetworkSettings, TrainingSettings
from benchmark.networks.training.checkpoint import Checkpoint
from benchmark.networks.training.inputs import Examples, Recipe, Session
from benchmark.networks.training.shared import loss_weights, own_phase, seen, trunk_phase
from benchmark.networks.training.train import fine_tune

SETTINGS = TrainingSettings(epochs=3, batch=8, learning_rate=1e-3, folds="shared")


@settings(max_examples=40, deadline=None)
@given(labels=st.lists(st.integers(0, 3), min_size=2, max_size=40), seed=st.integers(0, 99), data=st.data())
def test_a_folds_own_training_sees_all_that_is_new_once_and_as_much_of_the_rest(labels, seed, data):
    new = np.array(data.draw(st.lists(st.booleans(), min_size=len(labels), max_size=len(labels))))
    order = seen(torch.tensor(labels), new, torch.Generator().manual_seed(seed)).tolist()
    counts = Counter(order)
    assert {i for i in counts if new[i]} == set(np.flatnonzero(new)) and max(counts.values(), default=1) == 1
    assert sum(not new[i] for i in order) == min(int((~new).sum()), int(new.sum()))


def test_what_is_seen_again_has_each_label_as_often():
    labels = torch.tensor([0] * 900 + [1] * 90 + [2] * 90 + [0] * 60)
    new = np.arange(len(labels)) >= 1080
    again = Counter(labels[[i for s in range(20) for i in
                            seen(labels, new, torch.Generator().manual_seed(s)).tolist() if not new[i]]].tolist())
    assert all(abs(n / (20 * 60) - 1 / 3) < 0.08 for n in again.values())
    weights = loss_weights(labels, 3, new)  # 60 + 20 of the first, 20 of each other
    assert torch.allclose(weights * torch.tensor([80.0, 20.0, 20.0]), torch.full((3,), 40.0))


def test_the_rate_is_held_in_the_trunk_and_falls_in_what_follows():
    trunk, own = trunk_phase(SETTINGS), own_phase({}, np.array([True]))
    rates = [trunk.factor(p, SETTINGS) for p in (0.0, 0.1, 0.2, 0.6, 0.99)]
    assert 0 < rates[0] < rates[1] < 1 and rates[2:] == [1, 1, 1]
    falling = [own.factor(p, SETTINGS) for p in np.linspace(0, 1, 9)]
    assert falling[0] == 1 and falling[-1] == pytest.approx(0) and falling == sorted(falling, reverse=True)


@pytest.mark.parametrize("average", ["none", "ema"])
def test_a_fold_goes_on_from_its_trunk_and_repeats_itself(average):
    torch.set_num_threads(1)
    pixels, targets = stripes(40, np.random.default_rng(0))
    source, how = ArrayCrops(pixels), SETTINGS.model_copy(update={"average": average})
    rows, common = np.arange(32), np.arange(24)

    def tune(part, phase, checkpoint=None):
        return fine_tune(Examples(source, part, targets[part], 2), Recipe(NetworkSettings(), how, 1, phase),
                         Session(CPU, checkpoint))

    trunk = tune(common, trunk_phase(how))
    own = own_phase(trunk.end, rows >= 24)
    first, again = tune(rows, own), tune(rows, own)
    assert trunk.images == 3 * 24 and first.images == 16
    p, q, of_trunk = (probabilities(t.backbone, source, np.arange(32, 40), CPU) for t in (first, again, trunk))
    assert np.array_equal(p, q) and not np.array_equal(p, of_trunk)


def test_crops_that_neither_may_see_change_nothing():
    torch.set_num_threads(1)
    pixels, targets = stripes(32, np.random.default_rng(1))
    other = pixels.copy()
    other[24:] = 255 - other[24:]
    rows, common, found = np.arange(24), np.arange(16), []
    for p in (pixels, other):
        trunk = fine_tune(Examples(ArrayCrops(p), common, targets[common], 2),
                          Recipe(NetworkSettings(), SETTINGS, 0, trunk_phase(SETTINGS)), Session(CPU))
        own = fine_tune(Examples(ArrayCrops(p), rows, targets[rows], 2),
                        Recipe(NetworkSettings(), SETTINGS, 0, own_phase(trunk.end, rows >= 16)), Session(CPU))
        found.append(own.backbone.model.state_dict())
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])


def test_a_trunks_end_survives_a_file(tmp_path):
    torch.set_num_threads(1)
    pixels, targets = stripes(16, np.random.default_rng(2))
    rows, new = np.arange(16), np.arange(16) >= 8
    quick = SETTINGS.model_copy(update={"epochs": 1, "average": "ema"})
    trunk = fine_tune(Examples(ArrayCrops(pixels), rows[:8], targets[:8], 2),
                      Recipe(NetworkSettings(), quick, 0, trunk_phase(quick)), Session(CPU))
    Checkpoint(tmp_path / "t.trunk", "k").save(trunk.end)
    read = Checkpoint(tmp_path / "t.trunk", "k").load(CPU)
    assert read is not None
    p = [probabilities(fine_tune(Examples(ArrayCrops(pixels), rows, targets, 2),
                                 Recipe(NetworkSettings(), quick, 0, own_phase(end, new)),
                                 Session(CPU)).backbone, ArrayCrops(pixels), rows, CPU)
         for end in (trunk.end, read)]
    assert np.array_equal(*p)


@pytest.mark.parametrize("wrong", [{"learn": "head"}, {"schedule": "constant"}, {"snapshots": 3}, {"average": "swa"},
                                   {"early_stopping": 2}])
def test_what_cannot_be_shared_is_refused(wrong):
    from benchmark.networks.training.presets import resolved

    with pytest.raises(ValueError, match="folds: shared"):
        resolved(TrainingSettings(folds="shared", epochs=6, **wrong), "tf_efficientnet_lite0")


def test_keys_of_runs_before_folds_could_be_shared_stay_theirs():
    assert "folds" not in TrainingSettings().model_dump(mode="json")
    assert TrainingSettings(folds="shared").model_dump(mode="json")["folds"] == "shared"
