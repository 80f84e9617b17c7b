"""Measuring an assay: plan shards, run those that are missing, land each whole, read them together."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import socket
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import psutil
import pyarrow.parquet as pq
import tifffile

from benchmark.assays.fieldtable import Assay
from benchmark.cellprofiler.check import check_run
from benchmark.cellprofiler.execute import DONE, LOG, OUT, execute
from benchmark.cellprofiler.find import CellProfiler
from benchmark.cellprofiler.illumination import function_channels, function_planes, with_loaded_functions
from benchmark.cellprofiler.ingest import cell_table, image_table
from benchmark.cellprofiler.pipeline import read_pipeline, with_settings
from benchmark.cellprofiler.settings import CellProfilerSettings
from benchmark.cellprofiler.shards import Plane, Shard, image_channels, plan_shards, stage
from benchmark.errors import Fault, FaultsError, MorphobenchError
from benchmark.files import digest, read_json, write_json, write_parquet
from benchmark.tables import PLATE
from benchmark.tasks import RunTasks

if TYPE_CHECKING:
    from benchmark.images.illumination import Illumination

CELLS, IMAGES, RECORD, MASKS = "cells.parquet", "images.parquet", "record.json", "masks"
_TEMPORARY = re.compile(r"\.running-(?P<host>.+)-(?P<pid>\d+)-[0-9a-f]{8}")


@dataclass(frozen=True)
class Measured:
    """An assay as CellProfiler measured it.

    Attributes
    ----------
    folder : Path
        Holds one folder a shard, and the pipeline as run.
    shards : tuple of Path
        Folders of this assay's shards, in the order of the plan.
    record : dict
        What ran, JSON-able: CellProfiler's version, origin and command (``measured_by``: the commands that
        made the shards, which may be older than this call), digest and path of the pipeline, numbers of
        fields, cells and shards, shards that ran in this call, seconds. ``illumination``: key of the study's
        illumination that was loaded ('' where the pipeline's own modules ran), ``illumination_functions``: the
        pipeline's image → channel. ``shards_digest``: digest of all that determines the measurements.
    """

    folder: Path
    shards: tuple[Path, ...]
    record: dict[str, Any]

    def cells(self, columns: Collection[str] | None = None) -> pd.DataFrame:
        """One row a cell: keys, ``Metadata_ObjectNumber``, centres, and features (float32).

        Parameters
        ----------
        columns : collection of str, optional
            Read these alone, those of them that were measured: a fiftieth of the memory for centres.
        """
        return self._read(CELLS, columns)

    def images(self) -> pd.DataFrame:
        """One row a field: its key, ``Count_<object>`` and ``Image_<feature>``; empty fields have 0."""
        return self._read(IMAGES)

    def mask_path(self, key: tuple[Any, Any, Any], object_name: str) -> Path | None:
        """Label mask (uint16 TIFF, 0 = background) of one field (plate, well, site); None if none was saved."""
        found = self._places.get(tuple(map(str, key)))
        path = None if found is None else found[0] / MASKS / mask_name(found[1], object_name)
        return path if path is not None and path.is_file() else None

    @cached_property
    def _places(self) -> dict[tuple[str, ...], tuple[Path, int]]:
        """Field key → folder of its shard and its number there."""
        return {tuple(map(str, key)): (shard, number)
                for shard in self.shards for number, key in enumerate(read_json(shard / RECORD)["fields"])}

    def _read(self, name: str, columns: Collection[str] | None = None) -> pd.DataFrame:
        tables = [_read_columns(shard / name, columns) for shard in self.shards]
        # CellProfiler writes fewer columns where it found no object at all, so such tables give no columns.
        filled = [t for t in tables if len(t)] or tables[:1]
        return pd.concat(filled, ignore_index=True)


def _read_columns(path: Path, columns: Collection[str] | None) -> pd.DataFrame:
    """A table, or those of ``columns`` that it has, in its own order."""
    if columns is not None:
        columns = [c for c in pq.read_schema(path).names if c in columns]
    return pd.read_parquet(path, columns=columns)


@dataclass(frozen=True)
class Task:
    """All that a worker process needs to measure one shard."""

    shard: Shard
    pipeline: str
    cellprofiler: CellProfiler
    folder: Path
    timeout_seconds: float


def mask_name(number: int, object_name: str) -> str:
    """File name of a landed mask."""
    return f"f{number:05d}_{object_name}.tiff"


def effective_pipeline(settings: CellProfilerSettings) -> str:
    """Text of the pipeline with the study's settings; with the study's illumination, some of its modules are off."""
    return with_settings(read_pipeline(Path(settings.pipeline)), settings.settings)


def measure(assay: Assay, hashes: Mapping[str, str], settings: CellProfilerSettings, cellprofiler: CellProfiler,
            folder: Path, run_tasks: RunTasks, illumination: Illumination | None = None) -> Measured:
    """Measure every field of an assay; shards that are finished are not run again.

    Parameters
    ----------
    assay : Assay
        What to measure.
    hashes : mapping
        Path relative to the assay's root → SHA-256 (`benchmark.images.check.file_hashes`).
    settings : CellProfilerSettings
        Pipeline and changes to it.
    cellprofiler : CellProfiler
        Which one runs.
    folder : Path
        Where shards land; may be shared between studies and runs.
    run_tasks : RunTasks
        Runs the shards, one process each.
    illumination : Illumination, optional
        The study's functions. They are loaded in the place of the pipeline's own, unless the settings say
        ``illumination: pipeline``; without them the pipeline runs as it is.

    Returns
    -------
    Measured

    Raises
    ------
    MorphobenchError
        The pipeline, its changed settings, its images or its illumination functions do not fit.
    FaultsError
        Shards failed. The others have finished and stay; all failures are listed.
    """
    start = time.monotonic()
    folder = folder.absolute()
    pipeline = effective_pipeline(settings)
    functions: dict[str, str] = {}
    planes: dict[str, tuple[Plane, ...]] = {}
    if illumination is None or settings.illumination == "pipeline":
        illumination = None
        images = image_channels(pipeline, settings.images, assay.channels)
    else:
        pipeline = with_loaded_functions(pipeline)
        images, functions = function_channels(pipeline, settings.images, assay.channels)
        planes = function_planes(illumination, functions, assay.fields[PLATE].astype(str))
    shards = plan_shards(assay, images, hashes, pipeline, cellprofiler, settings.shard_fields, planes)
    folder.mkdir(parents=True, exist_ok=True)
    _remove_dead(folder)
    saved = folder / f"pipeline-{digest(pipeline)}.cppipe"
    if not saved.exists():
        saved.write_bytes(pipeline.encode("utf-8"))
    tasks = [Task(s, pipeline, cellprofiler, folder, settings.timeout_minutes * 60) for s in shards
             if not (folder / s.key / RECORD).exists()]
    faults = [fault for fault in run_tasks(run_shard, tasks, "CellProfiler (shards)") if fault is not None]
    if faults:
        raise FaultsError(faults, f"CellProfiler failed on {len(faults)} of {len(shards)} shards of {assay.name}:")
    places = tuple(folder / s.key for s in shards)
    records = [read_json(p / RECORD) for p in places]
    return Measured(folder, places, {
        "cellprofiler": {"version": cellprofiler.version, "origin": cellprofiler.origin,
                         "command": list(cellprofiler.command),
                         "measured_by": sorted({r["command"][0] for r in records})},
        "pipeline": settings.pipeline,
        "pipeline_digest": digest(pipeline),
        "pipeline_as_run": saved.name,
        "images": images,
        "illumination": illumination.key if illumination else "",
        "illumination_functions": functions,
        "shards_digest": digest([s.key for s in shards]),
        "fields": len(assay.fields),
        "cells": sum(r["cells"] for r in records),
        "shards": len(shards),
        "shards_run": len(tasks),
        "seconds": round(time.monotonic() - start, 1),
        "shard_seconds": round(sum(r["seconds"] for r in records), 1),
        "shard_cpu_seconds": round(sum(r["cpu_seconds"] for r in records), 1),
        "objects_left_out": sorted({o for r in records for o in r["objects_left_out"]}),
    })


def run_shard(task: Task) -> Fault | None:
    """Measure one shard in this process; a failure is returned, so that other shards go on.

    The shard is made in a temporary folder beside its place and renamed whole. After a failure its log,
    pipeline and table of images stay in ``failed-<key>``.
    """
    final, failed = task.folder / task.shard.key, task.folder / f"failed-{task.shard.key}"
    work = task.folder / f".running-{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
    work.mkdir()
    try:
        run, landing = work / "run", work / "shard"
        try:
            _measure_shard(task, run, landing, failed)
        except MorphobenchError as error:
            shutil.rmtree(failed, ignore_errors=True)
            if (run / LOG).exists():
                for waste in (run / "images", run / OUT):
                    shutil.rmtree(waste, ignore_errors=True)
                run.rename(failed)
            return error.fault
        shutil.rmtree(failed, ignore_errors=True)
        try:
            landing.rename(final)
        except OSError:
            if not (final / RECORD).exists():  # else another run landed the same shard meanwhile
                raise
        return None
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _measure_shard(task: Task, run: Path, landing: Path, failed: Path) -> None:
    """Stage, run, check and ingest one shard into ``landing``."""
    start = time.monotonic()
    stage(task.shard, task.pipeline, run)
    execution = execute(task.cellprofiler, run, task.timeout_seconds, str(failed / LOG))
    output = check_run(task.shard, run, task.pipeline, str(failed / LOG))
    cells, left_out = cell_table(output, task.shard)
    landing.mkdir()
    write_parquet(landing / CELLS, cells)
    write_parquet(landing / IMAGES, image_table(output, task.shard))
    _land_masks(output.masks, landing / MASKS)
    shutil.copy(run / LOG, landing / LOG)
    write_json(landing / RECORD, {
        "cellprofiler": task.cellprofiler.version,
        "command": list(task.cellprofiler.command),
        "pipeline_digest": digest(task.pipeline),
        "fields": [[f.plate, f.well, f.site] for f in task.shard.fields],
        "cells": len(cells),
        "objects_left_out": left_out,
        "seconds": round(time.monotonic() - start, 2),
        "cpu_seconds": round(execution.cpu_seconds, 2),
        "exit_status": execution.status,
        "done": (run / DONE).read_text().strip(),
    })


def _land_masks(masks: Mapping[str, list[Path]], folder: Path) -> None:
    """Write masks again, compressed (CellProfiler's are plain or LZW), under names of ours."""
    folder.mkdir()
    for name, paths in masks.items():
        for number, path in enumerate(paths):
            labels = tifffile.imread(path)
            if labels.ndim != 2 or labels.dtype.kind not in "ui":
                what = f"a mask of {name} is no label image ({labels.dtype}, {labels.shape})"
                raise MorphobenchError(what, path.name,
                                       "Save label masks as 16-bit TIFF (ConvertObjectsToImage uint16, SaveImages).")
            tifffile.imwrite(folder / mask_name(number, name), labels.astype(np.uint16), compression="zlib",
                             metadata=None)


def _remove_dead(folder: Path) -> None:
    """Remove what killed runs on this machine left half made."""
    for path in folder.glob(".running-*"):
        match = _TEMPORARY.fullmatch(path.name)
        if match and match["host"] == socket.gethostname() and not psutil.pid_exists(int(match["pid"])):
            shutil.rmtree(path, ignore_errors=True)
