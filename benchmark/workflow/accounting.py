"""What was done to a study's data, from every room that left anything out: for the log, the terminal and the page."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from benchmark.assays.places import several
from benchmark.base.account import Loss, Things
from benchmark.base.errors import Fault
from benchmark.base.tables import CELL_LINE, COMPOUND, CONTROL, FIELD_KEY, PLATE, TREATMENT_KEY, WELL_KEY
from benchmark.base.tasks import said
from benchmark.base.telling import kind_of, told
from benchmark.folds.fold import Split, rows_of
from benchmark.methods.context import FinishedRun
from benchmark.methods.workers.runs import fold_facts
from benchmark.profiles.wells import feature_columns
from benchmark.workflow.context import StudyContext
from benchmark.workflow.measured import measured_losses, measured_notes

if TYPE_CHECKING:
    from benchmark.assays.fieldtable import Assay
    from benchmark.workflow.grid import Grid

#: Steps of a selection in words that follow "left out: "; a step that is not here drops by a rule of its own.
STEPS = {
    "missing": "too many values are missing or infinite in the training wells",
    "no spread on a plate": "they have no value on a whole plate, as where its controls have no spread",
    "variance": "they hardly vary over the training wells",
    "correlation": "they correlate with another feature",
    "blocklist": "pycytominer's list of noisy features has them",
    "reproducibility": "replicates of a treatment do not agree",
    "correction": "they do not vary over the wells that the correction is fitted on",
}
UNITS: Mapping[str, Things] = {"well": "wells", "field": "fields", "treatment": "treatments"}
#: Steps that drop what is not there, rather than choose among what is.
UNASKED = frozenset({"missing", "no spread on a plate"})


class Teller:
    """Says notes and losses in the log of a call, each once."""

    def __init__(self) -> None:
        self._said: set[str] = set()

    def __call__(self, notes: Sequence[Fault], losses: Sequence[Loss]) -> None:
        """Say those that have not been said."""
        for line in told(notes, losses):
            if line not in self._said:
                self._said.add(line)
                said(line)


def untold(notes: Sequence[Fault], losses: Sequence[Loss]) -> None:
    """Say nothing."""


def losses_of(context: StudyContext, finished: Sequence[FinishedRun] = (), grid: Grid | None = None) -> list[Loss]:
    """Everything that is counted: of the assay, of what was measured, of features in the folds of methods and grid."""
    of_methods = [loss for row in feature_rows(context, finished, grid)
                  for loss in feature_losses(str(row["title"]), row["ranges"])]
    for run in finished:
        of_methods += _guessed(context, run)
    of_pipelines = measured_losses(context.study, context.fields.whole.assay, context.measured)
    return list(dict.fromkeys([*context.assay.losses, *of_pipelines, *joined(of_methods)]))


def joined(losses: Iterable[Loss]) -> list[Loss]:
    """Losses that are the same of several methods, which share their features, as one that names the first of them."""
    places: dict[Loss, list[str]] = {}
    for loss in losses:
        places.setdefault(replace(loss, where=""), []).append(loss.where)
    return [replace(loss, where=several(list(dict.fromkeys(filter(None, where))), ", "))
            for loss, where in places.items()]


def notes_of(context: StudyContext) -> list[Fault]:
    """Everything that was left out, merged or assumed, in words: of the assay, and of what was measured."""
    return [*context.assay.left_out, *measured_notes(context.measured)]


def _guessed(context: StudyContext, run: FinishedRun) -> list[Loss]:
    """What a method has no features of, and what it takes instead."""
    record, losses = run.record, []
    seeds = max(1, len(record.get("seeds", ())))  # the same wells with each
    instead = "they are predicted by how common each label is"
    things = UNITS.get(str(record.get("predicts", "")))
    if things and (n := int(record.get("without_features", 0)) // seeds):
        losses.append(Loss(things, n, max(n, _predicted(context, things)), f"nothing was measured in them; {instead}",
                           run.title))
    if n := int(record.get("without_crops", 0)) // seeds:
        losses.append(Loss("wells", n, max(n, _predicted(context, "wells")), f"no crop could be cut of them; {instead}",
                           run.title))
    total = len(context.assay.wells)
    losses += [Loss("wells", int(count), total, f"{part} has no features of them; they are given its mean over the "
                    "training wells", run.title)
               for part, count in record.get("wells_given_the_training_mean", {}).items() if count]
    return losses


def _predicted(context: StudyContext, things: Things) -> int:
    """How many wells, fields or treatments the study predicts."""
    tested = context.assay.treated[rows_of(context.assay.treated, tuple(context.split.tested))]
    key = {"treatments": TREATMENT_KEY, "wells": WELL_KEY}.get(things, FIELD_KEY)
    return len(tested.drop_duplicates(key))


def feature_losses(title: str, ranges: Mapping[str, Any]) -> list[Loss]:
    """Features that each step of a method's selection dropped, in the fold in which it dropped most.

    Only those that are not there (step ``missing``) were not asked for.

    Parameters
    ----------
    title : str
        The method's.
    ranges : mapping
        As `benchmark.methods.workers.featurefacts.feature_ranges` gives them.
    """
    if "measured" not in ranges:
        return []
    total = int(ranges["measured"][1])
    losses = []
    for step, (least, most) in ranges.get("steps", {}).items():
        if most:
            words = STEPS.get(step, f"step {step} of the selection")
            folds = f" (from {least} to {most} of them, depending on the fold)" if least < most else ""
            losses.append(Loss("features", int(most), total, f"{words}{folds}", title, step not in UNASKED))
    return losses


def feature_rows(context: StudyContext, finished: Sequence[FinishedRun], grid: Grid | None) -> list[dict[str, Any]]:
    """What became of the features of each method and of each table of the grid: ``title, grid, ranges``."""
    rows = []
    for run in finished:
        ranges = _ranges_of(context, run)
        if ranges:
            rows.append({"title": run.title, "grid": False, "ranges": ranges})
    if grid is not None:
        rows += [{"title": f"grid: {of['profile']}, {of['normalise']} ({of['scheme']})", "grid": True,
                  "ranges": of["ranges"]}
                 for of in grid.features if of["ranges"]]
    return rows


def _ranges_of(context: StudyContext, run: FinishedRun) -> dict[str, Any]:
    """The range over folds from a run's record; from its folds where an earlier version recorded that of the first."""
    noted = run.record.get("features")
    if isinstance(noted, Mapping) or noted is None:
        return dict(noted or {})
    from benchmark.methods.workers.featurefacts import feature_ranges

    return feature_ranges(f.more.get("features") for f in fold_facts(run.folder, context.split, context.seeds))


def notes_of_folds(split: Split, assay: Assay) -> list[Fault]:
    """What the folds do not score, besides what the assay says itself."""
    said = {str(fault) for fault in assay.left_out}
    return [Fault(sentence) for sentence in split.left_out if sentence not in said]


def data_facts(context: StudyContext, finished: Sequence[FinishedRun], grid: Grid | None) -> dict[str, Any]:
    """What the page says of the data; see `benchmark.report.data.data_section`."""
    notes: dict[str, list[str]] = {}
    every = notes_of(context)
    for fault in (fault for fault in every if not fault.warns):
        notes.setdefault(kind_of(fault), []).append(str(fault))
    rest = [[str(fault)] for fault in notes_of_folds(context.split, context.assay)]
    return {
        "used": _used(context),
        "losses": losses_of(context, finished, grid),
        "notes": [*notes.values(), *rest],
        "warnings": [str(fault) for fault in every if fault.warns],
        "features": feature_rows(context, finished, grid),
    }


def _used(context: StudyContext) -> list[dict[str, Any]]:
    """What is used of each kind of things, and in words what for."""
    assay = context.assay
    wells = assay.wells
    tested = set(context.split.tested)
    scored = sum(key in tested for key in wells[WELL_KEY].itertuples(index=False, name=None))
    controls = int((wells[CONTROL] == "negative").sum())
    used: list[dict[str, Any]] = []
    if assay.features is not None:
        used.append({"things": "rows", "n": len(assay.features), "words": ""})
        used.append({"things": "features", "n": len(feature_columns(assay.features)),
                     "words": "measured; what each method uses of them is said below"})
    else:
        used.append({"things": "fields", "n": len(assay.fields), "words": ""})
    used.append({"things": "wells", "n": len(wells), "words": f"{scored} scored, {controls} negative controls"})
    used.append({"things": "compounds", "n": int(wells[COMPOUND].nunique()), "words": "controls included"})
    used.append({"things": "plates", "n": int(wells[PLATE].nunique()), "words": ""})
    lines = int(wells[CELL_LINE].nunique()) if CELL_LINE in wells else 0
    if lines > 1:
        used.append({"things": "cell lines", "n": lines, "words": ""})
    for pipeline, measured in context.measured.items():
        cells = measured.record.get("cells") if isinstance(measured.record, Mapping) else None
        if cells is not None and pipeline == "cellprofiler":
            used.append({"things": "cells", "n": int(cells), "words": "measured"})
    return used
