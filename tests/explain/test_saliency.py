"""Attributions lie where a network with known reasons looks, are complete, and leave the model as it was."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import timm
import torch
from lookers import Functional, Looker, convolutions
from torch import nn

from benchmark.base.errors import MorphobenchError
from benchmark.explain.saliency import WAYS, attribute, background, guided_backpropagation
from benchmark.explain.settings import SaliencySettings

SETTINGS = SaliencySettings(window=4, stride=2)


def crops(n: int = 3, side: int = 16) -> torch.Tensor:
    """Bright noise, positive everywhere."""
    return torch.rand((n, 3, side, side), generator=torch.Generator().manual_seed(0)) + 0.5


@pytest.mark.parametrize("method", WAYS)
@pytest.mark.parametrize("channel", [0, 2])
def test_attribution_lies_where_the_network_looks(method, channel):
    found = attribute(method, Looker(channel), crops(), torch.tensor([1, 1, 1]), SETTINGS)
    assert found.maps.shape == (3, 16, 16) and found.maps.dtype == np.float32
    inside = found.magnitude[:, :8, 8:].sum(axis=(1, 2)) / found.magnitude.sum(axis=(1, 2))
    assert (inside > (0.8 if method == "occlusion" else 0.999)).all()  # squares reach over the edge
    assert (found.maps[:, 2:6, 10:14] > 0).mean() > 0.9  # it speaks for the class
    if found.channels is not None:
        other = [c for c in range(3) if c != channel]
        assert np.abs(found.channels[:, other]).max() == 0
        assert np.allclose(found.channels.sum(axis=1), found.maps, atol=1e-6)
    assert (found.channels is None) == (method in ("grad_cam", "occlusion"))


@pytest.mark.parametrize("method", WAYS)
def test_a_class_that_rests_on_nothing_gets_nothing(method):
    assert not attribute(method, Looker(), crops(), torch.tensor([0, 0, 0]), SETTINGS).magnitude.any()


def test_each_crop_is_explained_by_its_own_class_and_batches_do_not_matter():
    model, inputs, target = convolutions().eval(), crops(5), torch.tensor([0, 1, 2, 0, 1])
    for method in WAYS:
        whole = attribute(method, model, inputs, target, SETTINGS)
        parts = attribute(method, model, inputs, target, SETTINGS, batch=2)
        alone = attribute(method, model, inputs[3:4], target[3:4], SETTINGS)
        assert np.allclose(whole.maps, parts.maps, atol=1e-5)
        assert np.allclose(whole.maps[3], alone.maps[0], atol=1e-5)


def test_integrated_gradients_are_complete_or_say_what_lacks():
    model, inputs, target = convolutions(3).eval(), crops(4), torch.tensor([0, 1, 2, 1])
    with torch.no_grad():
        difference = (model(inputs) - model(background(inputs).expand_as(inputs))).gather(1, target[:, None])[:, 0]
    found = attribute("integrated_gradients", model, inputs, target, SETTINGS)
    assert np.allclose(found.maps.sum(axis=(1, 2)), difference.numpy(), atol=0.05)
    assert found.gaps is not None and (found.gaps <= SETTINGS.tolerance).all()
    # A jump that no gradient sees: the sum cannot be the difference of the scores, and this is stated.
    class Jump(Looker):
        def forward(self, x):
            return super().forward(x) + 5 * (x[:, :1, :1, 8:9].flatten(1) > -9) * (x.mean((1, 2, 3)) > 0.9)[:, None]

    jump = attribute("integrated_gradients", Jump(), inputs, torch.ones(4).long(), SETTINGS)
    assert jump.gaps is not None and (jump.gaps > 0.5).all()


def test_occlusion_is_the_fall_of_the_score():
    model, inputs = Looker(), crops(1, 8)
    found = attribute("occlusion", model, inputs, torch.tensor([1]), SaliencySettings(window=4, stride=4))
    hidden = inputs.clone()
    hidden[:, :, :4, 4:] = background(inputs)
    with torch.no_grad():
        fall = float(model(inputs)[0, 1] - model(hidden)[0, 1])
    assert np.allclose(found.maps[0, :4, 4:], fall, rtol=1e-5) and np.abs(found.maps[0, 4:]).max() < 1e-6
    for wrong in (SaliencySettings(window=9), SaliencySettings(window=2, stride=3)):
        with pytest.raises(MorphobenchError, match="do not suit"):
            attribute("occlusion", model, inputs, torch.tensor([1]), wrong)


def test_guided_backpropagation_is_not_the_gradient():
    """x → ReLU → ReLU(-h + 2): the second unit's gradient at the first is negative, and is not passed."""
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.ReLU(), nn.ReLU()

        def forward(self, x):
            h = self.first(x[:, 0].mean((1, 2)))
            return torch.stack([self.second(2 - h), h], dim=1)

    inputs = crops(1)
    against, towards = (guided_backpropagation(Two(), inputs, torch.tensor([k]), SETTINGS).maps for k in (0, 1))
    assert not against.any() and np.allclose(towards, 1 / 256)


@pytest.mark.parametrize("activation", [nn.SiLU, nn.Hardswish, nn.GELU, nn.LeakyReLU, nn.ELU])
def test_rectifiers_that_cannot_be_guided_are_refused_in_words(activation):
    with pytest.raises(MorphobenchError, match=r"defined for ReLU.*it uses"):
        guided_backpropagation(Looker(activation=activation), crops(), torch.tensor([1, 1, 1]), SETTINGS)


def test_a_relu_that_is_no_module_is_refused_and_so_is_a_network_without_any():
    with pytest.raises(MorphobenchError, match="1 of its ReLUs are no modules"):
        guided_backpropagation(Functional(), crops(), torch.tensor([1, 1, 1]), SETTINGS)
    with pytest.raises(MorphobenchError, match="has no ReLU"):
        guided_backpropagation(Looker(activation=nn.Identity), crops(), torch.tensor([1, 1, 1]), SETTINGS)


def test_relu6_is_a_relu_with_a_cap():
    """Below 6 both give the same; above, ReLU6 passes nothing."""
    inputs = crops()
    low, high = (guided_backpropagation(Looker(activation=nn.ReLU6), inputs * k, torch.tensor([1, 1, 1]), SETTINGS)
                 for k in (1, 20))
    plain = guided_backpropagation(Looker(), inputs, torch.tensor([1, 1, 1]), SETTINGS)
    assert np.array_equal(low.maps, plain.maps) and not high.maps.any()


@pytest.mark.parametrize("method", WAYS)
@pytest.mark.parametrize("activation", [nn.ReLU, nn.ReLU6])
def test_the_model_is_left_as_it_was(method, activation):
    model = convolutions(activation=activation).train()
    model.body[1].eval()
    model.fc.weight.requires_grad_(False)
    before = copy.deepcopy(model.state_dict())
    modes = [m.training for m in model.modules()]
    inputs = crops()
    with torch.inference_mode():  # as `outputs` runs networks
        attribute(method, model, inputs, torch.tensor([0, 1, 2]), SETTINGS)
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
    assert [m.training for m in model.modules()] == modes
    assert [p.requires_grad for p in model.parameters()].count(False) == 1
    assert all(p.grad is None for p in model.parameters()) and not inputs.requires_grad
    assert all(not m._forward_hooks and not m._backward_hooks and not m._forward_pre_hooks for m in model.modules())
    assert model.body[2].inplace


def test_a_failing_method_restores_the_model_too():
    model = convolutions().train()
    with pytest.raises(RuntimeError):
        attribute("integrated_gradients", model, crops()[:, :2], torch.tensor([0, 1, 2]), SETTINGS)
    assert model.training and all(p.requires_grad for p in model.parameters())


@pytest.mark.parametrize("name", ["tf_efficientnet_lite0", "resnet18", "test_convnext", "inception_v3"])
def test_networks_of_timm_are_explained_without_naming_a_layer(name):
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=2).eval()
    inputs = torch.rand(1, 3, 96, 96)
    for method in ("grad_cam", "guided_backpropagation"):
        if name == "test_convnext" and method == "guided_backpropagation":
            with pytest.raises(MorphobenchError, match="it uses Gelu"):
                attribute(method, model, inputs, torch.tensor([1]), SETTINGS)
        else:
            assert attribute(method, model, inputs, torch.tensor([1]), SETTINGS).maps.shape == (1, 96, 96)


def test_grad_cam_refuses_tokens_in_words():
    model = timm.create_model("test_vit", num_classes=2).eval()
    inputs = torch.rand(1, 3, 160, 160)
    with pytest.raises(MorphobenchError, match="ends in tokens"):
        attribute("grad_cam", model, inputs, torch.tensor([1]), SETTINGS)
    assert attribute("integrated_gradients", model, inputs, torch.tensor([1]), SaliencySettings(steps=4, most_steps=4))
