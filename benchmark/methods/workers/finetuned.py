"""The contestant that fine-tunes a network on the crops, or bags of crops, of a fold's training wells."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from benchmark.assays.fieldtable import Assay
from benchmark.base.errors import LeakError, MorphobenchError
from benchmark.base.files import digest, write_json
from benchmark.base.tables import LABEL, probability_columns
from benchmark.crops.reader import Crops, open_crops
from benchmark.folds.fold import Fold, WellKey, rows_of
from benchmark.folds.inner import inner_folds, inner_groups
from benchmark.folds.trunks import Trunk
from benchmark.methods.classifiers.labels import Permuted, label_frequencies, with_labels
from benchmark.methods.kinds.finetuned import FinetunedMethod
from benchmark.methods.workers.embeddings import embedding_path, write_units
from benchmark.methods.workers.runs import measured, write_fold
from benchmark.methods.workers.units import bags_of, empty_keys, field_of, unit_keys, units_of_wells
from benchmark.networks.device import device_name, gpu_peak, resolve_device
from benchmark.networks.embed import field_embeddings, headless
from benchmark.networks.feed.activations import Activations, open_activations
from benchmark.networks.feed.bags import Bags
from benchmark.networks.feed.feeding import Source, place
from benchmark.networks.feed.held import Held, hold
from benchmark.networks.feed.source import CropSource
from benchmark.networks.predict import predict
from benchmark.networks.training.checkpoint import Checkpoint
from benchmark.networks.training.inputs import Examples, Recipe, Session
from benchmark.networks.training.shared import own_phase, trunk_phase
from benchmark.networks.training.train import Trained, fine_tune

#: About one in this many training compounds is held out where training may stop early.
INNER_FOLDS = 5


@dataclass(frozen=True)
class SharedTrunk:
    """A training that several folds start from, and the file that holds its end."""

    trunk: Trunk
    path: Path


@dataclass(frozen=True)
class FinetunedFold:
    """One fold of a fine-tuned network, as a worker gets it.

    ``crops`` is the cache's file, ``key`` what it must hold (`benchmark.crops`); ``activations`` the same of what is
    used instead of crops (`benchmark.networks.feed.activations`); ``trunk`` what its training starts from;
    ``controls`` the crops of negative controls, where there are any and embeddings are asked for; ``home`` the module
    that registers the network's architecture, which the worker imports.
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
    activations: tuple[Path, str] | None = None
    trunk: SharedTrunk | None = None
    controls: tuple[Path, str] | None = None
    home: str = ""


@dataclass(frozen=True)
class TrainedFold:
    """A network trained on a fold's training crops, and all that it takes to predict with it.

    Attributes
    ----------
    crops : Crops
        All crops of the assay, ``source`` where what the network is given of them is read from.
    fields : DataFrame
        The assay's field table with the labels that were learnt.
    labels : list of str
        In the order of the network's scores.
    train : ndarray
        Numbers of the training crops; of bags where ``source`` gives these.
    """

    trained: Trained
    crops: Crops
    source: Source
    fields: pd.DataFrame
    labels: list[str]
    train: np.ndarray
    device: torch.device


def run_finetuned_fold(task: FinetunedFold) -> str:
    """Fine-tune on the fold's training crops, predict its test crops, write the prediction file.

    Wells of the fold's dose series are predicted too. A well without any crop (its tiles were empty, or no cell was
    found in it) gets one row, with the label frequencies of the training compounds; test wells of that kind are
    counted in the facts as ``without_crops``. A fold that was stopped resumes after its last finished epoch.

    Raises
    ------
    MorphobenchError
        The crops cannot be read, none is left to train on, the loss is no longer finite, or training may stop early
        and no compound can be held out for that.
    """
    device = resolve_device(task.device)
    checkpoint = checkpoint_of(task)
    facts: dict[str, Any] = {"fold": task.fold.name, "device": device_name(device)}
    with measured(facts), gpu_peak(device, facts):
        fold = train_fold(task, checkpoint)
        facts["threads"] = torch.get_num_threads()
        test, said = predict_wells(task, fold, task.fold.test)
        response, _ = predict_wells(task, fold, task.fold.response)
        if task.method.embeddings:
            _write_embeddings(task, fold)
    trained = fold.trained
    shared = {} if task.trunk is None else {"trunk": task.trunk.trunk.name}
    for clock, before in zip(("seconds", "cpu_seconds"), trained.before, strict=True):
        facts[clock] = round(facts[clock] + before, 3)  # what a stopped fold cost before counts as well
    facts |= {"losses": trained.losses, "train_accuracies": trained.accuracies, "images": trained.images,
              "train": len(fold.train), "weights": trained.backbone.source,
              "weights_sha256": trained.backbone.sha256, "crops_in": place(fold.source), **shared, **trained.facts,
              **said}
    write_fold(task.out, test, task.fold, facts, response=response if task.fold.response else None)
    checkpoint.remove()
    return task.fold.name


def _write_embeddings(task: FinetunedFold, fold: TrainedFold) -> None:
    """Embeddings of all wells with crops, before the prediction file: where that is, they are there too."""
    # Where activations stand in the crops' place, those of controls are not among them: all pixels are read.
    pixels: CropSource = fold.crops if isinstance(fold.source, Activations | Bags) else fold.source
    crops: list[tuple[Crops, CropSource]] = [(fold.crops, pixels)]
    if task.controls is not None:
        controls = open_crops(*task.controls)
        crops.append((controls, controls))
    units, trained = task.method.embeddings, fold.trained
    fields = field_embeddings(crops, task.assay.fields, headless(trained.backbone), fold.device,
                              bfloat16=trained.bfloat16,
                              crop_file=embedding_path(task.out, "crop") if "crop" in units else None)
    write_units(task.out, fields, units)


def checkpoint_of(task: FinetunedFold) -> Checkpoint:
    """The file with the state of a fold's training while it is not done."""
    return Checkpoint(task.out.with_suffix(".checkpoint"), digest([
        task.key, task.method.model_dump(mode="json"), task.method.revision, asdict(task.fold), task.seed]))


def train_fold(task: FinetunedFold, checkpoint: Checkpoint) -> TrainedFold:
    """Fine-tune on the crops of the fold's training wells; nothing else of the assay is used.

    Where it starts from a trunk that has not been trained yet, the trunk is trained first.

    Raises
    ------
    MorphobenchError
        As `run_finetuned_fold`.
    """
    ready = _ready(task)
    train, targets = _learnt_from(task, ready, task.fold.train)
    training = task.method.training
    phase = None
    if task.trunk is not None:
        seen = units_of_wells(ready.crops, ready.source, ready.fields, task.trunk.trunk.train)
        phase = own_phase(_trunk_end(task, ready), ~np.isin(train, seen))
    held_out = None
    if training.early_stopping:
        held_out = _to_stop_by(ready.fields.loc[field_of(ready.crops, ready.source)[train]], task.seed, _where(task))
    trained = fine_tune(Examples(ready.source, train, targets, len(ready.labels), held_out),
                        Recipe(task.method.network, training, task.seed, phase), Session(ready.device, checkpoint))
    return TrainedFold(trained, ready.crops, ready.source, ready.fields, ready.labels, train, ready.device)


@dataclass(frozen=True)
class _Ready:
    """All that training needs, except the wells."""

    crops: Crops
    source: Source
    fields: pd.DataFrame
    labels: list[str]
    device: torch.device


def _ready(task: FinetunedFold) -> _Ready:
    if task.home:
        import_module(task.home)
    if task.threads:
        torch.set_num_threads(task.threads)
    device = resolve_device(task.device)
    crops = open_crops(task.crops, task.key)
    fields = with_labels(task.assay.fields, task.labels)
    labels = sorted(with_labels(task.assay.treated, task.labels)[LABEL].unique())
    source: Source
    if task.activations is not None:
        stored = open_activations(*task.activations)
        rows = hold(stored, len(crops.field) * stored.views, device, task.activations)
        source = replace(stored, held=rows if isinstance(rows, Held) else None)
    else:
        pixels, network = hold(crops, len(crops.field), device, (str(task.crops), task.key)), task.method.network
        source = Bags(pixels, bags_of(crops, fields, network.bag), network.bag_size) if network.bagged else pixels
    return _Ready(crops, source, fields, labels, device)


def _where(task: FinetunedFold) -> str:
    return f"fold {task.fold.name!r} of {task.method.name}"


def _learnt_from(task: FinetunedFold, ready: _Ready, wells: tuple[WellKey, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of the crops (or bags) of some wells, and their class numbers."""
    train = units_of_wells(ready.crops, ready.source, ready.fields, wells)
    if not len(train):
        raise MorphobenchError("no crop is left to train on", _where(task), "See which tiles crops.* drops.")
    number = {label: i for i, label in enumerate(ready.labels)}
    field = field_of(ready.crops, ready.source)[train]
    return train, ready.fields[LABEL].map(number).to_numpy()[field].astype(np.int64)


def run_trunk(task: FinetunedFold) -> str:
    """Train what several folds share, as one of them would, and write where its training ends."""
    assert task.trunk is not None
    _trunk_end(task, _ready(task))
    return task.trunk.trunk.name


def _trunk_end(task: FinetunedFold, ready: _Ready) -> Mapping[str, Any]:
    """The end of the training of the fold's trunk, which is trained where that is missing."""
    assert task.trunk is not None
    trunk, path = task.trunk.trunk, task.trunk.path
    if not set(trunk.train) <= set(task.fold.train) or task.fold.name not in trunk.folds:
        raise LeakError(f"does not share {trunk.name}, or may not be trained on all that this was", _where(task))
    base = digest([task.key, task.method.model_dump(mode="json"), task.method.revision, asdict(trunk), task.seed,
                   task.labels is not None])
    end = Checkpoint(path, base)
    saved = end.load(ready.device)
    if saved is not None:
        return saved
    facts: dict[str, Any] = {"trunk": trunk.name, "folds": trunk.folds, "device": device_name(ready.device)}
    underway = Checkpoint(path.with_suffix(".checkpoint"), base)
    with measured(facts):
        train, targets = _learnt_from(task, ready, trunk.train)
        recipe = Recipe(task.method.network, task.method.training, task.seed, trunk_phase(task.method.training))
        trained = fine_tune(Examples(ready.source, train, targets, len(ready.labels)), recipe,
                            Session(ready.device, underway))
    write_json(path.with_suffix(".json"), facts | {"images": trained.images, "losses": trained.losses})
    end.save(trained.end)
    underway.remove()
    return trained.end


def _to_stop_by(fields: pd.DataFrame, seed: int, where: str) -> np.ndarray:
    """Which training crops early stopping watches: those of some compounds, whose labels others have too.

    Parameters
    ----------
    fields : DataFrame
        The field of each training crop (or bag); of test wells there is nothing here.

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


def predict_wells(task: FinetunedFold, fold: TrainedFold, wells: tuple[WellKey, ...]
                  ) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Predictions for ``wells``, one row per crop or bag; and facts: wells without crops (one row each), spread."""
    crops, fields, labels, trained = fold.crops, fold.fields, fold.labels, fold.trained
    unit = task.method.network.bag
    rows = units_of_wells(crops, fold.source, fields, wells)
    seen = unit_keys(crops, fold.source, fields, rows, unit)
    p = np.zeros((0, len(labels)))
    facts: dict[str, Any] = {}
    if len(rows):
        predicted = predict(trained.backbone, trained.snapshots, fold.source, rows, fold.device, task.method.training,
                        trained.bfloat16, task.seed)
        p = predicted.p
        if predicted.spread is not None:
            facts = {"spread": round(predicted.spread, 6), "passes": predicted.passes}
    empty = empty_keys(fields, wells, seen, unit)
    flat = label_frequencies(fields[rows_of(fields, task.fold.train)], labels, len(empty))
    predictions = pd.concat([seen, empty], ignore_index=True).assign(
        unit=unit, method=task.method.name, fold=task.fold.name, seed=task.seed)
    predictions[probability_columns(labels)] = np.concatenate([p, flat])
    return predictions, {"without_crops": len(empty), **facts}

