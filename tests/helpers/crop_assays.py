"""Small assays for tests of the crops room: 16-bit plates with controls, and hand-made caches."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import tifffile

from benchmark.assays.fieldtable import Assay
from benchmark.base.tables import FIELD_KEY
from benchmark.crops.cells import OBJECT_NUMBER, CellCentres


def repaint(assay: Assay, size: tuple[int, int], dtype: type = np.uint16, channels: int = 3, seed: int = 0) -> Assay:
    """Give every field new pixels: noise whose brightness differs by field and channel, one quarter almost black."""
    rng = np.random.default_rng(seed)
    for _, row in assay.fields.iterrows():
        scale = rng.uniform(100, 900, (channels, 1, 1)) / (1 if dtype == np.uint16 else 20)
        planes = np.clip(rng.gamma(2.0, scale, (channels, *size)), 0, np.iinfo(dtype).max)
        planes[:, : size[0] // 2, : size[1] // 2] = rng.integers(0, 2, (channels, size[0] // 2, size[1] // 2))
        tifffile.imwrite(assay.root / row["Path_DNA"], planes.astype(dtype), photometric="minisblack")
    return replace(assay, channels=assay.channels[:channels])


def field_pixels(assay: Assay, row: int) -> np.ndarray:
    """(C, H, W) as stored, read without the code under test."""
    return tifffile.imread(assay.root / assay.fields.loc[row, "Path_DNA"])[: len(assay.channels)]


def some_cells(assay: Assay, size: tuple[int, int], folder: Path, each: int = 4, seed: int = 0) -> CellCentres:
    """Random centres and masks with a square about each; the second predicted field has no cell."""
    rng = np.random.default_rng(seed)
    rows = []
    for i, (_, field) in enumerate(assay.predicted.iterrows()):
        mask = np.zeros(size, np.uint16)
        for number in range(1, each + 1) if i != 1 else ():
            x, y = rng.uniform(0, size[1] - 1), rng.uniform(0, size[0] - 1)
            mask[max(0, int(y) - 3) : int(y) + 4, max(0, int(x) - 3) : int(x) + 4] = number
            rows.append({**field[FIELD_KEY], OBJECT_NUMBER: number, "x": x, "y": y})
        tifffile.imwrite(folder / f"mask-{'-'.join(map(str, field[FIELD_KEY]))}.tif", mask)
    table = pd.DataFrame(rows).sample(frac=1, random_state=seed)  # in no order
    return CellCentres(table, lambda key: folder / f"mask-{'-'.join(map(str, key))}.tif", f"cells{seed}")
