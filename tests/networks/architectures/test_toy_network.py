"""A network of one's own is one file: importing this module makes ``network: {backbone: toy}`` known."""

from __future__ import annotations

import numpy as np
import torch
from drawn_study import image_study
from stripes import CPU, stripes
from torch import nn

from benchmark import run
from benchmark.networks.architectures.registry import Architecture, own_features, register
from benchmark.networks.feed.source import ArrayCrops
from benchmark.networks.predict import probabilities
from benchmark.networks.settings import NetworkSettings, TrainingSettings
from benchmark.networks.training.inputs import Examples, Recipe, Session
from benchmark.networks.training.train import fine_tune


class Toy(nn.Module):
    """One layer of convolutions, pooled."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.pretrained_cfg = {"input_size": (3, 48, 48), "mean": (0.5,) * 3, "std": (0.5,) * 3,
                               "classifier": "classifier"}
        self.layers = nn.Sequential(nn.Conv2d(channels, 16, 7, 2), nn.BatchNorm2d(16), nn.ReLU())
        self.classifier = nn.Linear(16, classes) if classes else nn.Identity()

    def get_classifier(self) -> nn.Module:
        return self.classifier

    def features(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x).mean((2, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.features(x))


register(Architecture("toy", lambda settings, channels, classes, within: Toy(channels, classes),
                      timm_name=lambda settings: None, pretrained=False, dropout=False, features=own_features,
                      unsuited=("grad_cam", "guided_backpropagation"), presets={"modern": {"learning_rate": 0.02}}))


def test_it_learns():
    (pixels, targets), (fresh, truth) = (stripes(64, np.random.default_rng(seed)) for seed in (0, 1))
    trained = fine_tune(Examples(ArrayCrops(pixels), np.arange(64), targets, 2),
                        Recipe(NetworkSettings(backbone="toy"), TrainingSettings(epochs=8, batch=8)), Session(CPU))
    p = probabilities(trained.backbone, ArrayCrops(fresh), np.arange(64), CPU)
    assert (p.argmax(axis=1) == truth).mean() > 0.9


def test_it_runs_on_worker_processes_and_stands_on_the_page(tmp_path, monkeypatch):
    method = {"kind": "cnn_finetuned", "name": "toy", "title": "A toy", "network": {"backbone": "toy"},
              "crops": {"size": 48, "intensity": "bit_depth"}, "training": {"epochs": 1, "batch": 4}}
    image_study(tmp_path, monkeypatch, method)
    result = run("study.yaml", jobs=2, device="cpu")
    assert "A toy" in result.report.page.read_text()
