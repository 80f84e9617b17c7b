"""Whether saliency maps depend on what the network has learnt: Adebayo et al. 2018, Sanity checks for saliency maps."""

from __future__ import annotations

import copy
import math
from typing import cast

import numpy as np
import pandas as pd
import torch
from scipy.stats import spearmanr
from skimage.metrics import structural_similarity
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from benchmark.explain.saliency import Attribution, SaliencySettings, Way, attribute, undisturbed

#: How far down from the classifier weights are randomised.
DEPTHS = ("classifier", "upper half", "all")
RANDOMISED = {"classifier": "only the classifier", "upper half": "the upper half of the layers", "all": "all layers"}
#: Mean rank correlation with the maps of a randomised network at which a way of attribution fails.
ALIKE = 0.5


def randomised(model: nn.Module, depth: str, inputs: Tensor, seed: int) -> nn.Module:
    """A copy of ``model`` whose layers are randomised, from the classifier down to ``depth``.

    Weights of convolutions and linear layers are drawn by He's rule (2015), biases are 0, normalisation is reset.
    Batch normalisation then takes its means and variances from ``inputs``: with those of the trained network, or with
    none, signals vanish or explode through many layers, and maps would differ for that reason alone.

    Parameters
    ----------
    depth : str
        One of `DEPTHS`. Layers are counted from the end, in the order in which the network was built.
    inputs : Tensor
        (N, C, H, W), normalised, on the model's device; N ≥ 2.
    """
    with torch.inference_mode(False):
        twin = copy.deepcopy(model)
    layers = [m for m in twin.modules() if next(m.parameters(recurse=False), None) is not None]
    drawn = layers[-{"classifier": 1, "upper half": math.ceil(len(layers) / 2), "all": len(layers)}[depth]:]
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for layer in drawn:
            _draw(layer, generator)
    norms = [(layer, layer.momentum) for layer in drawn if isinstance(layer, _BatchNorm) and layer.track_running_stats]
    if norms:
        with undisturbed(twin), torch.no_grad():
            for norm, _ in norms:
                norm.momentum = None  # the plain mean over what it sees
                norm.train()
            twin(inputs)
        for norm, momentum in norms:
            norm.momentum = momentum
    return twin


def _draw(layer: nn.Module, generator: torch.Generator) -> None:
    """New parameters of one layer, drawn on the CPU so that every device gets the same."""
    if isinstance(layer, _BatchNorm | nn.LayerNorm | nn.GroupNorm):
        layer.reset_parameters()
        return
    for name, parameter in layer.named_parameters(recurse=False):
        if name == "bias":
            parameter.zero_()
        elif parameter.ndim > 1:
            spread = math.sqrt(2 / parameter[0].numel())
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * spread)
        else:  # scales of layers: their own values, permuted
            order = torch.randperm(parameter.numel(), generator=generator)
            parameter.copy_(parameter.flatten()[order.to(parameter.device)].view_as(parameter))


def similarity(first: np.ndarray, second: np.ndarray) -> tuple[float, float]:
    """How alike two maps of one crop are.

    Parameters
    ----------
    first, second : ndarray, shape (H, W)
        Magnitudes.

    Returns
    -------
    float
        Spearman's rank correlation of their pixels; nan where a map is the same everywhere.
    float
        Structural similarity (Wang et al. 2004) of the maps, each over its 99th percentile and cut at 1; nan likewise.
    """
    if np.ptp(first) == 0 or np.ptp(second) == 0:
        return math.nan, math.nan
    rank = float(spearmanr(first.ravel(), second.ravel()).statistic)
    return rank, float(structural_similarity(_unit(first), _unit(second), data_range=1.0))


def _unit(values: np.ndarray) -> np.ndarray:
    """A map on 0…1; one bright pixel does not make all others alike."""
    top = np.percentile(values, 99) or values.max()
    return cast(np.ndarray, np.clip(values / top, 0, 1))


def sanity_check(model: nn.Module, inputs: Tensor, target: Tensor, trained: dict[Way, Attribution],
                 settings: SaliencySettings, seed: int) -> pd.DataFrame:
    """Compare the maps of a trained network with those of the network randomised step by step.

    Parameters
    ----------
    inputs : Tensor
        (N, C, H, W), normalised; N ≥ 2.
    target : Tensor
        (N,) int64.
    trained : dict
        Way → attributions of these crops by ``model``.

    Returns
    -------
    DataFrame
        One row per way of attribution and depth: ``method, depth, spearman, ssim`` (means over the
        crops that have both maps) and ``crops`` (how many these are), of magnitudes, and ``spearman_signed``, of the
        maps with their sign.
    """
    rows = []
    settings = settings.model_copy(update={"most_steps": settings.steps})  # near enough for ranks of pixels
    for depth in DEPTHS:
        other = randomised(model, depth, inputs, seed)
        for method, attribution in trained.items():
            other_maps = attribute(method, other, inputs, target, settings)
            pairs = [similarity(a, b) for a, b in zip(attribution.magnitude, other_maps.magnitude, strict=True)]
            signed = [similarity(a, b)[0] for a, b in zip(attribution.maps, other_maps.maps, strict=True)]
            valid = [p for p in pairs if not math.isnan(p[0])]
            rows.append({"method": method, "depth": depth, "spearman": _mean([p[0] for p in valid]),
                         "ssim": _mean([p[1] for p in valid]), "spearman_signed": _mean(signed), "crops": len(valid)})
    return pd.DataFrame(rows)


def _mean(values: list[float]) -> float:
    finite = [v for v in values if not math.isnan(v)]
    return float(np.mean(finite)) if finite else math.nan


def verdicts(table: pd.DataFrame) -> dict[str, str]:
    """For each method of `sanity_check` a sentence or two; it begins with "Passes", "Fails" or "Not judged".

    A method fails where its maps keep a mean rank correlation of `ALIKE` at any depth: maps that stay the same without
    the trained classifier, say, cannot show what a label rests on.
    """
    out = {}
    for method, rows in table.groupby("method", sort=False):
        judged = rows[rows["spearman"].notna()]
        alike = judged[judged["spearman"] >= ALIKE]
        if judged.empty:
            out[str(method)] = "Not judged: one of the networks gives this method an empty map for every crop."
        elif alike.empty:
            out[str(method)] = (f"Passes: with random weights its maps differ (rank correlation at most "
                                f"{judged['spearman'].max():.2f}).")
        else:
            last = alike.iloc[-1]  # the deepest, which says most
            out[str(method)] = (f"Fails: with {RANDOMISED[last['depth']]} randomised its maps stay alike (rank "
                                f"correlation {last['spearman']:.2f}). Where they are strong follows the crop's "
                                "own structure more than what was learnt, so they are no evidence of what a label "
                                "rests on.")
            if last["spearman_signed"] < ALIKE:
                out[str(method)] += (" Only their sign, for or against, depends on the weights (with it, the "
                                     f"correlation is {last['spearman_signed']:.2f}).")
    return out
