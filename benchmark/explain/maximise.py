"""What a filter responds to most: activation maximisation (Erhan et al. 2009)."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn
from torchvision.transforms.v2.functional import gaussian_blur

from benchmark.base.errors import MorphobenchError
from benchmark.explain.saliency import Halves, replaced, undisturbed
from benchmark.explain.settings import MaximiseSettings
from benchmark.networks.weights.weights import Backbone

#: Gradient that an activation passes besides its own, so that a filter that is silent on noise can be woken.
LEAK = 0.1


class _Awake(nn.Module):
    """An activation with its own values and a gradient that is nowhere zero."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, inputs: Tensor) -> Tensor:
        """The activation's own values; `LEAK` is added to its gradient."""
        small = LEAK * inputs
        return self.function(inputs) + (small - small.detach())


def feature_map(model: nn.Module, inputs: Tensor, layer: str) -> tuple[Tensor, Tensor]:
    """Output (N, F, h, w) of a layer, and the scores (N, K).

    Parameters
    ----------
    layer : str
        Name of a module; '' is the last feature map, which is pooled.

    Raises
    ------
    MorphobenchError
        There is no such layer, or it gives no feature map.
    """
    halves = None if layer else Halves(model)
    try:
        module = halves.map if halves else model.get_submodule(layer)
    except AttributeError as error:
        raise MorphobenchError(f"has no layer {layer!r}", type(model).__name__,
                               "See the names in model.named_modules().") from error
    caught: list[Tensor] = []
    # A copy: activations that follow in place would change what was caught.
    hook = module.register_forward_hook(lambda _module, _inputs, output: caught.append(output.clone()))
    try:
        scores = (halves or model)(inputs)
    finally:
        hook.remove()
    if len(caught) != 1 or caught[0].ndim != 4:
        raise MorphobenchError("gives no feature map (N, filters, height, width)", f"layer {layer!r}")
    return caught[0], cast(Tensor, scores)


def strongest_filters(model: nn.Module, inputs: Tensor, target: Tensor, number: int) -> np.ndarray:
    """Filters of the last feature map that say most for the classes of some crops.

    A filter's contribution to a score is its Grad-CAM term: mean gradient times mean activation. Classes take turns:
    each adds the filter with the largest mean contribution over its crops that has not been taken yet.

    Parameters
    ----------
    inputs : Tensor
        (N, C, H, W), normalised.
    target : Tensor
        (N,) int64, the class of each crop.

    Returns
    -------
    ndarray of int64, shape (number,)
        In the order in which they were taken; fewer where the map has fewer.
    """
    halves = Halves(model)
    terms = []
    with undisturbed(model):
        for part, classes in zip(inputs.split(16), target.split(16), strict=True):
            caught: list[Tensor] = []
            hook = halves.map.register_forward_hook(lambda _m, _i, output, into=caught: into.append(output))
            try:
                scores = halves(part.detach().clone().requires_grad_())
            finally:
                hook.remove()
            total = scores.gather(1, classes[:, None].to(scores.device)).sum()
            (gradient,) = torch.autograd.grad(total, caught[0])
            terms.append((gradient.mean((2, 3)) * caught[0].detach().mean((2, 3))).cpu())
    contribution, classes = torch.cat(terms).numpy(), target.cpu().numpy()
    ranks = [np.argsort(-contribution[classes == k].mean(axis=0), kind="stable") for k in np.unique(classes)]
    chosen: list[int] = []
    for turn in range(min(number, contribution.shape[1])):
        ranking = ranks[turn % len(ranks)]
        chosen.append(int(next(f for f in ranking if f not in chosen)))
    return np.array(chosen, np.int64)


def maximise(backbone: Backbone, filters: np.ndarray, channels: int, size: int, seed: int,
             settings: MaximiseSettings | None = None, layer: str = "") -> np.ndarray:
    """Pictures that activate filters most, by gradient ascent from weak noise around mid-grey.

    What is maximised is the mean of a filter's map. Every filter starts from the same noise, so that its picture
    depends on seed and filter alone, and those of two networks can be compared. Where rectifiers
    would pass no gradient they pass a tenth of it (their values are exact).

    Parameters
    ----------
    backbone : Backbone
        Left as it is.
    filters : ndarray of int
        Numbers of filters of ``layer``.
    channels, size : int
        Of the pictures.
    layer : str
        See `feature_map`.

    Returns
    -------
    ndarray of float32, shape (filters, channels, size, size)
        In 0…1 of full scale.

    Raises
    ------
    MorphobenchError
        The layer or a filter does not exist.
    """
    settings = settings or MaximiseSettings()
    model = replaced(backbone.model, {nn.ReLU: lambda: _Awake(nn.functional.relu),
                                      nn.ReLU6: lambda: _Awake(nn.functional.relu6)})
    device = next(model.parameters()).device
    mean, std = (v.to(device).view(1, -1, 1, 1) for v in (backbone.mean, backbone.std))
    generator = torch.Generator().manual_seed(seed)
    noise = 0.1 * torch.randn((1, channels, size, size), generator=generator)
    number = torch.from_numpy(np.asarray(filters, np.int64)).to(device)
    with undisturbed(model):
        hidden = noise.repeat(len(filters), 1, 1, 1).to(device).requires_grad_()
        optimizer = torch.optim.Adam([hidden], lr=settings.rate)
        for step in range(settings.steps):
            roll = torch.randint(-settings.jitter, settings.jitter + 1, (2,), generator=generator).tolist()
            pixels = hidden.roll(roll, (2, 3)).sigmoid()
            maps, _ = feature_map(model, (pixels - mean) / std, layer)
            if int(number.min()) < 0 or int(number.max()) >= maps.shape[1]:
                raise MorphobenchError(f"has {maps.shape[1]} filters, numbered from 0; filter {int(number.max())} is "
                                       "none of them", f"layer {layer or 'of the last feature map'}")
            strength = maps.mean((2, 3)).gather(1, number[:, None]).sum()
            loss = settings.decay * hidden.square().mean((1, 2, 3)).sum() - strength
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            if settings.blur and step % 4 == 3:
                with torch.no_grad():
                    hidden.copy_(gaussian_blur(hidden, [5, 5], [settings.blur] * 2))
        return cast(np.ndarray, hidden.detach().sigmoid().float().cpu().numpy())
