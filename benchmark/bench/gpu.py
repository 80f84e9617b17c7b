"""How fast training is on a GPU: `python -m benchmark.bench.gpu`. Without a GPU it only says so.

Two questions. Does feeding the network cost anything: crops held on the GPU, gathered, augmented and normalised there,
against the same step on one batch in memory (`fed share`; 1 means no cost)? And at how many images per second do the
networks of the paper, and the embedded one, train and predict at their own input size? Weights are random: speed does
not depend on them.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import timm
import torch
from rich.console import Console
from rich.table import Table
from torch import Generator

from benchmark.base.errors import MorphobenchError
from benchmark.networks.device import device_name, moved, resolve_device
from benchmark.networks.feed.augment import augment, draw, scaled
from benchmark.networks.feed.held import Held, hold, in_order
from benchmark.networks.feed.source import ArrayCrops
from benchmark.networks.predict import outputs
from benchmark.networks.settings import NetworkSettings, TrainingSettings
from benchmark.networks.training.learn import freeze, train_mode
from benchmark.networks.training.step import Stepper, make_optimizer, on_device
from benchmark.networks.weights.location import SHORT_NAMES
from benchmark.networks.weights.weights import EMBEDDED, Backbone, load_backbone

BACKBONES = (*SHORT_NAMES, EMBEDDED)
BATCHES = (32, 128)
#: How a step is run: as it is, replayed as a CUDA graph, compiled.
MODES: dict[str, dict[str, bool]] = {"plain": {}, "graphs": {"graphs": True}, "compile": {"compile": True}}
CLASSES = 12
CHANNELS = 3
#: Steps timed, and steps before them.
STEPS, BEFORE = 30, 8


@dataclass(frozen=True)
class Speed:
    """Images per second of one network at one batch size: a bare step, a fed step, prediction."""

    backbone: str
    size: int
    batch: int
    mode: str
    bare: float
    fed: float
    predicted: float

    @property
    def share(self) -> float:
        """Share of the bare step's speed that remains when the step is fed."""
        return self.fed / self.bare


def input_size(backbone: str) -> int:
    """Side in pixels at which a backbone's weights were trained."""
    name = SHORT_NAMES.get(backbone, backbone)
    cfg = timm.get_pretrained_cfg(name)
    return int(cfg.input_size[1]) if cfg else 224


@dataclass
class _Work:
    """A network, its crops, and the three things that are timed."""

    source: Held
    backbone: Backbone
    stepper: Stepper
    settings: TrainingSettings
    device: torch.device

    def bare(self, count: int) -> None:
        """Steps on one batch in memory."""
        batch = self.settings.batch
        ready = scaled(next(in_order(self.source, np.arange(batch), [batch], self.device)))
        goals = moved(torch.arange(batch) % CLASSES, self.device)
        for _ in range(count):
            self.stepper(ready, goals, None, 1.0)

    def fed(self, count: int) -> None:
        """Steps as in an epoch: all random draws first, then nothing that waits for the GPU."""
        batch, device = self.settings.batch, self.device
        rows = np.random.default_rng(0).integers(0, len(self.source), count * batch)
        draws = draw(self.settings, len(rows), CHANNELS, Generator().manual_seed(0)).to(device)
        noise = Generator(device).manual_seed(0)
        goals = moved(torch.from_numpy(rows % CLASSES), device)
        sums = torch.zeros(2, device=device)
        for i, pixels in enumerate(in_order(self.source, rows, [batch] * count, device)):
            start, stop = i * batch, (i + 1) * batch
            crops = augment(pixels, draws.part(start, stop), noise)
            sums += self.stepper(crops, goals[start:stop], None, 1.0)

    def predicted(self, count: int) -> None:
        """Outputs of ``count`` batches, moved to the CPU."""
        rows = np.arange(count * self.settings.batch) % len(self.source)
        for _ in outputs(self.backbone, self.source, rows, self.device, batch=self.settings.batch):
            pass


def _work(backbone: str, size: int, batch: int, device: torch.device, mode: str, augmentation: str) -> _Work:
    settings = TrainingSettings.model_validate({"batch": batch, "augmentation": augmentation, **MODES[mode]})
    network = NetworkSettings(backbone=backbone, weights="none")
    loaded = on_device(load_backbone(network, CHANNELS, CLASSES, 0), device)
    freeze(loaded.model, "full")
    train_mode(loaded.model)
    stepper = Stepper(loaded, make_optimizer(loaded.model, settings, device), torch.ones(CLASSES, device=device),
                      settings, False)
    return _Work(_held(size, 4 * batch, device), loaded, stepper, settings, device)


def measure_speed(backbone: str, size: int, batch: int, device: torch.device, mode: str = "plain",
                  augmentation: str = "standard", steps: int = STEPS, before: int = BEFORE) -> Speed:
    """Time training steps, bare and fed, and prediction.

    Both steps are those of `benchmark.networks.training.train`: the same function, optimiser and precision.

    Raises
    ------
    MorphobenchError
        The batch had to be split to fit in memory, so its speed would be that of a smaller one.
    """
    work = _work(backbone, size, batch, device, mode, augmentation)
    times = [_seconds(what, steps, before, device) for what in (work.bare, work.fed, work.predicted)]
    if work.stepper.pieces > 1:
        raise MorphobenchError(f"cannot hold a batch of {batch} crops of {size} px", f"memory of {device}")
    return Speed(backbone, size, batch, mode, *(steps * batch / t for t in times))


def waits(device: torch.device, augmentation: str) -> list[str]:
    """Where training steps wait for a GPU, in PyTorch's words; empty where they never do."""
    work = _work(EMBEDDED, 64, 8, device, "plain", augmentation)
    work.fed(BEFORE)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            work.fed(2)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    messages = {str(w.message).splitlines()[0] for w in caught}
    return sorted(m for m in messages if "prototype feature" not in m)  # PyTorch on its own checking


def _held(size: int, count: int, device: torch.device) -> Held:
    pixels = np.random.default_rng(0).integers(0, 256, (count, CHANNELS, size, size)).astype(np.uint8)
    source = hold(ArrayCrops(pixels), count, device, ("bench", size, count))
    return source if isinstance(source, Held) else Held(torch.from_numpy(pixels), np.dtype(np.uint8), "memory")


def _seconds(what: Callable[[int], None], steps: int, before: int, device: torch.device) -> float:
    """Best of three timings of ``steps`` steps, the device synchronised at both ends."""
    def wait() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    what(before)
    best = float("inf")
    for _ in range(3):
        wait()
        start = time.perf_counter()
        what(steps)
        wait()
        best = min(best, time.perf_counter() - start)
    return best


def main() -> None:
    """Print the tables."""
    console = Console()
    device = resolve_device("auto")
    if device.type != "cuda":
        console.print("PyTorch finds no CUDA GPU here: nothing is measured.")
        return
    table = Table(title=f"Training and prediction on {device_name(device)}, bfloat16, images/s")
    for column in ("network", "size", "batch", "step", "bare step", "fed step", "fed share", "prediction"):
        table.add_column(column, justify="left" if column in ("network", "step") else "right")
    for backbone in BACKBONES:
        size = input_size(backbone)
        for batch in BATCHES:
            for mode in ("plain", "graphs"):
                try:
                    s = measure_speed(backbone, size, batch, device, mode)
                except MorphobenchError as error:
                    console.print(f"{backbone}, batch {batch}: {error}")
                    continue
                table.add_row(s.backbone, str(s.size), str(s.batch), s.mode, f"{s.bare:.0f}", f"{s.fed:.0f}",
                              f"{s.share:.3f}", f"{s.predicted:.0f}")
    console.print(table)
    for augmentation in ("standard", "kensert2019"):
        places = "; ".join(waits(device, augmentation)) or "never"
        console.print(f"An epoch's steps with augmentation {augmentation} wait for the GPU: {places}")


if __name__ == "__main__":
    main()
