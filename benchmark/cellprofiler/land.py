"""One shard in a worker process: run, ingested, and moved whole to its place under its key."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import tifffile

from benchmark.base.errors import Fault, FaultsError, MorphobenchError
from benchmark.base.files import digest, process_tag, read_json, replace_folder, write_json, write_parquet
from benchmark.base.machine import MachineError, blaming_machine
from benchmark.base.tables import FIELD_KEY
from benchmark.cellprofiler.check import PipelineFault
from benchmark.cellprofiler.execute import DONE, LOG, children_cpu
from benchmark.cellprofiler.find import CellProfiler
from benchmark.cellprofiler.ingest import OBJECT_NUMBER, cell_table, image_table
from benchmark.cellprofiler.retry import Result, failed_log, none_measured, run_seconds, run_with_retries
from benchmark.cellprofiler.shards import Shard

#: What a shard's folder holds, beside logs.
CELLS, IMAGES, RECORD, MASKS = "cells.parquet", "images.parquet", "record.json", "masks"
#: Keys that a record has only where fields failed: all that failed (plate, well, site, reason); how many of them could
#: be read; those that timed out (plate, well, site, the time limit in seconds of the field alone).
FAILED, FAILED_ALONE, OUT_OF_TIME = "failed", "failed_alone", "out_of_time"
#: Start of the name of a running shard's folder; a `process_tag` follows.
RUNNING = ".running-"
#: Where, in a running shard's folder, the one that it replaces is put aside if the two cannot be swapped.
ASIDE = "replaced"


@dataclass(frozen=True)
class Task:
    """All that a worker process needs to measure one shard; ``tolerated`` fields of the whole study may fail."""

    shard: Shard
    pipeline: str
    cellprofiler: CellProfiler
    folder: Path
    timeout_seconds: float
    attempts: int
    tolerated: int


def finished(place: Path, timeout_seconds: float) -> bool:
    """Whether a shard is measured: it has landed, and none of its fields timed out under a shorter limit than it would
    have now."""
    if not (place / RECORD).exists():
        return False
    record = read_json(place / RECORD)
    seconds = run_seconds(timeout_seconds, 1, len(record["fields"]))
    return all(seconds <= had for *_, had in record.get(OUT_OF_TIME, []))


def mask_name(number: int, object_name: str) -> str:
    """File name of a landed mask."""
    return f"f{number:05d}_{object_name}.tiff"


def run_shard(task: Task) -> tuple[Fault, ...]:
    """Measure one shard in this process; a fault that concerns more than single fields is returned.

    The shard is made in a temporary folder beside its place and renamed when whole. An existing one that is not
    `finished` stays until then. After a failure its log, pipeline and table of images are kept in ``failed-<key>``.

    Raises
    ------
    MachineError
        CellProfiler cannot be started, the disk is full and the like: neither fields nor pipeline are at fault.
    """
    final, failed = task.folder / task.shard.key, task.folder / f"failed-{task.shard.key}"
    work = task.folder / f"{RUNNING}{process_tag()}"
    work.mkdir()
    try:
        landing = work / "shard"
        try:
            with blaming_machine(task.folder):
                _measure_shard(task, work, landing, failed)
        except MachineError:
            raise
        except MorphobenchError as error:
            shutil.rmtree(failed, ignore_errors=True)
            runs = sorted(work.glob(f"run*/{LOG}"))
            if runs:
                runs[-1].parent.rename(failed)
            return error.faults if isinstance(error, FaultsError) else (error.fault,)
        shutil.rmtree(failed, ignore_errors=True)
        try:
            landing.rename(final)
        except OSError:
            if not (final / RECORD).exists():
                raise
            if not finished(final, task.timeout_seconds):  # else another run has landed the same shard meanwhile
                (work / ASIDE).mkdir()
                replace_folder(landing, final, work / ASIDE / final.name)
        return ()
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _measure_own(task: Task, landing: Path) -> None:
    """Measure a shard without CellProfiler, and land it in the same form."""
    from benchmark.cellprofiler.cp_measure.cpshard import measure_shard

    start, before = time.monotonic(), time.process_time()
    own = measure_shard(task.shard, task.pipeline)
    if not own.fields:
        none_measured([own.failed[i] for i in own.odd], task.tolerated, task.cellprofiler.version)
    (landing / MASKS).mkdir(parents=True)
    for name, labels in own.masks.items():
        for number, mask in zip(own.fields, labels, strict=True):
            tifffile.imwrite(landing / MASKS / mask_name(number, name), mask, compression="zlib", metadata=None)
    write_parquet(landing / CELLS, own.cells)
    write_parquet(landing / IMAGES, own.images)
    left = ", ".join(own.modules_left_out) or "nothing"
    (landing / LOG).write_text(f"{task.cellprofiler.version}; not run: {left}\n", encoding="utf-8")
    record: dict[str, object] = {
        "cellprofiler": task.cellprofiler.version,
        "command": list(task.cellprofiler.command),
        "pipeline_digest": digest(task.pipeline),
        "fields": [[f.plate, f.well, f.site] for f in task.shard.fields],
        "cells": len(own.cells),
        "objects_left_out": own.objects_left_out,
        "modules_left_out": own.modules_left_out,
        "seconds": round(time.monotonic() - start, 2),
        "cpu_seconds": round(time.process_time() - before, 2),
        "exit_status": 0,
        "done": "Complete",
    }
    record |= _failures(task.shard, own.failed, len(own.odd), {})
    write_json(landing / RECORD, record)


def _measure_shard(task: Task, work: Path, landing: Path, failed: Path) -> None:
    """Stage, run, check and ingest one shard into ``landing``."""
    if task.cellprofiler.origin == "cp_measure":
        _measure_own(task, landing)
        return
    start, before = time.monotonic(), children_cpu()
    found = run_with_retries(task.shard, task.pipeline, task.cellprofiler, work, task.timeout_seconds, task.attempts,
                             str(failed / LOG), task.tolerated)
    output = found.output()
    images = pd.DataFrame(columns=FIELD_KEY)
    cells = images.assign(**{OBJECT_NUMBER: np.empty(0, np.int32)})
    left_out: list[str] = []
    landing.mkdir()
    if output is not None:
        images = image_table(output, found.shard)
        cells, left_out = cell_table(output, found.shard)
        _land_masks(output.masks, found.fields, landing / MASKS)
    write_parquet(landing / CELLS, cells)
    write_parquet(landing / IMAGES, images)
    _land_logs(found, landing)
    record: dict[str, object] = {
        "cellprofiler": task.cellprofiler.version,
        "command": list(task.cellprofiler.command),
        "pipeline_digest": digest(task.pipeline),
        "fields": [[f.plate, f.well, f.site] for f in task.shard.fields],
        "cells": len(cells),
        "objects_left_out": left_out,
        "seconds": round(time.monotonic() - start, 2),
        "cpu_seconds": round(children_cpu() - before, 2),
        "exit_status": [run.execution.status for run in found.runs][-1] if found.runs else None,
        "done": (found.runs[-1].folder / DONE).read_text(encoding="utf-8").strip() if found.runs else "",
    }
    if found.started > 1:
        record["started"] = found.started
    record |= _failures(task.shard, found.failed, len(found.logs), found.out_of_time)
    write_json(landing / RECORD, record)


def _failures(shard: Shard, failed: Mapping[int, Fault], alone: int,
              out_of_time: Mapping[int, float]) -> dict[str, object]:
    """What a record says of fields that failed: nothing where there are none."""
    keys = [[f.plate, f.well, f.site] for f in shard.fields]
    entries = {FAILED: [[*keys[i], str(fault)] for i, fault in failed.items()], FAILED_ALONE: alone,
               OUT_OF_TIME: [[*keys[i], seconds] for i, seconds in out_of_time.items()]}
    return {name: value for name, value in entries.items() if value}


def _land_logs(found: Result, landing: Path) -> None:
    """The log of the runs that ended well, one after the other, and one for each field that CellProfiler failed on."""
    (landing / LOG).write_bytes(b"".join((run.folder / LOG).read_bytes() for run in found.runs))
    for number, log in found.logs.items():
        shutil.copy(log, landing / failed_log(number))


def _land_masks(masks: Mapping[str, list[Path]], fields: Sequence[int], folder: Path) -> None:
    """Write masks again, compressed (CellProfiler's are plain or LZW), under names of ours."""
    folder.mkdir()
    for name, paths in masks.items():
        for number, path in zip(fields, paths, strict=True):
            labels = tifffile.imread(path)
            if labels.ndim != 2 or labels.dtype.kind not in "ui" or labels.max() > np.iinfo(np.uint16).max:
                what = f"a mask of {name} is not a 16-bit label image ({labels.dtype}, {labels.shape})"
                raise PipelineFault(what, path.name,
                                    "Save label masks as 16-bit TIFF (ConvertObjectsToImage uint16, SaveImages).")
            tifffile.imwrite(folder / mask_name(number, name), labels.astype(np.uint16), compression="zlib",
                             metadata=None)
