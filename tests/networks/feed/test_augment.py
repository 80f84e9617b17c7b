"""Augmentation: symmetries, bounds, and the paper's own steps against NumPy and OpenCV."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmark.networks.feed.augment import (
    Draws,
    at_once,
    augment,
    dihedral,
    draw,
    gathered_views,
    one_by_one,
    scaled,
)
from benchmark.networks.settings import TrainingSettings


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random_crops(shape: tuple[int, ...], dtype: type = np.uint8, seed: int = 0) -> torch.Tensor:
    top = np.iinfo(dtype).max
    return torch.from_numpy(np.random.default_rng(seed).integers(0, top, shape, dtype, endpoint=True))


def standard(batch: torch.Tensor, gain: float, offset: float, seed: int) -> torch.Tensor:
    settings = TrainingSettings(gain=gain, offset=offset)
    return augment(batch, draw(settings, len(batch), batch.shape[1], seeded(seed)))


def draw_kensert(batch: torch.Tensor, seed: int) -> Draws:
    return draw(TrainingSettings(augmentation="kensert2019"), len(batch), batch.shape[1], seeded(seed))


def noise_for(batch: torch.Tensor, seed: int) -> torch.Tensor:
    return torch.randn(batch.shape, generator=seeded(seed))


def test_the_eight_views_are_distinct_and_view_zero_is_the_identity():
    crop = torch.arange(2 * 5 * 5, dtype=torch.uint8).reshape(1, 2, 5, 5)
    views = torch.cat([dihedral(crop, view) for view in range(8)])
    assert torch.equal(views[0], crop[0])
    assert len({tuple(v.flatten().tolist()) for v in views}) == 8


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_each_view_is_inverted_by_another(dtype):
    crop = random_crops((1, 3, 7, 7), dtype)
    for view in range(8):
        once = gathered_views(crop, torch.tensor([view]))
        assert once.dtype == crop.dtype
        backs = [gathered_views(once, torch.tensor([back])) for back in range(8)]
        assert any(np.array_equal(back.numpy(), crop.numpy()) for back in backs)


@settings(max_examples=20, deadline=None)
@given(gain=st.floats(0, 0.9), offset=st.floats(0, 0.9), seed=st.integers(0, 2**31))
def test_augmented_crops_stay_in_range_and_follow_the_seed(gain, offset, seed):
    batch = random_crops((4, 3, 6, 6))
    a, b = (standard(batch, gain, offset, seed) for _ in range(2))
    assert a.dtype == torch.float32 and a.shape == batch.shape
    assert float(a.min()) >= 0 and float(a.max()) <= 1
    assert torch.equal(a, b)


def test_crops_of_one_batch_get_views_of_their_own():
    batch = random_crops((1, 1, 9, 9)).repeat(64, 1, 1, 1)
    out = standard(batch, 0.0, 0.0, 0)
    assert len({tuple(o.flatten().tolist()) for o in out}) == 8


def test_the_settings_choose_the_augmentation():
    batch = random_crops((3, 2, 8, 8))
    assert torch.equal(augment(batch, draw(TrainingSettings(augmentation="none"), 3, 2, seeded(5))), scaled(batch))
    assert torch.equal(scaled(batch), batch.float() / 255)
    plain, paper = (draw(TrainingSettings(augmentation=name), 3, 2, seeded(5)) for name in ("standard", "kensert2019"))
    assert plain.shifts is not None and plain.noisy is None
    assert paper.shifts is None and paper.noisy is not None
    with pytest.raises(ValueError, match="augmentation"):
        TrainingSettings.model_validate({"augmentation": "kensert2020"})


@settings(max_examples=40, deadline=None)
@given(n=st.integers(1, 6), channels=st.integers(1, 4), size=st.integers(2, 17), seed=st.integers(0, 2**31),
       name=st.sampled_from(["standard", "kensert2019"]), dtype=st.sampled_from([np.uint8, np.uint16]))
def test_a_batch_at_once_is_what_it_is_crop_by_crop(n, channels, size, seed, name, dtype):
    """The way of a GPU and that of a CPU, for the same draws."""
    batch = random_crops((n, channels, size, size), dtype, seed)
    draws = draw(TrainingSettings(augmentation=name), n, channels, seeded(seed))
    noise = noise_for(batch, seed)
    single = one_by_one(batch, draws, iter(noise if draws.noisy is None else noise[draws.noisy]))
    assert torch.allclose(at_once(batch, draws, noise), single, atol=1e-6)


def test_draws_of_an_epoch_are_those_of_its_batches():
    batch = random_crops((7, 2, 5, 5))
    draws = draw(TrainingSettings(), 7, 2, seeded(0))
    parts = [augment(batch[a:b], draws.part(a, b)) for a, b in ((0, 3), (3, 7))]
    assert torch.equal(torch.cat(parts), augment(batch, draws))


@settings(max_examples=20, deadline=None)
@given(channels=st.integers(1, 8), seed=st.integers(0, 2**31),
       name=st.sampled_from(["none", "standard", "kensert2019"]))
def test_sixteen_bits_are_augmented_as_eight_bits_are(channels, seed, name):
    """65535 = 257 × 255: the same picture in 16 bits."""
    eight = random_crops((3, channels, 6, 6), seed=seed)
    sixteen = torch.from_numpy(eight.numpy().astype(np.uint16) * 257)
    draws = draw(TrainingSettings(augmentation=name), 3, channels, seeded(seed))
    a, b = (augment(x, draws, seeded(seed)) for x in (eight, sixteen))
    assert torch.allclose(a, b, atol=1e-6)


def as_published(crop: np.ndarray, view: int, factors: np.ndarray, blurred: bool, noise: np.ndarray | None):
    """One (C, S, S) crop by NumPy and OpenCV, (S, S, C), as the paper's code takes it; float32 in 0…255."""
    image = np.rot90(crop.transpose(1, 2, 0), view % 4)
    image = np.ascontiguousarray(np.fliplr(image) if view >= 4 else image).astype(np.float32)
    for i, factor in enumerate(factors):
        image[:, :, i] *= factor
    if blurred:
        image = cv2.blur(image, (3, 3)).reshape(image.shape)
    if noise is not None:
        image += 50**0.5 * noise.transpose(1, 2, 0).astype(np.float64)
    image[image < 0] = 0
    image[image > 255] = 255
    return image.transpose(2, 0, 1)


@settings(max_examples=40, deadline=None)
@given(n=st.integers(1, 6), channels=st.integers(1, 4), size=st.integers(2, 17), seed=st.integers(0, 2**31))
def test_the_papers_augmentation_is_that_of_numpy_and_opencv(n, channels, size, seed):
    """Bright and dark crops, so that what is clipped, and when, shows."""
    batch = random_crops((n, channels, size, size), seed=seed)
    draws, noise = draw_kensert(batch, seed), noise_for(batch, seed)
    ours = one_by_one(batch, draws, iter(noise[draws.noisy])).numpy() * 255
    for i in range(n):
        wanted = as_published(batch[i].numpy(), int(draws.views[i]), draws.factors[i].numpy(), bool(draws.blurred[i]),
                              noise[i].numpy() if draws.noisy[i] else None)
        np.testing.assert_allclose(ours[i], wanted, atol=2e-4)


def test_nothing_is_clipped_before_the_end():
    """A pixel of 250 × 1.25 beside darkness: the mean is taken of 312.5, not of 255."""
    crop = torch.zeros(1, 1, 3, 3, dtype=torch.uint8)
    crop[0, 0, 1, 1] = 250
    blurred, bare = (Draws(torch.tensor([0]), torch.tensor([[1.25]]), blurred=torch.tensor([b])) for b in (True, False))
    assert one_by_one(crop, blurred)[0, 0, 1, 1] * 255 == pytest.approx(312.5 / 9, abs=1e-4)
    assert one_by_one(crop, bare).max() == 1


def test_the_papers_views_are_our_eight():
    """Theirs turn the mirrored crop, ours mirror the turned one: the same eight pictures."""
    crop = random_crops((1, 1, 5, 5))
    x = crop[0, 0].numpy()
    theirs = [np.rot90(y, k) for y in (x, np.fliplr(x)) for k in range(4)]
    ours = gathered_views(crop.repeat(8, 1, 1, 1), torch.arange(8))[:, 0].numpy()
    assert {y.tobytes() for y in map(np.ascontiguousarray, theirs)} == {y.tobytes() for y in ours}


def test_draws_have_the_papers_chances_and_noise_is_never_used_twice():
    batch = torch.full((4000, 2, 4, 4), 128, dtype=torch.uint8)
    draws = draw_kensert(batch, 1)
    share = {f: float((draws.factors == f).float().mean()) for f in (0.75, 1.0, 1.25)}
    assert share[1.0] == pytest.approx(0.5, abs=0.03)
    assert share[0.75] == pytest.approx(0.25, abs=0.03) and share[1.25] == pytest.approx(0.25, abs=0.03)
    assert float((draws.factors[:, 0] == draws.factors[:, 1]).float().mean()) == pytest.approx(0.375, abs=0.03)
    assert np.bincount(draws.views, minlength=8) / 4000 == pytest.approx(np.full(8, 1 / 8), abs=0.03)
    assert float(draws.blurred.float().mean()) == pytest.approx(0.5, abs=0.03)
    assert float(draws.noisy.float().mean()) == pytest.approx(0.5, abs=0.03)
    assert float((draws.blurred & draws.noisy).float().mean()) == pytest.approx(0.25, abs=0.03)
    plain = Draws(torch.zeros(4000, dtype=torch.int64), torch.ones(4000, 2), noisy=draws.noisy)
    noise = seeded(2)
    out = torch.cat([augment(batch[i : i + 500], plain.part(i, i + 500), noise) for i in range(0, 4000, 500)])
    out = out[draws.noisy] * 255
    assert float(out.var()) == pytest.approx(50, rel=0.03) and float(out.mean()) == pytest.approx(128, abs=0.2)
    assert len(torch.unique(out)) > 0.9 * out.numel()
