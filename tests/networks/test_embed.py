"""Embeddings are what a network's classifier takes, and field means of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from benchmark.base.errors import MorphobenchError
from benchmark.networks.embed import embed_fields, headless
from benchmark.networks.features import field_means
from benchmark.networks.feed.source import ArrayCrops
from benchmark.networks.predict import run_model
from benchmark.networks.settings import NetworkSettings
from benchmark.networks.weights.weights import load_backbone

CPU = torch.device("cpu")


def crops(n: int = 6, size: int = 64) -> ArrayCrops:
    return ArrayCrops(np.random.default_rng(0).integers(0, 255, (n, 3, size, size)).astype(np.uint8))


@pytest.mark.parametrize("settings", [
    {"backbone": "test_efficientnet", "weights": "none"},
    {"backbone": "test_vit", "weights": "none"},
    {"backbone": "mcnn"},
    {"backbone": "mil", "instances": "test_resnet", "weights": "none", "pooling": "attention"},
    {"backbone": "mil", "instances": "test_resnet", "weights": "none", "pooling": "mean"},
])
def test_the_classifier_of_an_embedding_gives_the_network_s_scores(settings):
    network = NetworkSettings.model_validate(settings)
    backbone = load_backbone(network, 3, 4, seed=1)
    source = crops(size=160 if "vit" in network.backbone else 64)
    rows = np.arange(6)
    scores = run_model(backbone, source, rows, CPU)
    found = run_model(headless(backbone), source, rows, CPU)
    last = backbone.model.get_classifier()
    last = getattr(last, "score", last)
    assert isinstance(last, nn.Linear) and found.shape == (6, last.in_features)
    again = torch.from_numpy(found) @ last.weight.T + last.bias
    assert np.allclose(again.detach().numpy(), scores, atol=1e-5)


def test_embeddings_of_a_pretrained_network_are_its_frozen_features():
    network = NetworkSettings()
    source, field = crops(), np.array([2, 2, 5, 5, 5, 7])
    for separately, channels in ((False, "together"), (True, "separately")):
        seen: dict[int, np.ndarray] = {}

        def keep(rows, part, seen=seen):
            seen.update(zip(rows.tolist(), part, strict=True))

        fields, values = embed_fields(headless(load_backbone(network, 3, 4)), source, np.arange(6), field, CPU,
                                      separately, each=keep)
        frozen = field_means(source, np.arange(6), field, network, channels, CPU)
        assert np.array_equal(fields, frozen.fields) and np.array_equal(values, frozen.values)
        assert np.allclose(values[1], np.mean([seen[i] for i in (2, 3, 4)], axis=0), atol=1e-5)


def test_noisy_and_pools_no_features():
    network = NetworkSettings.model_validate({"backbone": "mil", "instances": "test_resnet", "weights": "none"})
    with pytest.raises(MorphobenchError, match="noisy-AND pools the scores"):
        run_model(headless(load_backbone(network, 3, 4)), crops(), np.arange(2), CPU)
