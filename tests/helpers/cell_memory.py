"""Peak memory of partitioning cells by plate and of aggregating them, each step in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd

from benchmark.base.files import write_parquet
from benchmark.bench.cells import CELLS, SITES, bench_fields, cell_values, well_profiles
from benchmark.bench.crops import peak_mib
from benchmark.cellprofiler.partition import SHARD_CELLS, partition
from benchmark.cells.table import SingleCells

SHARD_FIELDS = 24  # shards cross plates


def peak_memory(folder: Path, cells: int, features: int) -> dict[str, dict[str, float]]:
    """``partition``, ``mean`` and ``median``, each with ``mib`` (its peak) and ``cells``."""
    peaks = {}
    for step in ("shards", "partition", "mean", "median"):
        command = [sys.executable, __file__, step, str(folder), str(cells), str(features)]
        peaks[step] = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
    return peaks


def _step(step: str, folder: Path, cells: int, features: int) -> dict[str, float]:
    if step == "shards":
        _write_shards(folder / "shards", cells, features)
        return {}
    if step == "partition":
        partition(sorted((folder / "shards").iterdir()), bench_fields(cells), folder / "cells")
    else:
        table = well_profiles(SingleCells.open(folder / "cells"), "mean" if step == "mean" else "median")
        assert len(table) == len(bench_fields(cells)) // SITES
    return {"cells": len(SingleCells.open(folder / "cells")), "mib": peak_mib()}


def _write_shards(folder: Path, cells: int, features: int) -> None:
    """Shards of `SHARD_FIELDS` fields, as CellProfiler's results are stored."""
    fields, rng = bench_fields(cells), np.random.default_rng(0)
    for first in range(0, len(fields), SHARD_FIELDS):
        some = fields.iloc[first : first + SHARD_FIELDS]
        keys = some.loc[some.index.repeat(CELLS)].reset_index(drop=True)
        write_parquet(folder / f"s{first:06d}" / SHARD_CELLS,
                      pd.concat([keys, cell_values(len(keys), features, rng)], axis=1))


if __name__ == "__main__":
    print(json.dumps(_step(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))))
