"""``mil``: multiple-instance learning on a timm network, with or without bags of crops.

See `benchmark.networks.architectures.layers.instances`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmark.networks.architectures.registry import Architecture, names, own_features, register

if TYPE_CHECKING:
    from torch import nn

    from benchmark.networks.settings import NetworkSettings

POOLING = {"noisy_and": "noisy-AND", "attention": "gated attention", "mean": "mean"}


def _build(settings: NetworkSettings, channels: int, classes: int, within: nn.Module | None) -> nn.Module:
    from benchmark.networks.architectures.layers.instances import MultipleInstances

    assert within is not None
    return MultipleInstances(within, classes, settings.pooling)


def _faults(settings: NetworkSettings) -> str:
    if settings.instances in names():
        return f"instances is a network of timm, and {settings.instances} is none"
    return ""


def _summary(settings: NetworkSettings) -> str:
    over = f"the crops of each {settings.bag}" if settings.bagged else "the positions of its feature map"
    return f"{settings.instances}, {POOLING[settings.pooling]} pooling over {over},"


def _why_no_embeddings(settings: NetworkSettings) -> str:
    if settings.pooling != "noisy_and":
        return ""
    return ("noisy_and pools the scores of each class, so that there are no features to embed by: leave embeddings "
            "out, or use network.pooling: attention or mean")


register(Architecture(
    "mil",
    _build,
    timm_name=lambda settings: settings.instances,
    settings=("instances", "pooling", "bag", "bag_size"),
    faults=_faults,
    summary=_summary,
    pretrained=False,
    dropout=False,
    features=own_features,
    why_no_embeddings=_why_no_embeddings,
    unsuited=("grad_cam", "guided_backpropagation"),
))
