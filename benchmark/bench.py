"""`make bench`: how fast the parts are, each as a ratio to a named rival measured in the same run."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table

from benchmark.cellprofiler.find import find_cellprofiler
from benchmark.cellprofiler.measure import measure
from benchmark.cluster import Cluster
from benchmark.crops.cache import build_crops, read_crops
from benchmark.crops.settings import CropSettings
from benchmark.images.reading import read_field
from benchmark.methods.settings import FinetunedMethod
from benchmark.opened import Opened, open_study
from benchmark.profiles.settings import ProfileSettings
from benchmark.profiles.wells import make_profiles
from benchmark.stages import pipeline_path
from benchmark.tables import FIELD_KEY


@dataclass(frozen=True)
class Ratio:
    """One line: what was measured, against what, and how many times faster (above 1) or slower it was."""

    what: str
    rival: str
    ours_seconds: float
    rival_seconds: float

    @property
    def times(self) -> float:
        """Rival's seconds over ours."""
        return self.rival_seconds / self.ours_seconds


def best_of(function: Callable[[], object], repeats: int) -> float:
    """Seconds of the fastest of some runs: the others measured the machine's noise."""
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def run_bench(study: str, console: Console) -> None:
    """Measure on a study's own images and print the table."""
    opened = open_study(study)
    table = Table(title=f"morphobench on {study}")
    for column in ("what", "against", "ours, s", "rival, s", "times faster"):
        table.add_column(column, justify="left" if column in ("what", "against") else "right")
    with TemporaryDirectory() as folder:
        for bench in (_cached_crops, _training_step, _aggregation, _cellprofiler):
            r = bench(opened, Path(folder))
            table.add_row(r.what, r.rival, f"{r.ours_seconds:.2f}", f"{r.rival_seconds:.2f}", f"{r.times:.2f}")
    console.print(table)


def _cached_crops(opened: Opened, folder: Path) -> Ratio:
    """Reading all crops for an epoch: the cache against decoding every image file again."""
    settings = CropSettings(size=128)
    path = folder / "crops.h5"
    build_crops(path, opened.assay, opened.assay_hash, settings, opened.run_tasks)
    ours = best_of(lambda: read_crops(path, opened.assay, opened.assay_hash, settings), 3)
    rows = [row for _, row in opened.assay.treated.iterrows()]
    rival = best_of(lambda: [read_field(opened.assay, row) for row in rows], 2)
    return Ratio("all crops out of the HDF5 cache, checksum included", "decoding the image files", ours, rival)


def _training_step(opened: Opened, folder: Path) -> Ratio:
    """Fine-tuning fed by the cache with augmentation, against the bare step on one fixed batch in memory."""
    import torch

    from benchmark.networks.train import fine_tune
    from benchmark.networks.weights import load_backbone

    method = FinetunedMethod(kind="cnn_finetuned", name="bench")
    crops = read_crops(folder / "crops.h5", opened.assay, opened.assay_hash, CropSettings(size=128))
    pixels, targets = crops.pixels[:128], np.arange(128) % 4
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    short, long = (method.training.model_copy(update={"epochs": n}) for n in (1, 4))

    def ours(settings: object) -> Callable[[], object]:
        return lambda: fine_tune(pixels, targets, 4, method.network, settings, device, 0)  # type: ignore[arg-type]

    backbone = load_backbone(method.network, pixels.shape[1], 4)
    model = backbone.model.to(device).train()
    optimizer = torch.optim.AdamW(model.parameters())
    batch = torch.randn(32, *pixels.shape[1:], device=device).contiguous(memory_format=torch.channels_last)
    goal = torch.from_numpy(targets[:32]).to(device)

    def bare() -> None:
        for _ in range(12):  # 3 epochs of 128 crops
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
    return Ratio("12 training steps fed by the cache, augmented", "the bare step on one batch in memory", fed,
                 best_of(bare, 2))


def _aggregation(opened: Opened, folder: Path) -> Ratio:
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
    few = type(assay)(assay.name, assay.root, assay.fields.head(16).reset_index(drop=True), assay.channels)
    found = find_cellprofiler()

    def run(jobs: int) -> Callable[[], object]:
        pipeline = str(pipeline_path(opened.study.cellprofiler.pipeline, opened.base))
        settings = opened.study.cellprofiler.model_copy(update={"shard_fields": 16 // jobs, "pipeline": pipeline})
        place = folder / f"jobs{jobs}"
        return lambda: measure(few, opened.hashes, settings, found, place, Cluster(jobs))

    return Ratio("CellProfiler, 16 fields, two processes", "one process", best_of(run(2), 1), best_of(run(1), 1))
