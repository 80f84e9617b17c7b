"""The image files that a table of fields names: templates are filled in, spellings of other programs read or refused.

A path is taken as it is spelt where that file is there. Otherwise what other programs write around a path is dropped,
and said: blanks, ``file://``, and backslashes in place of slashes. What is left must lie below the assay's root; why it
does not is told once for each cause, however many rows it concerns.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote

import pandas as pd
from pydantic import Field

from benchmark.assays.outside import Outside, is_file, why_outside
from benchmark.assays.places import listed, several
from benchmark.base.errors import Fault, sheet_row
from benchmark.base.settings import Settings
from benchmark.base.tables import path_column, plane_column

#: A column in a template.
NAME = re.compile(r"\{([^{}]*)\}")
_FILE_URL = re.compile(r"file:(?://(?:localhost(?=/))?)?(?:/(?=[A-Za-z]:[/\\\\]))?", re.IGNORECASE)
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/")  # two letters or more: C:/ is a drive
#: What programs write into a cell that holds nothing.
_NOTHING = frozenset({"", "nan", "na", "n/a", "#n/a", "<na>", "none", "null"})
#: Longest name of a file on any common file system, in bytes.
_LONGEST = 255


class ChannelFile(Settings):
    """The image file of a channel, and which plane of it."""

    file: str = Field(min_length=1, description="Template: {Column} is a cell of the CSV, {row} its row from 0.")
    plane: int | None = Field(None, ge=0, description="Page of a stack, or channel of a colour image (red 0). Left "
                                                      "out: each file must hold a single plane.")


class _Read(NamedTuple):
    """How a filled-in template is read: the path, what was changed in it, and why it cannot be used, if so."""

    path: str
    changes: tuple[str, ...] = ()
    wrong: Outside | None = None


@dataclass
class _Where:
    """Rows that have something in common, the user's own columns there, and the texts."""

    rows: dict[int, None] = field(default_factory=dict)
    columns: dict[str, None] = field(default_factory=dict)
    texts: dict[str, None] = field(default_factory=dict)
    wrongs: list[Outside] = field(default_factory=list)

    def add(self, row: int, columns: Sequence[str], text: str) -> None:
        self.rows[row] = None
        self.columns |= dict.fromkeys(columns)
        self.texts[text] = None

    def __str__(self) -> str:
        rows = [sheet_row(i) for i in sorted(self.rows)]
        if len(rows) > 1:
            rows = [f"{len(rows)} rows ({several([r.removeprefix('row ') for r in rows], ', ')})"]
        return f"{rows[0]}, {', '.join(self.columns)}"

    @property
    def examples(self) -> str:
        """The first texts."""
        return listed(self.texts)


def add_files(channels: Mapping[str, ChannelFile], cells: pd.DataFrame, table: pd.DataFrame, root: Path, csv: str,
              bad: set[int], faults: list[Fault]) -> list[Fault]:
    """Add ``Path_`` and ``Plane_`` columns to a field table.

    Templates are filled in by plain substitution, never by str.format, whose fields can reach attributes.

    Parameters
    ----------
    channels : mapping
        Channel → its file and plane, as the study says.
    cells : DataFrame
        The user's table, as text, index 0…n-1.
    table : DataFrame
        Columns are added: paths relative to ``root`` in their plainest spelling, so that one file has one name.
    csv : str
        How messages name the user's table.
    bad : set of int
        Rows that have a fault are added.
    faults : list of Fault
        What is wrong is added, one fault for each cause.

    Returns
    -------
    list of Fault
        What is read otherwise than it is spelt, in words, with the number of rows.
    """
    changed: dict[str, _Where] = {}
    wrong: dict[str, _Where] = {}
    known: dict[tuple[str, ...], _Read] = {}
    for channel, spec in channels.items():
        names = list(dict.fromkeys(NAME.findall(spec.file)))
        columns = [[str(i) for i in cells.index] if n not in cells else [str(v) for v in cells[n]] for n in names]
        shown = [n for n in names if n in cells] or [f"assay.channels.{channel}.file"]
        paths = []
        for i in range(len(cells)):
            values = tuple(column[i] for column in columns)
            if (spec.file, *values) not in known:
                known[spec.file, *values] = _read(root, spec.file, dict(zip(names, values, strict=True)))
            read = known[spec.file, *values]
            for change in read.changes:
                changed.setdefault(change, _Where()).add(i, shown, read.path)
            if read.wrong is not None:
                where = wrong.setdefault(read.wrong.cause, _Where())
                where.add(i, read.wrong.columns or shown, read.path)
                where.wrongs.append(read.wrong)
                bad.add(i)
            paths.append(read.path)
        table[path_column(channel)] = paths
        table[plane_column(channel)] = spec.plane or 0
    faults += [_fault(where, csv) for where in wrong.values()]
    return [Fault(f"{change}, in {len(where.texts)} paths", f"{csv}, {where}") for change, where in changed.items()]


def _fault(where: _Where, csv: str) -> Fault:
    """All rows with one cause as one fault; what is said of several is what they have in common."""
    first = where.wrongs[0]
    places = sorted({one.folder for one in where.wrongs if one.folder})
    common = os.path.commonpath(places) if places else ""
    remedy = first.remedy.replace("{folder}", common)
    if first.columns:
        return Fault(first.what, f"{csv}, {where}", remedy)
    each = "each " if len(where.texts) > 1 else ""
    of_first = "" if all(one.what == first.what for one in where.wrongs) else " (the first of them)"
    return Fault(f"{each}{first.what}{of_first}", f"{csv}, {where}, {where.examples}", remedy)


def _read(root: Path, template: str, values: Mapping[str, str]) -> _Read:
    """Fill in a template and find the file's plain path below the root, or say why there is none."""
    spelt = _filled(template, values)
    plain, changes = _plain(template, values)
    if plain != spelt and plain.isprintable() and is_file(root / spelt):
        plain, changes = spelt, ()
    if not plain.isprintable():
        return _Read(spelt, (), Outside("control", "holds control characters", "Check the CSV."))
    empty = [name for name, value in values.items() if value.strip().lower() in _NOTHING]
    if empty and not is_file(root / plain):
        return _Read(plain, changes, _empty(empty[0], values[empty[0]].strip()))
    scheme = _SCHEME.match(plain)
    if scheme:
        return _Read(plain, changes, Outside(f"url {scheme[1]}", f"is a URL ({scheme[1]}://); images are read from "
                                             "folders", "Copy the images to a folder, set assay.root to it, and write "
                                             "paths below it."))
    if any(len(part.encode()) > _LONGEST for part in plain.split("/")):
        return _Read(plain, changes, Outside("long", f"has a part of more than {_LONGEST} bytes, which no file's name "
                                             "can have", "Check assay.channels.<channel>.file and the CSV."))
    wrong = why_outside(root, plain)
    return _Read(plain, changes, wrong) if wrong is not None else _Read(_relative(root, plain), changes)


def _filled(template: str, values: Mapping[str, str]) -> str:
    return NAME.sub(lambda match: values[match[1]], template)


def _plain(template: str, values: Mapping[str, str]) -> tuple[str, tuple[str, ...]]:
    """A path without what other programs write around it, and what was dropped."""
    spelt = _filled(template, values)
    text = _filled(template, {name: value.strip() for name, value in values.items()}).strip()
    changes = ["blanks around a path are dropped"] if text != spelt else []
    url = _FILE_URL.match(text)
    if url:
        text = unquote(text[url.end():])
        changes.append("file:// before a path is dropped")
    if "\\" in text:
        text = text.replace("\\", "/")
        changes.append("backslashes are read as /")
    return text, tuple(changes)


def _empty(column: str, text: str) -> Outside:
    said = f" ({text!r})" if text else ""
    return Outside(f"empty {column}", f"the cell {column} is empty{said}", "Fill it in, or take the row out of the "
                   "CSV: a field has a file for each channel.", (column,))


def _relative(root: Path, text: str) -> str:
    """The path below the root in its plainest spelling, so that one file has one name."""
    path, plain = Path(os.path.normpath(root / text)), Path(os.path.normpath(root))
    return path.relative_to(plain).as_posix() if path.is_relative_to(plain) else Path(text).as_posix()
