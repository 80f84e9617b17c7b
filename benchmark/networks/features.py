"""Frozen features: what the pretrained network says of a crop before anything is learnt."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
import torch

from benchmark.assays.fieldtable import Assay
from benchmark.base.errors import MorphobenchError
from benchmark.base.tables import FIELD_COLUMNS
from benchmark.crops.reader import Crops
from benchmark.networks.feed.source import CropSource
from benchmark.networks.predict import outputs
from benchmark.networks.settings import NetworkSettings
from benchmark.networks.weights.weights import Backbone, load_backbone

Channels = Literal["together", "separately"]


@dataclass(frozen=True)
class FieldFeatures:
    """Mean features of the crops of each field.

    Attributes
    ----------
    fields : ndarray
        (M,) field numbers, rising; fields without crops are not among them.
    values : ndarray
        (M, K) float32.
    backbone : Backbone
        With the source and hash of its weights.
    """

    fields: np.ndarray
    values: np.ndarray
    backbone: Backbone


def frozen_features(
    crops: Crops, assay: Assay, network: NetworkSettings, channels: Channels, device: torch.device
) -> tuple[pd.DataFrame, Backbone]:
    """`field_means` of all the crops of an assay, as a table.

    Returns
    -------
    DataFrame
        One row a field with crops: its ``Metadata_*`` columns and ``Network_00000`` … (float32).
    Backbone
        With the source and hash of its weights.
    """
    means = field_means(crops, np.arange(len(crops)), crops.field, network, channels, device)
    return feature_table(assay.fields.loc[means.fields, FIELD_COLUMNS], means.values), means.backbone


def feature_table(metadata: pd.DataFrame, values: np.ndarray) -> pd.DataFrame:
    """Metadata and (rows, K) features of a network as a table: ``Network_00000`` …"""
    names = [f"Network_{i:05d}" for i in range(values.shape[1])]
    return pd.concat([metadata.reset_index(drop=True), pd.DataFrame(values, columns=names)], axis=1)


def field_means(
    source: CropSource,
    rows: np.ndarray,
    field: np.ndarray,
    network: NetworkSettings,
    channels: Channels,
    device: torch.device,
    batch: int = 64,
) -> FieldFeatures:
    """Pooled features of the network's last layer before its classifier, averaged over the crops of each field.

    Batches are added up as they come, so memory grows with the fields, never with the crops.

    Parameters
    ----------
    source : CropSource
        Where crops are read from.
    rows : ndarray
        (N,) numbers of the crops in ``source``.
    field : ndarray
        (N,) the field that each of them was cut from.
    channels : str
        ``together``: the C channels are the input's colours. ``separately``: each channel is passed alone,
        repeated as grey over three colours, and the C feature vectors are concatenated, as is usual for
        fluorescence channels, which are no colours of one scene (Pawlowski et al. 2016, bioRxiv 085118).

    Raises
    ------
    MorphobenchError
        There are no crops, or weights or crops cannot be read.
    """
    if not len(rows):
        raise MorphobenchError("there are no crops to take features of", remedy="See which tiles crops.* drops.")
    apart = channels == "separately"
    backbone = load_backbone(network, 3 if apart else source.shape[0], 0)
    with closing(outputs(backbone, source, rows, device, batch=batch, separately=apart)) as parts:
        fields, values = averaged(parts, field)
    return FieldFeatures(fields, values, backbone)


def averaged(parts: Iterable[np.ndarray], field: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean over the rows of each field of features that come in parts, one after the other.

    Parameters
    ----------
    parts : iterable of ndarray
        (n, K) each, N rows in all.
    field : ndarray
        (N,) the field of each row.

    Returns
    -------
    fields : ndarray
        (M,) those that there are, rising.
    values : ndarray
        (M, K) float32.
    """
    fields, number, counts = np.unique(field, return_inverse=True, return_counts=True)
    values: np.ndarray | None = None
    start = 0
    for part in parts:
        if values is None:
            values = np.zeros((len(fields), part.shape[1]), np.float32)
        here = number[start : start + len(part)]
        for one in np.unique(here):
            # summed in 64 bits and weighted at once: thousands of cells a field cost no precision
            values[one] += part[here == one].sum(axis=0, dtype=np.float64) / counts[one]
        start += len(part)
    assert values is not None
    return fields, values
