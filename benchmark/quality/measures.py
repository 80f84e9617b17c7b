"""Quality measures of a field, from its stored pixels alone: focus, saturation, emptiness, debris.

Measured before any correction, as CellProfiler's MeasureImageQuality is meant to be used: Bray, Fraser, Hasaka &
Carpenter 2012, "Workflow and metrics for image quality control in large-scale high-content screens", J Biomol Screen
17:266.
What is unusual is decided elsewhere (`benchmark.quality.flags`), against a field's plate.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from benchmark.assays.fieldtable import Assay
from benchmark.base.files import digest, safe_name, write_parquet
from benchmark.base.tables import FIELD_KEY, PLATE
from benchmark.base.tasks import RunTasks, run_serially
from benchmark.images.focus import power_slope
from benchmark.images.reading import read_field

#: Raised when the measures change for the same pixels.
REVISION = 1
#: Fields that one task measures, and writes at once: what an interruption costs.
CHUNK = 64
#: So few fields are measured in this process: quicker than starting others.
FEW = 256
#: Measured of each channel, see `plane_quality`; columns are named ``<measure>_<channel>``.
MEASURES = ("Slope", "Maximum", "AtMaximum", "Contrast", "Foreground", "Bright", "Patch")
#: Standard deviation of rounding to whole numbers: no stored image has less noise.
ROUNDING = 12**-0.5
#: So many standard deviations of noise above the background a pixel belongs to something.
ABOVE_NOISE = 5.0
#: At this height a patch begins. Lower, crowded cells run together; higher, debris falls apart. Chosen on 660 fields of
#: BBBC021, where three of three fibres and lumps in the DNA channel then rank before all sound fields.
PATCH = 0.55


def column(measure: str, channel: str) -> str:
    """Column of a measure of a channel."""
    return f"{measure}_{channel}"


def noise_level(plane: np.ndarray) -> float:
    """Standard deviation of the pixels' noise, in grey levels, whatever is shown.

    The median of the finest diagonal details (Haar) over 0.6745: Donoho & Johnstone 1994, "Ideal spatial adaptation
    by wavelet shrinkage", Biometrika 81:425. At least that of rounding, 12^-1/2.

    Parameters
    ----------
    plane : ndarray, shape (H, W)
    """
    even = plane[: plane.shape[0] // 2 * 2, : plane.shape[1] // 2 * 2].astype(np.int32)
    detail = even[::2, ::2] - even[1::2, ::2] - even[::2, 1::2] + even[1::2, 1::2]
    if not detail.size:
        return ROUNDING
    counts = np.bincount(np.abs(detail).ravel())
    below = np.cumsum(counts) - counts
    # Details are whole numbers, and few of them where noise is low: the median is interpolated within its number.
    k = int(np.searchsorted(below + counts, detail.size / 2))
    low, high = max(0.0, k - 0.5), k + 0.5
    median = low + (high - low) * (detail.size / 2 - below[k]) / counts[k]
    return max(ROUNDING, float(median) / 2 / 0.6745)


def largest_patch(mask: np.ndarray) -> int:
    """Pixels of the largest patch of a mask (H, W), pixels that touch at a corner being connected."""
    _, _, statistics, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    return int(statistics[1:, cv2.CC_STAT_AREA].max(initial=0))


def plane_quality(plane: np.ndarray) -> dict[str, float]:
    """Measures of one channel of a field.

    Parameters
    ----------
    plane : ndarray of uint8 or uint16, shape (H, W)
        As stored.

    Returns
    -------
    dict
        ``Slope``: `power_slope`. ``Maximum``: brightest pixel, grey levels. ``AtMaximum``: share of pixels at it
        (MeasureImageQuality's PercentMaximal over 100): light that was cut off piles up there, at whatever level a
        camera, its bit depth or a later rescaling cuts. ``Contrast``: 99.9th less 5th percentile, over `noise_level`;
        about 5 for noise alone. ``Foreground``: share of pixels more than `ABOVE_NOISE` noise levels above the 5th
        percentile. ``Bright``: 99.9th less 50th percentile, grey levels. ``Patch``: share of the field that the largest
        connected patch takes that is brighter than `PATCH` of the way from the median to the 99.9th percentile: a
        fibre, a lump or a bubble is larger than a nucleus or a bright cell. It detects debris even where each field was
        rescaled to its own range.
    """
    counts = np.bincount(plane.ravel())
    up_to = np.cumsum(counts)
    # The smallest value with at least this share of pixels at or below it.
    p5, p50, p999 = (float(np.searchsorted(up_to, share * plane.size)) for share in (0.05, 0.5, 0.999))
    noise = noise_level(plane)
    background = int(up_to[min(int(p5 + ABOVE_NOISE * noise), len(up_to) - 1)])  # pixels that belong to nothing
    return {
        "Slope": power_slope(plane),
        "Maximum": float(len(counts) - 1),
        "AtMaximum": float(counts[-1] / plane.size),
        "Contrast": (p999 - p5) / noise,
        "Foreground": 1 - background / plane.size,
        "Bright": p999 - p50,
        "Patch": largest_patch(plane > p50 + PATCH * (p999 - p50)) / plane.size,
    }


@dataclass(frozen=True)
class _Chunk:
    """Some fields of a plate, and where their measures go."""

    assay: Assay
    path: Path


def measure_quality(assay: Assay, assay_hash: str, folder: Path, run_tasks: RunTasks = run_serially) -> pd.DataFrame:
    """Measures of every field of an assay; every image is read once, ever.

    Parameters
    ----------
    assay : Assay
        With images that can be read.
    assay_hash : str
        Names its content.
    folder : Path
        Measures are kept below it, one file per `CHUNK` fields: what is there is not measured again.

    Returns
    -------
    DataFrame
        `FIELD_KEY` and ``<measure>_<channel>`` (float), in the order of ``assay.fields``.

    Raises
    ------
    MorphobenchError
        An image cannot be read.
    """
    place = folder / f"quality-{digest([REVISION, assay_hash])}"
    chunks = []
    for plate, rows in assay.fields.groupby(PLATE, sort=True):
        for start in range(0, len(rows), CHUNK):
            some = rows.iloc[start : start + CHUNK].reset_index(drop=True)
            chunks.append(_Chunk(replace(assay, fields=some, features=None, left_out=()),
                                 place / f"{safe_name(str(plate))}-{start:05d}.parquet"))
    missing = [chunk for chunk in chunks if not chunk.path.exists()]
    if missing:
        runner = run_serially if len(assay.fields) <= FEW else run_tasks
        for _ in runner(_measure_chunk, missing, f"quality of images, {CHUNK} fields at a time"):
            pass
    table = pd.concat([pd.read_parquet(chunk.path) for chunk in chunks], ignore_index=True)
    return assay.fields[FIELD_KEY].merge(table, on=FIELD_KEY, how="left", validate="one_to_one")


def _measure_chunk(chunk: _Chunk) -> None:
    cv2.setNumThreads(1)  # the workers share the cores
    rows = []
    for _, row in chunk.assay.fields.iterrows():
        pixels = read_field(chunk.assay, row)
        rows.append({key: row[key] for key in FIELD_KEY} | {
            column(measure, channel): value
            for channel, plane in zip(chunk.assay.channels, pixels, strict=True)
            for measure, value in plane_quality(plane).items()})
    write_parquet(chunk.path, pd.DataFrame(rows))
