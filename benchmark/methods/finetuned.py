"""The contestant that fine-tunes a network on the crops of a fold's training wells."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from benchmark.assays.fieldtable import Assay
from benchmark.crops.reader import Crops, open_crops
from benchmark.errors import MorphobenchError
from benchmark.files import digest
from benchmark.methods.embeddings import embedding_path, write_units
from benchmark.methods.labels import Permuted, label_frequencies, with_labels
from benchmark.methods.runs import REVISION, measured, write_fold
from benchmark.methods.settings import FinetunedMethod
from benchmark.networks.checkpoint import Checkpoint
from benchmark.networks.device import device_name, gpu_peak, resolve_device
from benchmark.networks.embed import field_embeddings, headless
from benchmark.networks.held import hold, place
from benchmark.networks.predict import predict
from benchmark.networks.source import CropSource
from benchmark.networks.train import Trained, fine_tune
from benchmark.splits import Fold, WellKey, inner_folds, inner_groups, rows_of
from benchmark.tables import FIELD_COLUMNS, LABEL, WELL_KEY, probability_columns

#: Stands for the crop's number where a well has no crop at all.
NO_CROP = -1
#: One in so many training compounds, about, is held out where training is to stop early.
INNER_FOLDS = 5


@dataclass(frozen=True)
class FinetunedFold:
    """One fold of a fine-tuned network, as a worker gets it.

    ``crops`` is the cache's file, ``key`` what it must hold (`benchmark.crops`); ``controls`` the same of negative
    controls, where there are any and embeddings are asked for.
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
    controls: tuple[Path, str] | None = None


@dataclass(frozen=True)
class TrainedFold:
    """A network trained on a fold's training crops, and all that it takes to predict with it.

    Attributes
    ----------
    crops : Crops
        All crops of the assay, ``source`` where their pixels are read from.
    fields : DataFrame
        The assay's field table with the labels that were learnt.
    labels : list of str
        In the order of the network's scores.
    train : ndarray
        Numbers of the training crops.
    """

    trained: Trained
    crops: Crops
    source: CropSource
    fields: pd.DataFrame
    labels: list[str]
    train: np.ndarray
    device: torch.device


def run_finetuned_fold(task: FinetunedFold) -> str:
    """Fine-tune on the fold's training crops, predict its test crops, write the prediction file.

    Wells of the fold's dose series are predicted too. A well without any crop (its tiles were empty, or no cell was
    found in it) gets one row, with the label frequencies of the training compounds; test wells of that kind are
    counted in the facts as ``without_crops``. A fold that is stopped goes on from its last finished epoch.

    Raises
    ------
    MorphobenchError
        The crops cannot be read, none is left to train on, the loss is no longer finite, or training is to stop early
        and no compound can be held out for that.
    """
    device = resolve_device(task.device)
    checkpoint = checkpoint_of(task)
    facts: dict[str, Any] = {"fold": task.fold.name, "device": device_name(device)}
    with measured(facts), gpu_peak(device, facts):
        found = train_fold(task, checkpoint)
        facts["threads"] = torch.get_num_threads()
        test, said = predict_wells(task, found, task.fold.test)
        response, _ = predict_wells(task, found, task.fold.response)
        if task.method.embeddings:
            _write_embeddings(task, found)
    trained = found.trained
    for clock, before in zip(("seconds", "cpu_seconds"), trained.before, strict=True):
        facts[clock] = round(facts[clock] + before, 3)  # what a stopped fold cost before counts as well
    facts |= {"losses": trained.losses, "train_accuracies": trained.accuracies, "images": trained.images,
              "train": len(found.train), "weights": trained.backbone.source,
              "weights_sha256": trained.backbone.sha256, "crops_in": place(found.source), **trained.facts, **said}
    write_fold(task.out, test, task.fold, facts, response=response if task.fold.response else None)
    checkpoint.remove()
    return task.fold.name


def _write_embeddings(task: FinetunedFold, found: TrainedFold) -> None:
    """Embeddings of all wells with crops, before the prediction file: where that is, they are there too."""
    crops: list[tuple[Crops, CropSource]] = [(found.crops, found.source)]
    if task.controls is not None:
        controls = open_crops(*task.controls)
        crops.append((controls, controls))
    units, trained = task.method.embeddings, found.trained
    fields = field_embeddings(crops, task.assay.fields, headless(trained.backbone), found.device,
                              bfloat16=trained.bfloat16,
                              crop_file=embedding_path(task.out, "crop") if "crop" in units else None)
    write_units(task.out, fields, units)


def checkpoint_of(task: FinetunedFold) -> Checkpoint:
    """Where a fold's training stands while it is not done."""
    return Checkpoint(task.out.with_suffix(".checkpoint"), digest([
        task.key, task.method.model_dump(mode="json"), REVISION[task.method.kind], asdict(task.fold), task.seed]))


def train_fold(task: FinetunedFold, checkpoint: Checkpoint) -> TrainedFold:
    """Fine-tune on the crops of the fold's training wells; nothing else of the assay is looked at.

    Raises
    ------
    MorphobenchError
        As `run_finetuned_fold`.
    """
    if task.threads:
        torch.set_num_threads(task.threads)
    device, training = resolve_device(task.device), task.method.training
    crops = open_crops(task.crops, task.key)
    fields = with_labels(task.assay.fields, task.labels)
    labels = sorted(with_labels(task.assay.treated, task.labels)[LABEL].unique())
    train = crops_of_wells(crops, fields, task.fold.train)
    where = f"fold {task.fold.name!r} of {task.method.name}"
    if not len(train):
        raise MorphobenchError("no crop is left to train on", where, "See which tiles crops.* drops.")
    number = {label: i for i, label in enumerate(labels)}
    targets = fields[LABEL].map(number).to_numpy()[crops.field[train]].astype(np.int64)
    source = hold(crops, len(crops.field), device, (str(task.crops), task.key))
    held_out = _to_stop_by(fields.loc[crops.field[train]], task.seed, where) if training.early_stopping else None
    trained = fine_tune(source, train, targets, len(labels), task.method.network, training, device, task.seed,
                        validation=held_out, checkpoint=checkpoint)
    return TrainedFold(trained, crops, source, fields, labels, train, device)


def _to_stop_by(fields: pd.DataFrame, seed: int, where: str) -> np.ndarray:
    """Which training crops training stops by: those of some compounds, whose labels others have too.

    Parameters
    ----------
    fields : DataFrame
        The field of each training crop; of test wells there is nothing here.

    Returns
    -------
    ndarray
        (N,) bool.
    """
    labels = fields[LABEL].to_numpy()
    for train, test in inner_folds(inner_groups(fields).tolist(), labels.tolist(), INNER_FOLDS, seed):
        if set(labels[test]) <= set(labels[train]):
            held_out = np.zeros(len(fields), bool)
            held_out[test] = True
            return held_out
    raise MorphobenchError("no training compound can be held out to stop by: its label would have no other", where,
                           "Set training.early_stopping to 0.")


def crops_of_wells(crops: Crops, fields: pd.DataFrame, wells: tuple[WellKey, ...]) -> np.ndarray:
    """Numbers of the crops that lie in ``wells``."""
    return crops.of_fields(rows_of(fields, wells).to_numpy())


def predict_wells(task: FinetunedFold, fold: TrainedFold, wells: tuple[WellKey, ...]
                  ) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Predictions for ``wells``, a row a crop; and facts: how many wells have no crop and got one row each, spread."""
    crops, fields, labels, trained = fold.crops, fold.fields, fold.labels, fold.trained
    rows = crops_of_wells(crops, fields, wells)
    seen = fields.loc[crops.field[rows], FIELD_COLUMNS].assign(crop=crops.crop[rows].astype(int))
    p = np.zeros((0, len(labels)))
    facts: dict[str, Any] = {}
    if len(rows):
        found = predict(trained.backbone, trained.snapshots, fold.source, rows, fold.device, task.method.training,
                        trained.bfloat16, task.seed)
        p = found.p
        if found.spread is not None:
            facts = {"spread": round(found.spread, 6), "passes": found.passes}
    first = fields.loc[rows_of(fields, wells), FIELD_COLUMNS].drop_duplicates(WELL_KEY)
    empty = first[~rows_of(first, tuple(seen[WELL_KEY].itertuples(index=False, name=None)))].assign(crop=NO_CROP)
    flat = label_frequencies(fields[rows_of(fields, task.fold.train)], labels, len(empty))
    predictions = pd.concat([seen, empty], ignore_index=True).assign(
        unit="crop", method=task.method.name, fold=task.fold.name, seed=task.seed)
    predictions[probability_columns(labels)] = np.concatenate([p, flat])
    return predictions, {"without_crops": len(empty), **facts}

