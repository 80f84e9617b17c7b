"""How sharp a plane is, from its power spectrum."""

from __future__ import annotations

import numpy as np
from scipy.fft import rfft2


def power_slope(plane: np.ndarray) -> float:
    """Slope of the logarithm of power against that of spatial frequency, as MeasureImageQuality's PowerLogLogSlope.

    Power is summed (not averaged) over rings of one frequency step, up to an eighth of the shorter side, and the line
    is fitted by least squares. So white noise gives about +1, an image of amplitude 1/f about -1, and the more
    blurred an image is, the more negative its slope.

    As in `centrosome.radial_power_spectrum.rps`, rings are laid around the corners of the unshifted spectrum, so that
    the frequency -(k+1) counts with +k. The values are CellProfiler's, to rounding.

    Parameters
    ----------
    plane : ndarray, shape (H, W)
        Pixels of any scale: it cancels out.

    Returns
    -------
    float
        0 if there is nothing to fit: a constant plane, or one whose shorter side is below 32 pixels.
    """
    height, width = plane.shape
    rings = int(min(height, width) / 8.0)  # labels 2 … rings-1
    if rings < 4 or plane.min() == plane.max():
        return 0.0
    centred = plane.astype(np.float32)
    centred -= plane.mean()
    spectrum = rfft2(centred, overwrite_x=True)
    k = np.arange(rings)
    # |F(u, -v)| = |F(-u, v)| for real images: the half that rfft2 leaves out, folded onto the first corner.
    corner = sum(np.abs(spectrum[np.ix_(rows % height, columns)]).astype(float) ** 2
                 for rows, columns in ((k, k), (-1 - k, k), (-k, k + 1), (k + 1, k + 1)))
    ring = np.floor(np.hypot(k[:, None], k[None, :])).astype(int) + 1
    labels = np.arange(2, rings)
    power = np.bincount(ring.ravel(), weights=np.asarray(corner).ravel(), minlength=rings + 1)[labels]
    used = power > 0
    if used.sum() < 2:
        return 0.0
    return float(np.polyfit(np.log(labels[used]), np.log(power[used]), 1)[0])
