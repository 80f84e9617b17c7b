"""Where cells are, for crops centred on them. Segmentation is done elsewhere; this room only cuts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmark.base.errors import MorphobenchError
from benchmark.base.tables import FIELD_KEY

OBJECT_NUMBER = "Metadata_ObjectNumber"
#: A cell as workers get it: number of the object, and its centre in pixels.
CENTRE = np.dtype([("number", "<i4"), ("x", "<f4"), ("y", "<f4")])


@dataclass(frozen=True)
class CellCentres:
    """Centres of segmented cells.

    Attributes
    ----------
    table : DataFrame
        One row per cell: `FIELD_KEY`, ``Metadata_ObjectNumber`` (the value of the cell in its field's mask) and its
        centre ``x`` (to the right), ``y`` (down) in pixels, with the first pixel's centre at 0, 0.
    masks : callable
        Field key (plate, well, site) → label mask of the field, or None where none was saved.
    key : str
        Identity of the segmentation; enters the key of the cache.
    """

    table: pd.DataFrame
    masks: Callable[[tuple[Any, Any, Any]], Path | None]
    key: str


class CentresByField:
    """Centres grouped by field.

    Raises
    ------
    MorphobenchError
        A column is missing, a centre is not a finite number, or an object appears twice in a field.
    """

    def __init__(self, cells: CellCentres) -> None:
        table = cells.table
        missing = [c for c in (*FIELD_KEY, OBJECT_NUMBER, "x", "y") if c not in table]
        if missing:
            raise MorphobenchError(f"lacks the columns {', '.join(missing)}", "table of cell centres")
        bad = ~np.isfinite(table[["x", "y"]].to_numpy(float)).all(axis=1)
        if bad.any():
            raise MorphobenchError(f"has {int(bad.sum())} centres that are not finite numbers", "table of cell centres",
                                   "Leave these cells out.")
        if table.duplicated([*FIELD_KEY, OBJECT_NUMBER]).any():
            raise MorphobenchError("holds an object twice", "table of cell centres")
        groups: Any = table.groupby(FIELD_KEY).indices
        self._rows = dict(groups)
        self._values = np.empty(len(table), CENTRE)
        for name, column in (("number", OBJECT_NUMBER), ("x", "x"), ("y", "y")):
            self._values[name] = table[column].to_numpy()

    def of(self, key: Sequence[Any]) -> np.ndarray:
        """Centres in a field (plate, well, site) as `CENTRE`, sorted by object number; empty if it has none."""
        mine = self._values[self._rows.get(tuple(key), np.zeros(0, np.int64))]
        return mine[np.argsort(mine["number"], kind="stable")]
