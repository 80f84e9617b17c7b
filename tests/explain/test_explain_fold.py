"""An explained fold: crops chosen by rule, maps, shares and filters that fit together, kept whole in a folder."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pandas as pd
import pytest
import torch
from lookers import Looker, convolutions
from torch import nn

from benchmark.base.errors import MorphobenchError
from benchmark.explain.fold import ChosenCrops, choose_crops, explain_fold
from benchmark.explain.record import Explanation, read_explanation, write_explanation
from benchmark.explain.regions import NUCLEI, REGIONS
from benchmark.explain.settings import ExplainSettings, MaximiseSettings, SaliencySettings
from benchmark.networks.feed.source import ArrayCrops
from benchmark.networks.weights.weights import Backbone

CPU = torch.device("cpu")
SETTINGS = ExplainSettings(filters=2, filter_size=32, saliency=SaliencySettings(steps=8, most_steps=16),
                           maximise=MaximiseSettings(steps=2))


def backbone(model: nn.Module) -> Backbone:
    return Backbone(model, torch.full((3,), 0.25), torch.full((3,), 0.5), "test weights", "abc", 16)


def explain(model: nn.Module, settings: ExplainSettings = SETTINGS, n: int = 4, labels: int = 3,
            regions: np.ndarray | None = None, pretrained: Backbone | None = None) -> Explanation:
    pixels = np.random.default_rng(0).integers(40, 255, (9, 3, 16, 16)).astype(np.uint8)
    crops = ChosenCrops(ArrayCrops(pixels), np.array([8, 2, 5, 1])[:n], np.arange(n) % labels,
                        [f"well {i}" for i in range(n)], ["A", "B", "C"][:labels], ["DNA", "Tubulin", "Actin"], regions)
    return explain_fold(backbone(model), crops, CPU, settings, 7, pretrained)


def test_crops_are_chosen_by_the_rule():
    truth = np.repeat([0, 1, 2], [50, 5, 5])
    p = np.eye(3)[truth]
    p[::5] = p[::5][:, [1, 2, 0]]  # every fifth is wrong
    settings = ExplainSettings(right=6, wrong=3)
    chosen = choose_crops(truth, p, settings, 0)
    right = p[chosen].argmax(axis=1) == truth[chosen]
    assert right.tolist() == [True] * 6 + [False] * 3
    assert sorted(truth[chosen[:6]].tolist()) == [0, 0, 1, 1, 2, 2] and sorted(truth[chosen[6:]].tolist()) == [0, 1, 2]
    assert np.array_equal(chosen, choose_crops(truth, p, settings, 0))
    assert not np.array_equal(chosen, choose_crops(truth, p, settings, 1))
    assert len(choose_crops(truth, p, ExplainSettings(right=0, wrong=99), 0)) == 12


def test_an_explanation_holds_what_belongs_together(tmp_path):
    regions = np.zeros((4, 16, 16), np.uint8)
    regions[:, :8, 8:] = NUCLEI
    found = explain(convolutions().train(), regions=regions, pretrained=backbone(convolutions(1)))
    assert set(found.maps) == {"grad_cam", "guided_backpropagation", "integrated_gradients", "occlusion"}
    assert all(m.shape == (4, 16, 16) for m in found.maps.values())
    assert np.allclose(found.probability.sum(axis=1), 1)
    assert np.array_equal(found.predicted, found.probability.argmax(axis=1))
    assert np.allclose(found.areas, [0.75, 0, 0.25, 0]) and found.areas.shape == (4, len(REGIONS))
    for shares in found.shares.values():
        valid = np.isfinite(shares).all(axis=1)
        assert np.allclose(shares[valid].sum(axis=1), 1)
    assert found.tuned.shape == found.pretrained.shape == (2, 3, 32, 32)
    assert not np.allclose(found.tuned, found.pretrained)
    assert len(found.gaps) == 4 and len(found.sanity) == 12 and set(found.verdicts) == set(found.maps)
    assert set(found.by_channel) == {"guided_backpropagation", "integrated_gradients"}

    write_explanation(found, tmp_path / "fold")
    again = read_explanation(tmp_path / "fold")
    for field in dataclasses.fields(found):
        one, other = getattr(found, field.name), getattr(again, field.name)
        if isinstance(one, np.ndarray):
            assert one.dtype == other.dtype and np.array_equal(one, other)
        elif isinstance(one, pd.DataFrame):
            pd.testing.assert_frame_equal(one, other, check_dtype=False)
        elif field.name in ("maps", "by_channel", "shares"):
            assert list(one) == list(other) and all(np.array_equal(one[k], other[k], equal_nan=True) for k in one)
        else:
            assert one == other
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["arrays.npz", "explanation.json", "fold"]


def test_shares_follow_a_network_that_looks_into_one_corner():
    regions = np.zeros((2, 16, 16), np.uint8)
    regions[:, :8, 8:] = NUCLEI
    model = Looker()
    with torch.no_grad():
        model.fc.bias[1] = 9.0  # always class 1
    found = explain(model, n=2, labels=2, regions=regions)
    assert found.predicted.tolist() == [1, 1]
    assert np.allclose(found.shares["integrated_gradients"][:, NUCLEI], 1)
    assert np.allclose(found.by_channel["integrated_gradients"], [[0, 1, 0]] * 2)


def test_a_method_that_does_not_suit_the_network_is_said_and_the_others_are_there():
    found = explain(convolutions(activation=nn.SiLU))
    assert set(found.maps) == {"grad_cam", "integrated_gradients", "occlusion"}
    assert "it uses Silu" in found.refused["guided_backpropagation"]
    assert not found.shares and not len(found.areas) and not len(found.pretrained)
    with pytest.raises(MorphobenchError, match="no way of attribution"):
        explain(convolutions(activation=nn.SiLU), SETTINGS.model_copy(update={"ways": ("guided_backpropagation",)}))


def test_what_does_not_belong_together_is_refused():
    with pytest.raises(MorphobenchError, match="no crops"):
        explain(convolutions(), n=0)
    with pytest.raises(MorphobenchError, match="regions: are 3"):
        explain(convolutions(), regions=np.zeros((3, 16, 16), np.uint8))
    with pytest.raises(MorphobenchError, match="regions: have the shape"):
        explain(convolutions(), regions=np.zeros((4, 8, 16), np.uint8))


def test_a_folder_is_whole_or_refused(tmp_path, monkeypatch):
    found = explain(convolutions(), SETTINGS.model_copy(update={"sanity": False, "filters": 0}))
    folder = tmp_path / "fold"
    with pytest.raises(MorphobenchError, match="no whole explanation"):
        read_explanation(folder)
    monkeypatch.setattr("benchmark.explain.record.write_json", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_explanation(found, folder)
    assert not list(tmp_path.iterdir())
    monkeypatch.undo()
    write_explanation(found, folder)
    with pytest.raises(MorphobenchError, match="exists already"):
        write_explanation(found, folder)
    assert read_explanation(folder).sanity.empty
    record = json.loads((folder / "explanation.json").read_text())
    (folder / "explanation.json").write_text(json.dumps(record | {"revision": 0}))
    with pytest.raises(MorphobenchError, match="another version"):
        read_explanation(folder)
    (folder / "explanation.json").write_text(json.dumps(record))
    (folder / "arrays.npz").write_bytes((folder / "arrays.npz").read_bytes()[:-200])
    with pytest.raises(MorphobenchError, match="no whole explanation"):
        read_explanation(folder)
