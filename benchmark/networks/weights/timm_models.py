"""timm's networks: made by name, for any number of channels and, where they can, for any crop size."""

from __future__ import annotations

from typing import Any, cast

import timm
import torch
from torch import Tensor, nn

from benchmark.base.errors import MorphobenchError


def create(name: str, channels: int, classes: int | None = None, pretrained: bool = False,
           dropout: float = 0.0) -> nn.Module:
    """A timm network.

    Networks that timm ties to one input size (vision transformers) are made with ``dynamic_img_size`` where they take
    it: their position embeddings keep the shape of the weights and are resampled to the grid of each input, so any
    size works that is a multiple of the patch. Those that do not raise an error when they are given another size.

    Parameters
    ----------
    name : str
        As timm knows it.
    channels : int
        Planes of the input.
    classes : int, optional
        Outputs; 0 leaves the classifier out; None keeps the number of the weights.
    dropout : float
        Before the classifier; 0 leaves what the network's maker set.

    Raises
    ------
    MorphobenchError
        timm has no network of that name.
    """
    if not timm.is_model(name):
        close = ", ".join(timm.list_models(f"*{name.split('.')[0][:8]}*")[:6]) or "see timm.list_models()"
        raise MorphobenchError(f"timm has no backbone {name!r}", "network.backbone", f"Close names: {close}.")
    settings: dict[str, Any] = {"pretrained": pretrained, "in_chans": channels}
    if classes is not None:
        settings["num_classes"] = classes
    if dropout:
        settings["drop_rate"] = dropout
    known = timm.get_pretrained_cfg(name)
    if not (known and known.fixed_input_size):
        return timm.create_model(name, **settings)
    try:
        model = timm.create_model(name, dynamic_img_size=True, **settings)
    except TypeError:  # timm has no list of the networks that take it
        model = timm.create_model(name, **settings)
    return _naming_its_size(model, name)


def _naming_its_size(model: nn.Module, name: str) -> nn.Module:
    """The same model, whose failure at another crop size than its own says so."""
    inner, own = cast(Any, model).forward_features, config(model)["input_size"][-1]

    def forward_features(x: Tensor, *args: Any, **named: Any) -> Any:
        try:
            return inner(x, *args, **named)
        except (AssertionError, RuntimeError) as error:
            if isinstance(error, torch.OutOfMemoryError) or tuple(x.shape[-2:]) == (own, own):
                raise
            first = (str(error).splitlines() or [type(error).__name__])[0]
            raise MorphobenchError(f"cannot take crops of {x.shape[-1]} px ({first})", f"network {name}",
                                   f"Its own size is {own} px: set crops.size to that, or to a multiple of its patch, "
                                   "or take another network.") from error

    cast(Any, model).forward_features = forward_features
    return model


def config(model: nn.Module) -> dict[str, Any]:
    """timm's configuration of a model's weights: input size, normalisation, names of its ends."""
    return cast("dict[str, Any]", model.pretrained_cfg)


def names_of(value: str | list[str] | tuple[str, ...] | None) -> tuple[str, ...]:
    """One name, several, or none, as timm's configurations give the ends of a network."""
    return () if value is None else (value,) if isinstance(value, str) else tuple(value)


def is_of_classifier(model: nn.Module, key: str) -> bool:
    """Whether a tensor's name is one of the model's classifier, which is trained from scratch."""
    return key.startswith(tuple(f"{name}." for name in names_of(config(model).get("classifier"))))
