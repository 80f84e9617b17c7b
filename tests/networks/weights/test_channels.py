"""One to eight channels: the first convolution keeps what it was trained to sum."""

from __future__ import annotations

import numpy as np
import pytest
import timm
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from benchmark.base.errors import MorphobenchError
from benchmark.networks.feed.source import ArrayCrops
from benchmark.networks.predict import run_model
from benchmark.networks.settings import NetworkSettings
from benchmark.networks.weights.channels import adapt_colours, adapt_filters, colour_shares
from benchmark.networks.weights.weights import load_backbone

CPU = torch.device("cpu")
SMALL = "test_efficientnet"


def test_colours_are_dealt_to_channels_by_hand():
    assert colour_shares(1).tolist() == [[1, 1, 1]]
    assert colour_shares(2).tolist() == [[1, 0, 1], [0, 1, 0]]
    assert torch.equal(colour_shares(3), torch.eye(3))
    assert colour_shares(5).tolist() == [[0.5, 0, 0], [0, 0.5, 0], [0, 0, 1], [0.5, 0, 0], [0, 0.5, 0]]
    for channels in (0, 9):
        with pytest.raises(ValueError, match="1 to 8"):
            colour_shares(channels)


@given(channels=st.integers(1, 8), seed=st.integers(0, 2**31))
def test_the_filters_of_a_channel_sum_to_those_of_the_colours(channels, seed):
    filters = torch.randn(5, 3, 3, 3, generator=torch.Generator().manual_seed(seed))
    adapted = adapt_filters(filters, channels)
    assert adapted.shape == (5, channels, 3, 3)
    assert torch.allclose(adapted.sum(1), filters.sum(1), atol=1e-5)
    assert adapt_colours(torch.full((3,), 0.5), channels) == pytest.approx([0.5] * channels)


@pytest.mark.parametrize("channels", range(1, 9))
def test_alike_channels_give_the_embedded_network_what_a_grey_picture_gives_it(channels):
    rng = np.random.default_rng(0)
    x = np.linspace(0, 3 * np.pi, 64)
    grey = (110 + 80 * np.sin(x)[None, :] * np.cos(x)[:, None] + rng.normal(0, 9, (2, 1, 64, 64))).clip(0, 255)
    grey = grey.astype(np.uint8)
    ours, theirs = (
        run_model(load_backbone(NetworkSettings(), c, 0), ArrayCrops(grey.repeat(c, 1)), np.arange(2), CPU)
        for c in (channels, 3)
    )
    np.testing.assert_allclose(ours, theirs, atol=2e-4 * np.abs(theirs).max())


def test_means_follow_the_colours():
    """ResNet50's colours differ: each channel is normalised as the colour whose filters it got."""
    five, two = (load_backbone(NetworkSettings(backbone="resnet50", weights="none"), c, 2) for c in (5, 2))
    assert five.mean.tolist() == pytest.approx([0.485, 0.456, 0.406, 0.485, 0.456])
    assert five.std.tolist() == pytest.approx([0.229, 0.224, 0.225, 0.229, 0.224])
    assert two.mean.tolist() == pytest.approx([(0.485 + 0.406) / 2, 0.456])


def test_files_of_three_colours_are_adapted_and_files_of_the_right_channels_taken_as_they_are(tmp_path):
    three, four = (timm.create_model(SMALL, in_chans=c).state_dict() for c in (3, 4))
    save_file(three, tmp_path / "three.safetensors")
    save_file(four, tmp_path / "four.safetensors")
    adapted, taken = (
        load_backbone(NetworkSettings(backbone=SMALL, weights=str(tmp_path / f"{n}.safetensors")), 4, 2).model
        for n in ("three", "four")
    )
    assert torch.allclose(adapted.conv_stem.weight, adapt_filters(three["conv_stem.weight"], 4))
    assert torch.equal(taken.conv_stem.weight, four["conv_stem.weight"])
    with pytest.raises(MorphobenchError, match="other shape"):
        load_backbone(NetworkSettings(backbone=SMALL, weights=str(tmp_path / "four.safetensors")), 2, 2)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_without_normalisation_the_network_sees_the_raw_values(dtype):
    """As the paper's code feeds it: 0…255."""
    backbone = load_backbone(NetworkSettings(backbone=SMALL, weights="none", normalisation="none"), 3, 2)
    seen: list[torch.Tensor] = []
    backbone.model.conv_stem.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].clone()))
    values = np.arange(192).reshape(1, 3, 8, 8) % 256
    pixels = (values * (257 if dtype == np.uint16 else 1)).astype(dtype)
    run_model(backbone, ArrayCrops(pixels), np.array([0]), CPU)
    np.testing.assert_allclose(seen[0].numpy(), values, rtol=1e-6, atol=1e-6)
