"""Blended crops and shares of labels that go with them."""

from __future__ import annotations

import pytest
import torch

from benchmark.networks.feed.mixing import Mix, draw_mix, mixed
from benchmark.networks.settings import TrainingSettings


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_nothing_is_mixed_unless_asked_for():
    assert draw_mix(TrainingSettings(), 4, 8, seeded(0)) is None


def test_mixup_blends_with_the_partner_by_the_share():
    crops = torch.rand(3, 2, 4, 4)
    out = mixed(crops, Mix(torch.tensor([1.0, 0.25, 0.5])))
    assert torch.equal(out[0], crops[0]) and torch.allclose(out[1], crops[1])
    assert torch.allclose(out[2], (crops[2] + crops[0]) / 2)


@pytest.mark.parametrize("alpha", [0.2, 1.0])
def test_the_share_of_cutmix_is_what_is_left_of_the_crop(alpha):
    mix = draw_mix(TrainingSettings(mix="cutmix", mix_alpha=alpha), 200, 16, seeded(1))
    crops = torch.stack([torch.zeros(1, 16, 16), torch.ones(1, 16, 16)]).repeat(100, 1, 1, 1)  # partners differ
    changed = (mixed(crops, mix) != crops).float().mean((1, 2, 3))
    assert torch.allclose(1 - changed, mix.shares, atol=1e-6)
    assert 0.3 < float(mix.shares.mean()) < 0.9 and len(mix.shares.unique()) > 20


def test_draws_follow_the_seed_and_parts_are_those_of_the_epoch():
    settings = TrainingSettings(mix="mixup")
    a, b = (draw_mix(settings, 9, 16, seeded(3)) for _ in range(2))
    assert torch.equal(a.shares, b.shares) and a.boxes is None
    assert torch.equal(a.part(2, 5).shares, a.shares[2:5])
    assert float(a.shares.min()) >= 0 and float(a.shares.max()) <= 1
