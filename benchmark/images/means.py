"""Mean intensity of every channel of every field: the simplest measurement of an image."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from benchmark.assays.fieldtable import Assay
from benchmark.base.files import inside
from benchmark.base.tables import FIELD_KEY, path_column, plane_column
from benchmark.base.tasks import RunTasks
from benchmark.images.reading import read_plane

#: Fields per task.
CHUNK = 64


@dataclass(frozen=True)
class _Task:
    assay: Assay
    rows: tuple[int, ...]


def mean_intensities(assay: Assay, run_tasks: RunTasks) -> pd.DataFrame:
    """Mean of the stored pixel values of each channel of each field, uncorrected.

    Returns
    -------
    DataFrame
        Field key and ``Image_Mean_<channel>`` (float64, in the files' own units), in the order of the field table.
    """
    rows = range(len(assay.fields))
    tasks = [_Task(assay, tuple(rows[i:i + CHUNK])) for i in range(0, len(rows), CHUNK)]
    means: dict[int, list[float]] = {}
    for part in run_tasks(_means, tasks, "mean intensities (fields)"):
        means |= part
    values = np.array([means[i] for i in rows], np.float64)
    names = [f"Image_Mean_{c}" for c in assay.channels]
    keys = assay.fields[FIELD_KEY].reset_index(drop=True)
    return pd.concat([keys, pd.DataFrame(values, columns=names)], axis=1)


def _means(task: _Task) -> dict[int, list[float]]:
    means = {}
    for i in task.rows:
        row = task.assay.fields.iloc[i]
        means[i] = [float(read_plane(inside(task.assay.root, str(row[path_column(c)])),
                                     int(row[plane_column(c)])).mean()) for c in task.assay.channels]
    return means
