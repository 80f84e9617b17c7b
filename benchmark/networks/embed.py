"""Features of a network: what its classifier is given of each crop, by crop and averaged by field.

Of a pretrained network these are its frozen features, of a fine-tuned one its embeddings. The network is used as it
is: one view of each crop and no dropout, whatever its predictions are averaged over.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor, nn

from benchmark.assays.fieldtable import Assay
from benchmark.base.errors import MorphobenchError
from benchmark.base.files import whole
from benchmark.base.tables import CROP, FIELD_COLUMNS
from benchmark.crops.reader import Crops
from benchmark.networks.feed.source import CropSource
from benchmark.networks.predict import BATCH, outputs
from benchmark.networks.settings import NetworkSettings
from benchmark.networks.weights.weights import Backbone, load_backbone

Channels = Literal["together", "separately"]


class Headless(nn.Module):
    """A network whose output is what its classifier takes, as its architecture computes it."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.model, self._features = backbone.model, backbone.features

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, S, S) to (B, K)."""
        return self._features(self.model, x)


def headless(backbone: Backbone) -> Backbone:
    """The same network without its classifier; weights are shared, not copied."""
    return replace(backbone, model=Headless(backbone))


def frozen_features(
    crops: Crops, assay: Assay, network: NetworkSettings, channels: Channels, device: torch.device
) -> tuple[pd.DataFrame, Backbone]:
    """Features of all fields of an assay, by a pretrained network of which nothing is learnt.

    Parameters
    ----------
    channels : str
        ``together``: the C channels are the input's colours. ``separately``: see `field_means`.

    Returns
    -------
    DataFrame
        One row per field with crops: its ``Metadata_*`` columns and ``Network_00000`` … (float32).
    Backbone
        With the source and hash of its weights.

    Raises
    ------
    MorphobenchError
        There are no crops, or weights or crops cannot be read.
    """
    if not len(crops):
        raise MorphobenchError("there are no crops to take features of", remedy="See which tiles crops.* drops.")
    separately = channels == "separately"
    backbone = load_backbone(network, 3 if separately else crops.shape[0], 0)
    fields, values = field_means(backbone, crops, np.arange(len(crops)), crops.field, device, separately)
    return feature_table(assay.fields.loc[fields, FIELD_COLUMNS], values), backbone


def field_means(
    backbone: Backbone,
    source: CropSource,
    rows: np.ndarray,
    field: np.ndarray,
    device: torch.device,
    separately: bool = False,
    bfloat16: bool = False,
    on_batch: Callable[[np.ndarray, np.ndarray], None] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Outputs of a network, averaged over the crops of each field.

    Batches are summed as they come, so memory grows with the number of fields, never with that of crops.

    Parameters
    ----------
    backbone : Backbone
        `headless`, or loaded without a classifier.
    source : CropSource
        Where crops are read from.
    rows, field : ndarray
        (N,) numbers of the crops in ``source``, and the field that each of them was cut from.
    separately : bool
        Each channel is passed alone, repeated as grey over three colours, and the C feature vectors are concatenated,
        as is usual for fluorescence channels, which are not the colours of one scene (Pawlowski et al. 2016, bioRxiv
        085118).
    on_batch : callable, optional
        Called with each batch: the numbers of its crops, and their (n, K) float32 outputs.

    Returns
    -------
    fields : ndarray
        (M,) field numbers in ascending order; fields without crops are not among them.
    values : ndarray
        (M, K) float32.
    """
    with closing(outputs(backbone, source, rows, device, bfloat16, BATCH, separately)) as computed:

        def batches() -> Iterator[np.ndarray]:
            start = 0
            for batch in computed:
                if on_batch is not None:
                    on_batch(rows[start : start + len(batch)], batch)
                start += len(batch)
                yield batch

        return averaged(batches(), field)


def averaged(batches: Iterable[np.ndarray], field: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean over the rows of each field of features that come batch by batch.

    Parameters
    ----------
    batches : iterable of ndarray
        (n, K) each, N rows in all.
    field : ndarray
        (N,) the field of each row.

    Returns
    -------
    fields : ndarray
        (M,) distinct fields in ascending order.
    values : ndarray
        (M, K) float32.
    """
    fields, number, counts = np.unique(field, return_inverse=True, return_counts=True)
    values: np.ndarray | None = None
    start = 0
    for batch in batches:
        if values is None:
            values = np.zeros((len(fields), batch.shape[1]), np.float32)
        here = number[start : start + len(batch)]
        for one in np.unique(here):
            # Summed in 64 bits and divided at once: thousands of cells per field cost no precision.
            values[one] += batch[here == one].sum(axis=0, dtype=np.float64) / counts[one]
        start += len(batch)
    assert values is not None
    return fields, values


def field_embeddings(
    crops: Sequence[tuple[Crops, CropSource]],
    fields: pd.DataFrame,
    backbone: Backbone,
    device: torch.device,
    separately: bool = False,
    bfloat16: bool = False,
    crop_file: Path | None = None,
) -> pd.DataFrame:
    """Embeddings of all fields with crops; those of single crops are written to a file as they are computed.

    Parameters
    ----------
    crops : sequence of (Crops, CropSource)
        Caches of different fields, and where the pixels of each are read from.
    fields : DataFrame
        The assay's field table.
    backbone, separately : Backbone, bool
        See `field_means`.
    crop_file : Path, optional
        For embeddings of crops; written whole or not at all.

    Returns
    -------
    DataFrame
        One row per field, in the order of ``fields``: ``Metadata_*`` and ``Network_*`` (float32).
    """
    means: list[tuple[np.ndarray, np.ndarray]] = []
    with _crop_writer(crop_file) as write:
        for cache, source in crops:
            def keep(rows: np.ndarray, values: np.ndarray, cache: Crops = cache) -> None:
                metadata = fields.loc[cache.field[rows], FIELD_COLUMNS].assign(**{CROP: cache.crop[rows].astype(int)})
                write(feature_table(metadata, values))

            means.append(field_means(backbone, source, np.arange(len(cache.field)), cache.field, device, separately,
                                     bfloat16, keep if crop_file is not None else None))
    numbers, values = (np.concatenate(parts) for parts in zip(*means, strict=True))
    order = np.argsort(numbers, kind="stable")
    return feature_table(fields.loc[numbers[order], FIELD_COLUMNS], values[order])


def feature_table(metadata: pd.DataFrame, values: np.ndarray) -> pd.DataFrame:
    """Metadata and (rows, K) features of a network as one table: ``Network_00000`` …"""
    names = [f"Network_{i:05d}" for i in range(values.shape[1])]
    return pd.concat([metadata.reset_index(drop=True), pd.DataFrame(values, columns=names)], axis=1)


@contextmanager
def _crop_writer(path: Path | None) -> Iterator[Callable[[pd.DataFrame], None]]:
    """A function that appends tables to a parquet file, which is complete when the block ends."""
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
