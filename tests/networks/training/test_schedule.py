"""The learning rate from step to step."""

from __future__ import annotations

import pytest

from benchmark.networks.settings import TrainingSettings
from benchmark.networks.training.schedule import averaged_from, one_cycle, rate_factor


def factors(per_epoch: int = 10, **settings: object) -> list[float]:
    s = TrainingSettings.model_validate(settings)
    return [rate_factor(s, i, per_epoch) for i in range(s.epochs * per_epoch)]


def test_the_schedule_rises_to_one_and_ends_near_zero():
    found = [one_cycle(i, 100, 0.2) for i in range(100)]
    assert max(found) == 1.0 and found.index(1.0) in (19, 20)
    assert found[0] < 0.1 and found[-1] < 0.01
    assert found[20:] == sorted(found[20:], reverse=True)
    assert factors(epochs=10) == found


def test_a_constant_rate_is_one_after_its_warm_up():
    assert factors(epochs=2, schedule="constant", warmup=0) == [1.0] * 20
    assert factors(epochs=2, schedule="constant", warmup=0.2)[:5] == [0.25, 0.5, 0.75, 1.0, 1.0]


def test_snapshots_start_anew_in_each_cycle():
    found = factors(epochs=4, snapshots=2)
    assert found[:20] == found[20:] and found[19] < 0.05


def test_the_rate_stays_where_weights_are_averaged():
    s = TrainingSettings(epochs=8, average="swa")
    found = factors(epochs=8, average="swa")
    assert averaged_from(s) == 6 and len(set(found[60:])) == 1
    assert found[:61] == factors(epochs=8)[:61] and found[-1] > 0.05
    assert averaged_from(TrainingSettings(epochs=1, average="swa")) == 0


@pytest.mark.parametrize("epochs", [1, 2, 7])
def test_no_step_has_a_rate_of_nothing_or_above_the_peak(epochs):
    assert all(0 < f <= 1 for f in factors(3, epochs=epochs))
