"""What the suite needs to know about an architecture. Reading a study looks here, so nothing here imports PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from torch import Tensor, nn

    from benchmark.networks.settings import NetworkSettings

#: Builds a network from its settings, the number of input channels, the number of classes (0: none) and the timm
#: network inside it, made without a classifier (None where the architecture has none).
Build = Callable[["NetworkSettings", int, int, "nn.Module | None"], "nn.Module"]


def _backbone(settings: NetworkSettings) -> str:
    return settings.backbone


def _nothing(settings: NetworkSettings) -> str:
    return ""


def timm_features(model: nn.Module, inputs: Tensor) -> Tensor:
    """What the classifier of a timm network takes, pooled: (B, C, S, S) to (B, K)."""
    network = cast(Any, model)
    return cast("Tensor", network.forward_head(network.forward_features(inputs), pre_logits=True).flatten(1))


def own_features(model: nn.Module, inputs: Tensor) -> Tensor:
    """The same of a model with a method ``features`` of its own."""
    return cast("Tensor", cast(Any, model).features(inputs))


@dataclass(frozen=True)
class Architecture:
    """An architecture. The defaults are those of timm's networks.

    An architecture of our own is one file that calls `register`; `benchmark.networks.architectures` imports it. The
    model that it builds has ``get_classifier`` and ``pretrained_cfg``, as timm's have: ``input_size``, ``mean`` and
    ``std`` of its inputs in 0…1, and the name of its ``classifier``.

    Attributes
    ----------
    name : str
        What ``network.backbone`` calls it.
    build : callable, optional
        See `Build`; None for timm's networks, which timm builds.
    timm_name : callable
        Settings to the timm network whose pretrained weights are loaded; None where all layers start from random
        numbers.
    settings : tuple of str
        Optional settings of `NetworkSettings` that mean something for this architecture, ``bag`` among them where it
        can be trained on bags of crops. Others are refused.
    faults : callable
        Settings to what is wrong with them, in words; empty where nothing is.
    summary : callable
        Settings to the network in a few words, for records.
    pretrained : bool
        Whether it has features before anything is learnt, so that it can be used frozen.
    dropout : bool
        Whether it has dropout before its classifier.
    features : callable
        A model and its normalised inputs (B, C, S, S) to the (B, K) features that its classifier takes.
    why_no_embeddings : callable
        Settings to why there are no such features, in words; empty where there are.
    unsuited : tuple of str
        Ways of attribution (`benchmark.explain.settings`) that need not suit it.
    presets : mapping
        Name of a preset to the training settings that it has for this architecture.
    """

    name: str
    build: Build | None = None
    timm_name: Callable[[NetworkSettings], str | None] = _backbone
    settings: tuple[str, ...] = ()
    faults: Callable[[NetworkSettings], str] = _nothing
    summary: Callable[[NetworkSettings], str] = _backbone
    pretrained: bool = True
    dropout: bool = True
    features: Callable[[nn.Module, Tensor], Tensor] = timm_features
    why_no_embeddings: Callable[[NetworkSettings], str] = _nothing
    unsuited: tuple[str, ...] = ()
    presets: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def home(self) -> str:
        """The module that registers it, which a worker process imports; empty for timm's networks."""
        return self.build.__module__ if self.build is not None else ""


#: Any network of timm.
TIMM = Architecture("timm")
_registered: dict[str, Architecture] = {}


def register(architecture: Architecture) -> Architecture:
    """Make an architecture known under its name.

    Raises
    ------
    ValueError
        It has no way to be built, or another one has its name.
    """
    if architecture.build is None:
        raise ValueError(f"the architecture {architecture.name} does not say how it is built")
    if architecture.name in _registered:
        raise ValueError(f"there is an architecture {architecture.name} already")
    _registered[architecture.name] = architecture
    return architecture


def architecture_of(backbone: str) -> Architecture:
    """The architecture that a study calls by this name: one of our own, else `TIMM`."""
    return _registered.get(backbone, TIMM)


def names(setting: str = "") -> list[str]:
    """Names of our own architectures, in alphabetical order; of those that have a setting where one is given."""
    return sorted(name for name, one in _registered.items() if not setting or setting in one.settings)
