"""How messages name rows, wells and columns of the user's own tables: how many, the first three, and by their names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import cast

import pandas as pd

from benchmark.base.errors import sheet_row
from benchmark.base.tables import PLATE, WELL

#: A message names this many places and counts the rest.
NAMED = 3
#: Characters of a cell that a message gives.
LONGEST_SHOWN = 60


@dataclass(frozen=True)
class Origin:
    """Where a field table came from, for messages about it.

    Attributes
    ----------
    where : str
        Name of the file; empty where the table was made by code.
    columns : mapping
        ``Metadata_*`` → name of the user's column.
    words : mapping
        ``Metadata_*`` → words of that column that were read as missing.
    """

    where: str = ""
    columns: Mapping[str, str] = field(default_factory=dict)
    words: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def name(self, column: str) -> str:
        """What the user calls a column."""
        return self.columns.get(column, column)

    def at(self, place: str) -> str:
        """A place in the file."""
        return ", ".join(part for part in (self.where, place) if part)

    def missing(self, column: str) -> str:
        """A sentence that names the words read as missing; empty without any."""
        words = self.words.get(column, ())
        return f"{listed(words)} {'counts' if len(words) == 1 else 'count'} as empty. " if words else ""


def row_name(row: pd.Series) -> str:
    """How messages name a field: ``plate P, well W, site S``."""
    return f"plate {row[PLATE]}, well {row[WELL]}, site {row['Metadata_Site']}"


def rows_named(rows: Sequence[int], things: str = "rows") -> str:
    """``row 3``, ``rows 3, 5, 8`` or ``592 rows (3, 5, 8, …)`` from indices; see `sheet_row`.

    Parameters
    ----------
    things : str
        What a row is, where it is something else: ``592 wells (rows 3, 5, 8, …)``.
    """
    numbers = ", ".join(sheet_row(i).removeprefix("row ") for i in rows[:NAMED])
    if len(rows) == 1:
        return sheet_row(rows[0])
    if len(rows) <= NAMED:
        return f"rows {numbers}"
    return f"{len(rows)} {things} ({'' if things == 'rows' else 'rows '}{numbers}, …)"


def fields_named(table: pd.DataFrame, rows: Sequence[int]) -> str:
    """The first rows of a field table, each with its plate, well and site, and how many there are."""
    names = [f"{sheet_row(i)}, {row_name(cast(pd.Series, table.loc[i]))}" for i in rows[:NAMED]]
    return names[0] if len(rows) == 1 else f"{len(rows)} rows ({'; '.join(names)}{'; …' if len(rows) > NAMED else ''})"


def several(texts: Sequence[str], between: str = "; ", most: int = NAMED) -> str:
    """``a; b; c and 5 more``: every message that names some of many says it by this."""
    more = f" and {len(texts) - most} more" if len(texts) > most else ""
    return between.join(texts[:most]) + more


def listed(values: Iterable[object], most: int = NAMED) -> str:
    """``'a', 'b', 'c' and 5 more``; characters that do not show are written as their codes."""
    return several([shown(v) if isinstance(v, str) else repr(v) for v in values], ", ", most)


def shown(text: str) -> str:
    """A text in quotes, in part where it is long; characters that do not show are written as their codes."""
    return repr(text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}…")
