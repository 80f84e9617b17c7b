"""CellProfiler's own tables as they are on disk: what its CSV files and its SQLite files have in common.

Both come in a form with a table for each kind of object, and in one with all kinds side by side, row by row of equal
numbers; the forms were taken from the code of CellProfiler 4.2.8.1 (exporttospreadsheet.py, exporttodatabase.py).
Files are read and never written; nothing in them is trusted to be a name, a number or complete.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import pandas as pd

from benchmark.base.errors import MorphobenchError
from benchmark.cells.objects import IMAGE_NUMBER, OBJECT_NUMBER

TABLE_NUMBER = "TableNumber"
#: Number of an object among those of its kind; missing where a row of a table of all kinds has none of the kind.
OWN_NUMBER = "Number_Object_Number"
AGAIN = "Export or copy it again."


class Table(Protocol):
    """One kind of object, or the images, of an export.

    Attributes
    ----------
    where : str
        How messages name it.
    path : Path
        The file that it is in.
    columns : mapping
        Name in CellProfiler's measurements (``AreaShape_Area``) → name in the file.
    """

    @property
    def where(self) -> str:
        """How messages name the table."""
        ...

    @property
    def path(self) -> Path:
        """The file that the table is in."""
        ...

    @property
    def columns(self) -> Mapping[str, str]:
        """Name in CellProfiler's measurements → name in the file."""
        ...

    def blocks(self, columns: Sequence[str]) -> Iterator[np.ndarray]:
        """Columns as float64 (rows, columns), some rows at once, in the order of the file; NaN where empty."""
        ...

    def text(self, columns: Sequence[str]) -> pd.DataFrame:
        """Columns as text, without blanks around it; index 0…n-1."""
        ...


@dataclass(frozen=True)
class Export:
    """What one run of CellProfiler wrote: numbers of images are unique within it and not beyond."""

    where: str
    images: Table
    objects: dict[str, Table]


def image_names(header: Sequence[str]) -> dict[str, str]:
    """Columns of the images go by their name with and without ``Image_``."""
    names = {c.removeprefix("Image_"): c for c in header}
    return names | {f"Image_{c}": at for c, at in names.items()} | {c: c for c in header}


def side_by_side(own: dict[str, str], image: str, kind: str, where: str) -> tuple[dict[str, str], str]:
    """Columns of one kind in a table of several, and the column that says whether a row has an object of it."""
    if OWN_NUMBER not in own:
        raise MorphobenchError(f"lacks {OWN_NUMBER} of {kind}, which tells its rows apart from those of other objects",
                               where, "Export it too, or each kind of object to a file of its own.")
    return own | {IMAGE_NUMBER: image, OBJECT_NUMBER: own[OWN_NUMBER]}, own[OWN_NUMBER]


def text_frame(values: np.ndarray, columns: Sequence[str]) -> pd.DataFrame:
    """Values (rows, columns) as text without blanks around it; what is missing is empty."""
    return pd.DataFrame([["" if v is None else str(v).strip() for v in row] for row in values], columns=list(columns),
                        dtype=str)
