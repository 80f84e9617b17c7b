"""Single cells of a few plates, drawn by code, for the tests of profiles."""

from __future__ import annotations

import numpy as np
import pandas as pd

from benchmark.base.tables import FIELD_COLUMNS, FIELD_KEY, WELL_COLUMNS
from benchmark.cells.table import SingleCells


def plates_of_cells(
    plates: int = 2, controls: int = 3, treated: int = 3, cells: int = 40, features: int = 4, shift: float = 3.0,
    seed: int = 0, sites: int = 2, dtype: type = np.float32,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Cells (`FIELD_KEY` and ``Cells_F0`` …) and their wells (``WELL_COLUMNS``).

    Treated well k of each plate has feature k shifted. Plate Pi has all features times i + 1 and 10 i more.
    """
    rng = np.random.default_rng(seed)
    names = [f"Cells_F{i}" for i in range(features)]
    rows, parts = [], []
    for plate in range(plates):
        for number in range(controls + treated):
            control = number < controls
            row = {
                "Metadata_Batch": str(plate), "Metadata_Plate": f"P{plate}", "Metadata_Well": f"A{number + 1:02d}",
                "Metadata_Replicate": "1", "Metadata_Compound": "DMSO" if control else f"cpd-{number - controls}",
                "Metadata_Concentration": 0.0 if control else 1.0,
                "Metadata_Label": "" if control else f"label-{number - controls}",
                "Metadata_Control": "negative" if control else "", "Metadata_CellLine": "",
            }
            rows.append(row)
            values = rng.normal(size=(cells, features))
            if not control:
                values[:, (number - controls) % features] += shift
            table = pd.DataFrame(((plate + 1) * values + 10 * plate).astype(dtype), columns=names)
            for column in ("Metadata_Plate", "Metadata_Well"):
                table[column] = row[column]
            table["Metadata_Site"] = np.arange(cells) * sites // cells + 1
            parts.append(table[[*FIELD_KEY, *names]])
    return pd.concat(parts, ignore_index=True), pd.DataFrame(rows)[WELL_COLUMNS]


def fields_of(cells: pd.DataFrame, wells: pd.DataFrame) -> pd.DataFrame:
    """The wells' table with one row a field (``FIELD_COLUMNS``)."""
    keys = cells[FIELD_KEY].drop_duplicates()
    return keys.merge(wells, on=["Metadata_Plate", "Metadata_Well"])[FIELD_COLUMNS]


def single(cells: pd.DataFrame) -> SingleCells:
    """The same in blocks of few rows, so that blocks end between wells."""
    return SingleCells.of_frame(cells, block_rows=100)
