"""Pooling of instances: their order does not matter, noisy-AND is its formula."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmark.networks.architectures.layers.instances import HEADS, MultipleInstances
from benchmark.networks.architectures.layers.pooling import attend, log_noisy_and
from benchmark.networks.weights.timm_models import create

FEATURES, CLASSES = 6, 3
bags = {"seed": st.integers(0, 2**31), "b": st.integers(1, 4), "n": st.integers(1, 7)}


def noisy_and(scores: torch.Tensor, threshold: torch.Tensor, slope: float = 10.0) -> torch.Tensor:
    """Probabilities, of which the network computes the logarithms."""
    return log_noisy_and(scores, threshold, slope).exp()


def drawn(seed: int, b: int, n: int, scale: float = 2.0) -> torch.Tensor:
    """(B, N, K) instances."""
    return scale * torch.randn(b, n, FEATURES, generator=torch.Generator().manual_seed(seed))


def formula(p: np.ndarray, b: np.ndarray, a: float) -> np.ndarray:
    """Noisy-AND as Kraus et al. 2016 print it, of mean probabilities."""
    def sigmoid(x):
        return 1 / (1 + np.exp(-x))
    return (sigmoid(a * (p - b)) - sigmoid(-a * b)) / (sigmoid(a * (1 - b)) - sigmoid(-a * b))


@pytest.mark.parametrize("pooling", sorted(HEADS))
@settings(max_examples=25, deadline=None)
@given(**bags)
def test_order_does_not_matter_nor_what_other_bags_hold(pooling, seed, b, n):
    torch.manual_seed(seed)
    head = HEADS[pooling](FEATURES, CLASSES)
    instances = drawn(seed, b, n)
    wanted = head(instances)
    assert wanted.shape == (b, CLASSES) and wanted.isfinite().all()
    assert torch.allclose(head(instances[:, torch.randperm(n)]), wanted, atol=1e-5)
    for i in range(b):
        assert torch.allclose(head(instances[i : i + 1]), wanted[i], atol=1e-5)


@pytest.mark.parametrize("pooling", sorted(HEADS))
def test_gradients_of_extreme_instances_are_finite(pooling):
    head = HEADS[pooling](FEATURES, CLASSES)
    instances = drawn(3, 4, 7, scale=40).requires_grad_()
    head(instances).sum().backward()
    assert instances.grad.isfinite().all() and instances.grad.any()


@settings(max_examples=50, deadline=None)
@given(**bags, b_class=st.floats(0.05, 0.95), slope=st.floats(1, 20))
def test_noisy_and_is_its_formula_and_lies_in_0_to_1(seed, b, n, b_class, slope):
    scores = drawn(seed, b, n)
    threshold = torch.full((FEATURES,), b_class)
    got = noisy_and(scores.double(), threshold.double(), slope).numpy()
    p = scores.double().sigmoid().mean(1).numpy()
    np.testing.assert_allclose(got, formula(p, threshold.double().numpy(), slope), rtol=1e-7, atol=1e-12)
    assert (got >= 0).all() and (got <= 1 + 1e-12).all()


@settings(max_examples=50, deadline=None)
@given(**bags, b_class=st.floats(-0.5, 1.5))
def test_noisy_and_rises_with_every_instance(seed, b, n, b_class):
    scores = drawn(seed, b, n)
    threshold = torch.full((FEATURES,), b_class)
    more = scores.clone()
    more[:, -1] += 0.5
    assert (log_noisy_and(more, threshold) >= log_noisy_and(scores, threshold)).all()
    assert (log_noisy_and(scores, threshold) <= 1e-6).all()


def test_noisy_and_by_hand():
    """Half of the instances certain and the threshold at a half: σ(0) − σ(−5) over σ(5) − σ(−5) is one half."""
    scores = torch.tensor([[[90.0], [-90.0]]])
    assert noisy_and(scores, torch.tensor([0.5])).item() == pytest.approx(0.5)
    assert noisy_and(scores.abs(), torch.tensor([0.5])).item() == pytest.approx(1)
    assert noisy_and(-scores.abs(), torch.tensor([0.5])).item() == pytest.approx(0, abs=1e-9)
    assert log_noisy_and(-scores.abs(), torch.tensor([0.5])).isfinite()


@settings(max_examples=20, deadline=None)
@given(**bags)
def test_attention_is_a_weighted_sum(seed, b, n):
    instances = drawn(seed, b, n, scale=30)
    weights = instances[..., 0].softmax(1)
    assert torch.allclose(attend(instances, weights), torch.einsum("bn,bnk->bk", weights, instances), atol=1e-4)


@pytest.mark.parametrize("pooling", sorted(HEADS))
def test_a_bag_is_its_crops_whatever_stands_in_other_bags(pooling):
    model = MultipleInstances(create("test_efficientnet", 2, 0), CLASSES, pooling)
    crops = torch.rand(3, 4, 2, 64, 64, generator=torch.Generator().manual_seed(0))
    model.train()(crops).sum().backward()
    assert all(torch.isfinite(b).all() for b in model.buffers())
    model.eval()
    with torch.no_grad():
        found = model(crops)
        assert torch.allclose(model(crops[1:2, [2, 0, 3, 1]]), found[1:2], atol=1e-5)
        each = torch.stack([model._positions(bag).mean(1) for bag in crops])
        assert torch.allclose(model.head(each), found, atol=1e-5)
    assert found.shape == (3, CLASSES) and found.isfinite().all()


@pytest.mark.parametrize(("name", "positions"), [("test_efficientnet", 4), ("test_vit", 16), ("test_convnext", 4),
                                                 ("swin_tiny_patch4_window7_224", 4)])
def test_every_place_of_a_feature_map_is_an_instance(name, positions):
    """Convolutional networks, tokens without the class token, and maps with channels last."""
    network = create(name, 3, 0)
    model = MultipleInstances(network, CLASSES, "mean").eval()
    x = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        found = model._positions(x)
        assert found.shape == (2, positions, network.num_features)
        assert torch.allclose(model(x), model.head.score(found.mean(1)), atol=1e-5)
