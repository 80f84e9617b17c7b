"""Explaining a fold's fine-tuned network on some of its test crops."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

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
from benchmark.explain.settings import ExplainSettings, Way
from benchmark.networks.feed.augment import scaled
from benchmark.networks.feed.source import CropSource
from benchmark.networks.training.step import normalised
from benchmark.networks.weights.weights import Backbone

#: Crops whose scores are computed at once.
AT_ONCE = 32
#: How `choose_crops` chooses, for readers.
CHOICE = ("Crops were drawn at random from those that the network classifies correctly and, separately, from those "
          "that it misclassifies, the true labels taking turns; not by how sure the network is, nor by how its maps "
          "look.")


def choose_crops(truth: np.ndarray, probability: np.ndarray, settings: ExplainSettings, seed: int) -> np.ndarray:
    """Crops to explain: some that the network classifies correctly, then some that it misclassifies, by `CHOICE`.

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


@dataclass(frozen=True, eq=False)
class ChosenCrops:
    """Crops to explain, and what is known of them.

    Attributes
    ----------
    source : CropSource
        Where they are read from.
    rows : ndarray of int, shape (n,)
        Their numbers in ``source``, of `choose_crops`. The network must not have been trained on any of them.
    truth : ndarray of int, shape (n,)
        True labels by number.
    titles : sequence of str
        A name for each crop.
    labels, channels : sequence of str
        Names of the labels in the order of the network's scores, and of the channels.
    regions : ndarray of uint8, shape (n, S, S), optional
        Of `benchmark.explain.regions.cut_regions`; without them no shares are computed.
    """

    source: CropSource
    rows: np.ndarray
    truth: np.ndarray
    titles: Sequence[str]
    labels: Sequence[str]
    channels: Sequence[str]
    regions: np.ndarray | None = None

    def check(self) -> None:
        """Refuse what does not belong together before anything is computed.

        Raises
        ------
        MorphobenchError
            There is no crop, or names or regions do not fit.
        """
        n, regions = len(self.rows), self.regions
        if not n:
            raise MorphobenchError("there are no crops to explain",
                                   remedy="See which crops the fold's test wells have.")
        sizes = {"truth": len(self.truth), "titles": len(self.titles)}
        for what, size in (sizes | ({} if regions is None else {"regions": len(regions)})).items():
            if size != n:
                raise MorphobenchError(f"are {size}, the crops {n}", what)
        if len(self.channels) != self.source.shape[0]:
            raise MorphobenchError(f"are {len(self.channels)}, but crops have {self.source.shape[0]}",
                                   "names of channels")
        if min(self.truth) < 0 or max(self.truth) >= len(self.labels):
            raise MorphobenchError(f"must be numbers of the {len(self.labels)} labels", "truth")
        if regions is not None and regions.shape[1:] != self.source.shape[1:]:
            raise MorphobenchError(f"have the shape {regions.shape[1:]}, crops {self.source.shape[1:]}", "regions")


def explain_fold(backbone: Backbone, crops: ChosenCrops, device: torch.device, settings: ExplainSettings, seed: int,
                 pretrained: Backbone | None = None) -> Explanation:
    """Maps, sanity check, shares of regions and maximised filters of a trained network.

    Maps are of the label that the network predicts: of a misclassified crop they show what speaks for the wrong label.

    Parameters
    ----------
    backbone : Backbone
        Trained; left as it is, on ``device``.
    seed : int
        Of the randomised networks and of the noise from which filters are maximised.
    pretrained : Backbone, optional
        The network before fine-tuning, whose same filters are maximised for comparison; moved to ``device``.

    Raises
    ------
    MorphobenchError
        There is no crop, names or regions do not fit, or no way of attribution suits the network.
    """
    crops.check()
    source, rows, regions = crops.source, crops.rows, crops.regions
    model = backbone.model.to(device)
    pixels = np.ascontiguousarray(source.batch(rows))
    inputs = _inputs(backbone, pixels, device)
    probability = _probabilities(backbone, inputs)
    predicted = probability.argmax(axis=1)
    target = torch.from_numpy(predicted).to(device)
    attributions, refused = _attributions(backbone, inputs, target, settings)
    sanity = pd.DataFrame(columns=list(SANITY_COLUMNS)).astype(SANITY_COLUMNS)
    if settings.sanity and len(rows) > 1:
        sanity = sanity_check(model, inputs, target, attributions, settings.saliency, seed)
    filters, tuned, before = _filters(backbone, pretrained, inputs, target, settings, seed, refused)
    size = source.shape[1]
    areas, shares = np.zeros((0, len(REGIONS))), {}
    if regions is not None:
        areas = region_shares(np.ones(regions.shape, np.float32), regions)
        shares = {str(m): region_shares(a.magnitude, regions) for m, a in attributions.items()}
    gaps = attributions["integrated_gradients"].gaps if "integrated_gradients" in attributions else None
    return Explanation(
        labels=tuple(crops.labels), channels=tuple(crops.channels), titles=tuple(crops.titles),
        rows=np.asarray(rows, np.int64), truth=np.asarray(crops.truth, np.int64),
        predicted=predicted.astype(np.int64), probability=probability,
        pixels=pixels, maps={str(m): a.maps for m, a in attributions.items()},
        by_channel={str(m): _channel_shares(a.channels) for m, a in attributions.items() if a.channels is not None},
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


def _probabilities(backbone: Backbone, inputs: Tensor) -> np.ndarray:
    """Softmax of the very scores that are explained: float32, without autocast. (N, K) float64."""
    with undisturbed(backbone.model), torch.no_grad():
        scores = torch.cat([backbone.model(part) for part in inputs.split(AT_ONCE)])
        return scores.double().softmax(dim=1).cpu().numpy()


def _attributions(backbone: Backbone, inputs: Tensor, target: Tensor, settings: ExplainSettings
                  ) -> tuple[dict[Way, Attribution], dict[str, str]]:
    """Attributions by way, and why ways that do not suit the network refused it."""
    attributions: dict[Way, Attribution] = {}
    refused: dict[str, str] = {}
    for way in settings.ways:
        try:
            attributions[way] = attribute(way, backbone.model, inputs, target, settings.saliency)
        except MorphobenchError as error:
            refused[way] = str(error)
    if not attributions:
        raise MorphobenchError("no way of attribution suits it: " + " ".join(refused.values()), backbone.source)
    return attributions, refused


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
