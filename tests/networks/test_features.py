"""Frozen features out of the cache: a row a field, whatever its number of crops."""

from __future__ import annotations

import numpy as np
import torch

from benchmark.base.tables import FIELD_COLUMNS
from benchmark.crops.build import build_crops, crop_key
from benchmark.crops.reader import open_crops
from benchmark.crops.settings import CropSettings
from benchmark.networks.features import frozen_features
from benchmark.networks.predict import run_model
from benchmark.networks.settings import NetworkSettings
from benchmark.networks.weights.weights import load_backbone

CPU = torch.device("cpu")


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
