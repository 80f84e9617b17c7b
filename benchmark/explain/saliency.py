"""What in a crop a class score is based on: four ways of attribution, by captum. The model is left as it was.

All of them explain the score of a class before softmax (its logit), in float32, with the model in evaluation mode.
"""

from __future__ import annotations

import copy
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from captum.attr import GuidedBackprop, IntegratedGradients, LayerAttribution, LayerGradCam, Occlusion
from torch import Tensor, nn

from benchmark.base.errors import MorphobenchError
from benchmark.explain.settings import SaliencySettings, Way

#: Nodes of PyTorch's graph that are rectifiers and their kin (relu, elu, gelu, … all hold "elu"); gates are none.
_RECTIFIER = re.compile(r"elu|silu|swish|hardtanh|mish|softplus|logsigmoid", re.IGNORECASE)
#: Share of a channel's pixels that are darker than what counts as its background.
BACKGROUND = 0.05
#: Crops that integrated gradients passes through the network at once.
AT_ONCE = 32


@dataclass(frozen=True)
class Attribution:
    """What each pixel adds to the class score.

    Attributes
    ----------
    maps : ndarray of float32, shape (N, H, W)
        Positive where a pixel speaks for the class; the sum over the channels, where these are told apart.
    channels : ndarray of float32, shape (N, C, H, W), or None
        The same for each channel, where the way of attribution tells them apart.
    gaps : ndarray of float32, shape (N,), or None
        Of integrated gradients: what is missing for completeness.
    """

    maps: np.ndarray
    channels: np.ndarray | None = None
    gaps: np.ndarray | None = None

    @property
    def magnitude(self) -> np.ndarray:
        """(N, H, W) float32 ≥ 0: how much is attributed to a pixel either way, channels not cancelling each other."""
        return np.abs(self.maps) if self.channels is None else np.abs(self.channels).sum(axis=1)


@contextmanager
def undisturbed(model: nn.Module) -> Iterator[None]:
    """Evaluation mode and no gradients of parameters inside the block; the model is then as it was."""
    training = [(module, module.training) for module in model.modules()]
    wanted = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    try:
        model.eval()
        for parameter, _ in wanted:
            parameter.requires_grad_(False)
        with torch.inference_mode(False), torch.enable_grad():
            yield
    finally:
        for module, mode in training:
            module.training = mode
        for parameter, needs in wanted:
            parameter.requires_grad_(needs)


def background(inputs: Tensor) -> Tensor:
    """What each channel of each crop is where there is nothing: its 5th percentile, (N, C, 1, 1).

    Meant for fluorescence, where cells are brighter than the space between them. In a crop that cells fill, it is
    their darkest part.
    """
    return inputs.flatten(2).quantile(BACKGROUND, dim=2)[:, :, None, None]


class Halves(nn.Module):
    """A timm network with its last feature map (N, C, h, w) passing through a module of its own, ``map``.

    Raises
    ------
    MorphobenchError
        When run: the network has no such map, like vision transformers, which score tokens. Most score a class token
        alone, on which the last layer's picture tokens have no influence.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        if not (hasattr(model, "forward_features") and hasattr(model, "forward_head")):
            raise MorphobenchError("has no forward_features and forward_head, so its last feature map is not known",
                                   type(model).__name__, "Use a timm network.")
        self.model: Any = model
        self.map = nn.Identity()
        self.channels_last = str(getattr(model, "output_fmt", "NCHW")) == "NHWC"  # Swin's

    def forward(self, inputs: Tensor) -> Tensor:
        """Scores (N, K) of inputs (N, C, H, W), by way of `map`."""
        features = self.model.forward_features(inputs)
        if features.ndim != 4:
            raise MorphobenchError(f"ends in tokens of the shape {tuple(features.shape[1:])} and not in a feature map",
                                   type(self.model).__name__, "Take integrated gradients or occlusion.")
        if self.channels_last:
            return cast(Tensor, self.model.forward_head(self.map(features.movedim(3, 1)).movedim(1, 3)))
        return cast(Tensor, self.model.forward_head(self.map(features)))


def grad_cam(model: nn.Module, inputs: Tensor, target: Tensor, settings: SaliencySettings) -> Attribution:
    """Grad-CAM (Selvaraju et al. 2017) on the last feature map, the one that is pooled, enlarged bilinearly.

    Its filters are weighted by the mean gradient of the score; only what speaks for the class is kept. With 128 pixels
    and a stride of 32 the map has 4 × 4 values: it shows roughly where, never which organelle.

    Parameters
    ----------
    model : Module
        A timm network with classifier.
    inputs : Tensor
        (N, C, H, W) float32, normalised.
    target : Tensor
        (N,) int64, the class explained of each crop.

    Raises
    ------
    MorphobenchError
        The network has no feature map, see `Halves`.
    """
    halves = Halves(model)
    with undisturbed(model):
        small = LayerGradCam(halves, halves.map).attribute(_leaf(inputs), _classes(target), relu_attributions=True)
        large = LayerAttribution.interpolate(small, tuple(inputs.shape[2:]), "bilinear")
    return Attribution(_array(large[:, 0]))


class _Capped(nn.Module):
    """ReLU6 made of a ReLU, which captum recognises, and a cap."""

    def __init__(self) -> None:
        super().__init__()
        self.relu = nn.ReLU()

    def forward(self, inputs: Tensor) -> Tensor:
        """ReLU, capped at 6."""
        return cast(Tensor, self.relu(inputs)).clamp(max=6)


def replaced(model: nn.Module, kinds: dict[type[nn.Module], Callable[[], nn.Module]]) -> nn.Module:
    """A copy of ``model`` with modules of exactly these kinds replaced, and no activation in place."""
    with torch.inference_mode(False):
        twin = copy.deepcopy(model)
    for parent in list(twin.modules()):
        for name, child in list(parent.named_children()):
            if type(child) in kinds:
                setattr(parent, name, kinds[type(child)]())
            elif getattr(child, "inplace", False) is True:
                child.inplace = False  # type: ignore[assignment]
    return twin


def guided_backpropagation(model: nn.Module, inputs: Tensor, target: Tensor, settings: SaliencySettings) -> Attribution:
    """Guided backpropagation (Springenberg et al. 2015): gradients, of which each rectifier passes the positive part.

    It is defined for ReLU, and captum supports no other. ReLU6 is treated as a ReLU with a cap, on a copy of the
    network. A network with any other rectifier (SiLU, Hardswish, GELU, …), or with a ReLU that is no module of its own,
    is refused: captum would quietly give plain gradients there. Gates (sigmoids of squeeze-and-excitation) pass their
    gradient unchanged.

    Parameters and ``inputs`` as in `grad_cam`.

    Raises
    ------
    MorphobenchError
        The network has a rectifier that cannot be guided.
    """
    twin = replaced(model, {nn.ReLU6: _Capped})
    with undisturbed(twin):
        _refuse_unguided(twin, inputs[:1], type(model).__name__)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Setting backward hooks on ReLU")
            guided = GuidedBackprop(twin).attribute(_leaf(inputs).requires_grad_(), _classes(target))
    return Attribution(_array(guided.sum(1)), _array(guided))


def _refuse_unguided(model: nn.Module, inputs: Tensor, name: str) -> None:
    """Compare the rectifiers in the graph of one crop's scores with the calls of ReLU modules, which are guided."""
    calls = 0

    def count(*_: Any) -> None:
        nonlocal calls
        calls += 1

    hooks = [module.register_forward_hook(count) for module in model.modules() if isinstance(module, nn.ReLU)]
    try:
        scores = model(_leaf(inputs).requires_grad_())
    finally:
        for hook in hooks:
            hook.remove()
    seen, todo, nodes = set(), [scores.grad_fn], []
    while todo:
        node = todo.pop()
        if node is not None and node not in seen:
            seen.add(node)
            nodes.append(node.name())
            todo += [following for following, _ in node.next_functions]
    rectifiers = [node for node in nodes if _RECTIFIER.search(node)]
    others = sorted({re.sub(r"Backward\d*$", "", n) for n in rectifiers if n != "ReluBackward0"})
    if others or len(rectifiers) != calls:
        why = f"it uses {', '.join(others)}" if others else f"{len(rectifiers) - calls} of its ReLUs are no modules"
        raise MorphobenchError("cannot be explained by guided backpropagation, which is defined for ReLU modules: "
                               f"{why}", name,
                               "Take another way of attribution, or a network of ReLUs such as resnet50.")
    if not calls:
        raise MorphobenchError("has no ReLU, so guided backpropagation would be the plain gradient", name,
                               "Take another way of attribution.")


def integrated_gradients(model: nn.Module, inputs: Tensor, target: Tensor, settings: SaliencySettings) -> Attribution:
    """Integrated gradients (Sundararajan et al. 2017) along the straight path from the crop's `background`.

    They should be complete: their sum is the score of the crop less that of the baseline. ``gaps`` holds what is
    missing, as a share of that difference (of 1 where it is smaller: a logit of 1 is little). Crops with a gap above
    ``settings.tolerance`` are computed again with twice the steps, up to ``most_steps``; remaining gaps are in the
    result, for the caller to show.

    Pixels as dark as the baseline get nothing, whatever the network does with them: that something is absent cannot
    be seen in these maps.

    Parameters and ``inputs`` as in `grad_cam`.
    """
    gaps = np.full(len(inputs), np.inf, np.float32)
    with undisturbed(model):
        integrated, base = torch.zeros_like(inputs), background(inputs)
        explained = IntegratedGradients(model)
        steps = settings.steps
        while True:
            # Whatever is not complete yet. A gap that is not a number stays, and is shown.
            todo = torch.from_numpy(np.flatnonzero(~(gaps <= settings.tolerance)))
            if not len(todo):
                break
            part, start, classes = _leaf(inputs)[todo], base[todo].expand_as(inputs[todo]), _classes(target)[todo]
            values = explained.attribute(part, start, classes, n_steps=steps,
                                         internal_batch_size=max(AT_ONCE, len(part)))
            with torch.no_grad():
                difference = (_score(model, part, classes) - _score(model, start, classes)).double()
                missing = (values.double().sum((1, 2, 3)) - difference).abs() / difference.abs().clamp(min=1)
            integrated[todo] = values.to(integrated)
            gaps[todo.numpy()] = missing.cpu().numpy()
            if 2 * steps > settings.most_steps:
                break
            steps *= 2
    return Attribution(_array(integrated.sum(1)), _array(integrated), gaps)


def occlusion(model: nn.Module, inputs: Tensor, target: Tensor, settings: SaliencySettings) -> Attribution:
    """Occlusion (Zeiler & Fergus 2014): how much the score falls when a square is set to the crop's `background`.

    All channels are hidden at once. Where squares overlap, a pixel has the mean of those that hide it. Changes are of
    the picture itself, so no gradient is trusted; a square's edges are new structure, though, which may act too.

    Parameters and ``inputs`` as in `grad_cam`.

    Raises
    ------
    MorphobenchError
        The window is larger than the crop, or the stride than the window (pixels would be left out).
    """
    _, channels, height, width = inputs.shape
    window = settings.window or max(1, min(height, width) // 8)
    stride = settings.stride or max(1, window // 2)
    if window > min(height, width) or stride > window:
        raise MorphobenchError(f"a window of {window} and a stride of {stride} do not suit crops of {width}×{height} "
                               "pixels", "occlusion", "Window ≤ crop and stride ≤ window.")
    base = background(inputs).expand_as(inputs)
    with undisturbed(model), torch.no_grad():
        drops = Occlusion(model).attribute(_leaf(inputs), (channels, window, window), (channels, stride, stride), base,
                                           _classes(target))
    return Attribution(_array(drops[:, 0]))


Attribute = Callable[[nn.Module, Tensor, Tensor, SaliencySettings], Attribution]
WAYS: dict[Way, Attribute] = {
    "grad_cam": grad_cam,
    "guided_backpropagation": guided_backpropagation,
    "integrated_gradients": integrated_gradients,
    "occlusion": occlusion,
}


def attribute(way: Way, model: nn.Module, inputs: Tensor, target: Tensor, settings: SaliencySettings,
              batch: int = 16) -> Attribution:
    """One of `WAYS`, ``batch`` crops at a time.

    Raises
    ------
    MorphobenchError
        It does not suit the network, or gives values that are not finite.
    """
    parts = [WAYS[way](model, some, classes, settings)
             for some, classes in zip(inputs.split(batch), target.split(batch), strict=True)]

    def joined(values: list[np.ndarray | None]) -> np.ndarray | None:
        return None if values[0] is None else np.concatenate(cast("list[np.ndarray]", values))

    maps = np.concatenate([p.maps for p in parts])
    if not np.isfinite(maps).all():
        raise MorphobenchError("gives values that are not finite", way.replace("_", " "))
    return Attribution(maps, joined([p.channels for p in parts]), joined([p.gaps for p in parts]))


def _leaf(inputs: Tensor) -> Tensor:
    """A copy that belongs to no graph and may be asked for gradients."""
    with torch.inference_mode(False):
        return inputs.detach().clone()


def _classes(target: Tensor) -> Tensor:
    return target.detach().clone().long()


def _score(model: nn.Module, inputs: Tensor, target: Tensor) -> Tensor:
    return cast(Tensor, model(inputs)).gather(1, target[:, None])[:, 0]


def _array(values: Tensor) -> np.ndarray:
    return values.detach().float().cpu().numpy()
