"""CellProfiler's object tables: which columns are features, and how tables of objects join.

There is one table per kind of object (nuclei, cells, cytoplasm, under any names), with one row per object. Objects are
numbered within their image, and an object names its parent by number in ``Parent_<kind>`` (0 for none). One kind is the
base: each row of a cell table is one of its objects. Other kinds join it if they pair with it one to one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np
import pandas as pd

IMAGE_NUMBER = "ImageNumber"
OBJECT_NUMBER = "ObjectNumber"
# Positions and numbers of objects and tracks are not features: a classifier could learn the plate map from them.
# RelateObjects averages those of an object's children too, as Mean_<child>_<feature>.
_PLACE = (
    r"ImageNumber|ObjectNumber|TableNumber|(?:Metadata|FileName|PathName|URL|MD5Digest)_.*"
    r"|(?:Mean_.+?_)?(?:(?:Location|Parent|Children|Number)_.*|AreaShape_(?:Center|BoundingBox).*"
    r"|Neighbors_.*ObjectNumber.*|TrackObjects_(?:Label|Parent(?:Image|Object)Number).*)"
)
#: Matches the whole of a column of an object table that is no feature, named as in that table (``Location_Center_X``).
BOOKKEEPING = re.compile(_PLACE)
#: The same for columns that begin with the kind of object (``Cells_Location_Center_X``), or with nothing.
BOOKKEEPING_COLUMN = re.compile(rf"(?:.+?_)?(?:{_PLACE})")  # names of objects may hold underscores
_BASES = ("Cells", "Nuclei")


def base_object(tables: Mapping[str, pd.DataFrame], image: str = IMAGE_NUMBER) -> str | None:
    """The kind of object that rows of a cell table stand for.

    Parameters
    ----------
    tables : mapping
        Kind of object → its table, as `partners` takes them.
    image : str
        Column with the image of an object.

    Returns
    -------
    str or None
        ``Cells``, else ``Nuclei``; under other names the kind with which most others pair. Among equals, one that
        both has a parent and is one (as cells do with nuclei and cytoplasm), then the first by name. None without
        tables.
    """
    standard = next((name for name in _BASES if name in tables), None)
    if standard is not None or len(tables) < 2:
        return standard or next(iter(tables), None)

    def rank(name: str) -> tuple[int, bool, str]:
        pairs = sum(partners(tables[name], table, other, name, image) is not None
                    for other, table in tables.items() if other != name)
        child = any(f"Parent_{other}" in tables[name] for other in tables if other != name)
        parent = any(f"Parent_{name}" in table for other, table in tables.items() if other != name)
        return -pairs, not (child and parent), name

    return min(tables, key=rank)


def partners(
    cells: pd.DataFrame, table: pd.DataFrame, name: str, base: str, image: str = IMAGE_NUMBER
) -> np.ndarray | None:
    """For each object of the base the one of another kind that belongs to it.

    Either the base names its parent in ``table`` (nuclei), or ``table`` names its parent among the base (cytoplasm).

    Parameters
    ----------
    cells, table : DataFrame
        Objects of the base and of the other kind: ``image``, ``ObjectNumber`` and ``Parent_<kind>``.
    name, base : str
        The other kind, and the base.
    image : str
        Column with the image of an object.

    Returns
    -------
    array of int64 or None
        For each row of ``cells`` the position of its row in ``table``, -1 where it has none. None where the two kinds
        do not pair: neither names the other, or an object would have several partners.
    """
    own, theirs = OBJECT_NUMBER, f"Parent_{base}"
    if f"Parent_{name}" in cells:
        own, theirs = f"Parent_{name}", OBJECT_NUMBER
    elif theirs not in table:
        return None
    wanted, has = _keys(cells, image, own)
    keyed, serves = _keys(table, image, theirs)
    if wanted[has].has_duplicates or keyed[serves].has_duplicates:
        return None
    rows = np.full(len(cells), -1, np.int64)
    places = keyed[serves].get_indexer(wanted[has])
    rows[has] = np.append(np.flatnonzero(serves), -1)[places]  # -1, not found, takes the last: -1
    return rows


def join_objects(
    tables: Mapping[str, pd.DataFrame], base: str, image: str = IMAGE_NUMBER
) -> tuple[dict[str, np.ndarray], list[str]]:
    """How all kinds of objects join the base.

    Parameters
    ----------
    tables, base, image
        As `base_object`, and what it gives.

    Returns
    -------
    rows : dict
        Kind of object, in the order of ``tables`` and without the base → what `partners` gives.
    left_out : list of str
        Kinds that do not pair with the base (speckles, for example).
    """
    partner_rows = {name: partners(tables[base], table, name, base, image)
                    for name, table in tables.items() if name != base}
    return ({name: rows for name, rows in partner_rows.items() if rows is not None},
            [name for name, rows in partner_rows.items() if rows is None])


def _keys(table: pd.DataFrame, image: str, number: str) -> tuple[pd.MultiIndex, np.ndarray]:
    """Image and number of each row, and which rows have a number at all: 0 and missing are no object."""
    numbers = table[number].fillna(0).astype(np.int64)
    return pd.MultiIndex.from_arrays([table[image].astype(np.int64), numbers]), (numbers != 0).to_numpy()
