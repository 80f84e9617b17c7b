"""What ExportToDatabase wrote: SQLite files.

Files of cytominer-database (tables ``Image``, ``Cells``, …) have the same structure, with a ``TableNumber`` beside the
number of the image.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pandas as pd

from benchmark.assays.profiles.cellprofiler_tables import (
    AGAIN,
    OWN_NUMBER,
    TABLE_NUMBER,
    Export,
    Table,
    image_names,
    side_by_side,
    text_frame,
)
from benchmark.base.errors import MorphobenchError
from benchmark.cells.objects import IMAGE_NUMBER, OBJECT_NUMBER

DATABASES = (".db", ".sqlite", ".sqlite3")
_ROWS = 2000
#: Seconds to wait for a program that is writing to the file.
LOCKED = 1.0


@dataclass(frozen=True)
class SqliteTable:
    """A `Table` in a SQLite file; rows whose column ``present`` is missing are of other objects."""

    path: Path
    name: str
    columns: Mapping[str, str] = field(repr=False)
    present: str | None = None

    @property
    def where(self) -> str:
        """File and table."""
        return f"{self.path.name}, table {self.name}"

    def blocks(self, columns: Sequence[str]) -> Iterator[np.ndarray]:
        """See `Table`."""
        for rows in self._rows(columns):
            try:
                yield np.array(rows, np.float64)
            except (ValueError, TypeError) as error:
                what = next(f"{c} holds {str(v)[:40]!r}" for row in rows for c, v in zip(columns, row, strict=True)
                            if not _is_number(v))
                raise MorphobenchError(f"{what}, and measurements are numbers", self.where, "Correct it.") from error

    def text(self, columns: Sequence[str]) -> pd.DataFrame:
        """See `Table`."""
        rows = [row for rows in self._rows(columns) for row in rows]
        values = np.empty((len(rows), len(columns)), object)
        for i, row in enumerate(rows):
            values[i] = row
        return text_frame(values, columns)

    def _rows(self, columns: Sequence[str]) -> Iterator[list[tuple[object, ...]]]:
        # By rowid, or an index that holds the asked columns could give the rows in another order.
        if not columns:
            return
        names = ", ".join(_quoted(self.columns[c]) for c in columns)
        there = f" WHERE {_quoted(self.present)} IS NOT NULL" if self.present else ""
        with _opened(self.path) as database:
            cursor = database.execute(f"SELECT {names} FROM {_quoted(self.name)}{there} ORDER BY rowid")  # noqa: S608
            while rows := cursor.fetchmany(_ROWS):
                yield rows


def sqlite_exports(path: Path) -> list[Export]:
    """Exports of ExportToDatabase in a SQLite file, by the prefix of their tables.

    Names of columns are as the file has them: ExportToDatabase shortens those of more than 64 characters.

    Raises
    ------
    MorphobenchError
        It is missing, no SQLite file, damaged or still being written, or has no table of images.
    """
    _check_sqlite(path)
    with _opened(path) as database:
        # Real tables alone (no views, no virtual tables): a schema may be hostile.
        names = [str(n) for (n,) in database.execute(
            "SELECT name FROM sqlite_master WHERE type = 'table' AND rootpage > 0 ORDER BY name")]
        columns = {n: [str(c) for (c,) in database.execute("SELECT name FROM pragma_table_info(?)", (n,))]
                   for n in names}
    tables = {n: header for n, header in columns.items() if IMAGE_NUMBER in header}
    exports = []
    for name in tables:
        if name == "Image" or name.endswith("Per_Image"):
            start = name.removesuffix("Image")
            objects: dict[str, Table] = {}
            for other, header in tables.items():
                if other != name and other.startswith(start) and "Per_" not in other.removeprefix(start):
                    objects.update(_sqlite_objects(path, other, other.removeprefix(start), header))
            separate = {t.name for t in objects.values() if isinstance(t, SqliteTable)}
            if len(separate) > 1 and any(t.present for t in objects.values() if isinstance(t, SqliteTable)):
                raise MorphobenchError(f"holds a table of all objects and tables of single kinds "
                                       f"({', '.join(sorted(separate))})", str(path), "Remove one of them.")
            exports.append(Export(f"{path.name}, {name}", SqliteTable(path, name, image_names(tables[name])), objects))
    if not exports:
        raise MorphobenchError(
            "holds no table of images of CellProfiler (Per_Image, with a column ImageNumber)"
            + (f"; it has {', '.join(names[:8])}{', …' if len(names) > 8 else ''}" if names else ", and no other"),
            str(path), "Export it again with its images, or take it out of the folder.")
    return exports


def _sqlite_objects(path: Path, table: str, name: str, header: Sequence[str]) -> dict[str, Table]:
    """The kinds of objects in a table: none, one, or all of them where it has an ObjectNumber of no kind."""
    images = {c: c for c in (IMAGE_NUMBER, TABLE_NUMBER) if c in header}
    own = {c.removeprefix(f"{name}_"): c for c in header if c.startswith(f"{name}_")}
    if own:
        number = OBJECT_NUMBER if OBJECT_NUMBER in header else own.get(OWN_NUMBER)
        return {name: SqliteTable(path, table, own | images | {OBJECT_NUMBER: number})} if number else {}
    kinds = [c.removesuffix(f"_{OWN_NUMBER}") for c in header if c.endswith(f"_{OWN_NUMBER}")]
    tables: dict[str, Table] = {}
    for kind in kinds if OBJECT_NUMBER in header else ():
        # `Cells_` is no start of the columns of `Cells_Big`, another kind.
        longer = tuple(f"{k}_" for k in kinds if k.startswith(f"{kind}_"))
        own = {c.removeprefix(f"{kind}_"): c for c in header
               if c.startswith(f"{kind}_") and not (longer and c.startswith(longer))}
        columns, present = side_by_side(own, IMAGE_NUMBER, kind, table)
        tables[kind] = SqliteTable(path, table, columns | images, present)
    return tables


def _check_sqlite(path: Path) -> None:
    try:
        with path.open("rb") as handle:
            start = handle.read(16)
    except OSError as error:
        raise MorphobenchError(f"cannot be read ({error.strerror})", str(path), "Correct assay.profiles.") from error
    if start != b"SQLite format 3\0":
        raise MorphobenchError("is not a SQLite database", str(path), AGAIN)
    for kind in ("-wal", "-journal"):
        beside = path.with_name(path.name + kind)
        if beside.exists() and beside.stat().st_size:
            raise MorphobenchError("was not closed by the program that wrote it", str(path),
                                   f"Let it finish; {beside.name} holds a part of the data.")


@contextmanager
def _opened(path: Path) -> Iterator[sqlite3.Connection]:
    """The database, opened read-only; errors name the file."""
    try:
        with closing(sqlite3.connect(f"file:{quote(str(path.resolve()))}?mode=ro", uri=True,
                                     timeout=LOCKED)) as database:
            database.execute("PRAGMA query_only = ON")
            database.execute("PRAGMA trusted_schema = OFF")
            yield database
    except sqlite3.OperationalError as error:
        if "locked" not in str(error):
            raise MorphobenchError(f"cannot be read as a SQLite database ({error})", str(path), AGAIN) from error
        raise MorphobenchError("is locked: another program is writing to it", str(path),
                               "Let that program finish, or close it.") from error
    except sqlite3.Error as error:
        raise MorphobenchError(f"cannot be read as a SQLite database ({error})", str(path), AGAIN) from error


def _quoted(name: str) -> str:
    """An identifier for SQL, whatever it holds."""
    return '"' + name.replace('"', '""') + '"'


def _is_number(value: object) -> bool:
    try:
        float(value)  # type: ignore[arg-type]
    except (ValueError, TypeError):
        return value is None
    return True
