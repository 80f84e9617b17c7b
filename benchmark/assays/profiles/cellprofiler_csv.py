"""One CSV file of ExportToSpreadsheet as tables: of images, of one kind of object, or of several side by side."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow
import pyarrow.csv

from benchmark.assays.profiles.cellprofiler_tables import AGAIN, Table, image_names, side_by_side, text_frame
from benchmark.assays.profiles.profile_file import guarded
from benchmark.base.errors import MorphobenchError
from benchmark.cells.objects import IMAGE_NUMBER, OBJECT_NUMBER

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


def csv_image(path: Path, separator: str, header: Sequence[str]) -> CsvTable:
    """The table of images in a file."""
    return CsvTable(path, separator, _once(path, header), image_names(header))


def holds_objects(first: Sequence[str], second: Sequence[str]) -> bool:
    """Whether a file's first two rows are those of a table of objects, of one kind or of several side by side."""
    wide = [*first[:1], *second[:1]] == ["Image", IMAGE_NUMBER] and len(first) == len(second)
    return {IMAGE_NUMBER, OBJECT_NUMBER} <= set(first) or wide


def csv_objects(
    path: Path, separator: str, first: Sequence[str], second: Sequence[str], name: str
) -> dict[str, Table]:
    """The kinds of objects in a file: one, or several, where the names of objects are above the header."""
    if {IMAGE_NUMBER, OBJECT_NUMBER} <= set(first):
        return {name: CsvTable(path, separator, _once(path, first), {c: c for c in first})} if name else {}
    if not holds_objects(first, second):
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
