"""For `make bench`: random batches with the paper's whole augmentation, from the cache and as the paper makes them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import torch

from benchmark.base.errors import MorphobenchError
from benchmark.bench.ratio import Ratio, best_of
from benchmark.networks.feed.augment import KENSERT_FACTORS, KENSERT_VARIANCE, augment, draw
from benchmark.networks.feed.source import CropSource
from benchmark.networks.settings import TrainingSettings

BATCH = 32
#: Height and width of a tile of BBBC021 as Kensert et al. 2019 store it.
TILE = (512, 640)


def augmented_batches(crops: CropSource, count: int, folder: Path, most: int = 512) -> Ratio:
    """Random batches at network size with the augmentation of Kensert et al. 2019: the cache against one PNG per crop.

    The rival works as they do: OpenCV decodes a PNG of 512 × 640 and shrinks it by area, NumPy rotates and scales it,
    OpenCV blurs it, NumPy adds noise (with NumPy's current generator, which is faster than theirs). Both use one
    thread. The rival's tiles are the same crops, enlarged: smoother than tiles from a microscope, so they decode faster
    and the comparison is to our disadvantage.

    Parameters
    ----------
    crops : CropSource
        Three channels, uint8.
    count : int
        Number of crops in it.
    folder : Path
        For the PNG files.
    most : int
        Most crops drawn from the cache, without replacement.

    Raises
    ------
    MorphobenchError
        The rival cannot store such crops.
    """
    if crops.shape[0] != 3 or crops.dtype != np.uint8:
        raise MorphobenchError("the rival's PNG files hold three channels of 8 bits, these crops do not",
                               f"{crops.shape[0]} channels of {crops.dtype}")
    rows = np.random.default_rng(0).permutation(count)[:most]
    batches = np.split(rows, range(BATCH, len(rows), BATCH))
    paths = {row: _store(crops, row, folder) for row in rows.tolist()}
    settings = TrainingSettings(augmentation="kensert2019")
    generator, rng, size = torch.Generator().manual_seed(0), np.random.default_rng(0), crops.shape[1]

    def ours() -> None:
        for batch in batches:
            augment(torch.from_numpy(crops.batch(batch)), draw(settings, len(batch), 3, generator), generator)

    def rival() -> None:
        for batch in batches:
            np.stack([published_way(paths[row], size, rng) for row in batch.tolist()])

    with _one_thread():
        return Ratio(f"{len(rows)} crops of {size} px in random batches, the paper's augmentation",
                     "one PNG per crop through OpenCV and NumPy", best_of(ours, 3), best_of(rival, 3))


def _store(crops: CropSource, row: int, folder: Path) -> Path:
    """Write a crop as the rival's PNG."""
    path = folder / f"{row}.png"
    pixels = np.ascontiguousarray(crops.batch(np.array([row]))[0].transpose(1, 2, 0))
    tile = cv2.resize(pixels, TILE[::-1], interpolation=cv2.INTER_CUBIC)
    if not cv2.imwrite(str(path), tile):
        raise MorphobenchError("could not be written", str(path), "Check whether the disk is full.")
    return path


def published_way(path: Path, size: int, rng: np.random.Generator) -> np.ndarray:
    """One crop as the paper's code reads and augments it: (size, size, 3) float32 in 0…255."""
    tile = cv2.imread(str(path))
    if tile is None:
        raise MorphobenchError("is not a readable image", str(path))
    image = cv2.resize(tile, (size, size), interpolation=cv2.INTER_AREA)
    image = np.rot90(image, k=int(rng.integers(4)))
    image = (np.fliplr(image) if rng.integers(2) else image).astype(np.float32)
    for c in range(3):
        image[:, :, c] *= rng.choice(KENSERT_FACTORS)
    if rng.integers(2):
        image = cv2.blur(image, (3, 3))
    if rng.integers(2):
        image += rng.normal(0, KENSERT_VARIANCE**0.5, image.shape)
    image[image < 0] = 0
    image[image > 255] = 255
    return image


@contextmanager
def _one_thread() -> Iterator[None]:
    """One thread for PyTorch and for OpenCV; their earlier numbers of threads are restored."""
    torch_threads, cv2_threads = torch.get_num_threads(), cv2.getNumThreads()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        torch.set_num_threads(torch_threads)
        cv2.setNumThreads(cv2_threads)
