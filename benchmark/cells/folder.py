"""A folder of single cells, one parquet file a plate: its layout, how it is written, and how it is read in blocks.

It holds ``<safe name of the plate>.parquet`` (keys, ``Metadata_ObjectNumber``, centres, float32 features; rows are in
the order of the field table, row groups are whole wells), ``counts.parquet`` (one row per field with cells, and
the row group it lies in) and ``index.json``. Read it through `benchmark.cells.table.SingleCells`.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from benchmark.base.errors import MorphobenchError
from benchmark.base.files import digest, read_json, safe_name, whole, write_json, write_parquet
from benchmark.base.tables import FIELD_KEY, PLATE, WELL_KEY

#: Most rows of a block, unless one well has more: at 1,500 features 120 MB.
BLOCK_ROWS = 20_000
CELLS, GROUP = "cells", "group"
COUNTS, INDEX = "counts.parquet", "index.json"
#: Number of the layout of a folder; another one is refused.
FORMAT = 1


@dataclass(frozen=True, eq=False)
class CellFolder:
    """Cells of a folder.

    Attributes
    ----------
    layout : DataFrame
        `FIELD_KEY`, ``cells`` and ``group`` (the number of the block), one row per field, in the order of rows.
    features, extras : tuple of str
        Names of the features, and of the ``Metadata_`` columns besides the key.
    """

    folder: Path
    layout: pd.DataFrame
    features: tuple[str, ...]
    extras: tuple[str, ...]

    @classmethod
    def open(cls, folder: Path) -> CellFolder:
        """Read the folder's index, no cells.

        Raises
        ------
        MorphobenchError
            The folder is not complete, or of another version of this program.
        """
        if not (folder / INDEX).is_file():
            raise MorphobenchError("holds no single cells", str(folder), "Measure the assay again.")
        index = read_json(folder / INDEX)
        if index.get("format") != FORMAT:
            raise MorphobenchError(f"is of format {index.get('format')}, not {FORMAT}", str(folder),
                                   "Delete the folder and run again.")
        return cls(folder, pd.read_parquet(folder / COUNTS), tuple(index["features"]), tuple(index["extras"]))

    def load(self, plate: str, groups: Sequence[int], columns: list[str]) -> Iterator[pd.DataFrame]:
        """Columns (no keys) of some of a plate's blocks, in order."""
        if not groups:
            return
        path = self.folder / plate_file(plate)
        if not path.is_file():
            raise MorphobenchError(f"lacks the cells of plate {plate}", str(path),
                                   "Delete the folder of single cells and run again.")
        with pq.ParquetFile(path) as file:
            for group in groups:
                yield frame_of(file.read_row_group(group, columns=columns), columns)


def frame_of(table: pa.Table, columns: Sequence[str]) -> pd.DataFrame:
    """An arrow table as a frame whose float32 columns are one array; missing values are NaN."""
    floats = [c for c in columns if table.schema.field(c).type == pa.float32()]
    values = np.empty((len(floats), table.num_rows), np.float32)
    for i, name in enumerate(floats):
        values[i] = table.column(name).to_numpy()
    frame = pd.DataFrame(values.T, columns=floats, copy=False)
    others = [c for c in columns if c not in frame]
    if not others:
        return frame
    return pd.concat([table.select(others).to_pandas(), frame], axis=1)[list(columns)]


def plate_file(plate: str) -> str:
    """Name of a plate's file: a plate's own name may not be a valid file name."""
    return f"{safe_name(plate)}.parquet"


def with_groups(counts: pd.DataFrame, most: int) -> pd.DataFrame:
    """Add ``group``, the number of a field's block on its plate: whole wells, ``most`` rows unless one has more."""
    new = (counts[WELL_KEY] != counts[WELL_KEY].shift()).any(axis=1)
    wells = counts.groupby(WELL_KEY, sort=False)[CELLS].sum()
    if new.sum() != len(wells) or (counts[PLATE] != counts[PLATE].shift()).sum() != counts[PLATE].nunique():
        raise ValueError("fields of a plate or well do not lie together")
    numbers: list[int] = []
    plate, group, held = "", 0, 0
    for here, cells in zip(wells.index.get_level_values(0), wells, strict=True):
        if here != plate:
            plate, group, held = here, 0, 0
        elif held + cells > most:
            group, held = group + 1, 0
        held += cells
        numbers.append(group)
    group_of_well = pd.Series(numbers, index=wells.index, dtype=np.int64).rename(GROUP)
    return counts[[*FIELD_KEY, CELLS]].reset_index(drop=True).join(group_of_well, on=WELL_KEY)


def write_folder(folder: Path, counts: pd.DataFrame, features: Sequence[str],
                 make_block: Callable[[pd.DataFrame], pd.DataFrame], block_rows: int = BLOCK_ROWS,
                 source: Any = "") -> None:
    """Write the folder of single cells, block by block; a folder that exists is left as it is.

    Plates are written one by one to ``.<name>.<digest>.part`` beside the folder, which is renamed at the end: a run
    killed at any time resumes at the plate it was writing, with the same result to the byte.

    Parameters
    ----------
    folder : Path
        The final folder; left as it is where it exists.
    counts : DataFrame
        `FIELD_KEY` and ``cells`` (≥ 1) in the order of rows; plates and wells each lie together.
    features : sequence of str
        Names of the features.
    make_block : callable
        Rows of ``counts`` → their cells: features (float32) and other ``Metadata_`` columns, no keys.
    source : JSON-able
        What the cells were made from, written down.
    """
    if (folder / INDEX).exists():
        return
    layout = with_groups(counts, block_rows)
    plan = [FORMAT, source, list(features), layout.astype(str).to_numpy().tolist()]
    part = folder.with_name(f".{folder.name}.{digest(plan)}.part")
    try:
        part.mkdir(parents=True, exist_ok=True)
        for plate in layout[PLATE].unique():
            if not (part / plate_file(plate)).exists():
                _write_plate(part / plate_file(plate), layout[layout[PLATE] == plate], features, make_block)
        write_parquet(part / COUNTS, layout)
        write_json(part / INDEX, {"format": FORMAT, "features": list(features), "extras": _extras(part, layout),
                                  "source": source, "cells": int(layout[CELLS].sum()),
                                  "plates": {p: plate_file(p) for p in layout[PLATE].unique()}})
        part.rename(folder)
        for waste in folder.glob(".*"):  # part of a plate from a killed run
            waste.unlink(missing_ok=True)
    except OSError:
        if not (folder / INDEX).exists():  # else another run has written the same folder meanwhile
            raise
        shutil.rmtree(part, ignore_errors=True)


def _write_plate(path: Path, layout: pd.DataFrame, features: Sequence[str],
                 make_block: Callable[[pd.DataFrame], pd.DataFrame]) -> None:
    """One plate's file, one row group per block."""
    with whole(path) as tmp:
        writer: pq.ParquetWriter | None = None
        try:
            for _, fields in layout.groupby(GROUP, sort=True):
                block = make_block(fields)
                where = np.repeat(np.arange(len(fields)), fields[CELLS])
                keys = pa.Table.from_pandas(fields[FIELD_KEY].take(where), preserve_index=False)
                extras = [c for c in block.columns if c.startswith("Metadata_")]
                # NaN stays NaN: arrow's nulls would come with a bitmap for each column
                arrays = [pa.Array.from_pandas(block[c]) for c in extras]
                arrays += [pa.array(block[c].to_numpy(np.float32), from_pandas=False) for c in features]
                table = pa.table([*keys.columns, *arrays], names=[*FIELD_KEY, *extras, *features])
                if writer is None:
                    writer = pq.ParquetWriter(tmp, table.schema, compression="zstd", compression_level=1,
                                              use_dictionary=FIELD_KEY, write_statistics=False)
                writer.write_table(table, row_group_size=max(1, len(block)))
        finally:
            if writer is not None:
                writer.close()


def _extras(folder: Path, layout: pd.DataFrame) -> list[str]:
    """Columns besides keys and features that the plates' files hold."""
    if layout.empty:
        return []
    names = pq.read_schema(folder / plate_file(layout[PLATE].iloc[0])).names
    return [c for c in names if c.startswith("Metadata_") and c not in FIELD_KEY]
