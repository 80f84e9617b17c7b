"""For `make bench`: training. `python -m benchmark.bench.training STUDY` prints only these rows.

Three questions. Does feeding a network cost anything: an epoch as it is run, from the cache with augmentation, against
the same number of steps on one batch in memory? Is bfloat16 faster on this processor? And how long does a fold take,
against the straightforward loop: float32, one PNG per crop, augmented one by one? Speed does not depend on labels, so
classes are assigned in turn.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import cv2
import numpy as np
import torch
from rich.console import Console
from torch import Generator, Tensor, nn

from benchmark.bench.ratio import Ratio, interleaved, print_ratios
from benchmark.bench.subject import Subject, subject_of
from benchmark.crops.build import build_crops, crop_key
from benchmark.crops.reader import open_crops
from benchmark.crops.settings import CropSettings
from benchmark.networks.device import resolve_device
from benchmark.networks.feed.augment import augment, draw, full_scale
from benchmark.networks.feed.held import hold
from benchmark.networks.feed.source import CropSource
from benchmark.networks.predict import BATCH, predict
from benchmark.networks.settings import NetworkSettings, TrainingSettings
from benchmark.networks.training.inputs import Examples, Recipe, Session
from benchmark.networks.training.learn import freeze, train_mode
from benchmark.networks.training.presets import resolved
from benchmark.networks.training.step import Stepper, class_weights, make_optimizer, on_device
from benchmark.networks.training.train import fine_tune
from benchmark.networks.weights.weights import load_backbone

CLASSES = 6
SIDE = 128
#: Networks whose steps in bfloat16 are timed, with random weights: the embedded one, and one of the paper's.
BFLOAT16 = ("tf_efficientnet_lite0", "resnet50")
EMBEDDED = NetworkSettings()


def training_ratios(subject: Subject, folder: Path) -> list[Ratio]:
    """All rows, on crops of a study's own fields at 128 px.

    Parameters
    ----------
    folder : Path
        For the cache and the rival's files.
    """
    cut = CropSettings(size=SIDE, intensity="bit_depth")
    build_crops(folder / "training.h5", subject.assay, subject.assay_hash, cut, run_tasks=subject.run_tasks)
    crops = open_crops(folder / "training.h5", crop_key(subject.assay_hash, cut))
    device, modern = resolve_device("auto"), TrainingSettings()
    paper = TrainingSettings(augmentation="kensert2019")
    (folder / "pieces").mkdir()
    rows = [fed_step(crops, len(crops), EMBEDDED, settings, device) for settings in (modern, paper)]
    if device.type == "cpu":  # a GPU always computes in bfloat16
        rows += [bfloat16_step(NetworkSettings(backbone=name, weights="none"), modern, crops.shape)
                 for name in BFLOAT16]
    return [*rows, whole_fold(crops, len(crops), EMBEDDED, TrainingSettings(epochs=3), device, folder / "pieces")]


def fed_step(crops: CropSource, count: int, network: NetworkSettings, settings: TrainingSettings,
             device: torch.device, steps: int = 6, repeats: int = 4) -> Ratio:
    """An epoch fed by the cache with augmentation, against as many steps on one augmented batch in memory.

    Both are ours: the epochs that `benchmark.networks.training.train.fine_tune` runs, and the same step, optimiser and
    precision on a batch in memory. They take turns in one run, and the best of each counts.

    Parameters
    ----------
    crops : CropSource
        Read batch by batch, the next one while the network works: nothing is kept in memory.
    count : int
        Number of crops in it.
    """
    rows = np.random.default_rng(0).permutation(np.arange(steps * settings.batch) % count)
    targets = np.arange(len(rows)) % CLASSES
    bare = _bare_steps(crops, rows[:settings.batch], network, settings, device, steps)
    seconds: dict[str, list[float]] = {"fed": [], "bare": []}
    began = 0.0

    def after_epoch(epoch: int, loss: float) -> None:
        nonlocal began
        now = time.perf_counter()
        seconds["fed"].append(now - began)
        bare()
        began = time.perf_counter()
        seconds["bare"].append(began - now)

    once_more = settings.model_copy(update={"epochs": repeats + 1, "recalibrate": False})
    fine_tune(Examples(crops, rows, targets, CLASSES), Recipe(network, once_more),
              Session(device, on_epoch=after_epoch))
    fed, ready = (min(times[1:]) for times in seconds.values())  # the first includes loading the network
    return Ratio(f"{steps} training steps of {settings.batch} crops of {crops.shape[1]} px fed by the cache, "
                 f"augmentation {settings.augmentation}", "the same step on one batch in memory", fed, ready)


def _stepper(network: NetworkSettings, settings: TrainingSettings, channels: int, device: torch.device,
             bfloat16: bool) -> Stepper:
    backbone = on_device(load_backbone(network, channels, CLASSES, 0), device)
    freeze(backbone.model, settings.learn)
    train_mode(backbone.model)
    return Stepper(backbone, make_optimizer(backbone.model, settings, device), torch.ones(CLASSES, device=device),
                   settings, bfloat16)


def _bare_steps(crops: CropSource, rows: np.ndarray, network: NetworkSettings, settings: TrainingSettings,
                device: torch.device, steps: int) -> Callable[[], None]:
    """Training steps on one augmented batch in memory; losses are read once, at the end, as in an epoch."""
    settings = resolved(settings, network.backbone)
    draws = draw(settings, len(rows), crops.shape[0], Generator().manual_seed(0)).to(device)
    pixels = torch.from_numpy(crops.batch(rows)).to(device)
    ready = augment(pixels, draws, Generator(device).manual_seed(0))
    goals = (torch.arange(len(rows)) % CLASSES).to(device)
    stepper = _stepper(network, settings, crops.shape[0], device, False)

    def run() -> None:
        sums = torch.zeros(2, device=device)
        for _ in range(steps):
            sums += stepper(ready, goals, None, 1.0)
        sums.tolist()

    return run


def bfloat16_step(network: NetworkSettings, settings: TrainingSettings, shape: tuple[int, int, int], steps: int = 3,
                  repeats: int = 3) -> Ratio:
    """Training steps on a CPU in bfloat16 against float32, on one batch in memory."""
    generator, cpu = Generator().manual_seed(0), torch.device("cpu")
    ready = torch.rand(settings.batch, *shape, generator=generator)
    goals = torch.arange(settings.batch) % CLASSES
    both = [_stepper(network, resolved(settings, network.backbone), shape[0], cpu, narrow) for narrow in (True, False)]

    def run(stepper: Stepper) -> Callable[[], object]:
        return lambda: [stepper(ready, goals, None, 1.0) for _ in range(steps)]

    narrow, wide = interleaved([run(stepper) for stepper in both], repeats, warm_up=True)
    return Ratio(f"{steps} training steps of {network.backbone} in bfloat16, {settings.batch} crops of {shape[1]} px",
                 "the same in float32", narrow, wide)


def whole_fold(crops: CropSource, count: int, network: NetworkSettings, settings: TrainingSettings,
               device: torch.device, folder: Path, most: int = 240, repeats: int = 2) -> Ratio:
    """Fine-tune on four fifths of some crops and predict the rest: our way, against a plain loop over PNG files.

    The rival's files hold the same crops at the network's input size, so that they decode as fast as possible.

    Parameters
    ----------
    most : int
        Most crops used.
    """
    settings = resolved(settings, network.backbone)
    chosen = np.random.default_rng(0).permutation(count)[:most]
    train, test = np.split(chosen, [len(chosen) * 4 // 5])
    targets = np.arange(len(train)) % CLASSES
    paths = {row: _store(crops, row, folder) for row in chosen.tolist()}

    def ours() -> np.ndarray:
        source = hold(crops, count, device, str(folder))
        tuned = fine_tune(Examples(source, train, targets, CLASSES), Recipe(network, settings), Session(device))
        return predict(tuned.backbone, tuned.snapshots, source, test, device, settings, tuned.bfloat16, 0).p

    def rival() -> np.ndarray:
        return plain_fold([paths[r] for r in train.tolist()], targets, [paths[r] for r in test.tolist()], network,
                          settings, crops.shape[0], device)

    seconds, plain = interleaved([ours, rival], repeats)
    what = f"a fold of {len(train)} + {len(test)} crops of {crops.shape[1]} px, {settings.epochs} epochs"
    return Ratio(f"{what}, {'float32' if device.type == 'cpu' else 'bfloat16'}",
                 "a plain float32 loop, one PNG per crop", seconds, plain)


def _store(crops: CropSource, row: int, folder: Path) -> Path:
    """A crop as a PNG: its channels stacked vertically in one grey image, since there may be any number of them."""
    path = folder / f"{row}.png"
    pixels = crops.batch(np.array([row]))[0]
    if not cv2.imwrite(str(path), pixels.reshape(-1, pixels.shape[2])):
        raise OSError(f"{path} could not be written")
    return path


def decoded(path: Path, channels: int) -> np.ndarray:
    """A crop read from its PNG: (C, S, S) float32 in 0…1."""
    picture = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if picture is None:
        raise OSError(f"{path} is not a readable image")
    full = full_scale(torch.from_numpy(picture[:1, :1]))
    return picture.reshape(channels, -1, picture.shape[1]).astype(np.float32) / np.float32(full)


def plain_fold(train: Sequence[Path], targets: np.ndarray, test: Sequence[Path], network: NetworkSettings,
               settings: TrainingSettings, channels: int, device: torch.device) -> np.ndarray:
    """The rival: the straightforward loop, with the same network, epochs, batch, optimiser and augmentation.

    Returns
    -------
    ndarray
        (tests, classes) probabilities.
    """
    backbone = on_device(load_backbone(network, channels, CLASSES, 0), device)
    model = backbone.model.to(memory_format=torch.contiguous_format).train()
    loss_of = nn.CrossEntropyLoss(class_weights(torch.from_numpy(targets), CLASSES).to(device))
    optimizer = torch.optim.AdamW(model.parameters(), settings.learning_rate, weight_decay=settings.weight_decay)
    per_epoch = max(1, len(train) // settings.batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, settings.learning_rate,
                                                   total_steps=settings.epochs * per_epoch)
    rng = np.random.default_rng(0)

    def inputs(crops: Sequence[np.ndarray]) -> Tensor:
        pixels = torch.from_numpy(np.stack(crops)).to(device)
        return (pixels - backbone.mean.view(1, -1, 1, 1)) / backbone.std.view(1, -1, 1, 1)

    for _ in range(settings.epochs):
        for rows in np.array_split(rng.permutation(len(train)), per_epoch):
            batch = inputs([plainly_augmented(decoded(train[i], channels), settings, rng) for i in rows])
            loss = loss_of(model(batch), torch.from_numpy(targets[rows]).to(device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    model.eval()
    probabilities = []
    with torch.no_grad():
        for start in range(0, len(test), BATCH):
            batch = inputs([decoded(path, channels) for path in test[start:start + BATCH]])
            probabilities.append(model(batch).softmax(1).cpu().numpy())
    return np.concatenate(probabilities)


def plainly_augmented(crop: np.ndarray, settings: TrainingSettings, rng: np.random.Generator) -> np.ndarray:
    """One crop (C, S, S) with the augmentation ``standard``: rotated, flipped, a gain and offset per channel."""
    crop = np.rot90(crop, int(rng.integers(4)), (1, 2))
    crop = crop[:, :, ::-1] if rng.integers(2) else crop
    gain = rng.uniform(1 - settings.gain, 1 + settings.gain, (len(crop), 1, 1)).astype(np.float32)
    offset = rng.uniform(-settings.offset, settings.offset, (len(crop), 1, 1)).astype(np.float32)
    return np.clip(crop * gain + offset, 0, 1)


def main(study: str) -> None:
    """Print the rows for a study."""
    subject = subject_of(study)
    with TemporaryDirectory() as name:
        print_ratios(Console(), f"training on {study}", training_ratios(subject, Path(name)))


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "demo")
