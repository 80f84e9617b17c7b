"""CellProfiler's own tables as they lie on a disk: ExportToSpreadsheet's CSV, ExportToDatabase's SQLite.

Both come in a form with a table for each kind of object, and in one with all kinds side by side, row by row of equal
numbers; the forms were read off CellProfiler 4.2.8.1 (exporttospreadsheet.py, exporttodatabase.py). SQLite files of
cytominer-database (tables ``Image``, ``Cells``, …) are of the same build, with a ``TableNumber`` beside the number of
the image. Files are read and never written; nothing in them is trusted to be a name, a number or whole.
"""

from __future__ import annotations

import csv
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol
from urllib.parse import quote

import numpy as np
import pandas as pd
import pyarrow
import pyarrow.csv

from benchmark.assays.columns import open_text
from benchmark.assays.profiles.profile_file import guarded
from benchmark.base.errors import MorphobenchError
from benchmark.cells.objects import IMAGE_NUMBER, OBJECT_NUMBER

TABLE_NUMBER = "TableNumber"
DATABASES = (".db", ".sqlite", ".sqlite3")
_CSV = (".csv", ".txt")
#: Number of an object among those of its kind; missing where a row of a table of all kinds has none of the kind.
_OWN_NUMBER = "Number_Object_Number"
_ROWS = 2000
_BLOCK = 1 << 20  # bytes of a CSV at once; pyarrow reads some dozens ahead
_AGAIN = "Export or copy it again."


class Table(Protocol):
    """One kind of object, or the images, of an export.

    Attributes
    ----------
    where : str
        How messages name it.
    path : Path
        The file that it lies in.
    columns : mapping
        Name in CellProfiler's measurements (``AreaShape_Area``) → name in the file.
    """

    @property
    def where(self) -> str: ...

    @property
    def path(self) -> Path: ...

    @property
    def columns(self) -> Mapping[str, str]: ...

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


@dataclass(frozen=True)
class CsvTable:
    """A `Table` in a CSV; ``skip`` rows of header, and all its columns' names in order."""

    path: Path
    separator: str
    names: tuple[str, ...]
    columns: Mapping[str, str] = field(repr=False)
    skip: int = 1
    present: str | None = None

    @property
    def where(self) -> str:
        """Folder and name: many folders hold files of one name."""
        return f"{self.path.parent.name}/{self.path.name}"

    def blocks(self, columns: Sequence[str]) -> Iterator[np.ndarray]:
        """See `Table`."""
        wanted = [self.columns[c] for c in columns] + ([self.present] if self.present else [])
        for batch in self._batches(dict.fromkeys(wanted), pyarrow.float64()):
            block = np.column_stack([batch.column(c).to_numpy(zero_copy_only=False) for c in wanted])
            yield block[~np.isnan(block[:, -1]), :-1] if self.present else block

    def text(self, columns: Sequence[str]) -> pd.DataFrame:
        """See `Table`."""
        wanted = [self.columns[c] for c in columns] + ([self.present] if self.present else [])
        rows = [np.column_stack([b.column(c).to_numpy(zero_copy_only=False) for c in wanted])
                for b in self._batches(dict.fromkeys(wanted), pyarrow.string())]
        values = np.concatenate([*rows, np.empty((0, len(wanted)), object)])
        if self.present:  # the same rows as `blocks`
            values = values[[str(v or "").strip().lower() not in ("", "nan") for v in values[:, -1]], :-1]
        return _text(values, columns)

    def _batches(self, names: Mapping[str, None], kind: pyarrow.DataType) -> Iterator[pyarrow.RecordBatch]:
        with self.path.open("rb") as handle:
            handle.seek(-1, 2)
            if handle.read(1) not in b"\r\n":
                raise MorphobenchError("its last row is cut off: no end of line", self.where, _AGAIN)
        batches = guarded(self.path, lambda: pyarrow.csv.open_csv(
            self.path,
            read_options=pyarrow.csv.ReadOptions(column_names=list(self.names), skip_rows=self.skip, block_size=_BLOCK,
                                                 use_threads=False),
            parse_options=pyarrow.csv.ParseOptions(delimiter=self.separator),
            convert_options=pyarrow.csv.ConvertOptions(include_columns=list(names),
                                                       column_types=dict.fromkeys(names, kind))))
        with closing(batches):
            while (batch := guarded(self.path, lambda: next(batches, None))) is not None:
                yield batch


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
        return _text(values, columns)

    def _rows(self, columns: Sequence[str]) -> Iterator[list[tuple[object, ...]]]:
        # By rowid, or an index that holds the asked columns could give the rows in another order.
        names = ", ".join(_quoted(self.columns[c]) for c in columns)
        there = f" WHERE {_quoted(self.present)} IS NOT NULL" if self.present else ""
        with _opened(self.path) as database:
            cursor = database.execute(f"SELECT {names} FROM {_quoted(self.name)}{there} ORDER BY rowid")  # noqa: S608
            while rows := cursor.fetchmany(_ROWS):
                yield rows


def csv_exports(folder: Path, separator: str) -> list[Export]:
    """Exports of ExportToSpreadsheet in a folder and below it, by path.

    The table of images is a CSV whose name ends in ``Image`` and that has a column ImageNumber; the files beside it
    that begin like it (``MyExpt_``) and have ImageNumber and ObjectNumber are its objects. Others are passed over.
    """
    files = sorted(p for p in folder.rglob("*") if p.suffix.lower() in _CSV and p.name[0] != "." and p.is_file())
    headers = {p: _csv_header(p, separator) for p in files}
    images = [p for p in files if p.stem.endswith("Image") and IMAGE_NUMBER in headers[p][0]
              and OBJECT_NUMBER not in headers[p][0]]
    exports = {p: Export(str(p.relative_to(folder)), _csv_image(p, separator, headers[p][0]), {}) for p in images}
    for path in set(files) - set(images):
        own = [p for p in images if p.parent == path.parent and path.name.startswith(_prefix(p))]
        if own:
            image = max(own, key=lambda p: len(p.name))
            name = path.stem.removeprefix(_prefix(image))
            found = _csv_objects(path, separator, headers[path][0], headers[path][1], name)
            if not found and f"Count_{name}" in exports[image].images.columns:
                raise MorphobenchError("is cut off or no table of objects: lacks ImageNumber or ObjectNumber",
                                       str(path), _AGAIN)
            twice = set(found) & set(exports[image].objects)
            if twice:
                raise MorphobenchError(f"{', '.join(sorted(twice))} stand in two files", str(path), "Remove one.")
            exports[image].objects.update(found)
    return [Export(e.where, e.images, dict(sorted(e.objects.items()))) for e in exports.values()]


def sqlite_exports(path: Path) -> list[Export]:
    """Exports of ExportToDatabase in a SQLite file, by the prefix of their tables.

    Names of columns are as the file has them: ExportToDatabase shortens those of more than 64 characters.

    Raises
    ------
    MorphobenchError
        It is missing, no SQLite file, damaged or still being written.
    """
    _check_sqlite(path)
    with _opened(path) as database:
        # Real tables alone (no views, no virtual tables): a schema may be hostile.
        names = [str(n) for (n,) in database.execute(
            "SELECT name FROM sqlite_master WHERE type = 'table' AND rootpage > 0 ORDER BY name")]
        columns = {n: [str(c) for (c,) in database.execute("SELECT name FROM pragma_table_info(?)", (n,))]
                   for n in names}
    tables = {n: found for n, found in columns.items() if IMAGE_NUMBER in found}
    exports = []
    for name in tables:
        if name == "Image" or name.endswith("Per_Image"):
            start = name.removesuffix("Image")
            objects: dict[str, Table] = {}
            for other, found in tables.items():
                if other != name and other.startswith(start) and "Per_" not in other.removeprefix(start):
                    objects.update(_sqlite_objects(path, other, other.removeprefix(start), found))
            separate = {t.name for t in objects.values() if isinstance(t, SqliteTable)}
            if len(separate) > 1 and any(t.present for t in objects.values() if isinstance(t, SqliteTable)):
                raise MorphobenchError(f"holds a table of all objects and tables of single kinds "
                                       f"({', '.join(sorted(separate))})", str(path), "Remove one of them.")
            exports.append(Export(f"{path.name}, {name}", SqliteTable(path, name, _image_names(tables[name])), objects))
    return exports


def _csv_header(path: Path, separator: str) -> list[list[str]]:
    """The first two rows; empty ones where a file is no table (it is passed over)."""
    try:
        with open_text(path) as handle:
            rows = csv.reader(handle, delimiter=separator)
            return [next(rows, []), next(rows, [])]
    except (UnicodeDecodeError, csv.Error):
        return [[], []]


def _prefix(image: Path) -> str:
    return image.stem.removesuffix("Image")


def _csv_image(path: Path, separator: str, header: Sequence[str]) -> CsvTable:
    return CsvTable(path, separator, _once(path, header), _image_names(header))


def _image_names(header: Sequence[str]) -> dict[str, str]:
    """Columns of the images go by their name with and without ``Image_``."""
    names = {c.removeprefix("Image_"): c for c in header}
    return names | {f"Image_{c}": at for c, at in names.items()} | {c: c for c in header}


def _csv_objects(
    path: Path, separator: str, first: Sequence[str], second: Sequence[str], name: str
) -> dict[str, Table]:
    """The kinds of objects in a file: one, or where the names of objects stand above the header, several."""
    if {IMAGE_NUMBER, OBJECT_NUMBER} <= set(first):
        return {name: CsvTable(path, separator, _once(path, first), {c: c for c in first})} if name else {}
    if first[:1] != ["Image"] or second[:1] != [IMAGE_NUMBER] or len(first) != len(second):
        return {}
    names = _once(path, [f"{o}_{c}" for o, c in zip(first, second, strict=True)])
    found: dict[str, Table] = {}
    for kind in dict.fromkeys(o for o in first if o != "Image"):
        own = {c: f"{o}_{c}" for o, c in zip(first, second, strict=True) if o == kind}
        columns, present = _side_by_side(own, names[0], kind, path.name)
        found[kind] = CsvTable(path, separator, names, columns, 2, present)
    return found


def _sqlite_objects(path: Path, table: str, name: str, header: Sequence[str]) -> dict[str, Table]:
    """The kinds of objects in a table: none, one, or all of them where it has an ObjectNumber of no kind."""
    images = {c: c for c in (IMAGE_NUMBER, TABLE_NUMBER) if c in header}
    own = {c.removeprefix(f"{name}_"): c for c in header if c.startswith(f"{name}_")}
    if own:
        number = OBJECT_NUMBER if OBJECT_NUMBER in header else own.get(_OWN_NUMBER)
        return {name: SqliteTable(path, table, own | images | {OBJECT_NUMBER: number})} if number else {}
    kinds = [c.removesuffix(f"_{_OWN_NUMBER}") for c in header if c.endswith(f"_{_OWN_NUMBER}")]
    found: dict[str, Table] = {}
    for kind in kinds if OBJECT_NUMBER in header else ():
        # `Cells_` is no start of the columns of `Cells_Big`, another kind.
        longer = tuple(f"{k}_" for k in kinds if k.startswith(f"{kind}_"))
        own = {c.removeprefix(f"{kind}_"): c for c in header
               if c.startswith(f"{kind}_") and not (longer and c.startswith(longer))}
        columns, present = _side_by_side(own, IMAGE_NUMBER, kind, table)
        found[kind] = SqliteTable(path, table, columns | images, present)
    return found


def _side_by_side(own: dict[str, str], image: str, kind: str, where: str) -> tuple[dict[str, str], str]:
    """Columns of one kind in a table of several, and the column that tells whether a row has an object of it."""
    if _OWN_NUMBER not in own:
        raise MorphobenchError(f"lacks {_OWN_NUMBER} of {kind}, which tells its rows from those of other objects",
                               where, "Export it too, or each kind of object to a file of its own.")
    return own | {IMAGE_NUMBER: image, OBJECT_NUMBER: own[_OWN_NUMBER]}, own[_OWN_NUMBER]


def _once(path: Path, header: Sequence[str]) -> tuple[str, ...]:
    """The header, in which no column stands twice."""
    twice = [c for c in dict.fromkeys(header) if header.count(c) > 1]
    if twice:
        raise MorphobenchError(f"the column {twice[0]!r} stands there {header.count(twice[0])} times", str(path),
                               _AGAIN)
    return tuple(header)


def _check_sqlite(path: Path) -> None:
    try:
        with path.open("rb") as handle:
            start = handle.read(16)
    except OSError as error:
        raise MorphobenchError(f"cannot be read ({error.strerror})", str(path), "Correct assay.profiles.") from error
    if start != b"SQLite format 3\0":
        raise MorphobenchError("is not a SQLite database", str(path), _AGAIN)
    beside = path.with_name(path.name + "-wal")
    if beside.exists() and beside.stat().st_size:
        raise MorphobenchError("was not closed by the program that wrote it", str(path),
                               f"Let it finish; {beside.name} holds a part of the data.")


@contextmanager
def _opened(path: Path) -> Iterator[sqlite3.Connection]:
    """The database for reading alone; what is wrong with it names the file."""
    try:
        with closing(sqlite3.connect(f"file:{quote(str(path.resolve()))}?mode=ro", uri=True)) as database:
            database.execute("PRAGMA query_only = ON")
            database.execute("PRAGMA trusted_schema = OFF")
            yield database
    except sqlite3.Error as error:
        raise MorphobenchError(f"cannot be read as a SQLite database ({error})", str(path), _AGAIN) from error


def _quoted(name: str) -> str:
    """An identifier for SQL, whatever it holds."""
    return '"' + name.replace('"', '""') + '"'


def _is_number(value: object) -> bool:
    try:
        float(value)  # type: ignore[arg-type]
    except (ValueError, TypeError):
        return value is None
    return True


def _text(values: np.ndarray, columns: Sequence[str]) -> pd.DataFrame:
    return pd.DataFrame([["" if v is None else str(v).strip() for v in row] for row in values], columns=list(columns),
                        dtype=str)
