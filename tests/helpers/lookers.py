"""Tiny networks in two halves, as timm's are, whose reasons are known."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Looker(nn.Module):
    """Scores class 1 by one channel inside one quadrant, and class 0 by nothing."""

    def __init__(self, channel: int = 1, channels: int = 3, activation: type[nn.Module] = nn.ReLU) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, 2, 1)
        self.act = activation()
        self.fc = nn.Linear(2, 2)
        with torch.no_grad():
            self.conv.weight.zero_()
            self.conv.weight[0, channel] = 1.0
            self.conv.bias.zero_()
            self.fc.weight.copy_(torch.tensor([[0.0, 0.0], [8.0, 0.0]]))
            self.fc.bias.zero_()

    def forward_features(self, x: Tensor) -> Tensor:
        side = x.shape[-1] // 2
        mask = torch.zeros_like(x[:1, :1])
        mask[..., :side, side:] = 1  # top right
        return self.act(self.conv(x)) * mask

    def forward_head(self, x: Tensor) -> Tensor:
        return self.fc(x.mean((2, 3)))

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(x))


class Functional(Looker):
    """The same with a ReLU that is no module."""

    def forward_features(self, x: Tensor) -> Tensor:
        return nn.functional.relu(super().forward_features(x))


class Convolutions(nn.Module):
    """A small network with batch normalisation, dropout and activations in place."""

    def __init__(self, activation: type[nn.Module] = nn.ReLU) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), activation(inplace=True),
            nn.Conv2d(8, 12, 3, stride=2, padding=1), nn.BatchNorm2d(12), activation(inplace=True),
        )
        self.drop = nn.Dropout(0.5)
        self.fc = nn.Linear(12, 3)

    def forward_features(self, x: Tensor) -> Tensor:
        return self.body(x)

    def forward_head(self, x: Tensor) -> Tensor:
        return self.fc(self.drop(x.mean((2, 3))))

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(x))


def convolutions(seed: int = 0, activation: type[nn.Module] = nn.ReLU) -> Convolutions:
    """The same network for the same seed."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Convolutions(activation)
