"""Embeddings: what a network makes of crops just before its classifier, by crop and averaged by field.

They are of the network as it is: one view of each crop and no dropout, whatever its predictions are averaged over.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor, nn

from benchmark.base.files import whole
from benchmark.base.tables import CROP, FIELD_COLUMNS
from benchmark.crops.reader import Crops
from benchmark.networks.architectures.mcnn import MultiScaleCNN
from benchmark.networks.architectures.mil import MultipleInstances
from benchmark.networks.features import averaged, feature_table
from benchmark.networks.feed.source import CropSource
from benchmark.networks.predict import outputs
from benchmark.networks.weights.weights import Backbone


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


def field_embeddings(
    crops: Sequence[tuple[Crops, CropSource]],
    fields: pd.DataFrame,
    backbone: Backbone,
    device: torch.device,
    separately: bool = False,
    bfloat16: bool = False,
    crop_file: Path | None = None,
) -> pd.DataFrame:
    """Embeddings of all fields with crops; those of crops go to a file as they come.

    Parameters
    ----------
    crops : sequence of (Crops, CropSource)
        Caches of different fields, and where the pixels of each are read from.
    fields : DataFrame
        The assay's field table.
    backbone : Backbone
        See `embed_fields`.
    crop_file : Path, optional
        For embeddings of crops, written whole.

    Returns
    -------
    DataFrame
        One row a field, in the order of ``fields``: ``Metadata_*`` and ``Network_*`` (float32).
    """
    found: list[tuple[np.ndarray, np.ndarray]] = []
    with _crop_writer(crop_file) as write:
        for cache, source in crops:
            def each(rows: np.ndarray, part: np.ndarray, cache: Crops = cache) -> None:
                metadata = fields.loc[cache.field[rows], FIELD_COLUMNS].assign(**{CROP: cache.crop[rows].astype(int)})
                write(feature_table(metadata, part))

            found.append(embed_fields(backbone, source, np.arange(len(cache.field)), cache.field, device, separately,
                                      bfloat16, each if crop_file is not None else None))
    numbers, values = (np.concatenate(parts) for parts in zip(*found, strict=True))
    order = np.argsort(numbers, kind="stable")
    return feature_table(fields.loc[numbers[order], FIELD_COLUMNS], values[order])


@contextmanager
def _crop_writer(path: Path | None) -> Iterator[Callable[[pd.DataFrame], None]]:
    """A function that appends tables to a parquet file, which is whole at the end."""
    if path is None:
        yield lambda table: None
        return
    with whole(path) as tmp:
        writer: list[pq.ParquetWriter] = []

        def write(table: pd.DataFrame) -> None:
            rows = pa.Table.from_pandas(table, preserve_index=False)
            if not writer:
                writer.append(pq.ParquetWriter(tmp, rows.schema, compression="zstd"))
            writer[0].write_table(rows)

        try:
            yield write
        finally:
            for one in writer:
                one.close()
