"""Tables of results as CSV that a spreadsheet shows and never runs."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from benchmark.base.files import whole

#: Starts by which Excel, LibreOffice and Google Sheets take a cell for a formula.
FORMULA = ("=", "+", "-", "@", "\t", "\r")


def write_csv(path: Path, table: pd.DataFrame) -> None:
    """Write a table, whole or not at all; text that a spreadsheet would run gets an apostrophe before it.

    A compound named ``=cmd|' /C calc'!A0`` in somebody's plate map is a command on the machine of who opens the table
    (OWASP, CSV injection). Numbers are left alone, negative ones too.
    """
    shown = table.apply(lambda column: column.map(_shown) if column.dtype.kind in "OUT" else column)
    with whole(path) as tmp:
        shown.rename(columns=_shown).to_csv(tmp, index=False)


def _shown(value: object) -> object:
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA) else value
