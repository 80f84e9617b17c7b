"""For `make bench`: single cells on disk to well profiles, its speed and the memory that it and partitioning take."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import numpy as np
import pandas as pd

from benchmark.base.files import write_parquet
from benchmark.base.tables import PLATE, SITE, WELL, WELL_COLUMNS, WELL_KEY
from benchmark.bench.crops import _peak_mib
from benchmark.bench.ratio import Ratio, best_of
from benchmark.cellprofiler.partition import NUMBER, SHARD_CELLS, partition
from benchmark.cells.folder import write_folder
from benchmark.cells.table import SingleCells
from benchmark.profiles.aggregate import make_well_profiles
from benchmark.profiles.settings import ProfileSettings

#: As BBBC021 has it: fields of some hundred cells, four a well, 60 wells a plate; shards of 24 fields.
SITES, WELLS, CELLS, SHARD_FIELDS = 4, 60, 100, 24
Operation = Literal["mean", "median"]


@dataclass(frozen=True)
class CellMemory:
    """Most memory, each in a process of its own, in MiB; and seconds."""

    cells: int
    features: int
    partition_mib: float
    partition_seconds: float
    mean_mib: float
    mean_seconds: float
    median_mib: float
    median_seconds: float


def well_profiles(cells: SingleCells, operation: Operation) -> pd.DataFrame:
    """Profiles of all wells, as methods have them made."""
    wells = cells.counts[WELL_KEY].drop_duplicates().assign(**{c: "" for c in WELL_COLUMNS if c not in WELL_KEY})
    settings = ProfileSettings(aggregate=operation, normalise="training")
    return make_well_profiles(cells, wells[WELL_COLUMNS], settings, wells.iloc[:0], 0)


def bench_fields(cells: int) -> pd.DataFrame:
    """`FIELD_KEY` of about so many cells at `CELLS` a field, at least one plate of one well."""
    wells = max(1, round(cells / (CELLS * SITES)))
    number = np.repeat(np.arange(wells), SITES)
    return pd.DataFrame({PLATE: [f"P{i // WELLS:04d}" for i in number], WELL: [f"W{i % WELLS:02d}" for i in number],
                         SITE: np.tile(np.arange(1, SITES + 1), wells)})


def _values(rows: int, features: int, rng: np.random.Generator) -> pd.DataFrame:
    """Cells with float32 features of 256 levels: 10⁶ by 1,500 fit on a small disk."""
    values = rng.integers(0, 256, (features, rows), np.uint8).astype(np.float32) / 7
    table = pd.DataFrame(values.T, columns=[f"Cells_{i}" for i in range(features)], copy=False)
    return pd.concat([pd.DataFrame({NUMBER: np.arange(rows, dtype=np.int32)}), table], axis=1)


def aggregation_ratio(folder: Path, cells: int = 48_000, features: int = 500) -> Ratio:
    """Well medians of cells on disk, read in blocks, against pandas reading all plates' files and its groupby.

    Parameters
    ----------
    folder : Path
        An empty folder; the cells are drawn there.

    Raises
    ------
    AssertionError
        The two sides disagree by more than float32 can.
    """
    counts = bench_fields(cells).assign(cells=CELLS)
    rng = np.random.default_rng(0)
    write_folder(folder / "cells", counts, [f"Cells_{i}" for i in range(features)],
                 lambda fields: _values(int(fields["cells"].sum()), features, rng))
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


def cell_memory(folder: Path, cells: int = 1_000_000, features: int = 1_500) -> CellMemory:
    """Peak memory of partitioning shards and of aggregating, each in a process of its own; all files are removed."""
    told = {}
    with TemporaryDirectory(dir=folder) as name:
        for step in ("shards", "partition", "mean", "median"):
            command = [sys.executable, "-m", "benchmark.bench.cells", step, name, str(cells), str(features)]
            told[step] = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
    return CellMemory(told["median"]["cells"], features, *(
        told[step][what] for step in ("partition", "mean", "median") for what in ("mib", "seconds")))


def draw_shards(folder: Path, cells: int, features: int) -> list[Path]:
    """Shards of `SHARD_FIELDS` fields as `benchmark.cellprofiler.measure` lands them; they cross plates."""
    fields = bench_fields(cells)
    rng = np.random.default_rng(0)
    shards = []
    for first in range(0, len(fields), SHARD_FIELDS):
        some = fields.iloc[first : first + SHARD_FIELDS]
        keys = some.loc[some.index.repeat(CELLS)].reset_index(drop=True)
        shards.append(folder / f"s{first:06d}")
        write_parquet(shards[-1] / SHARD_CELLS, pd.concat([keys, _values(len(keys), features, rng)], axis=1))
    return shards


def _memory_step(step: str, folder: Path, cells: int, features: int) -> dict[str, float]:
    """In a process of its own: one step, its peak in MiB and its seconds."""

    def run() -> None:
        if step == "shards":
            draw_shards(folder / "shards", cells, features)
        elif step == "partition":
            partition(sorted((folder / "shards").iterdir()), bench_fields(cells), folder / "cells")
        else:
            table = well_profiles(SingleCells.open(folder / "cells"), "mean" if step == "mean" else "median")
            assert len(table) == len(bench_fields(cells)) // SITES

    seconds = best_of(run, 1)
    number = len(SingleCells.open(folder / "cells")) if step != "shards" else cells
    return {"cells": number, "mib": round(_peak_mib(), 1), "seconds": round(seconds, 1)}


if __name__ == "__main__":
    print(json.dumps(_memory_step(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))))
