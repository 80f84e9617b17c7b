"""Frozen features: what the pretrained network says of a crop before anything is learnt."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch

from benchmark.networks.settings import NetworkSettings
from benchmark.networks.train import run_model
from benchmark.networks.weights import Backbone, load_backbone

Channels = Literal["together", "separately"]


def frozen_features(
    pixels: np.ndarray, network: NetworkSettings, channels: Channels, device: torch.device
) -> tuple[np.ndarray, Backbone]:
    """Pooled features of the network's last layer before its classifier.

    Parameters
    ----------
    pixels : ndarray
        (N, C, S, S) uint8.
    channels : str
        ``together``: the C channels are the input's colours. ``separately``: each channel is passed alone,
        repeated as grey over three colours, and the C feature vectors are concatenated, as is usual for
        fluorescence channels, which are no colours of one scene (Pawlowski et al. 2016, bioRxiv 085118).

    Returns
    -------
    ndarray
        (N, F) or (N, C * F) float32.
    Backbone
        With the source and hash of its weights.
    """
    if channels == "together":
        backbone = load_backbone(network, pixels.shape[1], 0)
        return run_model(backbone, pixels, device), backbone
    backbone = load_backbone(network, 3, 0)
    parts = [
        run_model(backbone, np.repeat(pixels[:, c : c + 1], 3, axis=1), device) for c in range(pixels.shape[1])
    ]
    return np.concatenate(parts, axis=1), backbone
