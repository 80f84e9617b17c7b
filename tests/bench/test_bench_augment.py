"""The rival of the augmentation's benchmark does what it stands for, on the same crops."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from benchmark.base.errors import MorphobenchError
from benchmark.bench.augment import TILE, augmented_batches, published_way
from benchmark.networks.feed.source import ArrayCrops


def smooth(n: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    fields = [cv2.resize(rng.random((6, 6, 3)), (64, 64), interpolation=cv2.INTER_CUBIC) for _ in range(n)]
    return (np.clip(np.stack(fields), 0, 1) * 200).astype(np.uint8).transpose(0, 3, 1, 2)


def test_both_sides_are_timed_on_the_crops_of_the_cache_and_threads_are_given_back(tmp_path):
    before = torch.get_num_threads(), cv2.getNumThreads()
    pixels = smooth(10)
    ratio = augmented_batches(ArrayCrops(pixels), 10, tmp_path, most=6)
    assert ratio.what.startswith("6 crops of 64 px") and ratio.ours_seconds > 0 and ratio.times > 0
    assert (torch.get_num_threads(), cv2.getNumThreads()) == before
    stored = sorted(tmp_path.glob("*.png"))
    assert len(stored) == 6
    for path in stored:
        tile = cv2.imread(str(path))
        assert tile.shape == (*TILE, 3)
        back = cv2.resize(tile, (64, 64), interpolation=cv2.INTER_AREA).transpose(2, 0, 1)
        assert np.abs(back.astype(int) - pixels[int(path.stem)]).max() <= 12
        image = published_way(path, 64, np.random.default_rng(0))
        assert image.shape == (64, 64, 3) and image.dtype == np.float32
        assert image.min() >= 0 and image.max() <= 255 and image.std() > 5


def test_crops_that_a_png_cannot_hold_are_refused(tmp_path):
    with pytest.raises(MorphobenchError, match="three channels of 8 bits"):
        augmented_batches(ArrayCrops(np.zeros((2, 2, 32, 32), np.uint8)), 2, tmp_path)
