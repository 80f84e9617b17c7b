"""CellProfiler's tables → one table of cells and one of fields.

One row a cell: nuclei, cells and cytoplasm are separate tables of CellProfiler, joined through their parents
(`benchmark.cells.objects`).
"""

from __future__ import annotations

import re

import numpy as np
import pandas as pd

from benchmark.base.tables import FIELD_KEY, PLATE, SITE, WELL
from benchmark.cellprofiler.check import Output, count_table
from benchmark.cellprofiler.shards import NUMBER, Shard
from benchmark.cells.objects import BOOKKEEPING, base_object, join_objects

OBJECT_NUMBER = "Metadata_ObjectNumber"
#: Columns of Image.csv that are not measurements of the image.
_IMAGE_BOOKKEEPING = re.compile(
    r"ImageNumber|(Metadata|Count|Group|FileName|PathName|URL|MD5Digest|Height|Width|Scaling|Frame|Series|Channel"
    r"|ModuleError|ExecutionTime|ProcessingStatus)_.*"
)


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

    A pipeline that finds no objects (whole fields alone) gives a table of keys without rows.
    """
    base = base_object(output.objects, NUMBER)
    if base is None:
        return _keys(shard).iloc[:0].assign(**{OBJECT_NUMBER: np.empty(0, np.int32)}), []
    cells = output.objects[base]
    partners, left_out = join_objects(output.objects, base, NUMBER)
    # Position -1 stands for no row: missing values.
    parts = [_features(cells, base)] + [
        _features(output.objects[name], name).reset_index(drop=True).reindex(rows).set_axis(cells.index)
        for name, rows in partners.items()]
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
