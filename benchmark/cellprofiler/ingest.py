"""CellProfiler's tables → one table of cells and one of fields.

One row a cell: nuclei, cells and cytoplasm are separate tables of CellProfiler, joined here through their
parents. Names of objects are not fixed: one table is the base, others join where they pair off with it.
"""

from __future__ import annotations

import re

import numpy as np
import pandas as pd

from benchmark.cellprofiler.check import Output, count_table
from benchmark.cellprofiler.shards import NUMBER, Shard
from benchmark.tables import FIELD_KEY, PLATE, SITE, WELL

OBJECT_NUMBER = "Metadata_ObjectNumber"
#: Where and which, not what: positions and numbers of objects would let a classifier learn the plate map.
BOOKKEEPING = re.compile(
    r"ImageNumber|ObjectNumber|(Metadata|Location|Parent|Children|Number|FileName|PathName|URL|MD5Digest)_.*"
    r"|AreaShape_(Center|BoundingBox).*|Neighbors_.*ObjectNumber.*"
)
#: Columns of Image.csv that are no measurement of the image.
_IMAGE_BOOKKEEPING = re.compile(
    r"ImageNumber|(Metadata|Count|Group|FileName|PathName|URL|MD5Digest|Height|Width|Scaling|Frame|Series|Channel"
    r"|ModuleError|ExecutionTime|ProcessingStatus)_.*"
)
_BASES = ("Cells", "Nuclei")


def base_object(objects: dict[str, pd.DataFrame]) -> str:
    """The object that rows of the cell table stand for: Cells, else Nuclei, else the first by name."""
    return next((name for name in _BASES if name in objects), min(objects))


def cell_table(output: Output, shard: Shard) -> tuple[pd.DataFrame, list[str]]:
    """One row a cell.

    Parameters
    ----------
    output : Output
        Checked tables of a run.
    shard : Shard
        Its fields, whose keys replace the numbers.

    Returns
    -------
    table : DataFrame
        ``Metadata_Plate, Metadata_Well, Metadata_Site, Metadata_ObjectNumber``, the centre of each
        object in pixels (``Metadata_<Object>_Location_Center_X/Y``), and features ``<Object>_<feature>``
        (float32; NaN where an object has no counterpart or CellProfiler no value).
    left_out : list of str
        Objects that do not pair off one to one with the base (speckles, say).
    """
    base = base_object(output.objects)
    cells = output.objects[base]
    parts, left_out = [_features(cells, base)], []
    for name, table in output.objects.items():
        if name == base:
            continue
        rows = _partners(cells, table, name, base)
        if rows is None:
            left_out.append(name)
        else:
            parts.append(_features(table, name).reindex(rows).set_axis(cells.index))
    keys = _keys(shard).reindex(cells[NUMBER].to_numpy()).set_axis(cells.index)
    keys[OBJECT_NUMBER] = cells["ObjectNumber"].astype(np.int32)
    table = pd.concat([keys, *parts], axis=1)
    columns = table.columns.astype(str)
    centres = [c for c in columns if c.startswith("Metadata_") and c not in keys]
    order = [*keys, *centres, *(c for c in columns if not c.startswith("Metadata_"))]
    return table[order].reset_index(drop=True), left_out


def image_table(output: Output, shard: Shard) -> pd.DataFrame:
    """One row a field: its key, ``Count_<object>`` (int32) and ``Image_<feature>`` (float32)."""
    images = output.images
    features = images[[c for c in images if not _IMAGE_BOOKKEEPING.fullmatch(str(c))]]
    features = features.apply(pd.to_numeric, errors="coerce").add_prefix("Image_")
    table = pd.concat([_keys(shard), count_table(images), _float32(features)], axis=1)
    return table.reset_index(drop=True)


def _keys(shard: Shard) -> pd.DataFrame:
    """Keys of the shard's fields, indexed by their numbers."""
    return pd.DataFrame([(f.plate, f.well, f.site) for f in shard.fields], columns=[PLATE, WELL, SITE])[FIELD_KEY]


def _float32(table: pd.DataFrame) -> pd.DataFrame:
    """Numbers as float32, with infinities as missing values."""
    values = table.to_numpy(np.float64, na_value=np.nan)
    values = np.where(np.abs(values) < np.finfo(np.float32).max, values, np.nan)
    return pd.DataFrame(values.astype(np.float32), index=table.index, columns=table.columns)


def _features(table: pd.DataFrame, name: str) -> pd.DataFrame:
    """Features of one object type, prefixed with its name, and its centres as metadata."""
    columns = [c for c in table if not BOOKKEEPING.fullmatch(str(c))]
    features = _float32(table[columns].apply(pd.to_numeric, errors="coerce")).add_prefix(f"{name}_")
    centres = [c for c in ("Location_Center_X", "Location_Center_Y") if c in table]
    return pd.concat([_float32(table[centres]).add_prefix(f"Metadata_{name}_"), features], axis=1)


def _partners(cells: pd.DataFrame, table: pd.DataFrame, name: str, base: str) -> pd.Index | None:
    """For each cell the row of ``table`` that belongs to it (-1: none); None where they do not pair off.

    Either the cells name their parent in ``table`` (nuclei), or ``table`` names its parent among the
    cells (cytoplasm).
    """
    own, theirs = ("ObjectNumber", f"Parent_{base}")
    if f"Parent_{name}" in cells:
        own, theirs = f"Parent_{name}", "ObjectNumber"
    elif theirs not in table:
        return None
    keyed = pd.MultiIndex.from_arrays([table[NUMBER], table[theirs]])
    wanted = pd.MultiIndex.from_arrays([cells[NUMBER], cells[own]])
    if keyed[table[theirs].to_numpy() != 0].has_duplicates or wanted.has_duplicates:
        return None
    found = pd.Series(table.index, index=keyed)[lambda s: s.index.get_level_values(1) != 0]
    return pd.Index(found.reindex(wanted).fillna(-1).astype(int))
