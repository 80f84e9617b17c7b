"""The cost curve of cheaper folds: what is counted as often as it is run."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from rich.console import Console

from benchmark.bench import folds as bench_folds
from benchmark.bench.folds import fold_costs, print_costs
from benchmark.networks.feed.source import ArrayCrops
from benchmark.networks.settings import NetworkSettings


def test_costs_count_every_training_and_crop(tmp_path, monkeypatch):
    torch.set_num_threads(1)
    monkeypatch.setattr(bench_folds, "CROPS", 4)
    monkeypatch.setattr(bench_folds, "NETWORK", NetworkSettings(backbone="test_efficientnet", weights="none"))
    monkeypatch.setattr(bench_folds, "STAGE", "from:blocks.3")
    pixels = np.random.default_rng(0).integers(0, 256, (24, 3, 32, 32), np.uint8)
    costs = fold_costs(ArrayCrops(pixels), 24, tmp_path, torch.device("cpu"), epochs=2, compounds=(4, 6))
    assert [c.compounds for c in costs] == [4, 6]
    # 4 compounds of 4 crops, 2 epochs: two trunks see 2 compounds, each fold one new compound and as much again.
    assert costs[0].shown == pytest.approx((2 * 2 * 8 + 4 * 8) / (4 * 2 * 12))
    assert costs[1].shown == pytest.approx((3 * 2 * 16 + 6 * 8) / (6 * 2 * 20))
    assert all(min(c.exact, c.shared, c.top, c.top_stored) > 0 for c in costs)
    out = io.StringIO()
    print_costs(costs, Console(file=out, width=200))
    assert "crops shown" in out.getvalue() and f"{costs[0].shown:.2f}" in out.getvalue()
