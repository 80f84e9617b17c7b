"""Explaining a fold's fine-tuned network on some of its test crops."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from benchmark.base.errors import MorphobenchError
from benchmark.explain.maximise import maximise, strongest_filters
from benchmark.explain.record import SANITY_COLUMNS, Explanation
from benchmark.explain.regions import REGIONS, region_shares
from benchmark.explain.saliency import Attribution, attribute, undisturbed
from benchmark.explain.sanity import sanity_check, verdicts
from benchmark.explain.settings import ExplainSettings, Method
from benchmark.networks.feed.augment import scaled
from benchmark.networks.feed.source import CropSource
from benchmark.networks.training.step import normalised
from benchmark.networks.weights.weights import Backbone

#: Crops whose scores are computed at once.
AT_ONCE = 32
#: How `choose_crops` chooses, for readers.
CHOICE = ("Crops were drawn at random among those that the network has right and, apart, among those that it has "
          "wrong, the true labels taking turns; not by how sure the network is, nor by how its maps look.")


def choose_crops(truth: np.ndarray, probability: np.ndarray, settings: ExplainSettings, seed: int) -> np.ndarray:
    """Crops to explain: some that the network has right, then some that it has wrong, by `CHOICE`.

    Parameters
    ----------
    truth : ndarray of int, shape (N,)
        True labels by number.
    probability : ndarray, shape (N, K)

    Returns
    -------
    ndarray of int64
        Positions in ``truth``; fewer than asked for where there are no more.
    """
    rng = np.random.default_rng(seed)
    correct = probability.argmax(axis=1) == truth
    chosen: list[int] = []
    for group, number in ((correct, settings.right), (~correct, settings.wrong)):
        shuffled = rng.permutation(np.flatnonzero(group))
        turn = pd.Series(truth[shuffled]).groupby(truth[shuffled]).cumcount().to_numpy()
        chosen += shuffled[np.lexsort((truth[shuffled], turn))][:number].tolist()
    return np.array(chosen, np.int64)


def explain_fold(
    backbone: Backbone,
    source: CropSource,
    rows: np.ndarray,
    truth: np.ndarray,
    labels: Sequence[str],
    channels: Sequence[str],
    titles: Sequence[str],
    device: torch.device,
    settings: ExplainSettings,
    seed: int,
    regions: np.ndarray | None = None,
    pretrained: Backbone | None = None,
) -> Explanation:
    """Maps, sanity check, shares of regions and maximised filters of a trained network.

    Maps are of the label that the network predicts: of a wrong crop they show what speaks for the wrong label.

    Parameters
    ----------
    backbone : Backbone
        Trained; left as it is, on ``device``.
    source : CropSource
    rows : ndarray of int, shape (n,)
        Numbers of the crops in ``source``, of `choose_crops`. They must be crops that this network was not trained on.
    truth : ndarray of int, shape (n,)
        True labels by number.
    labels, channels, titles : sequence of str
        Names of the labels in the order of the network's scores, of the channels, and of each crop.
    seed : int
        Of the randomised networks and of the noise from which filters are maximised.
    regions : ndarray of uint8, shape (n, S, S), optional
        Of `benchmark.explain.regions.cut_regions`; without them no shares are taken.
    pretrained : Backbone, optional
        The network before fine-tuning, whose same filters are maximised for comparison; moved to ``device``.

    Raises
    ------
    MorphobenchError
        There is no crop, names or regions do not fit, or no method suits the network.
    """
    _check(source, rows, truth, labels, channels, titles, regions)
    model = backbone.model.to(device)
    pixels = np.ascontiguousarray(source.batch(rows))
    inputs = _inputs(backbone, pixels, device)
    probability = _probabilities(backbone, inputs)
    predicted = probability.argmax(axis=1)
    target = torch.from_numpy(predicted).to(device)
    found, refused = _attributions(backbone, inputs, target, settings)
    sanity = pd.DataFrame(columns=list(SANITY_COLUMNS)).astype(SANITY_COLUMNS)
    if settings.sanity and len(rows) > 1:
        sanity = sanity_check(model, inputs, target, found, settings.saliency, seed)
    filters, tuned, before = _filters(backbone, pretrained, inputs, target, settings, seed, refused)
    size = source.shape[1]
    areas, shares = np.zeros((0, len(REGIONS))), {}
    if regions is not None:
        areas = region_shares(np.ones(regions.shape, np.float32), regions)
        shares = {str(m): region_shares(a.magnitude, regions) for m, a in found.items()}
    gaps = found["integrated_gradients"].gaps if "integrated_gradients" in found else None
    return Explanation(
        labels=tuple(labels), channels=tuple(channels), titles=tuple(titles), rows=np.asarray(rows, np.int64),
        truth=np.asarray(truth, np.int64), predicted=predicted.astype(np.int64), probability=probability,
        pixels=pixels, maps={str(m): a.maps for m, a in found.items()},
        by_channel={str(m): _channel_shares(a.channels) for m, a in found.items() if a.channels is not None},
        gaps=np.zeros(0, np.float32) if gaps is None else gaps,
        regions=np.zeros((0, size, size), np.uint8) if regions is None else regions, areas=areas, shares=shares,
        filters=filters, tuned=tuned, pretrained=before, sanity=sanity, verdicts=verdicts(sanity), refused=refused,
        facts={"settings": settings.model_dump(mode="json"), "seed": seed, "choice": CHOICE,
               "weights": backbone.source, "weights_sha256": backbone.sha256, "network": type(model).__name__},
    )  # fmt: skip


def plain_probabilities(backbone: Backbone, source: CropSource, rows: np.ndarray, device: torch.device) -> np.ndarray:
    """Softmax of the scores that are explained, for any number of crops: float32, one view, no dropout. (N, K)."""
    backbone.model.to(device)
    parts = [np.ascontiguousarray(source.batch(rows[start : start + AT_ONCE]))
             for start in range(0, len(rows), AT_ONCE)]
    return np.concatenate([_probabilities(backbone, _inputs(backbone, pixels, device)) for pixels in parts])


def _inputs(backbone: Backbone, pixels: np.ndarray, device: torch.device) -> Tensor:
    """Stored crops (N, C, S, S) as the network is given them, float32."""
    return normalised(backbone, scaled(torch.from_numpy(pixels).to(device)))


def _check(source: CropSource, rows: np.ndarray, truth: np.ndarray, labels: Sequence[str], channels: Sequence[str],
           titles: Sequence[str], regions: np.ndarray | None) -> None:
    """Refuse what does not belong together before anything is computed."""
    if not len(rows):
        raise MorphobenchError("there are no crops to explain", remedy="See which crops the fold's test wells have.")
    sizes = {"truth": len(truth), "titles": len(titles)} | ({} if regions is None else {"regions": len(regions)})
    for what, size in sizes.items():
        if size != len(rows):
            raise MorphobenchError(f"are {size}, the crops {len(rows)}", what)
    if len(channels) != source.shape[0]:
        raise MorphobenchError(f"are {len(channels)}, but crops have {source.shape[0]}", "names of channels")
    if min(truth) < 0 or max(truth) >= len(labels):
        raise MorphobenchError(f"must be numbers of the {len(labels)} labels", "truth")
    if regions is not None and regions.shape[1:] != source.shape[1:]:
        raise MorphobenchError(f"have the shape {regions.shape[1:]}, crops {source.shape[1:]}", "regions")


def _probabilities(backbone: Backbone, inputs: Tensor) -> np.ndarray:
    """Softmax of the very scores that are explained: float32, without autocast. (N, K) float64."""
    with undisturbed(backbone.model), torch.no_grad():
        scores = torch.cat([backbone.model(part) for part in inputs.split(AT_ONCE)])
        return scores.double().softmax(dim=1).cpu().numpy()


def _attributions(backbone: Backbone, inputs: Tensor, target: Tensor, settings: ExplainSettings
                  ) -> tuple[dict[Method, Attribution], dict[str, str]]:
    """Attributions by method, and why methods that do not suit the network refused it."""
    found: dict[Method, Attribution] = {}
    refused: dict[str, str] = {}
    for method in settings.ways:
        try:
            found[method] = attribute(method, backbone.model, inputs, target, settings.saliency)
        except MorphobenchError as error:
            refused[method] = str(error)
    if not found:
        raise MorphobenchError("no way of attribution suits it: " + " ".join(refused.values()), backbone.source)
    return found, refused


def _filters(backbone: Backbone, pretrained: Backbone | None, inputs: Tensor, target: Tensor,
             settings: ExplainSettings, seed: int, refused: dict[str, str]
             ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The strongest filters and their pictures after and before fine-tuning; empty where there is no feature map."""
    channels, size = inputs.shape[1], settings.filter_size
    none = np.zeros((0, channels, size, size), np.float32)
    if not settings.filters:
        return np.zeros(0, np.int64), none, none
    try:
        filters = strongest_filters(backbone.model, inputs, target, settings.filters)
    except MorphobenchError as error:  # a network of tokens
        refused["maximised_filters"] = str(error)
        return np.zeros(0, np.int64), none, none
    tuned = maximise(backbone, filters, channels, size, seed, settings.maximise)
    if pretrained is None:
        return filters, tuned, none
    pretrained.model.to(inputs.device)
    return filters, tuned, maximise(pretrained, filters, channels, size, seed, settings.maximise)


def _channel_shares(channels: np.ndarray) -> np.ndarray:
    """Share of each channel in the absolute attribution of each crop: (n, C); nan where there is none."""
    parts = np.abs(channels).sum(axis=(2, 3), dtype=np.float64)
    total = parts.sum(axis=1, keepdims=True)
    return np.divide(parts, total, out=np.full(parts.shape, np.nan), where=total > 0)
