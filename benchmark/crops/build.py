"""Build the crop cache: workers cut and compress a few fields each, one process writes, in the order of the fields.

Memory is that of a few fields, whatever the number of crops: workers leave their crops in files beside the cache,
which the writer copies over in turn. Everything temporary is in one folder, named after the process that writes it;
the cache gets its name when it is complete. A killed build leaves such a folder behind, and the next build removes it.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import cv2
import h5py
import numpy as np
import pandas as pd

from benchmark.assays.fieldtable import Assay, row_name
from benchmark.base.errors import MorphobenchError
from benchmark.base.files import digest, is_left_over, process_tag
from benchmark.base.hdf5 import writing
from benchmark.base.machine import blaming_machine
from benchmark.base.tables import FIELD_KEY
from benchmark.base.tasks import RunTasks, run_serially
from benchmark.crops import layout
from benchmark.crops.cells import CENTRE, CellCentres, CentresByField
from benchmark.crops.cutting import Plate, crop_channels, crop_dtype, field_crops
from benchmark.crops.settings import CropSettings
from benchmark.crops.statistics import plate_gains, plate_statistics, slices
from benchmark.images.illumination import Illumination
from benchmark.images.reading import read_field, read_plane

__all__ = ["CellCentres", "build_crops", "crop_key", "crop_source"]

FIELDS_A_TASK = 8


@dataclass(frozen=True)
class _Task:
    """A few fields of one plate, as a worker gets them.

    Per field, ``cells`` has (file, first row, rows) and ``masks`` a path or None.
    """

    number: int
    assay: Assay
    plate: str
    settings: CropSettings
    statistics: tuple[tuple[float, float], ...]
    illumination: Illumination | None
    cells: tuple[tuple[Path, int, int], ...]
    masks: tuple[Path | None, ...]
    out: Path


def crop_source(illumination: Illumination | None, cells: CellCentres | None) -> str:
    """Identity of what crops are made from besides the images: the ``source`` of `crop_key`."""
    return "/".join(part.key for part in (illumination, cells) if part is not None)


def crop_key(assay_hash: str, settings: CropSettings, source: str = "", controls: bool = False) -> str:
    """Hash that names the cache of an assay under some settings, with some illumination and some cells."""
    which = ["controls"] if controls else []
    return digest([layout.SCHEMA, assay_hash, settings.model_dump(mode="json"), source, *which])


def build_crops(
    path: Path,
    assay: Assay,
    assay_hash: str,
    settings: CropSettings,
    *,
    illumination: Illumination | None = None,
    cells: CellCentres | None = None,
    controls: bool = False,
    run_tasks: RunTasks = run_serially,
) -> None:
    """Write the crops of ``assay.predicted`` to ``path``; a current cache is left as it is, a stale one replaced.

    Parameters
    ----------
    illumination : Illumination, optional
        For ``intensity: standard``; the other schemes use stored values.
    cells : CellCentres, optional
        For ``kind: cells``.
    controls : bool
        Crops of the negative controls that are not predicted, instead of those of ``assay.predicted``.
    run_tasks : RunTasks
        Workers must see the file system of ``path``.

    Raises
    ------
    MorphobenchError
        ``path`` is a file other than a crop cache; an image cannot be read (it is named); a plate lacks the negative
        controls that the scheme needs; a field does not suit the scheme; or no field gave a crop.
    MachineError
        They cannot be written: the disk is full, for example. Nothing is left behind.
    """
    if illumination is not None and not settings.uses_illumination:
        raise MorphobenchError(f"crops with intensity {settings.intensity} take no illumination correction",
                               remedy="Give none.")
    if (cells is not None) != (settings.kind == "cells"):
        raise MorphobenchError(f"crops of kind {settings.kind} {'need' if cells is None else 'take no'} cell centres")
    key = crop_key(assay_hash, settings, crop_source(illumination, cells), controls)
    wanted = assay.unscored_controls if controls else assay.predicted
    if path.exists() and _is_current(path, key):
        return
    statistics = plate_statistics(assay, settings, illumination, run_tasks)
    with blaming_machine(path.parent), _workshop(path) as place:
        tasks = list(_tasks(assay, wanted, settings, statistics, illumination, cells, place))
        tmp = place / "crops.h5"
        with writing(tmp) as file:
            crop = (len(crop_channels(assay.channels, settings)), settings.size, settings.size)
            dataset = layout.create_crops(file, crop, crop_dtype(settings))
            table = file.create_dataset("table", (0,), layout.ROW, maxshape=(None,), chunks=(8192,))
            total = _write_parts(dataset, table, run_tasks(_cut_fields, tasks, "crops, by fields"))
            names = [row_name(row) for _, row in wanted.iterrows()]
            file.create_dataset("fields", data=names, dtype=h5py.string_dtype())
            file["field_rows"] = wanted.index.to_numpy(np.int32)
            file["statistics"] = json.dumps(statistics)
            file.attrs.update({
                "format": layout.FORMAT, "schema": layout.SCHEMA, "key": key, "assay": assay.name,
                "assay_hash": assay_hash, "settings": settings.model_dump_json(),
                "channels": json.dumps(crop_channels(assay.channels, settings)),
                "illumination": illumination.key if illumination else "", "cells": cells.key if cells else "",
                "digest": total,
            })
            file.attrs["complete"] = True
        with tmp.open("rb") as handle:
            os.fsync(handle.fileno())
        tmp.replace(path)


def _is_current(path: Path, key: str) -> bool:
    """Whether a complete cache with this key exists; a file that is not a crop cache is never overwritten."""
    with layout.open_file(path) as file:
        try:
            return layout.read_header(file, path).key == key
        except MorphobenchError:
            return False  # a crop cache, but of another version or damaged: built again


def _tasks(
    assay: Assay,
    wanted: pd.DataFrame,
    settings: CropSettings,
    statistics: dict[str, list[tuple[float, float]]],
    illumination: Illumination | None,
    cells: CellCentres | None,
    place: Path,
) -> Iterator[_Task]:
    """Tasks in the order of the field table; centres are passed in a file, so that tasks stay small."""
    centres = CentresByField(cells) if cells else None
    first = 0
    with (place / "centres").open("wb") as handle:
        for number, (plate, piece) in enumerate(slices(assay, wanted, FIELDS_A_TASK)):
            spans: list[tuple[Path, int, int]] = []
            masks: list[Path | None] = []
            if cells and centres:
                for key in piece.fields[FIELD_KEY].itertuples(index=False, name=None):
                    own = centres.of(key)
                    handle.write(own.tobytes())
                    spans.append((place / "centres", first, len(own)))
                    first += len(own)
                    masks.append(_mask(cells, key) if settings.mask and len(own) else None)
            yield _Task(number, piece, plate, settings, tuple(statistics.get(plate, ())),
                        illumination.of_plate(plate) if illumination else None, tuple(spans), tuple(masks),
                        place / f"part-{number}")


def _mask(cells: CellCentres, key: tuple[object, ...]) -> Path:
    plate, well, site = key
    path = cells.masks((plate, well, site))
    if path is None:
        raise MorphobenchError("has no mask, which crops.mask: true needs", f"plate {plate}, well {well}, site {site}",
                               "Save the cells' masks in the pipeline, or set crops.mask to false.")
    return path


def _cut_fields(task: _Task) -> tuple[int, Path, np.ndarray, np.ndarray]:
    """Cut and compress the crops of a few fields into one file.

    Returns
    -------
    number : int
        Of the task.
    out : Path
        The compressed crops, one after the other.
    table : ndarray of `layout.ROW`
    lengths : ndarray of int64
        Bytes of each compressed crop.
    """
    cv2.setNumThreads(1)  # the workers share the cores
    gains = plate_gains(task.assay, task.plate, task.illumination)
    plate = Plate(task.settings, task.statistics, gains)
    rows, lengths = [], []
    with task.out.open("wb") as handle:
        for i, (index, field) in enumerate(task.assay.fields.iterrows()):
            centres = mask = None
            if task.cells:
                file, first, n = task.cells[i]
                centres = np.fromfile(file, CENTRE, n, offset=first * CENTRE.itemsize)
                if not n:
                    continue
                path = task.masks[i]
                mask = None if path is None else read_plane(path, 0)
            planes = read_field(task.assay, field)
            for crop in field_crops(planes, plate, centres, mask, row_name(field)):
                data = layout.encode(crop.pixels)
                handle.write(data)
                lengths.append(len(data))
                rows.append((index, crop.number, *crop.box, layout.pixel_hash(crop.pixels), layout.crc(data)))
    return task.number, task.out, np.array(rows, layout.ROW), np.array(lengths, np.int64)


def _write_parts(
    crops: h5py.Dataset, table: h5py.Dataset, parts: Iterator[tuple[int, Path, np.ndarray, np.ndarray]]
) -> str:
    """Append parts in the order of their tasks, whatever order they arrive in; return the table's digest."""
    waiting: dict[int, tuple[Path, np.ndarray, np.ndarray]] = {}
    hasher = hashlib.blake2b(digest_size=32)
    due = n = 0
    for number, part, part_rows, part_lengths in parts:
        waiting[number] = (part, part_rows, part_lengths)
        while due in waiting:
            path, rows, lengths = waiting.pop(due)
            crops.resize(n + len(rows), axis=0)
            table.resize(n + len(rows), axis=0)
            table[n:] = rows
            hasher.update(rows.tobytes())
            with path.open("rb") as handle:
                for length in lengths.tolist():
                    crops.id.write_direct_chunk((n, 0, 0, 0), handle.read(length))
                    n += 1
            path.unlink()
            due += 1
    if n == 0:
        raise MorphobenchError("no field gave a crop: all tiles were dropped as empty, or no cell was found",
                               remedy="Look at the images, and at crops.intensity and crops.kind in the study.")
    return hasher.hexdigest()


@contextmanager
def _workshop(path: Path) -> Iterator[Path]:
    """A temporary folder beside ``path``; those of processes that no longer run are removed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for old in path.parent.glob(f".{path.name}.*.building"):
        if is_left_over(old.name.removeprefix(f".{path.name}.").removesuffix(".building")):
            shutil.rmtree(old, ignore_errors=True)
    place = path.with_name(f".{path.name}.{process_tag()}.building")
    place.mkdir()
    try:
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)
