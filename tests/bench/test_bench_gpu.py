"""The GPU's benchmark runs its steps; without a GPU it says so and ends."""

from __future__ import annotations

import pytest
import torch

from benchmark.bench import gpu as bench_gpu
from benchmark.bench.gpu import input_size, measure_speed


def test_both_steps_and_prediction_are_timed_and_really_train(monkeypatch):
    made = []
    monkeypatch.setattr(bench_gpu, "_work", lambda *a, work=bench_gpu._work: made.append(work(*a)) or made[-1])
    cpu = torch.device("cpu")
    speed = measure_speed("test_efficientnet", 32, 4, cpu, augmentation="kensert2019", steps=2, before=1)
    assert speed.bare > 0 and speed.fed > 0 and speed.predicted > 0
    assert speed.share == pytest.approx(speed.fed / speed.bare)
    assert made[0].stepper.optimizer.state_dict()["state"][0]["step"] == 2 * (1 + 3 * 2)


def test_networks_are_timed_at_the_size_of_their_weights():
    assert [input_size(b) for b in bench_gpu.BACKBONES] == [224, 299, 299, 224]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_nothing_is_measured(capsys):
    bench_gpu.main()
    assert "no CUDA GPU" in capsys.readouterr().out
