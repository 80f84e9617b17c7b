"""`make bench`: how fast each part is, as a ratio to a named rival measured in the same run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console
from rich.table import Table

from benchmark.base.cluster import Cluster
from benchmark.bench.augment import augmented_batches
from benchmark.bench.cells import aggregation_ratio
from benchmark.bench.crops import crop_memory, crop_ratios, paper_crops
from benchmark.bench.folds import bench_folds
from benchmark.bench.ratio import Ratio, best_of, print_ratios
from benchmark.bench.subject import Subject, subject_of
from benchmark.bench.training import training_ratios
from benchmark.cellprofiler.execute import execute
from benchmark.cellprofiler.find import find_cellprofiler
from benchmark.cellprofiler.measure import make_plan, measure
from benchmark.cellprofiler.shards import Shard, stage
from benchmark.workflow.measured import at_its_path, illumination_of

#: Fields in the comparison with a plain run: enough that start-up time does not dominate.
FIELDS = 48


def run_bench(study: str, console: Console) -> None:
    """Measure on a study's own images and print the table."""
    subject = subject_of(study)
    with TemporaryDirectory() as name:
        folder = Path(name)
        rows = crop_ratios(subject.assay, folder)
        tiles = paper_crops(folder)
        (folder / "augmented").mkdir()
        rows += [augmented_batches(tiles, len(tiles), folder / "augmented"), *training_ratios(subject, folder),
                 aggregation_ratio(folder / "cells"), _cellprofiler(subject, folder)]
        print_ratios(console, f"morphobench on {study}", rows)
        bench_folds(subject, folder, console)
        memory = Table(title="Peak memory of a process, MiB")
        for column in ("crops", "building the cache", "reading random batches of it"):
            memory.add_column(column, justify="right")
        for m in crop_memory(subject.assay, folder / "memory"):
            memory.add_row(f"{m.crops:,}", f"{m.build_mib:.0f}", f"{m.read_mib:.0f}")
        console.print(memory)


def _cellprofiler(subject: Subject, folder: Path) -> Ratio:
    """Fields measured in two processes, stored and checked, against one plain run of CellProfiler over all of them.

    Staging images and table for the plain run is not timed, and its output is not read.
    """
    assay = subject.assay
    few = replace(assay, fields=assay.fields.head(FIELDS).reset_index(drop=True))
    study = subject.session.study
    by_study = study.cellprofiler.illumination == "study"
    illumination = illumination_of(subject.session, subject.sound) if by_study else None
    program = find_cellprofiler()
    settings = at_its_path(study, study.cellprofiler).model_copy(update={"shard_fields": -(-len(few.fields) // 2)})

    def ours() -> object:
        return measure(few, subject.sound.hashes, settings, program, folder / "measured", Cluster(2), illumination)

    ours_seconds = best_of(ours, 1)
    plan = make_plan(few, subject.sound.hashes, settings.model_copy(update={"shard_fields": len(few.fields)}), program,
                     illumination)
    if len(plan.shards) > 1:  # the second sites of wells are a shard of their own
        whole = tuple(f for shard in plan.shards for f in shard.fields)
        plan = replace(plan, shards=[Shard("whole", whole)])
    stage(plan.shards[0], plan.pipeline, folder / "plain")
    rival = best_of(lambda: execute(program, folder / "plain", 7200), 1)
    return Ratio(f"CellProfiler, {len(few.fields)} fields, two processes", "one plain `cellprofiler -c` run",
                 ours_seconds, rival)
