"""Measuring an assay: plan shards, run those that are missing, land each whole, read them together."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Collection, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import pyarrow.parquet as pq

from benchmark.assays.fieldtable import Assay
from benchmark.base.errors import Fault, FaultsError
from benchmark.base.files import digest, is_left_over, read_json, whole
from benchmark.base.tables import FIELD_KEY, PLATE, WELL_KEY
from benchmark.base.tasks import RunTasks
from benchmark.cellprofiler.find import OWN, CellProfiler
from benchmark.cellprofiler.illumination import function_channels, function_planes, with_loaded_functions
from benchmark.cellprofiler.inputs import with_load_data
from benchmark.cellprofiler.land import (
    ASIDE,
    CELLS,
    FAILED,
    FAILED_ALONE,
    IMAGES,
    MASKS,
    RECORD,
    RUNNING,
    Task,
    finished,
    mask_name,
    run_shard,
)
from benchmark.cellprofiler.pipeline import with_settings
from benchmark.cellprofiler.pipeline_file import read_pipeline
from benchmark.cellprofiler.settings import CellProfilerSettings
from benchmark.cellprofiler.shards import Plane, Shard, image_channels, plan_shards

if TYPE_CHECKING:
    from benchmark.cells.table import SingleCells
    from benchmark.images.illumination import Illumination

#: When so many fields fail and not one is measured, single fields are not to blame, whatever the study tolerates.
_TELLING = 50


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
        ``failed_fields``: rows of ``failed`` as lists.
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

    @property
    def failed(self) -> pd.DataFrame:
        """Fields that could not be measured: their keys (FIELD_KEY) and ``reason``, in the order of the shards.

        They have rows in neither table, and are left out of both arms. A shard with such fields is run again where one
        of them timed out and would have more time now; otherwise delete its folder to try again, which also holds the
        logs of the fields that CellProfiler failed on.
        """
        rows = [row for shard in self.shards for row in read_json(shard / RECORD).get(FAILED, [])]
        return pd.DataFrame(rows, columns=[*FIELD_KEY, "reason"])

    @property
    def cells_folder(self) -> Path:
        """Where `single_cells` lie: ``cells/<shards_digest>`` beside the folder of the shards."""
        return self.folder.parent / "cells" / str(self.record["shards_digest"])

    def single_cells(self) -> SingleCells:
        """All cells by plate, brought together once (`benchmark.cellprofiler.partition.partition`)."""
        from benchmark.cellprofiler.partition import partition

        keys = pd.DataFrame([key for shard in self.shards for key in read_json(shard / RECORD)["fields"]],
                            columns=FIELD_KEY)
        # Shards hold the first field of each well, then the second ones: that order is kept within a well.
        keys = keys.sort_values(WELL_KEY, kind="stable", ignore_index=True)
        return partition(self.shards, keys, self.cells_folder)

    def mask_path(self, key: tuple[Any, Any, Any], object_name: str) -> Path | None:
        """Label mask (uint16 TIFF, 0 = background) of one field (plate, well, site); None if none was saved."""
        found = self._places.get(key)
        path = None if found is None else found[0] / MASKS / mask_name(found[1], object_name)
        return path if path is not None and path.is_file() else None

    @cached_property
    def _places(self) -> dict[tuple[Any, ...], tuple[Path, int]]:
        """Field key → folder of its shard and its number there."""
        return {tuple(key): (shard, number)
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


def effective_pipeline(settings: CellProfilerSettings) -> str:
    """Text of the pipeline, loading by a table of images, with the study's settings."""
    return with_settings(with_load_data(read_pipeline(Path(settings.pipeline))), settings.settings)


@dataclass(frozen=True)
class Plan:
    """What is to run: the pipeline's text, its image → channel, its function image → channel, and the shards."""

    pipeline: str
    images: dict[str, str]
    functions: dict[str, str]
    shards: list[Shard]


def make_plan(assay: Assay, hashes: Mapping[str, str], settings: CellProfilerSettings, cellprofiler: CellProfiler,
              illumination: Illumination | None = None) -> Plan:
    """Plan the shards of an assay; arguments and errors as `measure`."""
    pipeline = effective_pipeline(settings)
    functions: dict[str, str] = {}
    planes: dict[str, tuple[Plane, ...]] = {}
    if illumination is None or settings.illumination == "pipeline":
        images = image_channels(pipeline, settings.images, assay.channels)
    else:
        pipeline = with_loaded_functions(pipeline)
        images, functions = function_channels(pipeline, settings.images, assay.channels)
        planes = function_planes(illumination, functions, assay.fields[PLATE])
    shards = plan_shards(assay, images, hashes, pipeline, cellprofiler, settings.shard_fields, planes)
    return Plan(pipeline, images, functions, shards)


def is_measured(plan: Plan, folder: Path) -> bool:
    """Whether all shards of a plan exist, including those of which failed fields would be tried again."""
    return all((folder / s.key / RECORD).exists() for s in plan.shards)


def measured_by(folder: Path) -> list[CellProfiler]:
    """What measured the shards in a folder, from their records: each version once, that of the newest shard first.

    For planning (`make_plan`), not for running: the commands may be those of another machine.
    """
    found: dict[str, CellProfiler] = {}
    for path in sorted(folder.glob(f"[!.]*/{RECORD}"), key=lambda p: p.stat().st_mtime_ns, reverse=True):
        record = read_json(path)
        command, version = tuple(map(str, record["command"])), str(record["cellprofiler"])
        found.setdefault(version, CellProfiler(command, version, OWN if command == (OWN,) else "records of its shards"))
    return list(found.values())


def measure(assay: Assay, hashes: Mapping[str, str], settings: CellProfilerSettings, cellprofiler: CellProfiler,
            folder: Path, run_tasks: RunTasks, illumination: Illumination | None = None) -> Measured:
    """Measure every field of an assay; shards that are finished (`benchmark.cellprofiler.land.finished`) are not run
    again.

    Parameters
    ----------
    assay : Assay
        What to measure.
    hashes : mapping
        Path relative to the assay's root → SHA-256 (`benchmark.quality.check.file_hashes`).
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
        The pipeline is at fault (it stops at the first shard that shows it), or more fields failed than
        ``failed_fields`` allows; all that are known are listed. Shards that have finished stay.
    """
    start = time.monotonic()
    folder = folder.absolute()
    plan = make_plan(assay, hashes, settings, cellprofiler, illumination)
    pipeline, shards, functions = plan.pipeline, plan.shards, plan.functions
    folder.mkdir(parents=True, exist_ok=True)
    _remove_dead(folder)
    saved = folder / f"pipeline-{digest(pipeline)}.cppipe"
    if not saved.exists():
        with whole(saved) as tmp:
            tmp.write_bytes(pipeline.encode("utf-8"))
    seconds, tolerated = settings.timeout_minutes * 60, _tolerated(len(assay.fields), settings.failed_fields)
    tasks = [Task(s, pipeline, cellprofiler, folder, seconds, settings.attempts, tolerated) for s in shards
             if not finished(folder / s.key, seconds)]
    try:
        faults = _first(run_tasks(run_shard, tasks, "CellProfiler (shards)"), folder, shards)
        if faults:
            raise FaultsError(faults, f"CellProfiler cannot measure {assay.name} with this pipeline:")
        failed = _few_failed(assay, folder, shards, settings.failed_fields)
    except FaultsError:
        _forget_empty(folder, shards)
        raise
    places = tuple(folder / s.key for s in shards)
    records = [read_json(p / RECORD) for p in places]
    return Measured(folder, places, {
        "cellprofiler": {"version": cellprofiler.version, "origin": cellprofiler.origin,
                         "command": list(cellprofiler.command),
                         "measured_by": sorted({r["command"][0] for r in records})},
        "pipeline": settings.pipeline,
        "pipeline_digest": digest(pipeline),
        "pipeline_as_run": saved.name,
        "images": plan.images,
        "illumination": illumination.key if illumination and functions else "",
        "illumination_functions": functions,
        # Without the failed fields it would be the same before and after a shard is deleted and measured again.
        "shards_digest": digest([s.key for s in shards] + [row[:3] for row in failed]),
        "fields": len(assay.fields),
        "cells": sum(r["cells"] for r in records),
        "shards": len(shards),
        "shards_run": len(tasks),
        "seconds": round(time.monotonic() - start, 1),
        "shard_seconds": round(sum(r["seconds"] for r in records), 1),
        "shard_cpu_seconds": round(sum(r["cpu_seconds"] for r in records), 1),
        "objects_left_out": sorted({o for r in records for o in r["objects_left_out"]}),
        "failed_fields": failed,
    })


def _tolerated(total: int, most: float) -> int:
    """How many of ``total`` fields may fail for the share ``most``: never all."""
    return min(int(most * total + 1e-9), total - 1)  # 0.29 × 100 is 28.999…


def _first(outcomes: Iterator[tuple[Fault, ...]], folder: Path, shards: Sequence[Shard]) -> tuple[Fault, ...]:
    """Wait for all shards, or for the first that has faults, or until `_all_fail`: then the others are ended."""
    try:
        none_yet = True
        for faults in outcomes:
            if none_yet and not faults:
                none_yet, faults = _all_fail(folder, shards)
            if faults:
                return faults
        return ()
    finally:
        if isinstance(outcomes, Generator):
            outcomes.close()


def _all_fail(folder: Path, shards: Sequence[Shard]) -> tuple[bool, tuple[Fault, ...]]:
    """Whether no shard has a field that was measured; and the faults, where enough failed to tell the pipeline's."""
    places = (folder / s.key / RECORD for s in shards)
    records = [read_json(place) for place in places if place.exists()]
    if any(len(r.get(FAILED, [])) < len(r["fields"]) for r in records):
        return False, ()
    # Fields that could not be read say nothing of the pipeline.
    telling = sum(r.get(FAILED_ALONE, 0) for r in records) >= _TELLING
    return True, _faults([row for r in records for row in r[FAILED]]) if telling else ()


def _faults(failed: Sequence[Sequence[Any]]) -> tuple[Fault, ...]:
    return tuple(Fault(reason, f"plate {plate}, well {well}, site {site}") for plate, well, site, reason in failed)


def _few_failed(assay: Assay, folder: Path, shards: Sequence[Shard], most: float) -> list[list[Any]]:
    """The fields that failed ([plate, well, site, reason]); an error where they are more than the share ``most``."""
    failed = [row for s in shards for row in read_json(folder / s.key / RECORD).get(FAILED, [])]
    total = len(assay.fields)
    if len(failed) > _tolerated(total, most):
        raise FaultsError(_faults(failed), f"{len(failed)} of {total} fields of {assay.name} could not be measured, "
                                           f"more than cellprofiler.failed_fields allows ({most:.0%}):")
    return failed


def _forget_empty(folder: Path, shards: Sequence[Shard]) -> None:
    """Remove shards in which nothing was measured, so that they are tried again: once more than single fields is known
    to be at fault, the same fault may explain them too."""
    for place in (folder / s.key for s in shards):
        if (place / RECORD).exists():
            record = read_json(place / RECORD)
            if len(record.get(FAILED, [])) == len(record["fields"]):
                shutil.rmtree(place)


def _remove_dead(folder: Path) -> None:
    """Remove what killed runs on this machine left unfinished; a shard that one had put aside is put back."""
    for path in folder.glob(f"{RUNNING}*"):
        if is_left_over(path.name.removeprefix(RUNNING)):
            for old in path.glob(f"{ASIDE}/*"):
                with contextlib.suppress(OSError):  # its place is taken: the new one is there
                    old.rename(folder / old.name)
            shutil.rmtree(path, ignore_errors=True)
