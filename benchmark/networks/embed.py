"""Embeddings: what a network makes of crops just before its classifier, by crop and averaged by field."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from benchmark.networks.features import averaged
from benchmark.networks.mcnn import MultiScaleCNN
from benchmark.networks.mil import MultipleInstances
from benchmark.networks.predict import outputs
from benchmark.networks.source import CropSource
from benchmark.networks.weights import Backbone


class Headless(nn.Module):
    """A network whose output is what its classifier takes.

    For timm's networks these are the features that ``forward_head(…, pre_logits=True)`` gives, pooled; for `mcnn` the
    512 values before its last layer; for `mil` the pooled bag (attention and mean pooling alone have one).
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, S, S) to (B, K)."""
        if isinstance(self.model, MultiScaleCNN | MultipleInstances):
            return self.model.features(x)
        network = cast(Any, self.model)
        return network.forward_head(network.forward_features(x), pre_logits=True).flatten(1)


def headless(backbone: Backbone) -> Backbone:
    """The same network without its classifier; weights are shared, not copied."""
    return replace(backbone, model=Headless(backbone.model))


def embed_fields(
    backbone: Backbone,
    source: CropSource,
    rows: np.ndarray,
    field: np.ndarray,
    device: torch.device,
    separately: bool = False,
    bfloat16: bool = False,
    each: Callable[[np.ndarray, np.ndarray], None] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings of crops, averaged over the crops of each field.

    Of the network as it is, in evaluation mode: one view of each crop, no dropout.

    Parameters
    ----------
    backbone : Backbone
        Its outputs are taken: `headless`, or made without a classifier.
    rows, field : ndarray
        (N,) numbers of the crops in ``source``, and the field of each.
    separately : bool
        As in `benchmark.networks.features.field_means`.
    each : callable, optional
        Given each batch as it comes: numbers of its crops, and their (n, K) float32 embeddings.

    Returns
    -------
    fields : ndarray
        (M,) rising.
    values : ndarray
        (M, K) float32.
    """
    with closing(outputs(backbone, source, rows, device, bfloat16, separately=separately)) as found:

        def parts() -> Iterator[np.ndarray]:
            start = 0
            for part in found:
                if each is not None:
                    each(rows[start : start + len(part)], part)
                start += len(part)
                yield part

        return averaged(parts(), field)
