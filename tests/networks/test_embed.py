"""Features are what a network's classifier takes, and their means over the crops of each field."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from benchmark.base.errors import MorphobenchError
from benchmark.base.tables import FIELD_COLUMNS
from benchmark.crops.build import build_crops, crop_key
from benchmark.crops.reader import open_crops
from benchmark.crops.settings import CropSettings
from benchmark.networks.embed import field_means, frozen_features, headless
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
    """With its classifier taken off, or loaded without one: the same numbers, each batch handed over as it comes."""
    network = NetworkSettings()
    source, rows, field = crops(), np.arange(6), np.array([2, 2, 5, 5, 5, 7])
    for separately in (False, True):
        seen: dict[int, np.ndarray] = {}

        def keep(rows, values, seen=seen):
            seen.update(zip(rows.tolist(), values, strict=True))

        fields, values = field_means(headless(load_backbone(network, 3, 4)), source, rows, field, CPU, separately,
                                     on_batch=keep)
        frozen = field_means(load_backbone(network, 3, 0), source, rows, field, CPU, separately)
        assert np.array_equal(fields, frozen[0]) and np.array_equal(values, frozen[1])
        assert np.allclose(values[1], np.mean([seen[i] for i in (2, 3, 4)], axis=0), atol=1e-5)


def test_noisy_and_pools_no_features():
    network = NetworkSettings.model_validate({"backbone": "mil", "instances": "test_resnet", "weights": "none"})
    with pytest.raises(MorphobenchError, match="noisy-AND pools the scores"):
        run_model(headless(load_backbone(network, 3, 4)), crops(), np.arange(2), CPU)


def test_the_table_has_a_row_a_field_with_the_mean_of_its_tiles(make_tiny, tmp_path):
    assay, _, whole_hash = make_tiny(size=96, labels=2, compounds=2, plates=1, sites=2, controls=1)
    crops = CropSettings(size=48, grid=(2, 2), intensity="bit_depth")
    build_crops(tmp_path / "c.h5", assay, whole_hash, crops)
    source = open_crops(tmp_path / "c.h5", crop_key(whole_hash, crops))
    table, backbone = frozen_features(source, assay, NetworkSettings(), "together", CPU)
    assert table[FIELD_COLUMNS].equals(assay.treated[FIELD_COLUMNS].reset_index(drop=True))
    values = table.filter(like="Network_")
    assert list(values)[-1] == "Network_01279" and set(values.dtypes) == {np.dtype(np.float32)}
    single = run_model(load_backbone(NetworkSettings(), 3, 0), source, np.arange(len(source)), CPU)
    np.testing.assert_allclose(values, single.reshape(len(table), 4, -1).mean(axis=1), atol=1e-4)
    assert len(backbone.sha256) == 64


def test_an_assay_without_crops_has_no_features(make_tiny):
    class Empty:
        def __len__(self) -> int:
            return 0

    with pytest.raises(MorphobenchError, match="no crops"):
        frozen_features(Empty(), make_tiny()[0], NetworkSettings(), "together", CPU)
