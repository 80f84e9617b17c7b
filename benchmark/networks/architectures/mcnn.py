"""``mcnn``: the multi-scale CNN of Godinez et al. 2017, trained from scratch on whole fields.

See `benchmark.networks.architectures.layers.multiscale`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmark.networks.architectures.registry import Architecture, own_features, register

if TYPE_CHECKING:
    from torch import nn

    from benchmark.networks.settings import NetworkSettings


def _build(settings: NetworkSettings, channels: int, classes: int, within: nn.Module | None) -> nn.Module:
    from benchmark.networks.architectures.layers.multiscale import MultiScaleCNN

    return MultiScaleCNN(channels, classes)


register(Architecture(
    "mcnn",
    _build,
    timm_name=lambda settings: None,
    summary=lambda settings: "the multi-scale CNN of Godinez et al. 2017",
    pretrained=False,
    dropout=False,
    features=own_features,
    unsuited=("grad_cam", "guided_backpropagation"),
))
