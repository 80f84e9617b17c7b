"""The contestant that fine-tunes a network on the crops of a fold's training wells."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from benchmark.assays.fieldtable import Assay
from benchmark.crops.reader import Crops, open_crops
from benchmark.errors import MorphobenchError
from benchmark.methods.labels import Permuted, label_frequencies, with_labels
from benchmark.methods.runs import measured, write_fold
from benchmark.methods.settings import FinetunedMethod
from benchmark.networks.train import Trained, fine_tune, probabilities, resolve_device
from benchmark.splits import Fold, WellKey, rows_of
from benchmark.tables import FIELD_COLUMNS, LABEL, WELL_KEY, probability_columns

#: Stands for the crop's number where a well has no crop at all.
NO_CROP = -1


@dataclass(frozen=True)
class FinetunedFold:
    """One fold of a fine-tuned network, as a worker gets it.

    ``crops`` is the cache's file, ``key`` what it must hold (`benchmark.crops`).
    """

    crops: Path
    key: str
    assay: Assay
    method: FinetunedMethod
    fold: Fold
    seed: int
    labels: Permuted | None
    device: str
    threads: int
    out: Path


def run_finetuned_fold(task: FinetunedFold) -> str:
    """Fine-tune on the fold's training crops, predict its test crops, write the prediction file.

    Wells of the fold's dose series are predicted too. A well without any crop (its tiles were empty, or no cell was
    found in it) gets one row, with the label frequencies of the training compounds; test wells of that kind are
    counted in the facts as ``without_crops``.

    Raises
    ------
    MorphobenchError
        The crops cannot be read, none is left to train on, or the loss is no longer finite.
    """
    if task.threads:
        torch.set_num_threads(task.threads)
    device = resolve_device(task.device)
    facts: dict[str, Any] = {"fold": task.fold.name, "device": _device_name(device)}
    with measured(facts), _gpu_peak(device, facts):
        crops = open_crops(task.crops, task.key)
        fields = with_labels(task.assay.fields, task.labels)
        labels = sorted(with_labels(task.assay.treated, task.labels)[LABEL].unique())
        train = _crops_of(crops, fields, task.fold.train)
        if not len(train):
            raise MorphobenchError("no crop is left to train on", f"fold {task.fold.name!r} of {task.method.name}",
                                   "See which tiles crops.* drops.")
        number = {label: i for i, label in enumerate(labels)}
        targets = fields[LABEL].map(number).to_numpy()[crops.field[train]].astype(np.int64)
        trained = fine_tune(crops, train, targets, len(labels), task.method.network, task.method.training, device,
                            task.seed)
        test, without = _predict(task, crops, fields, labels, trained, device, task.fold.test)
        response, _ = _predict(task, crops, fields, labels, trained, device, task.fold.response)
    facts |= {"losses": trained.losses, "train_accuracies": trained.accuracies, "images": trained.images,
              "train": len(train), "without_crops": without, "weights": trained.backbone.source,
              "weights_sha256": trained.backbone.sha256}
    write_fold(task.out, test, task.fold, facts, response=response if task.fold.response else None)
    return task.fold.name


def _crops_of(crops: Crops, fields: pd.DataFrame, wells: tuple[WellKey, ...]) -> np.ndarray:
    """Numbers of the crops that lie in ``wells``."""
    return crops.of_fields(rows_of(fields, wells).to_numpy())


def _predict(task: FinetunedFold, crops: Crops, fields: pd.DataFrame, labels: list[str], trained: Trained,
             device: torch.device, wells: tuple[WellKey, ...]) -> tuple[pd.DataFrame, int]:
    """Predictions for ``wells``, a row a crop, and how many of these wells have no crop and got one row each."""
    rows = _crops_of(crops, fields, wells)
    seen = fields.loc[crops.field[rows], FIELD_COLUMNS].assign(crop=crops.crop[rows].astype(int))
    p = np.zeros((0, len(labels)))
    if len(rows):
        p = probabilities(trained.backbone, crops, rows, device, task.method.training.bfloat16)
    first = fields.loc[rows_of(fields, wells), FIELD_COLUMNS].drop_duplicates(WELL_KEY)
    empty = first[~rows_of(first, tuple(seen[WELL_KEY].itertuples(index=False, name=None)))].assign(crop=NO_CROP)
    flat = label_frequencies(fields[rows_of(fields, task.fold.train)], labels, len(empty))
    predictions = pd.concat([seen, empty], ignore_index=True).assign(
        unit="crop", method=task.method.name, fold=task.fold.name, seed=task.seed)
    predictions[probability_columns(labels)] = np.concatenate([p, flat])
    return predictions, len(empty)


@contextmanager
def _gpu_peak(device: torch.device, facts: dict[str, Any]) -> Iterator[None]:
    """Put the most GPU memory (MiB) that the block held into ``facts``, without folds before it in this process."""
    if device.type != "cuda":
        yield
        return
    torch.cuda.init()  # PyTorch refuses to reset what has not begun
    torch.cuda.reset_peak_memory_stats(device)
    yield
    facts["peak_gpu_mib"] = round(torch.cuda.max_memory_allocated(device) / 2**20)


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
