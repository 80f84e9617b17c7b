"""Which part of a network is trained, and at which rates. Layers and stages are those that timm defines."""

from __future__ import annotations

import re
from typing import Any

from timm.models import group_parameters
from timm.optim import param_groups_layer_decay
from torch import Tensor, nn

from benchmark.base.errors import MorphobenchError
from benchmark.networks.settings import TrainingSettings


def stages(model: nn.Module) -> dict[str, tuple[str, ...]]:
    """timm's coarse groups of a model's parameters, from input to output, each with the name of its first module.

    ``conv1, layer1, …, layer4, fc`` for ResNet50; ``conv_stem, blocks.0, …, blocks.6, classifier`` for EfficientNets;
    ``blocks.0 …`` for vision transformers.

    Returns
    -------
    dict
        Stage to the names of its parameters.
    """
    matcher = getattr(model, "group_matcher", None)
    if matcher is None:
        raise MorphobenchError("timm does not say which stages this backbone has", "training.learn",
                               "Use scratch, frozen or full.")
    groups: dict[int, list[str]] = group_parameters(model, matcher(coarse=True))
    names = [tuple(groups[i]) for i in sorted(groups)]
    return {_first_module(group, [n for other in names if other is not group for n in other]): group for group in names}


def _first_module(group: tuple[str, ...], others: list[str]) -> str:
    """The outermost module of a group's first parameter that holds none of other groups."""
    parts = group[0].split(".")
    for depth in range(1, len(parts) + 1):
        name = ".".join(parts[:depth])
        if not any(other.startswith(f"{name}.") for other in others):
            return name
    return group[0]


def _listed(names: list[str]) -> str:
    """Names for an error, ``blocks.0, blocks.1, blocks.2`` as ``blocks.0 to blocks.2``."""
    runs: list[list[str]] = []
    for name in names:
        stem = re.sub(r"\.\d+$", "", name)
        if runs and stem != name and re.sub(r"\.\d+$", "", runs[-1][-1]) == stem and runs[-1][-1] != stem:
            runs[-1].append(name)
        else:
            runs.append([name])
    return ", ".join(run[0] if len(run) == 1 else f"{run[0]} to {run[-1]}" for run in runs)


def learnt(model: nn.Module, learn: str) -> set[str]:
    """Names of the parameters that are learnt.

    Parameters
    ----------
    learn : str
        As in `TrainingSettings`. ``head``: what follows the last module of timm's ``feature_info``, among it the
        classifier. ``from:STAGE``: one of `stages`, or the front part of several names (``blocks``, ``repeat_1``),
        which means the first stage that it matches.

    Raises
    ------
    MorphobenchError
        There is no such stage; those that there are are listed.
    """
    everything = [name for name, _ in model.named_parameters()]
    classifier = _classifier(model)
    if learn in ("scratch", "full"):
        return set(everything)
    if learn == "frozen":
        return classifier
    if learn == "head":
        if not hasattr(model, "feature_info"):
            raise MorphobenchError("this network has no stages to stop at", "training.learn", "Use scratch or full.")
        last = model.feature_info[-1]["module"]  # type: ignore[index]
        within = [i for i, name in enumerate(everything) if name.startswith(f"{last}.")]
        return classifier | set(everything[within[-1] + 1 :] if within else ())
    groups, wanted = stages(model), learn.removeprefix("from:")
    for i, name in enumerate(groups):
        if name == wanted or name.startswith(f"{wanted}."):
            return {parameter for group in list(groups.values())[i:] for parameter in group}
    raise MorphobenchError(f"the backbone has no stage {wanted!r}", "training.learn",
                           f"There are, from input to output: {_listed(list(groups))}.")


def freeze(model: nn.Module, learn: str) -> None:
    """Let gradients reach only what is learnt."""
    names = learnt(model, learn)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in names)


def train_mode(model: nn.Module) -> None:
    """Training mode for what is learnt; frozen layers in evaluation mode: their batch norm keeps its statistics."""
    model.train()
    for module in model.modules():
        own = list(module.parameters())
        if own and not any(p.requires_grad for p in own):
            module.eval()


def parameter_groups(model: nn.Module, settings: TrainingSettings) -> list[dict[str, Any]]:
    """Learnt parameters by their peak rate and weight decay.

    The classifier has ``head_rate``; biases and normalisation have no weight decay; with ``layer_decay`` each of timm's
    layers has its own rate (Howard & Ruder 2018; Bao et al. 2022, as `timm.optim.param_groups_layer_decay` does it).
    """
    head = {id(p) for p in _module(model).parameters()}
    scales = {id(p): 1.0 for p in model.parameters()}
    if settings.layer_decay < 1:
        for group in param_groups_layer_decay(model, layer_decay=settings.layer_decay):
            scales |= {id(p): group["lr_scale"] for p in group["params"]}
    groups: dict[tuple[float, bool], list[Tensor]] = {}
    for parameter in model.parameters():
        if parameter.requires_grad:
            scale = scales[id(parameter)] * (settings.head_rate if id(parameter) in head else 1)
            groups.setdefault((scale, parameter.ndim > 1), []).append(parameter)
    return [
        {"params": parameters, "peak": settings.learning_rate * scale,
         "weight_decay": settings.weight_decay if decays else 0.0}
        for (scale, decays), parameters in groups.items()
    ]


def _module(model: nn.Module) -> nn.Module:
    return model.get_classifier()  # type: ignore[operator]


def _classifier(model: nn.Module) -> set[str]:
    """Names of the classifier's parameters."""
    head = {id(p) for p in _module(model).parameters()}
    return {name for name, parameter in model.named_parameters() if id(parameter) in head}
