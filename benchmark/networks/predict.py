"""What a network predicts of crops or bags: outputs, probabilities, averages over views, passes and snapshots."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from scipy.special import softmax
from torch import Tensor, nn

from benchmark.networks.feed.augment import scaled
from benchmark.networks.feed.bags import mean_by_owner
from benchmark.networks.feed.feeding import Feed, Source, feed_of
from benchmark.networks.feed.held import in_order
from benchmark.networks.feed.source import CropSource, sizes_of
from benchmark.networks.settings import TrainingSettings
from benchmark.networks.training.step import forward, in_halves, on_device
from benchmark.networks.weights.weights import Backbone

#: Crops a batch in prediction.
BATCH = 64
#: Probabilities of bags below this count as this, so that their logarithm is finite.
LEAST = 1e-12


@dataclass(frozen=True)
class Predicted:
    """Class probabilities of crops or bags, and how much the passes they are the mean of differ.

    Attributes
    ----------
    p : ndarray
        (N, classes) float64, rows summing to 1.
    spread : float or None
        Standard deviation of a probability over passes, averaged over crops (of bags: over the
        parts that are predicted at once) and classes; None where there is one pass.
    passes : int
        Views × passes with dropout × snapshots.
    """

    p: np.ndarray
    spread: float | None
    passes: int


def outputs(backbone: Backbone, source: CropSource, rows: np.ndarray, device: torch.device, bfloat16: bool = False,
            batch: int = BATCH, separately: bool = False) -> Generator[np.ndarray, None, None]:
    """Outputs of the network in evaluation mode, batch by batch in the order of ``rows``.

    Parameters
    ----------
    separately : bool
        Each channel is passed alone, as grey over the network's three colours, and the outputs are concatenated.

    Yields
    ------
    ndarray
        (n, K) or (n, C * K) float32 with n ≤ ``batch``.
    """
    backbone = on_device(backbone, device)
    backbone.model.eval()
    with closing(in_order(source, rows, sizes_of(len(rows), batch), device)) as read:
        for pixels in read:
            with torch.inference_mode():  # not across the yield: the caller's own code runs there
                part = scaled(pixels)
                views = [c.repeat(1, 3, 1, 1) for c in part.split(1, dim=1)] if separately else [part]
                scores = [in_halves(lambda view: forward(backbone, view, bfloat16), view) for view in views]
                out = torch.cat(scores, dim=1).cpu().numpy()
            yield out


def run_model(backbone: Backbone, source: CropSource, rows: np.ndarray, device: torch.device, bfloat16: bool = False,
              batch: int = BATCH) -> np.ndarray:
    """Outputs of the network in evaluation mode for the crops ``rows``: (N, K) float32.

    Raises
    ------
    ValueError
        There are no rows.
    """
    return np.concatenate(list(outputs(backbone, source, rows, device, bfloat16, batch)))


def scores_of(feed: Feed, rows: np.ndarray, bfloat16: bool) -> np.ndarray:
    """Outputs of a network for ``rows`` of its feed, to which softmax applies: (N, K) float32.

    Of bags the logarithm of their probabilities, which are means over parts.
    """
    feed.backbone.model.eval()
    batches, owners = feed.parts(rows, BATCH)
    with closing(feed.plain(batches)) as read, torch.inference_mode():
        scores = np.concatenate([_outputs(feed.backbone, inputs, bfloat16).cpu().numpy()
                                 for batch in read for inputs in batch])
    if owners is None:
        return scores
    return np.log(mean_by_owner(_softmax(scores), owners).clip(LEAST)).astype(np.float32)


def _outputs(backbone: Backbone, inputs: Tensor, bfloat16: bool) -> Tensor:
    return in_halves(lambda part: forward(backbone, part, bfloat16), inputs)


def probabilities(backbone: Backbone, source: CropSource, rows: np.ndarray, device: torch.device,
                  bfloat16: bool = False) -> np.ndarray:
    """Class probabilities (softmax) of the crops ``rows``: (N, classes) float64, rows summing to 1."""
    return _softmax(run_model(backbone, source, rows, device, bfloat16))


def _softmax(scores: np.ndarray) -> np.ndarray:
    """Of each row, in 64 bits."""
    return cast(np.ndarray, softmax(scores.astype(np.float64), axis=1))


def predict(backbone: Backbone, snapshots: Sequence[Mapping[str, Tensor]], source: Source, rows: np.ndarray,
            device: torch.device, settings: TrainingSettings, bfloat16: bool, seed: int) -> Predicted:
    """Class probabilities averaged over the settings' views (``tta``), dropout passes and snapshots.

    Test-time augmentation over the 8 views of the square; Monte-Carlo dropout (Gal & Ghahramani 2016, ICML); snapshots
    of one training (Huang et al. 2017, ICLR; Cortés-Ciriano & Bender 2019, J Chem Inf Model 59:1269). Every crop of a
    bag is used: bags are predicted in parts (`benchmark.networks.feed.bags`), whose probabilities are averaged.

    Parameters
    ----------
    snapshots : sequence of state dicts
        Where there are none, the network as it is.
    rows : ndarray
        (N,) numbers of the crops (or bags) in ``source``, one at least.
    seed : int
        Of the dropout.
    """
    views, dropouts = range(8 if settings.tta else 1), range(max(1, settings.mc_dropout))
    backbone = on_device(backbone, device)
    feed = feed_of(source, backbone, settings.learn, device)
    batches, owners = feed.parts(rows, BATCH)
    total: np.ndarray | float = 0.0
    squares: np.ndarray | float = 0.0
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        for state in snapshots or [{}]:
            if state:
                backbone.model.load_state_dict(state)
            with _evaluating(feed.backbone.model, settings.mc_dropout > 0), \
                    closing(feed.plain(batches, views)) as read:
                sums = [_passes(feed.backbone, batch, dropouts, bfloat16) for batch in read]
            total = total + np.concatenate([s[0] for s in sums])
            squares = squares + np.concatenate([s[1] for s in sums])
    passes = len(views) * len(dropouts) * max(1, len(snapshots))
    p = np.asarray(total) / passes
    if passes == 1:
        return Predicted(mean_by_owner(p, owners), None, 1)
    spread = np.sqrt(np.clip(np.asarray(squares) / passes - p**2, 0, None))
    return Predicted(mean_by_owner(p / p.sum(axis=1, keepdims=True), owners), float(spread.mean()), passes)


@torch.inference_mode()
def _passes(backbone: Backbone, views: Iterable[Tensor], dropouts: Sequence[int],
            bfloat16: bool) -> tuple[np.ndarray, np.ndarray]:
    """Sum of the probabilities of a batch over views and passes, and sum of their squares."""
    p = np.stack([_softmax(_outputs(backbone, inputs, bfloat16).cpu().numpy()) for inputs in views for _ in dropouts])
    return p.sum(axis=0), (p**2).sum(axis=0)


@contextmanager
def _evaluating(model: nn.Module, dropout: bool) -> Iterator[None]:
    """Evaluation mode, if asked for with dropout as in training. Batch norm and drop-path stay in evaluation mode."""
    model.eval()
    if dropout:
        for module in model.modules():
            # timm's networks apply dropout by a layer, or by a function where `drop_rate` and their own flag say so.
            if isinstance(module, nn.Dropout | nn.Dropout2d | nn.AlphaDropout) or hasattr(module, "drop_rate"):
                module.training = True
    try:
        yield
    finally:
        model.eval()
