"""The contestant that fine-tunes a network on the crops of a fold's training wells."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmark.assays.fieldtable import Assay
from benchmark.crops.cache import read_crops
from benchmark.methods.labels import with_labels
from benchmark.methods.runs import measured, write_fold
from benchmark.methods.settings import FinetunedMethod
from benchmark.networks.train import fine_tune, probabilities, resolve_device
from benchmark.splits import Fold, rows_of
from benchmark.tables import LABEL, probability_columns


@dataclass(frozen=True)
class FinetunedFold:
    """One fold of a fine-tuned network, as a worker gets it."""

    crops: Path
    assay: Assay
    assay_hash: str
    method: FinetunedMethod
    fold: Fold
    seed: int
    labels: dict[str, str] | None
    device: str
    threads: int
    out: Path


def run_finetuned_fold(task: FinetunedFold) -> str:
    """Fine-tune on the fold's training crops, predict its test crops, write the prediction file."""
    if task.threads:
        torch.set_num_threads(task.threads)
    device = resolve_device(task.device)
    facts: dict[str, Any] = {"fold": task.fold.name, "device": _device_name(device)}
    with measured(facts):
        crops = read_crops(task.crops, task.assay, task.assay_hash, task.method.crops)
        table = with_labels(crops.table, task.labels)
        labels = sorted(table[LABEL].unique())
        number = {label: i for i, label in enumerate(labels)}
        train = rows_of(table, task.fold.train).to_numpy()
        test = rows_of(table, task.fold.test).to_numpy()
        targets = table[LABEL].map(number).to_numpy(np.int64)
        trained = fine_tune(crops.pixels[train], targets[train], len(labels), task.method.network,
                            task.method.training, device, task.seed)
        p = probabilities(trained.backbone, crops.pixels[test], device, task.method.training.bfloat16)
        predictions = table[test].reset_index(drop=True).assign(
            unit="crop", method=task.method.name, fold=task.fold.name, seed=task.seed)
        predictions[probability_columns(labels)] = p
    if device.type == "cuda":
        facts["peak_gpu_mib"] = round(torch.cuda.max_memory_allocated(device) / 2**20)
    facts |= {"losses": trained.losses, "train_accuracies": trained.accuracies, "images": trained.images,
              "train": int(train.sum()), "weights": trained.backbone.source,
              "weights_sha256": trained.backbone.sha256}
    write_fold(task.out, predictions, task.fold, facts)
    return task.fold.name


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
