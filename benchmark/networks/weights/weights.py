"""A network ready for training, and where its weights come from."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from benchmark.base.files import sha256_file
from benchmark.networks.architectures.registry import timm_features
from benchmark.networks.settings import NetworkSettings
from benchmark.networks.weights.channels import adapt_colours
from benchmark.networks.weights.fitting import load
from benchmark.networks.weights.hub import downloaded_state
from benchmark.networks.weights.location import EMBEDDED, RANDOM, SCRATCH, embedded_file, find_file, full_name
from benchmark.networks.weights.statefile import read_state
from benchmark.networks.weights.timm_models import config, create, is_of_classifier

#: The embedded weights were trained on (x - 127) / 128, which timm's own copy rounds to 0.5.
EMBEDDED_MEAN, EMBEDDED_STD = 127 / 255, 128 / 255


@dataclass(frozen=True)
class Backbone:
    """A network ready for training or for features.

    Attributes
    ----------
    model : Module
        In channels-last memory format, on the CPU. It has timm's ``get_classifier`` and ``pretrained_cfg``.
    mean, std : float tensors of shape (C,)
        Normalisation of inputs in 0…1: from the weights' own configuration, or what `NetworkSettings` asks for.
    source : str
        Where the weights came from.
    sha256 : str
        Hash of all loaded tensors but the classifier's; where a timm network is a part of the model, of that part.
    input_size : int
        Side in pixels of what the weights were trained on; for a network without weights, of what it was made for.
    features : callable
        The model and its normalised inputs (B, C, S, S) to the (B, K) features that its classifier takes.
    """

    model: nn.Module
    mean: Tensor
    std: Tensor
    source: str
    sha256: str
    input_size: int
    features: Callable[[nn.Module, Tensor], Tensor] = timm_features


def load_backbone(settings: NetworkSettings, channels: int, classes: int, seed: int = 0,
                  dropout: float = 0.0) -> Backbone:
    """Create a network for ``channels`` input planes whose weights are known to have been loaded.

    With other than 3 channels the first convolution is adapted by `benchmark.networks.weights.channels.colour_shares`,
    wherever the weights come from; a file made for that number of channels is taken as it is.

    Parameters
    ----------
    classes : int
        Outputs of the new classifier; 0 leaves it out, and the model returns pooled features.
    seed : int
        For the classifier's random start, and that of all layers without weights.
    dropout : float
        Share of the features before the classifier that are left out in training; 0 is what the network's maker set.

    Raises
    ------
    MorphobenchError
        The backbone is unknown, its weights cannot be had, or the file does not fit it.
    """
    architecture, name = settings.architecture, settings.timm_name
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        within, source = None, SCRATCH
        if name is not None:
            outputs = classes if architecture.build is None else 0
            within, source = _timm_network(name, settings.weights, channels, outputs, dropout)
        model = within if architecture.build is None else architecture.build(settings, channels, classes, within)
    assert model is not None  # without a builder of its own it is timm's
    mean, std = _normalisation(model, channels, settings)
    sha256 = _state_hash(model if within is None else within)
    return Backbone(model.to(memory_format=torch.channels_last), mean, std, source, sha256,
                    int(config(model)["input_size"][-1]), architecture.features)


def _timm_network(short: str, weights: str, channels: int, classes: int, dropout: float) -> tuple[nn.Module, str]:
    """A timm network with the weights that the settings ask for, and where they came from."""
    name = full_name(short)
    model = create(name, channels, classes, dropout=dropout)
    if weights == "none":
        return model, RANDOM
    if weights != "auto":
        path = find_file(weights, short)
        load(model, read_state(path), str(path))
    elif name == EMBEDDED:
        path = embedded_file()
        load(model, _with_timm_names(read_state(path)), str(path))
    else:
        load(model, downloaded_state(name), f"the download of {name}")
        return model, f"timm {name}"
    return model, f"{path.name} (SHA-256 {sha256_file(path)[:16]})"


def _with_timm_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The embedded weights under timm's names: names differ, but order of creation and shapes are the same."""
    names = list(create(EMBEDDED, 3).state_dict())  # of a whole model, since ours may lack the classifier
    return dict(zip(names, state.values(), strict=True))


def _normalisation(model: nn.Module, channels: int, settings: NetworkSettings) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each channel, for inputs in 0…1."""
    if settings.normalisation == "none":
        return torch.zeros(channels), torch.full((channels,), 1 / 255)
    if settings.weights == "auto" and settings.timm_name == EMBEDDED:
        return torch.full((channels,), EMBEDDED_MEAN), torch.full((channels,), EMBEDDED_STD)
    mean, std = torch.tensor(config(model)["mean"]), torch.tensor(config(model)["std"])
    return adapt_colours(mean, channels), adapt_colours(std, channels)


def _state_hash(model: nn.Module) -> str:
    sha = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        if not is_of_classifier(model, name):
            sha.update(name.encode())
            sha.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return sha.hexdigest()


