"""Maximised pictures show what a filter looks at, repeatably; the strongest filters are those that count."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from lookers import Looker, convolutions
from torch import nn

from benchmark.base.errors import MorphobenchError
from benchmark.explain.maximise import maximise, strongest_filters
from benchmark.explain.settings import MaximiseSettings
from benchmark.networks.weights.weights import Backbone

QUICK = MaximiseSettings(steps=40, rate=0.2, jitter=0)


def backbone(model: nn.Module) -> Backbone:
    return Backbone(model, torch.zeros(3), torch.ones(3), "test", "", 16)


@pytest.mark.parametrize("activation", [nn.ReLU, nn.ReLU6])
def test_a_filter_of_one_channel_and_corner_is_bright_there_alone(activation):
    (picture,) = maximise(backbone(Looker(2, activation=activation)), np.array([0]), 3, 32, 0, QUICK)
    assert picture.shape == (3, 32, 32) and picture.dtype == np.float32
    assert picture[2, 4:12, 20:28].mean() > 0.8
    assert abs(picture[2, 20:, :12].mean() - 0.5) < 0.1 and abs(picture[:2].mean() - 0.5) < 0.1


def test_a_filter_that_is_silent_on_noise_is_woken():
    model = Looker(1)
    with torch.no_grad():
        model.conv.bias -= 0.8  # mid-grey does not reach it
    (picture,) = maximise(backbone(model), np.array([0]), 3, 32, 0, QUICK)
    assert picture[1, 4:12, 20:28].mean() > 0.8


def test_pictures_hang_on_seed_and_filter_alone_and_the_model_stays():
    model = convolutions().train()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    several = maximise(backbone(model), np.array([3, 7]), 3, 32, 1, MaximiseSettings(steps=6))
    alone = maximise(backbone(model), np.array([7]), 3, 32, 1, MaximiseSettings(steps=6))
    assert np.allclose(several[1], alone[0], atol=1e-4) and not np.allclose(several[0], several[1], atol=1e-3)
    assert not np.allclose(alone, maximise(backbone(model), np.array([7]), 3, 32, 2, MaximiseSettings(steps=6)),
                           atol=1e-3)
    assert several.min() >= 0 and several.max() <= 1
    assert model.training and all(torch.equal(before[k], v) for k, v in model.state_dict().items())


def test_filters_of_a_named_layer_and_those_that_do_not_exist():
    model = convolutions()
    assert maximise(backbone(model), np.array([5]), 3, 32, 0, MaximiseSettings(steps=2), "body.0").shape[0] == 1
    with pytest.raises(MorphobenchError, match="12 filters"):
        maximise(backbone(model), np.array([12]), 3, 32, 0, MaximiseSettings(steps=1))
    with pytest.raises(MorphobenchError, match="no layer 'head'"):
        maximise(backbone(model), np.array([0]), 3, 32, 0, MaximiseSettings(steps=1), "head")
    with pytest.raises(MorphobenchError, match="gives no feature map"):
        maximise(backbone(model), np.array([0]), 3, 32, 0, MaximiseSettings(steps=1), "fc")


def test_classes_take_turns_at_their_strongest_filters():
    model = convolutions().eval()
    with torch.no_grad():
        model.fc.weight.zero_()
        model.fc.weight[0, 4], model.fc.weight[0, 5] = 9.0, 5.0
        model.fc.weight[2, 4], model.fc.weight[2, 8] = 9.0, 5.0
        model.body[4].bias.fill_(1.0)  # every filter answers somewhat
    inputs = torch.rand((4, 3, 16, 16), generator=torch.Generator().manual_seed(0))
    assert strongest_filters(model, inputs, torch.tensor([2, 0, 0, 2]), 3).tolist() == [4, 8, 5]
    assert len(strongest_filters(model, inputs, torch.tensor([2, 0, 0, 2]), 99)) == 12
