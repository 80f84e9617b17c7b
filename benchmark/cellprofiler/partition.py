"""Shards' tables of cells → one folder of single cells, a parquet file a plate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from benchmark.base.errors import MorphobenchError
from benchmark.base.files import digest, read_json
from benchmark.base.tables import FIELD_KEY
from benchmark.cells.folder import BLOCK_ROWS, CELLS, INDEX, write_folder
from benchmark.cells.table import SingleCells

#: A shard's table of cells (`benchmark.cellprofiler.measure`), and its count within the field.
SHARD_CELLS, NUMBER = "cells.parquet", "Metadata_ObjectNumber"
#: Columns read of a shard at once: a shard of 500 fields is large too.
_AT_ONCE = 256


@dataclass(frozen=True)
class _Plan:
    """What lies where: ``fields`` (`FIELD_KEY`, cells, shard number) in the order of rows, and the columns."""

    shards: tuple[Path, ...]
    fields: pd.DataFrame
    extras: tuple[str, ...]
    features: tuple[str, ...]


def partition(shards: Sequence[Path], fields: pd.DataFrame, folder: Path, block_rows: int = BLOCK_ROWS) -> SingleCells:
    """Bring the cells of shards together by plate, once.

    The memory needed is that of one block (`benchmark.cells.folder.BLOCK_ROWS` rows) and a part of one shard, whatever
    the number of cells. A run killed at any moment resumes with the plate it had reached; the files are the same, bit
    for bit, as those of a run that was never killed.

    Parameters
    ----------
    shards : sequence of Path
        Folders with a ``cells.parquet``: `FIELD_KEY`, ``Metadata_ObjectNumber``, centres and features. Their names
        are digests of all that the measurements depend on. Shards without cells may lack columns; what one shard
        lacks and another has is NaN.
    fields : DataFrame
        `FIELD_KEY` columns in the order in which cells are to lie: plates and wells each together.
    folder : Path
        The finished folder; it is opened where it exists. Give it a name for each set of shards and fields.
    block_rows : int
        Most rows of a block, unless one well has more.

    Returns
    -------
    SingleCells

    Raises
    ------
    MorphobenchError
        A shard is of a field that is not in the table, two shards hold the same field, a shard's table has changed,
        or the folder holds the cells of other shards or fields, or of shards that were measured again since.
    """
    keys = fields[FIELD_KEY].astype(str)  # hashed as text, as in folders made earlier
    # The size too: a shard with failed fields may be measured again under its name, with more cells then.
    held = [[s.name, (s / SHARD_CELLS).stat().st_size] for s in shards]
    source = {"shards": digest(held), "fields": digest(keys.to_numpy().tolist())}
    if not (folder / INDEX).exists():
        plan = _plan(shards, fields)
        counts = plan.fields.drop(columns="shard")
        write_folder(folder, counts, plan.features, lambda block: _block(plan, block), block_rows, source)
    if read_json(folder / INDEX).get("source") != source:
        raise MorphobenchError("holds the cells of other shards or fields", str(folder),
                               "Delete the folder and run again.")
    return SingleCells.open(folder)


def _field_index(fields: pd.DataFrame) -> pd.MultiIndex:
    return pd.MultiIndex.from_frame(fields[FIELD_KEY])


def _plan(shards: Sequence[Path], fields: pd.DataFrame) -> _Plan:
    """Read the keys of all shards, and which columns they have."""
    known = _field_index(fields)
    cells, shard_of = np.zeros(len(fields), np.int64), np.full(len(fields), -1)
    columns: dict[str, None] = {}
    for number, shard in enumerate(shards):
        path = shard / SHARD_CELLS
        with pq.ParquetFile(path) as file:
            if not file.metadata.num_rows:
                continue  # CellProfiler writes fewer columns where it found nothing
            columns |= dict.fromkeys(file.schema_arrow.names)
            rows = _rows(file, known, path)
        found, counts = np.unique(rows, return_counts=True)
        twice = found[shard_of[found] >= 0]
        if len(twice):
            raise MorphobenchError(f"holds the field {known[twice[0]]}, and so does another shard", str(path),
                                   "Delete both shards and run again.")
        cells[found], shard_of[found] = counts, number
    own = [c for c in columns if c not in FIELD_KEY]
    table = fields[FIELD_KEY].assign(**{CELLS: cells, "shard": shard_of})
    return _Plan(tuple(shards), table[table[CELLS] > 0].reset_index(drop=True),
                 tuple(c for c in own if c.startswith("Metadata_")),
                 tuple(c for c in own if not c.startswith("Metadata_")))


def _rows(file: pq.ParquetFile, known: pd.MultiIndex, path: Path) -> np.ndarray:
    """Position in ``known`` of each row's field."""
    keys = _field_index(file.read(columns=FIELD_KEY).to_pandas())
    rows = known.get_indexer(keys)
    if (rows < 0).any():
        raise MorphobenchError(f"holds the field {keys[int(np.argmin(rows))]}, which is not in the assay", str(path))
    return rows


def _block(plan: _Plan, block: pd.DataFrame) -> pd.DataFrame:
    """Cells of some fields, in the fields' order, and of a field in the shard's order."""
    shard_of = plan.fields["shard"].to_numpy()[_field_index(plan.fields).get_indexer(_field_index(block))]
    cells = block[CELLS].to_numpy()
    starts = np.cumsum(cells) - cells
    floats = [c for c in (*plan.extras, *plan.features) if c != NUMBER]
    values = np.full((len(floats), cells.sum()), np.nan, np.float32)
    numbers = np.zeros(cells.sum(), np.int32)
    for shard in np.unique(shard_of):
        mine = np.flatnonzero(shard_of == shard)
        path = plan.shards[shard] / SHARD_CELLS
        with pq.ParquetFile(path) as file:
            keys = _field_index(file.read(columns=FIELD_KEY).to_pandas())
            field = _field_index(block.iloc[mine]).get_indexer(keys)
            order = np.argsort(field, kind="stable")[(field < 0).sum() :]
            if not np.array_equal(np.bincount(field[order], minlength=len(mine)), cells[mine]):
                raise MorphobenchError("has changed while it was read", str(path), "Run again.")
            target = np.concatenate([np.arange(starts[i], starts[i] + cells[i]) for i in mine])
            _fill(file, floats, values, target, order)
            if NUMBER in file.schema_arrow.names:
                numbers[target] = file.read(columns=[NUMBER]).column(0).to_numpy()[order]
    table = pd.DataFrame(values.T, columns=floats, copy=False)
    return pd.concat([pd.DataFrame({NUMBER: numbers}), table], axis=1) if NUMBER in plan.extras else table


def _fill(file: pq.ParquetFile, floats: Sequence[str], values: np.ndarray, target: np.ndarray, order: np.ndarray
          ) -> None:
    """``values[i, target]`` = rows ``order`` of column ``floats[i]``, for those that the file has."""
    there = set(file.schema_arrow.names)
    held = [(i, name) for i, name in enumerate(floats) if name in there]
    for first in range(0, len(held), _AT_ONCE):
        some = held[first : first + _AT_ONCE]
        table: pa.Table = file.read(columns=[name for _, name in some])
        for i, name in some:
            values[i, target] = table.column(name).to_numpy()[order]
