"""Existing output of CellProfiler as one table of single cells: a folder of CSV files, or SQLite files.

The folder may be one export or hold many, one per plate or batch; numbers of images count within an export only.
Kinds of objects go by any names and are joined through their parents (`benchmark.cells.objects`). Tables
are read one kind of object at a time, in blocks, into one float32 array.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from benchmark.assays.faults import gathering
from benchmark.assays.profiles.cellprofiler_folder import csv_exports, files_below
from benchmark.assays.profiles.cellprofiler_sqlite import DATABASES, sqlite_exports
from benchmark.assays.profiles.cellprofiler_tables import AGAIN, TABLE_NUMBER, Export, Table
from benchmark.assays.profiles.cellprofiler_together import lacking_kinds, not_in_csv, same_images
from benchmark.assays.profiles.profile_file import SITES
from benchmark.assays.profiles.profile_numbers import clean, empty_fault
from benchmark.base.account import Loss
from benchmark.base.errors import Fault, FaultsError, MorphobenchError, sheet_row
from benchmark.base.files import digest, sha256_file
from benchmark.base.tables import PLATE, SITE, WELL
from benchmark.base.tasks import progress_bar
from benchmark.cells.objects import BOOKKEEPING, IMAGE_NUMBER, OBJECT_NUMBER, base_object, join_objects

#: Thumbnails that Windows leaves in folders of images.
_WINDOWS = ("thumbs.db", "ehthumbs.db")
_IMAGE = "image"  # position of an object's image among those of all exports


@dataclass(frozen=True)
class CellProfilerOutput:
    """Exports that were found, not yet read.

    Attributes
    ----------
    path : Path
        The folder or database.
    exports : tuple of Export
        By path.
    columns : tuple of str
        Columns of the images that every export has, by their names with and without ``Image_``.
    aside : tuple of Export
        Databases beside CSV files, which are not read: most often the same run, exported twice.
    strange : tuple of Fault
        Databases beside CSV files that are none of CellProfiler's.
    """

    path: Path
    exports: tuple[Export, ...]
    columns: tuple[str, ...]
    aside: tuple[Export, ...] = ()
    strange: tuple[Fault, ...] = ()

    @property
    def sha256(self) -> str:
        """Hash of the database, or of names and hashes of all files that are read."""
        if self.path.is_file():
            return sha256_file(self.path)
        files = sorted({t.path for e in self.exports for t in (e.images, *e.objects.values())})
        return digest([[str(p.relative_to(self.path)), sha256_file(p)] for p in files], 64)

    def metadata(self, columns: Sequence[str]) -> pd.DataFrame:
        """Columns of the images as text, one row an image, those of all exports one after the other."""
        if not columns:
            return pd.DataFrame()
        return pd.concat([e.images.text(columns) for e in self.exports], ignore_index=True)


def is_output(path: Path) -> bool:
    """Whether a path names CellProfiler's own output: a folder, or a SQLite file by its name."""
    return path.is_dir() or path.suffix.lower() in DATABASES


def find_output(path: Path, separator: str) -> CellProfilerOutput:
    """The exports in a folder and below it, or in a SQLite file.

    Raises
    ------
    MorphobenchError
        There is no table of images, or no table of objects beside one.
    """
    aside: list[Export] = []
    strange: list[Fault] = []
    if path.is_dir():
        exports = csv_exports(path, separator)
        databases = _databases(path, strange)
        if not exports:
            _refuse(str(path), strange)
        exports, aside = (exports, databases) if exports else (databases, [])
    else:
        exports = sqlite_exports(path)
    if not exports:
        raise MorphobenchError(
            "holds no table of images of CellProfiler", str(path),
            "A folder needs Image.csv (with or without a prefix, columns parted by assay.separator) or SQLite files, "
            "a SQLite file a table Per_Image.")
    bare = [e.where for e in exports if not e.objects]
    if bare:
        raise FaultsError([Fault(f"{', '.join(bare[:3])}{', …' if len(bare) > 3 else ''}: holds images and no table of "
                                 "objects", str(path), "Export the objects as well (Cells, Nuclei, …), each with its "
                                 "ImageNumber, or take the images out.")],
                          f"{path} cannot be read as CellProfiler's output:")
    shared = [c for c in exports[0].images.columns if all(c in e.images.columns for e in exports)]
    return CellProfilerOutput(path, tuple(exports), tuple(shared), tuple(aside), tuple(strange))


def _databases(folder: Path, faults: list[Fault]) -> list[Export]:
    """Exports in the databases of a folder and below it; those that cannot be read are added to the faults."""
    exports = []
    for path in files_below(folder, DATABASES):
        if path.name.lower() not in _WINDOWS:
            with gathering(faults):
                exports += sqlite_exports(path)
    return exports


def read_cells(
    output: CellProfilerOutput, plate: str, well: str, prefixes: Sequence[str] | None
) -> tuple[pd.DataFrame, list[Fault], list[Loss]]:
    """All cells of an output.

    Parameters
    ----------
    output : CellProfilerOutput
        What `find_output` gives.
    plate, well : str
        Columns of the images.
    prefixes : sequence of str or None
        What features start with (``Cells_``); None or empty for those of every kind of object.

    Returns
    -------
    table : DataFrame
        One row per object of the base: ``Metadata_Plate, Metadata_Well`` (text), ``Metadata_Site`` where the images
        have it, and features ``<Object>_<feature>`` (float32; NaN where an object has no counterpart or no value).
    notes : list of Fault
        What was left out.
    losses : list of Loss
        The same with counts.

    Raises
    ------
    FaultsError
        Plates or wells are empty, images appear twice, objects belong to no image, appear twice or are not
        as many as were counted, a file is cut off, or an export lacks a kind of object that another has.
    """
    _refuse(str(output.path), lacking_kinds(output.exports, output.path.name, prefixes))
    images = _images(output, plate, well)
    _refuse(str(output.path), not_in_csv(output.aside, output.path.name, images, plate, well))
    objects = _objects(output.exports)
    tables = {name: _object_keys(output.exports, name, objects, images) for name in objects}
    base = base_object(tables, _IMAGE)
    assert base is not None  # every export has objects
    if tables[base].empty:
        raise MorphobenchError(f"holds no {base}", str(output.path), "The cell table has a row for each of them.")
    rows, apart = join_objects(tables, base, _IMAGE)
    notes = [Fault(f"{name} left out: they do not pair off with {base}", output.path.name) for name in apart]
    notes += [Fault(f"{e.where} left out: the CSV files hold the same wells", output.path.name) for e in output.aside]
    notes += [Fault(f"left out: {f.what}", f.where) for f in output.strange]
    absent = sorted({n for e in output.exports for n in e.objects} - set(objects))
    counted = [c.removeprefix("Count_") for c in output.columns if c.startswith("Count_")]
    notes += [Fault(f"{name} left out: they are counted and have no table", output.path.name)
              for name in counted if name not in (*objects, *absent)]
    notes += [Fault(f"{name} left out: not every export has them", output.path.name) for name in absent]
    joined = {base: np.arange(len(tables[base])), **rows}
    lengths = {name: tables[name].groupby("export").size() for name in joined}
    features = {name: _features(output.exports, name, lengths[name].index, prefixes, notes) for name in joined}
    if not any(features.values()):
        raise MorphobenchError(f"has no feature that starts with {', '.join(prefixes or ())}", str(output.path),
                               f"Set assay.prefixes; there are {', '.join(joined)}.")
    numbers = _numbers(output.exports, joined, features, len(tables[base]))
    keys = images.loc[tables[base][_IMAGE].to_numpy(), [c for c in (PLATE, WELL, SITE) if c in images]]
    names = [f"{name}_{c}" for name, columns in features.items() for c in columns]
    return clean(keys.reset_index(drop=True), numbers, names, output.path.name, notes)


def _images(output: CellProfilerOutput, plate: str, well: str) -> pd.DataFrame:
    """One row per image: export, numbers, plate, well and site; counts of objects as ``Count_<kind>``."""
    site = next((c for c in SITES if c in output.columns), None)
    named = {PLATE: plate, WELL: well} | ({SITE: site} if site else {})
    files = [c for c in output.columns if c.startswith(("FileName_", *(() if site else ("PathName_",))))]
    parts, faults = [], []
    for i, export in enumerate(output.exports):
        numbered = [c for c in (TABLE_NUMBER, IMAGE_NUMBER) if c in export.images.columns]
        counts = [c for name in export.objects if (c := f"Count_{name}") in export.images.columns]
        text = export.images.text([*dict.fromkeys(named.values()), *files, *numbered])
        part = text[files].assign(**{key: text[column] for key, column in named.items()}, export=i)
        part[IMAGE_NUMBER] = _image_numbers(text, numbered)
        if counts:
            part[counts] = np.concatenate([np.empty((0, len(counts))), *export.images.blocks(counts)])
        where = export.images.where
        faults += [empty_fault(column, part.index[part[key] == ""], where, "Every image needs its plate and well.")
                   for key, column in named.items() if key != SITE and (part[key] == "").any()]
        twice = part[IMAGE_NUMBER][part[IMAGE_NUMBER].duplicated()].unique()
        if len(twice):
            more = f", and {len(twice) - 1} more do" if len(twice) > 1 else ""
            faults.append(Fault(f"the image {twice[0]} appears twice{more}", where, AGAIN))
        if part.empty:
            faults.append(Fault("has no images", where, AGAIN))
        parts.append(part)
    images = pd.concat(parts, ignore_index=True)
    # The same field in two exports would count its cells twice; files tell time points and planes apart.
    key = [*named, *files]
    if site or files:
        faults += same_images(output.exports, images[images.duplicated(key)])
    _refuse(str(output.path), faults)
    return images.drop(columns=files)


def _image_numbers(text: pd.DataFrame, columns: Sequence[str]) -> pd.Series:
    """``7``, or with a number of the table ``12-7``: as text, since numbers of tables are hashes of 64 bits."""
    plain = text[list(columns)].apply(lambda c: c.str.removesuffix(".0"))
    return plain.agg("-".join, axis=1) if len(columns) > 1 and len(plain) else plain[columns[-1]]


def _objects(exports: Sequence[Export]) -> list[str]:
    """Kinds of objects that all exports have."""
    return [name for name in exports[0].objects if all(name in e.objects for e in exports)]


def _object_keys(
    exports: Sequence[Export], name: str, others: Collection[str], images: pd.DataFrame
) -> pd.DataFrame:
    """``image``, ``export``, ``ObjectNumber`` and ``Parent_<kind>`` of every object of a kind (int64), checked."""
    parts, faults = [], []
    for i, export in enumerate(exports):
        table, own = export.objects[name], images[images["export"] == i]
        lacking = {IMAGE_NUMBER, OBJECT_NUMBER} - set(table.columns)
        if lacking:
            raise MorphobenchError(f"lacks {', '.join(sorted(lacking))}", table.where, AGAIN)
        parents = [p for other in others if (p := f"Parent_{other}") in table.columns]
        blocks = list(table.blocks([OBJECT_NUMBER, *parents]))
        values = np.concatenate([np.empty((0, 1 + len(parents))), *blocks])
        numbered = [c for c in (TABLE_NUMBER, IMAGE_NUMBER) if c in export.images.columns and c in table.columns]
        at = pd.Index(own[IMAGE_NUMBER]).get_indexer(pd.Index(_image_numbers(table.text(numbered), numbered)))
        part = pd.DataFrame(np.nan_to_num(values, nan=0), columns=[OBJECT_NUMBER, *parents]).astype(np.int64)
        part[_IMAGE] = own.index.to_numpy()[at] if len(own) else -1
        faults += _key_faults(table, values, at, part, own, name)
        parts.append(part.assign(export=i))
    named = {tuple(part.columns): int(part["export"].iloc[0]) for part in parts if len(part)}
    if len(named) > 1:
        first, other = [exports[i].objects[name].where for i in list(named.values())[:2]]
        faults.append(Fault(f"{name} have other parents than in {first}", other,
                            "Only exports of one pipeline can be read together."))
    _refuse(name, faults)
    return pd.concat(parts, ignore_index=True).fillna(0)


def _key_faults(
    table: Table, values: np.ndarray, at: np.ndarray, part: pd.DataFrame, own: pd.DataFrame, name: str
) -> list[Fault]:
    """Objects without image or number, objects that appear twice, and images with more or fewer than counted."""
    wrong = values[:, 0] != part[OBJECT_NUMBER]
    if wrong.any():
        j = int(wrong.to_numpy().argmax())
        return [Fault(f"{OBJECT_NUMBER} is no whole number", f"{table.where}, {sheet_row(j)}", AGAIN)]
    if (at < 0).any():
        return [Fault(f"{int((at < 0).sum())} objects belong to no image of the table of images",
                      f"{table.where}, {sheet_row(int((at < 0).argmax()))} the first", "Export both tables again.")]
    twice = part.duplicated([_IMAGE, OBJECT_NUMBER])
    if twice.any():
        first = part[twice].iloc[0]
        return [Fault(f"{int(twice.sum())} objects appear twice, the {OBJECT_NUMBER} {first[OBJECT_NUMBER]} "
                      f"of the image {own[IMAGE_NUMBER][first[_IMAGE]]} the first", table.where, AGAIN)]
    if f"Count_{name}" not in own:
        return []
    counted = own[f"Count_{name}"].dropna()
    present = part[_IMAGE].value_counts().reindex(counted.index, fill_value=0)
    off = counted.index[present.to_numpy() != counted.to_numpy()]
    return [Fault(f"{len(off)} images have more or fewer {name} than the table of images counts: image "
                  f"{own[IMAGE_NUMBER][off[0]]} has {present[off[0]]} of {counted[off[0]]:.0f}", table.where,
                  f"Copy or export it again; if it was thinned out on purpose, remove Count_{name} from the images.")
            ] if len(off) else []


def _features(
    exports: Sequence[Export], name: str, filled: pd.Index, prefixes: Sequence[str] | None, notes: list[Fault]
) -> list[str]:
    """Features of a kind of object: those of every export that found any, since CellProfiler names none elsewhere."""
    tables = [exports[i].objects[name].columns for i in filled]
    measured = [c for c in dict.fromkeys(c for t in tables for c in t)
                if not prefixes or f"{name}_{c}".startswith(tuple(prefixes))]
    wanted = [c for c in measured if not BOOKKEEPING.fullmatch(c)]
    shared = [c for c in wanted if all(c in t for t in tables)]
    if len(wanted) < len(measured):
        notes.append(Fault(f"{len(measured) - len(wanted)} of {len(measured)} columns of {name} left out: they give "
                           "positions or numbers of objects, or belong to the image"))
    if len(shared) < len(wanted):
        first = next(c for c in wanted if c not in shared)
        notes.append(Fault(f"{len(wanted) - len(shared)} features of {name} left out: not every export has them "
                           f"({first}{', …' if len(wanted) - len(shared) > 1 else ''})"))
    return shared


def _numbers(
    exports: Sequence[Export], rows: dict[str, np.ndarray], features: dict[str, list[str]], n: int
) -> np.ndarray:
    """Features of all kinds: float32 (cells, features), columns contiguous; beside it a block of a table at a time."""
    numbers = np.full((n, sum(map(len, features.values()))), np.nan, np.float32, order="F")
    start = 0
    with progress_bar("Reading CellProfiler's tables", len(rows) * len(exports)) as advance:
        for name, columns in features.items():
            have = rows[name] >= 0
            # Where the objects of this kind go: the other way round than `rows`, which says where they come from.
            target = np.full(int(rows[name].max(initial=-1)) + 1, -1)
            target[rows[name][have]] = np.flatnonzero(have)
            position = 0
            for export in exports:
                if set(columns) <= set(export.objects[name].columns) and columns:
                    for block in export.objects[name].blocks(columns):
                        to = target[position:position + len(block)]
                        position += len(block)
                        kept = block[:len(to)][to >= 0]
                        with np.errstate(over="ignore"):  # too large for float32: infinite, and so missing
                            numbers[to[to >= 0], start:start + len(columns)] = kept
                advance()
            start += len(columns)
    return numbers


def _refuse(where: str, faults: Sequence[Fault]) -> None:
    if faults:
        raise FaultsError(faults, f"{where} cannot be read as CellProfiler's output:")
