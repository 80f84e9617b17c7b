"""What an intensity scheme needs to know about each plate, from exact histograms of its pixels.

This is a first pass over the fields that a scheme is estimated from. A task reads a few fields of one plate and returns
their histograms (at most 65,536 bins per channel), which are summed by plate: memory does not grow with the fields.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from benchmark.assays.fieldtable import Assay, row_name
from benchmark.base.errors import MorphobenchError
from benchmark.base.tables import CONTROL, PLATE
from benchmark.base.tasks import RunTasks
from benchmark.crops.settings import CropSettings
from benchmark.images.illumination import Illumination
from benchmark.images.intensity import anscombe_moments, grid_steps, histogram, histogram_quantile
from benchmark.images.reading import read_field

#: Fields read by one task: enough to outweigh its overhead, few enough that two workers finish together.
FIELDS_A_TASK = 12


@dataclass(frozen=True)
class _Task:
    assay: Assay
    plate: str
    illumination: Illumination | None


def slices(assay: Assay, rows: pd.DataFrame, n: int) -> Iterator[tuple[str, Assay]]:
    """The assay cut into pieces of at most ``n`` fields of one plate, small enough to be sent to a worker."""
    for plate, of_plate in rows.groupby(PLATE):
        for start in range(0, len(of_plate), n):
            yield str(plate), replace(assay, fields=of_plate.iloc[start : start + n], features=None, left_out=())


def plate_statistics(
    assay: Assay, settings: CropSettings, illumination: Illumination | None, run_tasks: RunTasks
) -> dict[str, list[tuple[float, float]]]:
    """Statistics of each plate that has predicted fields: one pair per channel, as in `benchmark.crops.cutting.Plate`.

    Returns
    -------
    dict
        Plate → pairs in the order of the channels. Empty for schemes that need none.

    Raises
    ------
    MorphobenchError
        A plate has no negative controls though the scheme needs them, its fields have both 8 and 16 bits, or a
        channel is constant.
    """
    if settings.intensity not in ("standard", "kensert2019"):
        return {}
    plates = sorted(assay.predicted[PLATE].unique())
    rows = assay.fields[assay.fields[PLATE].isin(plates)]
    if settings.uses_controls:
        rows = rows[rows[CONTROL] == "negative"]
        bare = sorted(set(plates) - set(rows[PLATE]))
        if bare:
            need = "kensert2019" if settings.intensity == "kensert2019" else "scale_from: controls"
            raise MorphobenchError(f"has no negative controls, which crops with {need} need",
                                   f"plate {', '.join(bare[:5])}{' …' if len(bare) > 5 else ''}",
                                   "Set crops.intensity to standard with scale_from: plate, or to bit_depth.")
    tasks = [_Task(piece, plate, illumination.of_plate(plate) if illumination else None)
             for plate, piece in slices(assay, rows, FIELDS_A_TASK)]
    waiting = pd.Series([task.plate for task in tasks]).value_counts().to_dict()
    sums: dict[str, tuple[np.dtype, list[np.ndarray]]] = {}
    reduced = {}
    for plate, dtype, counts in run_tasks(_count, tasks, "intensities, by plate"):
        sums[plate] = _add(sums.get(plate), dtype, counts, plate)
        waiting[plate] -= 1
        if waiting[plate] == 0:
            dtype, total = sums.pop(plate)
            reduced[plate] = [_reduce(c, settings, dtype, illumination is not None, f"plate {plate}, channel {name}")
                            for c, name in zip(total, assay.channels, strict=True)]
    return {plate: reduced[plate] for plate in plates}


def _count(task: _Task) -> tuple[str, np.dtype, list[np.ndarray]]:
    """Histograms of a few fields of one plate, one per channel."""
    gains = plate_gains(task.assay, task.plate, task.illumination)
    total: tuple[np.dtype, list[np.ndarray]] | None = None
    for _, row in task.assay.fields.iterrows():
        planes = read_field(task.assay, row)
        check_gains(planes, gains, row_name(row))
        counts = [histogram(plane, gains[c] if gains else None) for c, plane in enumerate(planes)]
        total = _add(total, planes.dtype, counts, task.plate)
    assert total is not None  # a task has fields
    return task.plate, *total


def plate_gains(assay: Assay, plate: str, illumination: Illumination | None) -> list[np.ndarray]:
    """1 / illumination function of each channel of a plate, (H, W) float32; empty without correction."""
    if illumination is None:
        return []
    return [np.float32(1) / illumination.function(plate, channel) for channel in assay.channels]


def check_gains(planes: np.ndarray, gains: list[np.ndarray], where: str) -> None:
    """Refuse a field whose size differs from that of its illumination functions."""
    if gains and gains[0].shape != planes.shape[1:]:
        raise MorphobenchError(f"is {planes.shape[2]}×{planes.shape[1]} pixels, and its plate's illumination function "
                               f"{gains[0].shape[1]}×{gains[0].shape[0]}", where, "Leave the field out.")


def _add(
    total: tuple[np.dtype, list[np.ndarray]] | None, dtype: np.dtype, counts: list[np.ndarray], plate: str
) -> tuple[np.dtype, list[np.ndarray]]:
    """Add histograms of different lengths."""
    if total is None:
        return dtype, counts
    if total[0] != dtype:
        raise MorphobenchError("has fields of 8 and of 16 bits, whose intensities cannot be compared",
                               f"plate {plate}", "Export them again with one depth.")
    summed = []
    for a, b in zip(total[1], counts, strict=True):
        longer, shorter = (a, b) if len(a) >= len(b) else (b, a)
        longer = longer.copy()
        longer[: len(shorter)] += shorter
        summed.append(longer)
    return dtype, summed


def _reduce(
    counts: np.ndarray, settings: CropSettings, dtype: np.dtype, corrected: bool, where: str
) -> tuple[float, float]:
    """The two numbers that a scheme takes from a plate's histogram of one channel."""
    if settings.intensity == "kensert2019":
        mean, std = anscombe_moments(counts)
        if std == 0:
            raise MorphobenchError("has the same value in all pixels of the negative controls", where,
                                   "Leave the plate out, or use crops.intensity: bit_depth.")
        return mean, std
    steps = grid_steps(dtype) if corrected else 1
    low, high = (histogram_quantile(counts, q) / steps for q in settings.quantiles)
    if high <= low:
        raise MorphobenchError(f"has the same value ({low:g}) at both quantiles {settings.quantiles}", where,
                               "Widen crops.quantiles, leave the channel out, or use crops.intensity: bit_depth.")
    return low, high
