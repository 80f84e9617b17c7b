"""`make bench`: how fast the parts are, each as a ratio to a named rival measured in the same run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmark.bench_augment import augmented_batches
from benchmark.bench_cells import aggregation_ratio
from benchmark.bench_crops import crop_memory, crop_ratios, paper_crops
from benchmark.cellprofiler.execute import execute
from benchmark.cellprofiler.find import find_cellprofiler
from benchmark.cellprofiler.measure import make_plan, measure
from benchmark.cellprofiler.shards import Shard, stage
from benchmark.cluster import Cluster
from benchmark.crops.build import build_crops, crop_key
from benchmark.crops.reader import Crops, open_crops
from benchmark.crops.settings import CropSettings
from benchmark.methods.settings import FinetunedMethod
from benchmark.opened import Opened, open_study
from benchmark.prepare import cellprofiler_illumination, need_images, pipeline_path
from benchmark.ratio import Ratio, best_of

#: Fields of the comparison with a plain run: enough that starting up does not rule it.
FIELDS = 48


def run_bench(study: str, console: Console) -> None:
    """Measure on a study's own images and print the table."""
    opened = open_study(study)
    need_images(opened, "make bench")
    table = Table(title=f"morphobench on {study}")
    for column in ("what", "against", "ours, s", "rival, s", "times faster"):
        table.add_column(column, justify="left" if column in ("what", "against") else "right")
    with TemporaryDirectory() as name:
        folder = Path(name)
        crops = _crops(opened, folder)
        rows = crop_ratios(opened.assay, folder)
        tiles = paper_crops(folder)
        (folder / "augmented").mkdir()
        rows += [augmented_batches(tiles, len(tiles), folder / "augmented"), _training_step(crops),
                 aggregation_ratio(folder / "cells"), _cellprofiler(opened, folder)]
        for r in rows:
            table.add_row(r.what, r.rival, f"{r.ours_seconds:.2f}", f"{r.rival_seconds:.2f}", f"{r.times:.2f}")
        console.print(table)
        memory = Table(title="Peak memory of a process, MiB")
        for column in ("crops", "building the cache", "reading random batches of it"):
            memory.add_column(column, justify="right")
        for m in crop_memory(opened.assay, folder / "memory"):
            memory.add_row(f"{m.crops:,}", f"{m.build_mib:.0f}", f"{m.read_mib:.0f}")
        console.print(memory)


def _crops(opened: Opened, folder: Path) -> Crops:
    """A cache of the study's own fields, 224 px."""
    settings = CropSettings(size=224, intensity="bit_depth")
    build_crops(folder / "own.h5", opened.assay, opened.assay_hash, settings, run_tasks=opened.run_tasks)
    return open_crops(folder / "own.h5", crop_key(opened.assay_hash, settings))


def _training_step(crops: Crops) -> Ratio:
    """Fine-tuning fed by the cache with augmentation, against the bare step on one fixed batch in memory."""
    import torch

    from benchmark.networks.train import fine_tune
    from benchmark.networks.weights import load_backbone

    method = FinetunedMethod(kind="cnn_finetuned", name="bench")
    rows = np.arange(96) % len(crops)
    targets = np.arange(96) % 4
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    short, long = (method.training.model_copy(update={"epochs": n}) for n in (1, 4))

    def ours(settings: object) -> Callable[[], object]:
        return lambda: fine_tune(crops, rows, targets, 4, method.network, settings, device, 0)  # type: ignore[arg-type]

    backbone = load_backbone(method.network, crops.shape[0], 4)
    model = backbone.model.to(device).train()
    optimizer = torch.optim.AdamW(model.parameters())
    batch = torch.randn(32, *crops.shape, device=device).contiguous(memory_format=torch.channels_last)
    goal = torch.from_numpy(targets[:32]).to(device)

    def bare() -> None:
        for _ in range(9):  # 3 epochs of 96 crops
            with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
                scores = model(batch)
            loss = torch.nn.functional.cross_entropy(scores.float(), goal)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
        if device.type == "cuda":
            torch.cuda.synchronize()

    bare()
    fed = best_of(ours(long), 2) - best_of(ours(short), 2)  # loading the network counts on neither side
    return Ratio("9 training steps fed by the cache, augmented", "the bare step on one batch in memory", fed,
                 best_of(bare, 2))


def _cellprofiler(opened: Opened, folder: Path) -> Ratio:
    """Fields measured over two processes, landed and checked, against one plain run of CellProfiler over all of them.

    The plain run is given its staged images and table for nothing, and its output is not read.
    """
    assay = opened.assay
    few = replace(assay, fields=assay.fields.head(FIELDS).reset_index(drop=True))
    illumination, found = cellprofiler_illumination(opened), find_cellprofiler()
    pipeline = str(pipeline_path(opened.study.cellprofiler.pipeline, opened.base))
    settings = opened.study.cellprofiler.model_copy(update={"shard_fields": -(-len(few.fields) // 2),
                                                            "pipeline": pipeline})

    def ours() -> object:
        return measure(few, opened.hashes, settings, found, folder / "measured", Cluster(2), illumination)

    ours_seconds = best_of(ours, 1)
    plan = make_plan(few, opened.hashes, settings.model_copy(update={"shard_fields": len(few.fields)}), found,
                     illumination)
    if len(plan.shards) > 1:  # the second sites of wells are a shard of their own
        whole = tuple(f for shard in plan.shards for f in shard.fields)
        plan = replace(plan, shards=[Shard("whole", whole)])
    stage(plan.shards[0], plan.pipeline, folder / "plain")
    rival = best_of(lambda: execute(found, folder / "plain", 7200), 1)
    return Ratio(f"CellProfiler, {len(few.fields)} fields, two processes", "one plain `cellprofiler -c` run",
                 ours_seconds, rival)
