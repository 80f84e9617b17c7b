"""Retrospective illumination correction: one smooth function per plate and channel, from the plate's own fields.

The mean of all the plate's fields is smoothed by a median filter and divided by its median; pixels are divided by the
function. After Singh, Bray, Jones & Carpenter 2014, "Pipeline for illumination correction of images for
high-throughput microscopy", J Microsc 256:231. They divide by a robust minimum; here it is the median, so that
the overall level of intensities is kept. No background is subtracted.

The functions are written as float32 ``.npy`` files of the field's own size, which CellProfiler also reads, so that
both arms see the same pixels. All fields of a plate are used, test wells included, but no labels: *transductive*.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from scipy.ndimage import median_filter

from benchmark.assays.fieldtable import Assay
from benchmark.base.errors import MorphobenchError
from benchmark.base.files import digest, read_json, safe_name, sha256_file, whole, write_json
from benchmark.base.tables import PLATE
from benchmark.base.tasks import RunTasks, run_serially
from benchmark.images.reading import read_field
from benchmark.images.settings import IlluminationSettings

#: Increased when the functions change for the same settings.
SMOOTHING = 1
#: Longer side, in pixels, at which the mean is filtered: unevenness is far coarser, and a wide filter is then fast.
COARSE = 128
#: Lower limit of a function: a corner darker than this share of the median would only be amplified noise.
FLOOR = 0.1
#: In the mean of fewer fields single cells remain visible, and the function would divide them out of the images.
FEWEST = 8
INDEX = "index.json"


@dataclass(frozen=True)
class Illumination:
    """Illumination functions of an assay, on disk.

    Attributes
    ----------
    folder : Path
        Where the files lie.
    key : str
        Hash of the assay and of the settings.
    files : mapping
        (plate, channel) → (file name, SHA-256).
    transductive : str
        What is estimated from test wells without their labels, in words.
    """

    folder: Path
    key: str
    files: Mapping[tuple[str, str], tuple[str, str]] = field(repr=False)
    transductive: str = ""

    def path(self, plate: str, channel: str) -> Path:
        """The ``.npy`` file of a plate and channel: (H, W) float32."""
        return self.folder / self._file(plate, channel)[0]

    def function(self, plate: str, channel: str) -> np.ndarray:
        """What pixels of a plate and channel are divided by: (H, W) float32, median 1, at least `FLOOR`.

        Raises
        ------
        MorphobenchError
            The file is missing or is not the one that was written.
        """
        name, sha256 = self._file(plate, channel)
        path = self.folder / name
        if not path.is_file() or sha256_file(path) != sha256:
            raise MorphobenchError("is missing or damaged", str(path), f"Delete {self.folder} and run again.")
        return np.load(path, allow_pickle=False)

    def sha256(self, plate: str, channel: str) -> str:
        """Hash of that file's bytes, as it was written."""
        return self._file(plate, channel)[1]

    def of_plate(self, plate: str) -> Illumination:
        """The functions of one plate, for a worker."""
        return replace(self, files={k: v for k, v in self.files.items() if k[0] == plate})

    def _file(self, plate: str, channel: str) -> tuple[str, str]:
        if (plate, channel) not in self.files:
            raise MorphobenchError("has no illumination function", f"plate {plate}, channel {channel}",
                                   f"Delete {self.folder} and run again.")
        return self.files[plate, channel]


@dataclass(frozen=True)
class _PlateTask:
    """The fields of one plate, and where its functions go."""

    assay: Assay
    plate: str
    window: float
    folder: Path


def illumination_key(assay_hash: str, settings: IlluminationSettings) -> str:
    """Hash that names the illumination functions of an assay under some settings."""
    return digest([SMOOTHING, assay_hash, settings.model_dump(mode="json")])


def build_illumination(
    assay: Assay,
    assay_hash: str,
    settings: IlluminationSettings,
    folder: Path,
    run_tasks: RunTasks = run_serially,
) -> Illumination | None:
    """Illumination functions of every plate and channel, in ``folder/<key>``; made if they are not there.

    Plates are processed in parallel, each one field at a time, so memory is that of a few fields.

    Parameters
    ----------
    assay : Assay
        With images.
    assay_hash : str
        Enters the key.

    Returns
    -------
    Illumination or None
        None where ``settings.method`` is ``none``.

    Raises
    ------
    MorphobenchError
        A plate has fewer than `FEWEST` fields or fields of several sizes, a channel is black, or a file cannot be
        read.
    """
    if settings.method == "none":
        return None
    key = illumination_key(assay_hash, settings)
    place = folder / key
    plates = {str(plate): rows.reset_index(drop=True) for plate, rows in assay.fields.groupby(PLATE)}
    for plate, rows in plates.items():
        if len(rows) < FEWEST:
            raise MorphobenchError(
                f"has {len(rows)} field(s), and an illumination function needs at least {FEWEST}", f"plate {plate}",
                "Set illumination: {method: none} in the study, or leave the plate out.")
    if not (place / INDEX).exists():
        tasks = [_PlateTask(_images_only(assay, rows), plate, settings.window, place)
                 for plate, rows in plates.items()]
        written: dict[str, dict[str, tuple[str, str]]] = {}
        for plate, files in run_tasks(_build_plate, tasks, "illumination, by plate"):
            written[plate] = files
        write_json(place / INDEX, {"key": key, "files": written})  # written last: where there is an index, all is there
    index = read_json(place / INDEX)["files"]
    files = {(plate, channel): (str(name), str(sha256))
             for plate, of_plate in index.items() for channel, (name, sha256) in of_plate.items()}
    return Illumination(place, key, files, settings.transductive or "")


def _images_only(assay: Assay, rows: pd.DataFrame) -> Assay:
    """The assay with only some of its fields, small enough to be sent to a worker."""
    return replace(assay, fields=rows, features=None, left_out=())


def _build_plate(task: _PlateTask) -> tuple[str, dict[str, tuple[str, str]]]:
    """Write the functions of one plate; channel to file name and SHA-256."""
    cv2.setNumThreads(1)  # the workers share the cores
    means = mean_of_fields(task.assay)
    files = {}
    for channel, mean in zip(task.assay.channels, means, strict=True):
        if mean.max() == 0:
            raise MorphobenchError("is black in all fields", f"plate {task.plate}, channel {channel}",
                                   "Leave the plate or the channel out.")
        path = task.folder / f"{safe_name(task.plate)}-{channel}.npy"
        with whole(path) as tmp, tmp.open("wb") as handle:
            np.save(handle, illumination_function(mean, task.window), allow_pickle=False)
        files[channel] = (path.name, sha256_file(path))
    return task.plate, files


def mean_of_fields(assay: Assay) -> np.ndarray:
    """Mean of all fields of an assay: (C, H, W) float64, exact sums of whole numbers.

    Raises
    ------
    MorphobenchError
        The fields differ in size.
    """
    total: np.ndarray | None = None
    for _, row in assay.fields.iterrows():
        planes = read_field(assay, row)
        if total is None:
            total = np.zeros(planes.shape, np.float64)
        if planes.shape != total.shape:
            raise MorphobenchError(
                f"has fields of {total.shape[2]}×{total.shape[1]} and of {planes.shape[2]}×{planes.shape[1]} pixels",
                f"plate {row[PLATE]}", "Set illumination: {method: none}, or give each size its own plate.")
        total += planes
    assert total is not None  # a plate has fields
    return total / len(assay.fields)


def illumination_function(mean: np.ndarray, window: float) -> np.ndarray:
    """The function that pixels are divided by, from the mean of a plate's fields.

    The mean is shrunk to `COARSE` pixels (area average), median-filtered, enlarged again (cubic) and divided by its
    median. The filter is applied to the difference from the best-fitting quadratic surface, which is then added back:
    a filter has to invent pixels beyond the border (here by mirroring), and would flatten a vignette there.

    Parameters
    ----------
    mean : ndarray, shape (H, W)
        Not negative.
    window : float
        Side of the median filter as a fraction of the longer side.

    Returns
    -------
    ndarray of float32, shape (H, W)
        Median 1, at least `FLOOR`. Where more than half of the mean is black, the maximum is 1 instead.
    """
    height, width = mean.shape
    shrink = min(1.0, COARSE / max(height, width))
    coarse = cv2.resize(mean, (max(1, round(width * shrink)), max(1, round(height * shrink))),
                        interpolation=cv2.INTER_AREA)
    radius = round(window * max(coarse.shape) / 2)
    trend = _quadratic_surface(coarse)
    filtered = median_filter(coarse - trend, 2 * radius + 1, mode="reflect") + trend
    smooth = cv2.resize(filtered, (width, height), interpolation=cv2.INTER_CUBIC)
    middle = float(np.median(smooth))
    if middle <= 0:  # more than half of the mean is black; its brightest part is used instead
        middle = float(smooth.max())
    return np.maximum(smooth / middle, FLOOR).astype(np.float32)


def _quadratic_surface(values: np.ndarray) -> np.ndarray:
    """The polynomial of second degree in x and y that fits ``values`` (H, W) best by least squares."""
    y, x = np.mgrid[-1 : 1 : values.shape[0] * 1j, -1 : 1 : values.shape[1] * 1j]
    terms = np.stack([np.ones_like(x), x, y, x * x, x * y, y * y], axis=-1).reshape(-1, 6)
    return (terms @ np.linalg.lstsq(terms, values.ravel(), rcond=None)[0]).reshape(values.shape)
