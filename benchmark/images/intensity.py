"""Intensity schemes: pure functions from stored pixel values to what a network sees.

A monotone scheme is a function of the stored value alone once its few parameters are known, so it is computed once for
each possible value (at most 65,536) and looked up for each pixel. The tables are computed in float32 in the order of
the authors' operations, so that they hold what the authors' code computes.

``kensert2019`` follows the code published with Kensert, Harrison & Spjuth 2019 (SLAS Discov 24:466), the functions
``anscombe`` and ``DMSO_normalization`` of its BBBC021 script and ``normalization`` of its BBBC014 script.
"""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np

from benchmark.base.errors import MorphobenchError

#: Kensert et al. 2019: a value above 255 / 5.1 = 50 is bright …
BRIGHT = 255 / 5.1
#: … and a tile is dropped when at most this share of its values is bright.
LEAST_BRIGHT = 0.002


def anscombe(values: np.ndarray) -> np.ndarray:
    """Variance-stabilising transform of counts, 2 √(x + 3/8) (Anscombe 1948, Biometrika 35:246).

    Parameters
    ----------
    values : ndarray
        Stored pixel values, any shape, not negative.

    Returns
    -------
    ndarray of float32
        Of the same shape.
    """
    return np.float32(2) * np.sqrt(values.astype(np.float32) + np.float32(0.375))


def anscombe_moments(counts: np.ndarray) -> tuple[float, float]:
    """Mean and population standard deviation of Anscombe-transformed pixels, from a histogram of stored values.

    The same numbers as ``anscombe(pixels).mean()`` and ``.std()`` in exact arithmetic, with the memory of the
    histogram whatever the number of pixels. (The authors add millions of values in float32.)

    Parameters
    ----------
    counts : ndarray of int, shape (V,)
        How many pixels have each stored value 0…V-1.

    Raises
    ------
    ValueError
        There are no pixels.
    """
    n = int(counts.sum())
    if n == 0:
        raise ValueError("no pixels")
    values = anscombe(np.arange(len(counts))).astype(np.float64)
    mean = float(counts @ values) / n
    return mean, float(np.sqrt(counts @ (values - mean) ** 2 / n))


def zscore(values: np.ndarray, mean: float, std: float) -> np.ndarray:
    """(x - mean) / std in float32, one rounding after the other."""
    return (values.astype(np.float32) - np.float32(mean)) / np.float32(std)


def stretch(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Map ``low``…``high`` to 0…255: (x - low) · 255 / (high - low) in float32; zeros where the range is empty.

    The authors divide by zero there; a constant field or tile is empty either way.
    """
    values = values.astype(np.float32)
    if not high > low:
        return np.zeros_like(values)
    return (values - np.float32(low)) * np.float32(255) / (np.float32(high) - np.float32(low))


@lru_cache(maxsize=16)
def kensert2019_table(value_max: int, moments: tuple[float, float]) -> np.ndarray:
    """Scheme ``kensert2019`` up to its per-field step, for each stored value 0…``value_max``.

    Anscombe transform, then the mean of the Anscombe-transformed negative-control pixels of the plate and channel
    subtracted and their standard deviation divided by.

    Parameters
    ----------
    value_max : int
        255 or 65535.
    moments : (float, float)
        Mean and standard deviation, of `anscombe_moments`.

    Returns
    -------
    ndarray of float32, shape (value_max + 1,)
        Increasing with the value; read-only, since it is computed once and shared.
    """
    table = zscore(anscombe(np.arange(value_max + 1)), *moments)
    table.setflags(write=False)
    return table


def kensert2019_field(planes: np.ndarray, tables: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Scheme ``kensert2019`` on one field: the minimum–maximum of all its channels jointly becomes 0…255.

    Parameters
    ----------
    planes : ndarray of uint8 or uint16, shape (C, H, W)
        Stored values.
    tables : ndarray of float32, shape (C, V)
        `kensert2019_table` of each channel.

    Returns
    -------
    levels : ndarray of uint8, shape (C, H, W)
        Truncated, as the authors' ``astype('uint8')`` does.
    threshold : ndarray of int, shape (C,)
        The smallest stored value of each channel that is bright (above 50 before truncation).
    """
    low = min(table[plane.min()] for table, plane in zip(tables, planes, strict=True))
    high = max(table[plane.max()] for table, plane in zip(tables, planes, strict=True))
    levels = np.empty(planes.shape, np.uint8)
    threshold = np.empty(len(planes), np.int64)
    for c, (table, plane) in enumerate(zip(tables, planes, strict=True)):
        # Only values that occur in this channel: others may lie outside 0…255.
        least, most = int(plane.min()), int(plane.max())
        values = stretch(table[least : most + 1], low, high)
        threshold[c] = least + np.searchsorted(values, np.float32(BRIGHT), side="right")
        lookup = np.zeros(len(table), np.uint8)
        lookup[least : most + 1] = values.astype(np.uint8)
        np.take(lookup, plane, out=levels[c], mode="clip")
    return levels, threshold


def kept(tile: np.ndarray, threshold: np.ndarray) -> bool:
    """Kensert et al. 2019: whether more than 0.2 % of a tile's values (all channels together) are bright.

    Parameters
    ----------
    tile : ndarray of uint8 or uint16, shape (C, h, w)
        Stored values.
    threshold : ndarray of int, shape (C,)
        The smallest stored value of each channel that is bright.
    """
    bright = sum(int(np.count_nonzero(plane >= t)) for plane, t in zip(tile, threshold, strict=True))
    return bright / tile.size > LEAST_BRIGHT


def kensert2019_bbbc014_tile(tile: np.ndarray) -> np.ndarray:
    """Scheme ``kensert2019_bbbc014`` on one tile: (0, channel 1, channel 2).

    Anscombe on the two channels, their joint minimum–maximum in this tile to 0…255, truncated. No control enters.

    Parameters
    ----------
    tile : ndarray of uint8, shape (2, h, w)

    Returns
    -------
    ndarray of uint8, shape (3, h, w)
        The first channel is zero: the authors' networks take three.
    """
    table = anscombe(np.arange(256))
    values = stretch(table, table[tile.min()], table[tile.max()])
    lookup = np.clip(values, 0, 255).astype(np.uint8)
    return np.concatenate([np.zeros((1, *tile.shape[1:]), np.uint8), lookup[tile]])


def scale_plane(plane: np.ndarray, low: float, high: float, top: int, gain: np.ndarray | None = None) -> np.ndarray:
    """Scheme ``standard`` and ``bit_depth``: (plane · gain - low) / (high - low), from 0 to ``top``, clipped.

    Parameters
    ----------
    plane : ndarray, shape (H, W)
        Stored values.
    low, high : float
        The values that become 0 and ``top``, in stored units (after illumination correction, if any). The same
        for all fields of a plate, so intensity differences between fields are kept.
    top : int
        255 or 65535.
    gain : ndarray of float32, shape (H, W), optional
        1 / illumination function.

    Returns
    -------
    ndarray of float32, shape (H, W)
        Not rounded: a resize may follow.
    """
    factor = np.float32(top / (high - low))
    if gain is None:  # a function of the stored value alone
        values = (np.arange(np.iinfo(plane.dtype).max + 1, dtype=np.float32) - np.float32(low)) * factor
        return np.take(np.clip(values, 0, top), plane, mode="clip")
    scaled = plane * gain
    scaled -= np.float32(low)
    scaled *= factor
    return np.clip(scaled, 0, top, out=scaled)


def grid_steps(dtype: np.dtype) -> int:
    """Histogram bins per stored unit: 16 for 8-bit, 1 for 16-bit images, so that 65,536 bins hold nearly all values."""
    return 16 if dtype == np.uint8 else 1


def histogram(plane: np.ndarray, gain: np.ndarray | None = None) -> np.ndarray:
    """How many pixels have each value, after illumination correction where ``gain`` is given.

    Without ``gain`` the bins are the stored values. With it, corrected values are rounded to a grid of 1/16 stored
    unit (8-bit) or 1 stored unit (16-bit), and what lies above the last of 65,536 bins is counted in it.

    Returns
    -------
    ndarray of int64
        Counts from bin 0 to the last that is not empty.
    """
    if gain is not None:
        binned = plane * (gain * np.float32(grid_steps(plane.dtype)))
        plane = np.clip(np.rint(binned, out=binned), 0, 65535, out=binned).astype(np.uint16)
    flat = np.ascontiguousarray(plane).reshape(1, -1)
    bins = int(np.iinfo(flat.dtype).max) + 1
    total = np.zeros(bins, np.int64)
    for start in range(0, flat.shape[1], 1 << 24):  # OpenCV counts in float32, exact up to 2^24; 3× np.bincount's speed
        part = flat[:, start : start + (1 << 24)]
        total += cv2.calcHist([part], [0], None, [bins], [0, bins]).ravel().astype(np.int64)
    return np.trim_zeros(total, "b")


def histogram_quantile(counts: np.ndarray, q: float) -> float:
    """Quantile of the values that a histogram counts, in bins; equal to ``np.quantile`` of those values.

    Linear interpolation between order statistics (Hyndman & Fan 1996, Am Stat 50:361, type 7).
    """
    upto = np.cumsum(counts)
    place = q * (int(upto[-1]) - 1)
    below = int(np.floor(place))
    first, second = np.searchsorted(upto, [below, min(below + 1, int(upto[-1]) - 1)], side="right")
    return float(first + (place - below) * (second - first))


def refuse_depth(planes: np.ndarray, where: str) -> None:
    """Refuse depths that would silently overflow in the authors' 8-bit code for BBBC014, and other channel counts."""
    if planes.dtype != np.uint8 or len(planes) != 2:
        raise MorphobenchError(
            f"the scheme kensert2019_bbbc014 is for two channels of 8 bits, and this field has {len(planes)} of "
            f"{planes.dtype}", where, "Use crops.intensity: standard.")
