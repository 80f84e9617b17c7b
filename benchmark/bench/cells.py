"""For `make bench`: how fast single cells on disk become well profiles."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from benchmark.base.tables import PLATE, SITE, WELL, WELL_COLUMNS, WELL_KEY
from benchmark.bench.ratio import Ratio, best_of
from benchmark.cellprofiler.partition import NUMBER
from benchmark.cells.folder import write_folder
from benchmark.cells.table import SingleCells
from benchmark.profiles.aggregate import make_well_profiles
from benchmark.profiles.settings import ProfileSettings

#: As in BBBC021: about a hundred cells per field, four fields per well, 60 wells per plate.
SITES, WELLS, CELLS = 4, 60, 100
Operation = Literal["mean", "median"]


def well_profiles(cells: SingleCells, operation: Operation) -> pd.DataFrame:
    """Profiles of all wells, made as for a method."""
    wells = cells.counts[WELL_KEY].drop_duplicates().assign(**{c: "" for c in WELL_COLUMNS if c not in WELL_KEY})
    settings = ProfileSettings(aggregate=operation, normalise="training")
    return make_well_profiles(cells, wells[WELL_COLUMNS], settings, wells.iloc[:0], 0)


def bench_fields(cells: int) -> pd.DataFrame:
    """`FIELD_KEY` of the fields that hold about ``cells`` cells at `CELLS` per field; at least one well."""
    wells = max(1, round(cells / (CELLS * SITES)))
    number = np.repeat(np.arange(wells), SITES)
    return pd.DataFrame({PLATE: [f"P{i // WELLS:04d}" for i in number], WELL: [f"W{i % WELLS:02d}" for i in number],
                         SITE: np.tile(np.arange(1, SITES + 1), wells)})


def cell_values(rows: int, features: int, rng: np.random.Generator) -> pd.DataFrame:
    """``rows`` cells with float32 features of 256 levels, which compress well: 10⁶ × 1,500 fit on a small disk."""
    values = rng.integers(0, 256, (features, rows), np.uint8).astype(np.float32) / 7
    table = pd.DataFrame(values.T, columns=[f"Cells_{i}" for i in range(features)], copy=False)
    return pd.concat([pd.DataFrame({NUMBER: np.arange(rows, dtype=np.int32)}), table], axis=1)


def aggregation_ratio(folder: Path, cells: int = 48_000, features: int = 500) -> Ratio:
    """Well medians of cells on disk, read in blocks, against pandas, which reads all plates' files and groups them.

    Parameters
    ----------
    folder : Path
        An empty folder; simulated cells are written there.

    Raises
    ------
    AssertionError
        The two sides disagree by more than float32 rounding.
    """
    counts = bench_fields(cells).assign(cells=CELLS)
    rng = np.random.default_rng(0)
    write_folder(folder / "cells", counts, [f"Cells_{i}" for i in range(features)],
                 lambda fields: cell_values(int(fields["cells"].sum()), features, rng))
    files = sorted((folder / "cells").glob("p*.parquet"))

    def ours() -> pd.DataFrame:
        return well_profiles(SingleCells.open(folder / "cells"), "median")

    def rival() -> pd.DataFrame:
        table = pd.concat([pd.read_parquet(f) for f in files], ignore_index=True)
        return table.drop(columns=[SITE, NUMBER]).groupby(WELL_KEY).median()

    names = [f"Cells_{i}" for i in range(features)]
    if not np.allclose(ours()[names], rival()[names], rtol=1e-5, atol=1e-6):
        raise AssertionError("blocks and pandas give different medians")
    seconds = best_of(ours, 3)
    number = int(counts["cells"].sum())
    return Ratio(f"{number:,} cells x {features} features on disk to well medians, {number / seconds:,.0f} cells/s",
                 "pandas: read all, groupby", seconds, best_of(rival, 2))
