"""What ExportToSpreadsheet wrote: a folder of CSV files."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow
import pyarrow.csv

from benchmark.assays.columns import open_text
from benchmark.assays.profiles.cellprofiler_tables import AGAIN, Export, Table, image_names, side_by_side, text_frame
from benchmark.assays.profiles.profile_file import guarded
from benchmark.base.errors import MorphobenchError
from benchmark.cells.objects import IMAGE_NUMBER, OBJECT_NUMBER

_CSV = (".csv", ".txt")
_BLOCK = 1 << 20  # bytes of a CSV at once; pyarrow reads some dozens ahead


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
        return text_frame(values, columns)

    def _batches(self, names: Mapping[str, None], kind: pyarrow.DataType) -> Iterator[pyarrow.RecordBatch]:
        with self.path.open("rb") as handle:
            handle.seek(-1, 2)
            if handle.read(1) not in b"\r\n":
                raise MorphobenchError("its last row is cut off: no end of line", self.where, AGAIN)
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
            objects = _csv_objects(path, separator, headers[path][0], headers[path][1], name)
            if not objects and f"Count_{name}" in exports[image].images.columns:
                raise MorphobenchError("is cut off or no table of objects: lacks ImageNumber or ObjectNumber",
                                       str(path), AGAIN)
            twice = set(objects) & set(exports[image].objects)
            if twice:
                raise MorphobenchError(f"{', '.join(sorted(twice))} are in two files", str(path), "Remove one.")
            exports[image].objects.update(objects)
    return [Export(e.where, e.images, dict(sorted(e.objects.items()))) for e in exports.values()]


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
    return CsvTable(path, separator, _once(path, header), image_names(header))


def _csv_objects(
    path: Path, separator: str, first: Sequence[str], second: Sequence[str], name: str
) -> dict[str, Table]:
    """The kinds of objects in a file: one, or several, where the names of objects are above the header."""
    if {IMAGE_NUMBER, OBJECT_NUMBER} <= set(first):
        return {name: CsvTable(path, separator, _once(path, first), {c: c for c in first})} if name else {}
    if first[:1] != ["Image"] or second[:1] != [IMAGE_NUMBER] or len(first) != len(second):
        return {}
    names = _once(path, [f"{o}_{c}" for o, c in zip(first, second, strict=True)])
    tables: dict[str, Table] = {}
    for kind in dict.fromkeys(o for o in first if o != "Image"):
        own = {c: f"{o}_{c}" for o, c in zip(first, second, strict=True) if o == kind}
        columns, present = side_by_side(own, names[0], kind, path.name)
        tables[kind] = CsvTable(path, separator, names, columns, 2, present)
    return tables


def _once(path: Path, header: Sequence[str]) -> tuple[str, ...]:
    """The header; no column may occur twice."""
    twice = [c for c in dict.fromkeys(header) if header.count(c) > 1]
    if twice:
        raise MorphobenchError(f"the column {twice[0]!r} appears {header.count(twice[0])} times", str(path),
                               AGAIN)
    return tuple(header)
