"""For `make bench`: the cost of cheaper folds compared with exact ones, by number of compounds.

`python -m benchmark.bench.folds STUDY` prints this table alone. Folds with the same number of crops cost
the same, so one training of each kind is timed and counted as often as it is run.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from benchmark.bench.subject import Subject, subject_of
from benchmark.crops.build import build_crops, crop_key
from benchmark.crops.reader import open_crops
from benchmark.crops.settings import CropSettings
from benchmark.folds.trunks import trunk_count
from benchmark.networks.device import resolve_device
from benchmark.networks.feed.activations import open_activations, store_activations
from benchmark.networks.feed.feeding import Source
from benchmark.networks.feed.source import CropSource
from benchmark.networks.settings import NetworkSettings, TrainingSettings
from benchmark.networks.training.inputs import Examples, Recipe, Session
from benchmark.networks.training.presets import resolved
from benchmark.networks.training.shared import Phase, own_phase, trunk_phase
from benchmark.networks.training.train import Trained, fine_tune

T = TypeVar("T")
COMPOUNDS = (4, 8, 16, 32)
#: Crops per compound, side of a crop in pixels, and number of labels.
CROPS, SIDE, LABELS = 12, 64, 4
NETWORK = NetworkSettings()
#: Where learning starts when only the top is learnt: the last stage of the embedded network.
STAGE = "from:blocks.6"


@dataclass(frozen=True)
class Cost:
    """Seconds of training for all folds at one number of compounds.

    ``shown`` is the share of the crops of exact folds that shared ones showed the network.
    """

    compounds: int
    exact: float
    shared: float
    shown: float
    top: float
    top_stored: float


def fold_costs(crops: CropSource, count: int, folder: Path, device: torch.device, epochs: int = 5,
               compounds: Sequence[int] = COMPOUNDS) -> list[Cost]:
    """Measure on crops assigned to compounds in turn; labels in turn as well, since cost does not depend on them.

    Parameters
    ----------
    crops : CropSource
    count : int
        Number of crops in it.
    folder : Path
        For activations.
    """
    full = resolved(TrainingSettings(epochs=epochs), NETWORK.backbone)
    shared = full.model_copy(update={"folds": "shared"})
    top = resolved(TrainingSettings(epochs=epochs, learn=STAGE), NETWORK.backbone)
    return [_cost(crops, count, folder / f"{k}", device, k, full, shared, top) for k in compounds]


def _cost(crops: CropSource, count: int, folder: Path, device: torch.device, k: int, full: TrainingSettings,
          shared: TrainingSettings, top: TrainingSettings) -> Cost:
    rows = np.arange(k * CROPS) % count
    compound = np.arange(len(rows)) // CROPS
    targets = (compound % LABELS).astype(np.int64)
    trunks = trunk_count(k)
    held = (compound % trunks) == 0  # not seen by the first trunk; its first fold holds out compound 0

    def tune(chosen: np.ndarray, settings: TrainingSettings, source: Source = crops,
             phase: Phase | None = None) -> Trained:
        return fine_tune(Examples(source, rows[chosen], targets[chosen], LABELS), Recipe(NETWORK, settings, 0, phase),
                         Session(device))

    fold = compound != 0
    exact, one = _timed(lambda: tune(fold, full))
    of_trunk, trunk = _timed(lambda: tune(~held, shared, phase=trunk_phase(shared)))
    of_own, own = _timed(lambda: tune(fold, shared, phase=own_phase(trunk.end, held[fold])))
    of_top, _ = _timed(lambda: tune(fold, top))
    path = folder / "activations.h5"
    storing, why = _timed(lambda: store_activations(path, "bench", crops, min(count, len(rows)), NETWORK, top, device))
    if why:
        raise RuntimeError(why)
    stored = open_activations(path, "bench")
    of_stored, _ = _timed(lambda: tune(fold, top, stored))
    shown = (trunks * trunk.images + k * own.images) / (k * one.images)
    return Cost(k, k * exact, trunks * of_trunk + k * of_own, shown, k * of_top, storing + k * of_stored)


def _timed(run: Callable[[], T]) -> tuple[float, T]:
    start = time.perf_counter()
    result = run()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start, result


def print_costs(costs: Sequence[Cost], console: Console) -> None:
    """One row per number of compounds; ratios are to the exact folds of the same row."""
    table = Table(title="All folds of a study, seconds of training")
    for column in ("compounds", "exact, s", "folds: shared, s", "times faster", "crops shown",
                   f"learn {STAGE}, s", "from activations, s", "times faster"):
        table.add_column(column, justify="right")
    for c in costs:
        table.add_row(str(c.compounds), f"{c.exact:.1f}", f"{c.shared:.1f}", f"{c.exact / c.shared:.2f}",
                      f"{c.shown:.2f}", f"{c.top:.1f}", f"{c.top_stored:.1f}", f"{c.top / c.top_stored:.2f}")
    console.print(table)


def bench_folds(subject: Subject, folder: Path, console: Console) -> None:
    """Measure on a study's own fields and print the table."""
    cut = CropSettings(size=SIDE, intensity="bit_depth")
    path = folder / "folds.h5"
    build_crops(path, subject.assay, subject.assay_hash, cut, run_tasks=subject.run_tasks)
    crops = open_crops(path, crop_key(subject.assay_hash, cut))
    print_costs(fold_costs(crops, len(crops), folder, resolve_device("auto")), console)


if __name__ == "__main__":
    with TemporaryDirectory() as name:
        bench_folds(subject_of(sys.argv[1]), Path(name), Console())
