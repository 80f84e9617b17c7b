"""`make bench`: how fast the parts are, each as a ratio to a named rival measured in the same run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table

from benchmark.bench_augment import augmented_batches
from benchmark.bench_crops import crop_memory, crop_ratios, paper_crops
from benchmark.cellprofiler.find import find_cellprofiler
from benchmark.cellprofiler.measure import measure
from benchmark.cluster import Cluster
from benchmark.crops.build import build_crops, crop_key
from benchmark.crops.reader import Crops, open_crops
from benchmark.crops.settings import CropSettings
from benchmark.methods.settings import FinetunedMethod
from benchmark.opened import Opened, open_study
from benchmark.prepare import cellprofiler_illumination, need_images, pipeline_path
from benchmark.profiles.settings import ProfileSettings
from benchmark.profiles.wells import make_profiles
from benchmark.ratio import Ratio, best_of
from benchmark.tables import FIELD_KEY


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
                 _aggregation(opened), _cellprofiler(opened, folder)]
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


def _aggregation(opened: Opened) -> Ratio:
    """Single cells to well medians by pycytominer, against pandas' own groupby."""
    fields = opened.assay.fields
    rng = np.random.default_rng(0)
    cells = fields.loc[fields.index.repeat(100), FIELD_KEY].reset_index(drop=True)
    values = rng.normal(size=(len(cells), 200)).astype(np.float32)
    cells = pd.concat([cells, pd.DataFrame(values, columns=[f"Cells_{i}" for i in range(200)])], axis=1)
    settings = ProfileSettings(normalise="training")
    ours = best_of(lambda: make_profiles(cells, opened.assay, settings), 2)
    rival = best_of(lambda: cells.drop(columns=FIELD_KEY[2]).groupby(FIELD_KEY[:2]).median(), 2)
    return Ratio(f"{len(cells)} cells x 200 features to well profiles", "pandas groupby", ours, rival)


def _cellprofiler(opened: Opened, folder: Path) -> Ratio:
    """The same 16 fields measured over two processes, against one."""
    assay = opened.assay
    few = replace(assay, fields=assay.fields.head(16).reset_index(drop=True))
    illumination = cellprofiler_illumination(opened)
    found = find_cellprofiler()

    def run(jobs: int) -> Callable[[], object]:
        pipeline = str(pipeline_path(opened.study.cellprofiler.pipeline, opened.base))
        settings = opened.study.cellprofiler.model_copy(update={"shard_fields": 16 // jobs, "pipeline": pipeline})
        place = folder / f"jobs{jobs}"
        return lambda: measure(few, opened.hashes, settings, found, place, Cluster(jobs),
                               illumination)

    return Ratio("CellProfiler, 16 fields, two processes", "one process", best_of(run(2), 1), best_of(run(1), 1))
