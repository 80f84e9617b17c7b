"""Thresholds of the Identify modules: which pixels are foreground, by scikit-image, with a module's own settings.

Minimum cross-entropy: Li & Lee, Pattern Recognition 26, 1993; Li & Tam, Pattern Recognition Letters 19, 1998.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from skimage.filters import threshold_li, threshold_otsu

from benchmark.cellprofiler.pipeline import Module

#: CellProfiler's threshold smoothing scale over its standard deviation in pixels.
_SCALE_PER_SIGMA = 2 * 0.6744


@dataclass(frozen=True)
class Threshold:
    """How foreground is separated from background, on planes scaled to 0 … 1.

    Attributes
    ----------
    method : str
        ``Minimum Cross-Entropy``, ``Otsu`` (two classes) or ``Manual``.
    manual : float
        The threshold itself, for ``Manual``.
    sigma : float
        Standard deviation in pixels of the Gaussian by which the plane, not the threshold, is smoothed.
    correction : float
        Factor on the threshold.
    bounds : (float, float)
        The threshold is kept within these.
    window : int
        Side in pixels of the blocks of an adaptive threshold; 0 for one threshold a plane.
    """

    method: str = "Minimum Cross-Entropy"
    manual: float = 0.0
    sigma: float = 1.0
    correction: float = 1.0
    bounds: tuple[float, float] = (0.0, 1.0)
    window: int = 0


def threshold_settings(module: Module) -> Threshold:
    """The threshold of an Identify module; what it does not state has its default."""
    if module.get("Use advanced settings?", "Yes") == "No":
        return Threshold()
    adaptive = module.get("Threshold strategy") == "Adaptive"
    # The setting occurs twice: for one threshold a plane, and at the end for adaptive ones.
    methods = module.all("Thresholding method") or [Threshold.method]
    return Threshold(methods[-1] if adaptive else methods[0], module.as_number("Manual threshold", 0.0),
                     module.as_number("Threshold smoothing scale", 1.3488) / _SCALE_PER_SIGMA,
                     module.as_number("Threshold correction factor", 1.0),
                     module.as_pair("Lower and upper bounds on threshold", (0, 1)),
                     module.as_number("Size of adaptive window", 50) if adaptive else 0)


def foreground(plane: np.ndarray, settings: Threshold) -> tuple[np.ndarray, float]:
    """Pixels whose smoothed value reaches the threshold (bool, (H, W)), and the threshold (its mean if adaptive).

    Adaptive: a threshold a block, linear between their middles, within 0.7 and 1.5 of that of the plane, as in
    CellProfiler (which joins blocks by splines).
    """
    level: float | np.ndarray = _level(plane, settings) * settings.correction
    blocks = [side // settings.window for side in plane.shape] if settings.window else [0]
    if min(blocks) >= 2:
        rows = np.array_split(np.arange(plane.shape[0]), blocks[0])
        columns = np.array_split(np.arange(plane.shape[1]), blocks[1])
        local = np.array([[_level(plane[np.ix_(r, c)], settings) for c in columns] for r in rows]) * settings.correction
        places = np.meshgrid(*((np.arange(n) + 0.5) * k / n - 0.5 for n, k in zip(plane.shape, blocks, strict=True)),
                             indexing="ij")
        level = np.clip(ndimage.map_coordinates(local, places, order=1, mode="nearest"), 0.7 * level, 1.5 * level)
    level = np.clip(level, *settings.bounds)
    smooth = plane
    if settings.sigma > 0:  # beyond the edges there is nothing to mix in: the weights there are made up for
        smooth = ndimage.gaussian_filter(plane, settings.sigma, mode="constant") / ndimage.gaussian_filter(
            np.ones(plane.shape), settings.sigma, mode="constant")
    return smooth >= level, float(np.mean(level))


def _level(plane: np.ndarray, settings: Threshold) -> float:
    """Threshold of one plane or block before correction."""
    if settings.method == "Manual":
        return settings.manual
    values = np.unique(plane)
    if len(values) < 2:
        return float(values[0])
    if settings.method == "Otsu":
        return float(threshold_otsu(plane))
    return float(threshold_li(plane, tolerance=max(np.diff(values).min() / 2, 0.5 / 65536)))
