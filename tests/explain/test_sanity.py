"""Random weights change maps that depend on weights; maps of the crop alone are detected."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
import torch
from lookers import Looker, convolutions
from torch import nn

from benchmark.explain import saliency
from benchmark.explain.saliency import Attribution, attribute
from benchmark.explain.sanity import DEPTHS, randomised, sanity_check, similarity, verdicts
from benchmark.explain.settings import SaliencySettings

SETTINGS = SaliencySettings(window=4, stride=2, steps=8, most_steps=8)


def crops(n: int = 3, side: int = 16) -> torch.Tensor:
    return torch.rand((n, 3, side, side), generator=torch.Generator().manual_seed(0))


def test_layers_are_randomised_from_the_classifier_down_and_repeatably():
    model, inputs = convolutions().eval(), crops(4)
    before = {k: v.clone() for k, v in model.state_dict().items()}

    def changed(depth: str) -> set[str]:
        other = randomised(model, depth, inputs, 1).state_dict()
        return {k for k in other if k.endswith("weight") and not torch.equal(other[k], before[k])}

    assert changed("classifier") == {"fc.weight"}
    assert changed("upper half") == {"fc.weight", "body.3.weight"}  # body.4's scales were 1 and are 1
    assert changed("all") == {"fc.weight", "body.3.weight", "body.0.weight"}
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    first, second, third = (randomised(model, "all", inputs, s).fc.weight for s in (1, 1, 2))
    assert torch.equal(first, second) and not torch.equal(first, third)


def test_a_randomised_network_still_works():
    """Its batch normalisation fits its own weights: neither silent nor saturated."""
    twin = randomised(convolutions(activation=nn.ReLU6).eval(), "all", crops(8), 0)
    norm = twin.body[4]
    caught = []
    norm.register_forward_hook(lambda _m, _i, out: caught.append(out.clone()))
    with torch.no_grad():
        twin(crops(8))
    assert not norm.training and norm.momentum == 0.1
    assert 0.7 < float(caught[0].std()) < 1.3 and abs(float(caught[0].mean())) < 0.1


def test_similarity_of_maps():
    one, other = np.random.default_rng(0).random((2, 32, 32))
    assert similarity(one, one) == pytest.approx((1, 1))
    rank, structure = similarity(one, other)
    assert abs(rank) < 0.1 and structure < 0.2
    assert similarity(one, one**3)[0] == pytest.approx(1)
    assert all(math.isnan(v) for v in similarity(one, np.zeros((32, 32))))


def test_maps_of_a_network_that_looks_at_one_corner_change_with_its_weights(monkeypatch):
    model, inputs, target = convolutions(5).eval(), crops(4), torch.tensor([1, 1, 0, 2])
    monkeypatch.setitem(saliency.WAYS, "occlusion",
                        lambda model, inputs, target, settings: Attribution(inputs.sum(1).numpy()))
    methods = ("grad_cam", "occlusion")
    trained = {m: attribute(m, model, inputs, target, SETTINGS) for m in methods}
    table = sanity_check(model, inputs, target, trained, SETTINGS, 0)
    assert list(table["depth"].unique()) == list(DEPTHS) and len(table) == 6
    said = verdicts(table)
    assert said["occlusion"].startswith("Fails: with all layers randomised")  # its map is the crop itself
    assert "correlation 1.00" in said["occlusion"] and "Only their sign" not in said["occlusion"]
    last = table[(table["method"] == "grad_cam") & (table["depth"] == "all")].iloc[0]
    assert last["spearman"] < 0.9 and said["grad_cam"].split(":")[0] in ("Passes", "Fails")


def test_a_method_that_stays_alike_at_any_depth_fails_and_words_say_where():
    """Numbers as guided backpropagation, integrated gradients and Grad-CAM had them on cells."""
    figures = {"guided": ((1.0, 0.83, 0.2), (1.0, 0.94, 0.1)), "integrated": ((0.7, 0.65, 0.64), (-0.1, 0.0, 0.0)),
               "cam": ((0.15, -0.1, -0.1), (0.15, -0.1, -0.1)), "some": ((0.1, math.nan, math.nan), (0.1, 0.1, 0.1))}
    table = pd.DataFrame([{"method": m, "depth": d, "spearman": a, "spearman_signed": b}
                          for m, (x, y) in figures.items() for d, a, b in zip(DEPTHS, x, y, strict=True)])
    said = verdicts(table)
    assert said["guided"].startswith("Fails: with the upper half of the layers randomised") and "0.83" in said["guided"]
    assert "all layers" in said["integrated"] and "Only their sign" in said["integrated"]
    assert "Only their sign" not in said["guided"]
    assert said["cam"] == "Passes: with random weights its maps differ (rank correlation at most 0.15)."
    assert said["some"].startswith("Passes")


def test_an_empty_map_is_not_judged():
    model, inputs, target = Looker(), crops(2), torch.tensor([0, 0])
    trained = {"grad_cam": attribute("grad_cam", model, inputs, target, SETTINGS)}
    table = sanity_check(model, inputs, target, trained, SETTINGS, 0)
    assert table["crops"].tolist() == [0, 0, 0]
    assert verdicts(table)["grad_cam"].startswith("Not judged")
