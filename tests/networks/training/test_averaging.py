"""Averages of weights, and statistics of batch normalisation taken anew."""

from __future__ import annotations

import torch
from torch import nn

from benchmark.networks.settings import TrainingSettings
from benchmark.networks.training.averaging import averaged_model, recalibrate


def walk(kind: str, values: list[float], **settings: float) -> float:
    """The average of a weight that takes these values one after the other."""
    model = nn.Linear(1, 1, bias=False)
    averaged = averaged_model(model, TrainingSettings.model_validate({"average": kind, **settings}))
    for value in values:
        nn.init.constant_(model.weight, value)
        averaged.update_parameters(model)
    return float(averaged.module.weight.detach())


def test_swa_is_the_plain_mean_and_ema_forgets():
    assert averaged_model(nn.Linear(1, 1), TrainingSettings()) is None
    assert abs(walk("swa", [1, 2, 6]) - 3) < 1e-6
    first, second = 1 - 2 / 11, 1 - 3 / 12  # shares of the second and third value while the average is young
    assert abs(walk("ema", [1, 2, 6]) - ((1 + first) * (1 - second) + 6 * second)) < 1e-6
    assert abs(walk("ema", [0, 1], ema_decay=0.1) - 0.9) < 1e-6


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.BatchNorm2d(2), nn.BatchNorm2d(2)
        self.drop = nn.Dropout(0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.drop(self.second(self.first(x) * 3 + 1))


def test_statistics_are_the_mean_over_batches_and_nothing_else_changes():
    net, batches = Net(), [torch.randn(8, 2, 5, 5) * (i + 1) + i for i in range(3)]
    momentum, weights = net.first.momentum, [p.clone() for p in net.parameters()]
    recalibrate(net, batches, net)
    assert torch.allclose(net.first.running_mean, torch.stack([b.mean((0, 2, 3)) for b in batches]).mean(0), atol=1e-5)
    assert torch.allclose(net.first.running_var, torch.stack([b.var((0, 2, 3)) for b in batches]).mean(0), rtol=1e-4)
    assert net.first.momentum == momentum and not net.training and not net.first.training
    assert all(torch.equal(a, b) for a, b in zip(weights, net.parameters(), strict=True))
    assert torch.allclose(net.second.running_mean, torch.ones(2), atol=1e-4)  # without dropout


def test_frozen_layers_keep_their_statistics():
    net = Net()
    for p in net.first.parameters():
        p.requires_grad_(False)
    recalibrate(net, [torch.randn(8, 2, 5, 5) + 4], net)
    assert torch.equal(net.first.running_mean, torch.zeros(2))
    assert not torch.equal(net.second.running_mean, torch.zeros(2))


def test_a_network_without_batch_normalisation_is_left_alone():
    net = nn.Linear(2, 2)
    recalibrate(net, iter([]), net)
    assert not net.training
