"""A fold of a fine-tuned network trained once more, compared with the run's own, and explained on its test crops."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmark.crops.reader import Crops
from benchmark.crops.regions import cut_regions
from benchmark.errors import LeakError, MorphobenchError
from benchmark.explanation import write_explanation
from benchmark.files import read_json
from benchmark.images.reading import read_field, read_plane
from benchmark.methods.finetuned import (
    FinetunedFold,
    TrainedFold,
    checkpoint_of,
    predict_wells,
    train_fold,
)
from benchmark.methods.units import units_of_wells
from benchmark.networks.device import resolve_device
from benchmark.networks.explain import choose_crops, explain_fold, plain_probabilities
from benchmark.networks.explain_settings import ExplainSettings
from benchmark.networks.learn import start_of
from benchmark.networks.weights import Backbone, load_backbone
from benchmark.tables import COMPOUND, CONCENTRATION, FIELD_COLUMNS, LABEL, PLATE, SITE, WELL, probability_columns


@dataclass(frozen=True)
class ExplainedFold:
    """What is to be explained, as a worker gets it.

    Attributes
    ----------
    fold : FinetunedFold
        As the run had it; its ``out`` is the folder to be written.
    predicted : Path
        The run's predictions of this fold.
    masks : mapping
        Row of a field in the field table → label masks of its nuclei and cells; fields without masks are not there.
    """

    fold: FinetunedFold
    predicted: Path
    settings: ExplainSettings
    masks: Mapping[int, tuple[Path, Path]]


def explain_finetuned_fold(task: ExplainedFold) -> str:
    """Train the fold as its run did, refuse a network that predicts otherwise, and write its explanation whole.

    Maps are of test crops alone, and nothing is fitted on them.

    Raises
    ------
    MorphobenchError
        The network is not the run's (see `compare`), or no test well has a crop.
    """
    run = read_json(task.predicted.with_suffix(".json"))
    fold = as_it_ran(task.fold, run)
    checkpoint = checkpoint_of(fold)
    found = train_fold(fold, checkpoint)
    table, _ = predict_wells(fold, found, fold.fold.test)
    rows = units_of_wells(found.crops, found.source, found.fields, fold.fold.test)
    refuse_trained_on(found, rows)
    if not len(rows):
        raise MorphobenchError("no test well has a crop", f"fold {fold.fold.name!r} of {fold.method.name}",
                               "Name another fold in explain.fold.")
    facts = compare(table, pd.read_parquet(task.predicted), found.labels, found.device.type == "cpu", task.predicted)
    backbone = found.trained.backbone
    number = {label: i for i, label in enumerate(found.labels)}
    truth = found.fields.loc[found.crops.field[rows], LABEL].map(number).to_numpy(np.int64)
    p = plain_probabilities(backbone, found.crops, rows, found.device)
    own = table[table["crop"] >= 0][probability_columns(found.labels)].to_numpy().argmax(axis=1)  # in the order of rows
    chosen = choose_crops(truth, p, task.settings, fold.seed)
    explanation = explain_fold(
        backbone, found.crops, rows[chosen], truth[chosen], found.labels, found.crops.channels,
        titles(found, rows[chosen]), found.device, task.settings, fold.seed,
        regions=regions_of(task, found.crops, rows[chosen]), pretrained=_before(fold, found))
    facts |= {"method": fold.method.name, "fold": fold.fold.name, "test_crops": len(rows),
              "same_label": int((p.argmax(axis=1) == own).sum()), "device": run["device"]}
    write_explanation(replace(explanation, facts=explanation.facts | facts), task.fold.out)
    checkpoint.remove()
    return fold.fold.name


def as_it_ran(task: FinetunedFold, run: Mapping[str, Any]) -> FinetunedFold:
    """The fold with what its run found out, measured, or was given by the machine: device, threads, precision.

    Raises
    ------
    MorphobenchError
        The run was on a GPU, and this is none.
    """
    if run["device"] == "cpu":
        # Sums over other numbers of threads differ in their last bits; and what is faster may be another next time.
        training = task.method.training.model_copy(update={"bfloat16": run.get("bfloat16", False)})
        return replace(task, device="cpu", threads=run.get("threads", task.threads),
                       method=task.method.model_copy(update={"training": training}))
    if resolve_device(task.device).type == "cpu":
        raise MorphobenchError(f"was trained on a GPU ({run['device']}), and cannot be trained as it was on a CPU",
                               f"fold {task.fold.name!r} of {task.method.name}",
                               "Explain it where there is a GPU, or take explain: out of the study.")
    return task


def refuse_trained_on(found: TrainedFold, rows: np.ndarray) -> None:
    """LeakError where a crop to be explained is one that was trained on."""
    if np.isin(rows, found.train).any():
        raise LeakError("a crop to be explained was trained on", "the fold that is explained")


def compare(again: pd.DataFrame, before: pd.DataFrame, labels: list[str], exactly: bool, path: Path) -> dict[str, Any]:
    """How the predictions of the network that is explained differ from the run's; facts for its record.

    Parameters
    ----------
    again, before : DataFrame
        Prediction tables.
    exactly : bool
        Whether every bit must be the same, as it is where a CPU repeats itself. A GPU adds up in any order.

    Raises
    ------
    MorphobenchError
        Other crops were predicted, or on a CPU other numbers.
    """
    columns, which = probability_columns(labels), [*FIELD_COLUMNS, "crop"]
    remedy = (f"Delete {path} and run again: then this machine trains the fold twice, by the same code. "
              "Or take explain: out of the study.")
    one, other = (t.reset_index(drop=True) for t in (again, before))
    same = len(one) == len(other) and set(columns) <= set(other) and one[which].astype(str).equals(
        other[which].astype(str))
    if not same:
        raise MorphobenchError("holds predictions of other crops than the same fold trained again gives", str(path),
                               remedy)
    largest = float(np.abs(one[columns].to_numpy() - other[columns].to_numpy()).max(initial=0.0))
    if exactly and not np.array_equal(one[columns].to_numpy(), other[columns].to_numpy()):
        raise MorphobenchError("holds other predictions than the same fold trained again (probabilities differ by up "
                               f"to {largest:.3g}), so that maps would explain another network than the one that is "
                               "scored: another version of a package, or another processor", str(path), remedy)
    return {"exactly": exactly, "largest_difference": largest}


def titles(found: TrainedFold, rows: np.ndarray) -> list[str]:
    """Each crop in words: where it lies and what was given."""
    table = found.fields.loc[found.crops.field[rows]]
    return [f"{r[PLATE]}, {r[WELL]}, site {r[SITE]}: {r[COMPOUND]} {r[CONCENTRATION]:g} µM"
            for _, r in table.iterrows()]


def regions_of(task: ExplainedFold, crops: Crops, rows: np.ndarray) -> np.ndarray | None:
    """Regions of the crops by their fields' masks; None unless all have masks of their field's size."""
    found = np.empty((len(rows), *crops.shape[1:]), np.uint8)
    boxes, masked = crops.boxes(rows), task.fold.method.crops.mask
    assay = task.fold.assay
    for i, row in enumerate(rows):
        field = int(crops.field[row])
        if field not in task.masks:
            return None
        nuclei, cells = (read_plane(path, 0) for path in task.masks[field])
        if cells.shape != read_field(assay, assay.fields.iloc[field]).shape[1:]:
            return None  # the pipeline enlarges or cuts its images: crops lie elsewhere in them
        own = crops.crop[row : row + 1] if masked else None
        found[i] = cut_regions(nuclei, cells, boxes[i : i + 1], crops.shape[1], own)[0]
    return found


def _before(task: FinetunedFold, found: TrainedFold) -> Backbone | None:
    """The network before fine-tuning; None where that was random."""
    start = start_of(task.method.network, task.method.training)
    if start.scratch:
        return None
    return load_backbone(start, found.crops.shape[0], len(found.labels), task.seed)
