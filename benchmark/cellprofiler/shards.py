"""Fields → shards: what one CellProfiler process measures, named by its content, and its staging.

A shard's key is a hash of all that determines its result, so any later run reuses a finished shard, and a quick
study of fewer sites per well leaves shards that the full run uses.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import tifffile

from benchmark.assays.fieldtable import Assay, row_name
from benchmark.base.errors import Fault, MorphobenchError
from benchmark.base.files import digest, inside
from benchmark.base.tables import PLATE, SITE, WELL, WELL_KEY, path_column, plane_column
from benchmark.cellprofiler.execute import PIPELINE, TABLE
from benchmark.cellprofiler.find import CellProfiler
from benchmark.cellprofiler.pipeline import csv_prefix, loaded_images
from benchmark.images.reading import read_plane

#: Name of the column that joins CellProfiler's tables to fields; plain numbers survive any CSV.
NUMBER = "Metadata_FieldNumber"
#: Changed when the form of a shard's folder changes, so that older folders are not read as new ones.
FORMAT = 2  # 2: averages of children's positions are not features


@dataclass(frozen=True)
class Plane:
    """Where the pixels of one pipeline image lie: file, plane in it, and hash of the file."""

    image: str
    path: Path
    plane: int
    sha256: str


@dataclass(frozen=True)
class StagedField:
    """One field of a shard: its key, its planes, and the illumination functions (.npy) of its plate."""

    plate: str
    well: str
    site: str | int
    planes: tuple[Plane, ...]
    functions: tuple[Plane, ...] = ()

    @property
    def name(self) -> str:
        """How messages name the field."""
        return row_name(pd.Series({PLATE: self.plate, WELL: self.well, SITE: self.site}))


@dataclass(frozen=True)
class Shard:
    """Fields that one CellProfiler process measures; field *i* has the number *i* there."""

    key: str
    fields: tuple[StagedField, ...]


def image_channels(text: str, images: Mapping[str, str], channels: tuple[str, ...],
                   functions: Collection[str] = ()) -> dict[str, str]:
    """Pipeline image → channel of the assay, sorted by image.

    Parameters
    ----------
    text : str
        The pipeline.
    images : mapping
        As the study states it; empty to derive it from the pipeline's own names.
    channels : tuple of str
        Channels of the assay.
    functions : collection of str
        Images that the pipeline loads and that are not pictures: illumination functions.

    Raises
    ------
    MorphobenchError
        The pipeline does not load by LoadData or exports no spreadsheets, an image has no channel, or
        a stated channel does not exist.
    """
    csv_prefix(text)
    has = f"The assay has {', '.join(channels)}; map images in cellprofiler.images."
    if not images:
        by_name = {f"Orig{c}": c for c in channels} | {c: c for c in channels}
        names = [n for n in loaded_images(text) if n not in functions]
        lacking = [n for n in names if n not in by_name]
        if lacking or not names:
            what = f"the pipeline loads {', '.join(lacking)}, and no channel is called that" if lacking else (
                "no image that the pipeline loads was recognised")
            raise MorphobenchError(what, "cellprofiler.pipeline", has)
        images = {n: by_name[n] for n in names}
    for image, channel in images.items():
        if channel not in channels:
            raise MorphobenchError(f"the assay has no channel {channel!r}", f"cellprofiler.images.{image}", has)
    return dict(sorted(images.items()))


def plan_shards(assay: Assay, images: Mapping[str, str], hashes: Mapping[str, str], pipeline: str,
                cellprofiler: CellProfiler, shard_fields: int,
                functions: Mapping[str, tuple[Plane, ...]] | None = None) -> list[Shard]:
    """Cut an assay's fields into shards.

    Fields are ordered by the rank of their site within its well, then by plate and well, and cut
    within each rank: the shards of the first site of every well are the same whether one site a well
    is measured or all.

    Parameters
    ----------
    assay : Assay
        What to measure.
    images : mapping
        Pipeline image → channel.
    hashes : mapping
        Path relative to the root → SHA-256 of the file.
    pipeline : str
        Text of the pipeline as it will run.
    cellprofiler : CellProfiler
        Its version enters the key.
    shard_fields : int
        Most fields of a shard.
    functions : mapping, optional
        Plate → its illumination functions, where the pipeline loads them.

    Returns
    -------
    list of Shard
        Together every field once.
    """
    fields = assay.fields
    rank = fields.groupby(WELL_KEY, sort=False).cumcount()
    shards = []
    for _, rows in fields.groupby(rank, sort=True):
        rows = rows.sort_values([PLATE, WELL], kind="stable")
        for start in range(0, len(rows), shard_fields):
            staged = tuple(_field(assay, row, images, hashes, functions or {})
                           for _, row in rows[start:start + shard_fields].iterrows())
            shards.append(Shard(_key(staged, pipeline, cellprofiler), staged))
    return shards


def _field(assay: Assay, row: pd.Series, images: Mapping[str, str], hashes: Mapping[str, str],
           functions: Mapping[str, tuple[Plane, ...]]) -> StagedField:
    planes = []
    for image, channel in images.items():
        relative = str(row[path_column(channel)])
        planes.append(Plane(image, inside(assay.root, relative), int(row[plane_column(channel)]), hashes[relative]))
    site = row[SITE]
    return StagedField(str(row[PLATE]), str(row[WELL]), site.item() if isinstance(site, np.generic) else site,
                       tuple(planes), functions[str(row[PLATE])] if functions else ())


def _key(fields: tuple[StagedField, ...], pipeline: str, cellprofiler: CellProfiler) -> str:
    """Hash of everything that determines a shard's result; where files lie does not enter."""
    return digest({
        "format": FORMAT,
        "pipeline": pipeline,
        "cellprofiler": cellprofiler.version,
        "fields": [[f.plate, f.well, f.site, [[p.image, p.sha256, p.plane] for p in (*f.planes, *f.functions)]]
                   for f in fields],
    }, 20)


def stage(shard: Shard, pipeline: str, folder: Path, faults: dict[int, Fault] | None = None) -> Shard:
    """Write everything one run needs into ``folder``: pipeline, planes as plain TIFF, table of images.

    Each plane is decoded whole here and written uncompressed under a name of ours, so CellProfiler sees
    neither users' file names nor their formats, and both arms see the same pixels.

    Parameters
    ----------
    shard : Shard
        What to stage.
    pipeline : str
        Text of the pipeline.
    folder : Path
        Made here.
    faults : dict, optional
        Where given, a field that cannot be staged is left out, and its fault put here under its index in the shard.

    Returns
    -------
    Shard
        The fields that were staged; field *i* of it has the number *i* in CellProfiler's tables.

    Raises
    ------
    MorphobenchError
        A file is missing or broken, planes of a field and their illumination functions differ in size, or a plane
        is constant; not with ``faults``. CellProfiler would count no cells in the first case and crash in the last.
    """
    (folder / "images").mkdir(parents=True)
    (folder / PIPELINE).write_bytes(pipeline.encode("utf-8"))
    # Pipelines may group by these; users' own names stay out of CellProfiler's reach.
    plates = {plate: f"plate{i}" for i, plate in enumerate(dict.fromkeys(f.plate for f in shard.fields))}
    wells = {well: f"well{i}" for i, well in enumerate(dict.fromkeys(f.well for f in shard.fields))}
    rows: list[dict[str, Any]] = []
    staged: list[StagedField] = []
    for index, field in enumerate(shard.fields):
        number = len(staged)
        try:
            names, shape = _stage_planes(field, number, folder / "images")
            names |= _stage_functions(field, plates[field.plate], shape, folder / "images")
        except MorphobenchError as error:
            if faults is None:
                raise
            faults[index] = error.fault
            for plane in field.planes:  # those before the faulty one; the next field has the same number
                (folder / "images" / staged_name(number, plane.image)).unlink(missing_ok=True)
            continue
        staged.append(field)
        row = {f"Image_FileName_{image}": name for image, name in names.items()}
        row |= {f"Image_PathName_{image}": str(folder / "images") for image in names}
        rows.append({**row, PLATE: plates[field.plate], WELL: wells[field.well], SITE: number, NUMBER: number})
    pd.DataFrame(rows).to_csv(folder / TABLE, index=False)
    return Shard(shard.key, tuple(staged))


def _stage_planes(field: StagedField, number: int, folder: Path) -> tuple[dict[str, str], tuple[int, ...]]:
    """Write a field's planes; image → name of its file, and the planes' shape."""
    names, shapes = {}, set()
    for plane in field.planes:
        pixels = read_plane(plane.path, plane.plane)
        where = f"{plane.path} (plane {plane.plane}; {field.name})"
        if pixels.min() == pixels.max():
            raise MorphobenchError(f"every pixel of {plane.image} is {pixels.min()}: nothing can be segmented",
                                   where, "Leave the field out of the table.")
        shapes.add(pixels.shape)
        if len(shapes) > 1:
            raise MorphobenchError(f"planes of one field differ in size: {sorted(shapes)}", where)
        names[plane.image] = staged_name(number, plane.image)
        tifffile.imwrite(folder / names[plane.image], pixels, photometric="minisblack", metadata=None)
    return names, shapes.pop()


def _stage_functions(field: StagedField, plate: str, shape: tuple[int, ...], folder: Path) -> dict[str, str]:
    """Link the illumination functions of a field's plate, once a plate; image → name of its file."""
    names = {}
    for function in field.functions:
        found = np.load(function.path, mmap_mode="r", allow_pickle=False).shape
        if found != shape:
            raise MorphobenchError(f"the illumination function is of the shape {found}, the field of {shape}",
                                   f"{function.path} ({field.name})",
                                   "All fields of a plate must have one size, that of its function.")
        names[function.image] = f"{plate}_{function.image}.npy"
        link = folder / names[function.image]
        if not link.is_symlink():
            link.symlink_to(function.path)
    return names


def staged_name(number: int, image: str) -> str:
    """Name of a staged plane."""
    return f"f{number:05d}_{image}.tif"
