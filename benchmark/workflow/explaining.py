"""The stage that explains one fold of a fine-tuned network, after all networks have run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmark.base.errors import LeakError, MorphobenchError
from benchmark.base.files import digest, read_json, sha256_file
from benchmark.base.tables import (
    COMPOUND,
    CONCENTRATION,
    FIELD_COLUMNS,
    FIELD_KEY,
    LABEL,
    PLATE,
    SITE,
    WELL,
    probability_columns,
)
from benchmark.base.tasks import run_serially
from benchmark.crops.reader import Crops
from benchmark.explain.fold import ChosenCrops, choose_crops, explain_fold, plain_probabilities
from benchmark.explain.record import RECORD, Explanation, read_explanation, write_explanation
from benchmark.explain.record import REVISION as FILES
from benchmark.explain.regions import cut_regions
from benchmark.explain.settings import ExplainSettings
from benchmark.folds.fold import Fold, Split, rows_of
from benchmark.images.reading import read_field, read_plane
from benchmark.methods.context import FinishedRun
from benchmark.methods.workers.finetuned import FinetunedFold, TrainedFold, checkpoint_of, predict_wells, train_fold
from benchmark.methods.workers.units import units_of_wells
from benchmark.networks.device import resolve_device
from benchmark.networks.training.start import start_of
from benchmark.networks.weights.weights import Backbone, load_backbone
from benchmark.workflow.context import StudyContext
from benchmark.workflow.measured import object_roles_of
from benchmark.workflow.study import Study

#: Raised where code changes what is explained, or how.
REVISION = 1


@dataclass(frozen=True)
class Explained:
    """A fold that has been explained: what is kept of it, where, and the method's title for readers."""

    explanation: Explanation
    folder: Path
    title: str


def explained_fold(study: Study, split: Split) -> Fold | None:
    """The fold that the study asks to explain; None where it asks for none.

    Raises
    ------
    MorphobenchError
        There is no such fold.
    """
    if study.explain is None:
        return None
    folds = {fold.name: fold for fold in split.folds}
    name = study.explain.fold or next(iter(folds))
    if name not in folds:
        raise MorphobenchError(f"there is no fold {name!r}", "explain.fold", f"There are {', '.join(folds)}.")
    return folds[name]


def explain(context: StudyContext, finished: Sequence[FinishedRun]) -> Explained | None:
    """Explain the fold that the study names, once; None where it names none.

    The fold is trained again as its run trained it. CellProfiler is not started: regions are looked at where it has
    measured already, and when it has since, the fold is explained anew.

    Parameters
    ----------
    finished : sequence of FinishedRun
        Among them that of ``explain.method``.

    Raises
    ------
    MorphobenchError
        There is no such fold; or trained again it predicts other than in the run (`benchmark.methods.explained`).
    """
    settings, fold = context.study.explain, explained_fold(context.study, context.split)
    if settings is None or fold is None:
        return None
    run = next(f for f in finished if f.method.name == settings.method)
    seed = context.seeds[0]
    masks, measured = _masks(context, fold)
    predicted = run.folder.fold_path(fold, seed)
    key = digest([REVISION, FILES, run.folder.path.name, sha256_file(predicted), fold.name, seed,
                  settings.model_dump(mode="json"), measured])
    folder = context.folder / "explained" / key
    context.note("explanation", key)
    if not (folder / RECORD).exists():

        from benchmark.methods.plans.finetuning import remove_trunks

        task = replace(run.method.plan(context, ()).task(run.folder, fold, seed), out=folder)
        with context.stage("explanation", key) as facts:
            for _ in run_serially(explain_finetuned_fold,
                                  [ExplainedFold(task, predicted, settings, masks)],
                                  f"explanation of {run.method.name}, fold {fold.name}"):
                pass
            facts["detail"] = f"{run.method.name}, fold {fold.name}"
        remove_trunks([task])
    return Explained(read_explanation(folder), folder, run.title)


def explained_or_why_not(context: StudyContext, finished: Sequence[FinishedRun]) -> tuple[Explained | None, str]:
    """The same for a report, which does without it where a fold cannot be trained here as it was; and why, in words."""
    try:
        return explain(context, finished), ""
    except LeakError:
        raise
    except MorphobenchError as error:
        return None, f"The report goes without an explanation of the network. {error}"


def _masks(context: StudyContext, fold: Fold) -> tuple[dict[int, tuple[Path, Path]], str]:
    """Masks of nuclei and cells of the fold's test fields where they were measured, and the digest of what measured."""
    measured = context.measured.get("cellprofiler")
    roles = object_roles_of(context.study) if measured is not None else None
    if measured is None or roles is None or not (roles.nuclei and roles.cells):
        return {}, ""
    found = {}
    fields = context.assay.fields[rows_of(context.assay.fields, fold.test)]
    for index, row in fields.iterrows():
        nuclei, cells = (measured.mask_path(tuple(row[FIELD_KEY]), name) for name in (roles.nuclei, roles.cells))
        if nuclei is not None and cells is not None:
            found[int(str(index))] = (nuclei, cells)
    return found, str(measured.record["shards_digest"]) if found else ""


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
    crops = ChosenCrops(found.crops, rows[chosen], truth[chosen], titles(found, rows[chosen]), found.labels,
                        found.crops.channels, regions_of(task, found.crops, rows[chosen]))
    explanation = explain_fold(backbone, crops, found.device, task.settings, fold.seed, _before(fold, found))
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
