"""What `make bench` compares is the same work on both sides."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from crop_assays import repaint

from benchmark.bench.crops import HASH, PAPER, SIDE, _plain_moments, _plain_tiles, crop_memory, plate_of
from benchmark.crops.build import build_crops, crop_key
from benchmark.crops.reader import open_crops


def test_the_plain_loop_makes_the_same_crops(make_tiny, tmp_path):
    assay, _, _ = make_tiny()
    plate = plate_of(repaint(assay, (64, 80)), tmp_path / "plate", 12)
    build_crops(tmp_path / "c.h5", plate, HASH, PAPER)
    crops = open_crops(tmp_path / "c.h5", crop_key(HASH, PAPER))
    moments = _plain_moments(plate)
    n = 0
    for field, row in plate.predicted.iterrows():
        for number, tile in _plain_tiles(plate, row, moments).items():
            assert (crops.field[n], crops.crop[n]) == (field, number)
            small = cv2.resize(tile, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
            assert np.array_equal(np.moveaxis(small, 2, 0), crops.batch(np.array([n]))[0])
            n += 1
    assert n == len(crops) > 0


@pytest.mark.slow
def test_memory_does_not_grow_with_the_crops(make_tiny, tmp_path):
    assay, _, _ = make_tiny()
    one, ten = crop_memory(repaint(assay, (64, 80)), tmp_path, (1, 10))
    assert (one.crops, ten.crops) == (128, 1280)
    # 1,152 more crops of 12 KiB are 14 MiB; their rows in the table are 0.04 MiB.
    assert ten.build_mib - one.build_mib < 12 and ten.read_mib - one.read_mib < 12
