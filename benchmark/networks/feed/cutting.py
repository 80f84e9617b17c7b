"""A network cut in two where learning begins: what is frozen, and what is learnt above it."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import Tensor, nn

from benchmark.networks.training.learn import learnt
from benchmark.networks.weights.weights import Backbone


@dataclass(frozen=True)
class Cut:
    """A network cut at its freezing point.

    Attributes
    ----------
    below : callable
        Normalised pixels (N, C, S, S) to the activations at the freezing point.
    above : Backbone
        What takes these activations to the scores. Its tensors are those of the whole network, so that training one
        trains the other. It has no mean and deviation: activations are not normalised.
    name : str
        Of the module that the activations go into.
    """

    below: Callable[[Tensor], Tensor]
    above: Backbone
    name: str


class _Reached(Exception):
    """The freezing point; never seen outside."""


def cut(backbone: Backbone, learn: str, shape: tuple[int, int, int]) -> Cut | None:
    """Cut a network where `benchmark.networks.training.learn.learnt` says that learning begins.

    Modules that have run when the first learnt one starts are replaced by the identity in the part above. That is
    right for networks that are a sequence of modules; whether it is right for this one is tried.

    Parameters
    ----------
    shape : (int, int, int)
        Channels, height and width of the crops.

    Returns
    -------
    Cut or None
        None where nothing is frozen, or the network cannot be cut so.
    """
    model = backbone.model
    names = learnt(model, learn)
    if len(names) == sum(1 for _ in model.parameters()):
        return None
    trial = torch.rand(2, *shape, generator=torch.Generator().manual_seed(0)).to(next(model.parameters()).device)
    trial = trial.contiguous(memory_format=torch.channels_last)
    training = [(m, m.training) for m in model.modules()]
    model.eval()
    try:
        return _tried(backbone, names, trial)
    finally:
        for module, mode in training:
            module.training = mode


@torch.no_grad()
def _tried(backbone: Backbone, names: set[str], trial: Tensor) -> Cut | None:
    """The cut, if both halves one after the other give what the whole network gives."""
    model = backbone.model
    point, done = _order(model, names, trial)
    if point is None:
        return None
    above = _above(model, point, done)
    below = _below(model, point)
    try:
        same = torch.allclose(above(below(trial)), model(trial), rtol=1e-4, atol=1e-4)
    except Exception:  # whatever a network says of an input that is not its own: it cannot be cut
        return None
    empty = torch.zeros(0, device=trial.device)
    return Cut(below, replace(backbone, model=above, mean=empty, std=empty), point) if same else None


def _order(model: nn.Module, names: set[str], trial: Tensor) -> tuple[str | None, list[str]]:
    """The first module that starts and is learnt as a whole, and the modules that have run by then."""
    started: list[str] = []
    ended: list[str] = []
    whole = {name for name, module in model.named_modules()
             if (own := [f"{name}.{p}" for p, _ in module.named_parameters()]) and set(own) <= names}
    handles = []
    for name, module in model.named_modules():
        if name:
            handles.append(module.register_forward_pre_hook(lambda *_, n=name: started.append(n)))
            handles.append(module.register_forward_hook(
                lambda *_, n=name: ended.append(n) if not any(s in whole for s in started) else None))
    try:
        model(trial)
    finally:
        for handle in handles:
            handle.remove()
    return next((n for n in started if n in whole), None), ended


def _above(model: nn.Module, point: str, done: list[str]) -> nn.Module:
    """The modules from the freezing point on, sharing their tensors with the model."""
    classifier = cast(nn.Module, cast(Any, model).get_classifier())
    if model.get_submodule(point) is classifier and not isinstance(classifier, nn.Identity):
        # What comes before a lone classifier in timm's networks is dropout, by function or module.
        return nn.Sequential(nn.Dropout(float(getattr(model, "drop_rate", 0.0))), classifier)
    shared = {id(t): t for t in (*model.parameters(), *model.buffers())}
    above = copy.deepcopy(model, shared)
    for name in done:
        if point.startswith(f"{name}.") or any(name.startswith(f"{other}.") for other in done):
            continue  # an ancestor; or within one that is removed as a whole
        parent, _, own = name.rpartition(".")
        setattr(above.get_submodule(parent), own, nn.Identity())
    return above


def _below(model: nn.Module, point: str) -> Callable[[Tensor], Tensor]:
    """The input of the module at the freezing point; nothing behind it is computed."""

    def below(x: Tensor) -> Tensor:
        caught: list[Tensor] = []

        def reached(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            caught.append(inputs[0])
            raise _Reached

        handle = model.get_submodule(point).register_forward_pre_hook(reached)
        try:
            model(x)
        except _Reached:
            return caught[0]
        finally:
            handle.remove()
        raise RuntimeError(f"{point} is not reached")

    return below
