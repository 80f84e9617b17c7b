"""The stages behind `make baseline` and `make cnn`: every method's folds, and the record of its run."""

from __future__ import annotations

import platform
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from benchmark.base.cluster import available_cores
from benchmark.base.errors import MorphobenchError
from benchmark.base.files import read_json, write_json
from benchmark.base.tables import FIELD_KEY
from benchmark.base.tasks import RunTasks, run_serially
from benchmark.folds.fold import Fold
from benchmark.methods.base import (
    CLASSICAL,
    CNN,
    DEPENDENT,
    BaselineMethod,
    CellCountMethod,
    EmbeddingMethod,
    FinetunedMethod,
    FrozenMethod,
    FusionMethod,
    MethodSettings,
    ProfileMethod,
    transductive,
)
from benchmark.methods.classifiers.classifier import summarise_choices
from benchmark.methods.classifiers.labels import Permuted, permute_labels, permute_wells
from benchmark.methods.parts import parts_of
from benchmark.methods.registry import summary
from benchmark.methods.workers.foldtable import Source
from benchmark.methods.workers.runs import RunFolder, fold_facts, joined_versions, open_run
from benchmark.methods.workers.tabular import TabularFold, run_tabular_fold
from benchmark.workflow.crops import crops_of, network_features
from benchmark.workflow.finetuning import write_frozen_embeddings
from benchmark.workflow.measured import pixels_seen
from benchmark.workflow.opened import Opened
from benchmark.workflow.tables import PLAIN, Features, classical_features

ROLES = {"cell_count": "count", "baseline": "baseline", "profile": "classical", "cnn_frozen": "frozen",
         "cnn_finetuned": "finetuned", "embedding": "embedding", "fusion": "fusion"}


if TYPE_CHECKING:
    from benchmark.methods.workers.finetuned import FinetunedFold
    from benchmark.workflow.finetuning import Finetuning

#: Methods that one classifier (or the nearest treatment) decides for, on a table of features.
Tabular = CellCountMethod | BaselineMethod | ProfileMethod | FrozenMethod


@dataclass(frozen=True)
class FinishedRun:
    """A method whose folds are all there."""

    method: MethodSettings
    folder: RunFolder
    record: dict[str, Any]

    @property
    def title(self) -> str:
        """For readers, from the study as it is now: a run's key and record do not hang on it."""
        return self.method.title or self.method.name


def run_baseline(opened: Opened) -> list[FinishedRun]:
    """CellProfiler over the assay, then every classical method of the study."""
    done = []
    for method in opened.study.methods:
        if isinstance(method, CLASSICAL):
            done.append(_run_tabular(opened, method, classical_features(opened, method)))
    return done


def run_cnn(opened: Opened) -> list[FinishedRun]:
    """Crops, then every method of the study that uses a network."""
    done = []
    for method in opened.study.methods:
        if isinstance(method, FrozenMethod):
            found = frozen_source(opened, method)
            run = _run_tabular(opened, method, found)
            if method.embeddings:
                write_frozen_embeddings(opened, method, run.folder, found.source.table)
            done.append(run)
        elif isinstance(method, FinetunedMethod):
            done.append(_run_finetuned(opened, method))
    return done


def permuted(opened: Opened, method: MethodSettings, seed: int) -> Permuted | None:
    """Labels of a control, the same in all folds; over wells where a compound carries several labels."""
    if method.labels == "true":
        return None
    permute = permute_wells if opened.assay.scoring == "controls" else permute_labels
    return permute(opened.assay.treated, seed)


def with_permutation(opened: Opened, method: MethodSettings, inputs: dict[str, Any]) -> dict[str, Any]:
    """``inputs`` of a run's key, with how its labels were permuted where they were."""
    if method.labels == "true":
        return inputs
    return inputs | {"permuted": "wells of each compound" if opened.assay.scoring == "controls" else "typical"}


def _run_tabular(opened: Opened, method: Tabular, found: Features) -> FinishedRun:
    """Run the folds of a method on a feature table; its facts go into the run's record."""
    run = open_run(opened.folder, method, opened.split, with_permutation(opened, method, found.inputs))
    if isinstance(method, ProfileMethod):
        refuse_nearest_wells(opened, method.name, method.decision)
    return finish(opened, method, run, run_tabular_fold, tabular_tasks(opened, method, run, found), found.facts)


def refuse_nearest_wells(opened: Opened, name: str, decision: str) -> None:
    """MorphobenchError where the nearest treatment is to decide and wells are what is scored."""
    if decision == "nearest" and opened.assay.scoring == "controls":
        raise MorphobenchError("controls are scored here, well by well, and the nearest treatment decides on "
                               "treatments", f"method {name}, decision: nearest", "Set decision to classifier.")


def tabular_tasks(opened: Opened, method: Tabular, run: RunFolder, found: Features
                  ) -> Callable[[Fold, int], TabularFold]:
    """What makes the task of a fold and seed."""
    decision = method.decision if isinstance(method, ProfileMethod) else "classifier"
    source = found.source
    if isinstance(method, ProfileMethod):  # selection and correction are the method's own
        source = replace(source, profile=method.profile)

    def task(fold: Fold, seed: int) -> TabularFold:
        return TabularFold(source, found.absent, found.unit, method.name, fold, seed, method.classifier, decision,
                           permuted(opened, method, seed), tuple(opened.assay.labels), found.selected,
                           run.fold_path(fold, seed))

    return task


def frozen_source(opened: Opened, method: FrozenMethod) -> Features:
    """Features of the fields by a frozen network."""
    table, absent, inputs, facts = network_features(opened, method)
    return Features(Source(table, PLAIN), absent, "field", inputs, facts, False)


def _run_finetuned(opened: Opened, method: FinetunedMethod) -> FinishedRun:
    from benchmark.methods.workers.finetuned import run_finetuned_fold
    from benchmark.networks.feed.held import held_crops
    from benchmark.workflow.finetuning import prepare_finetuning, remove_trunks, train_trunks

    ready = prepare_finetuning(opened, method)
    run = open_run(opened.folder, method, opened.split, with_permutation(opened, method, ready.inputs))
    task = finetuned_tasks(ready, run)
    tasks = [task(fold, seed) for fold, seed in run.missing(opened.split, opened.study.seeds)]
    with held_crops():  # folds that run in this process share their crops
        train_trunks(tasks, runner(opened, method))
        done = finish(opened, method, run, run_finetuned_fold, task, {})
    remove_trunks(tasks)
    return done


def finetuned_tasks(ready: Finetuning, run: RunFolder) -> Callable[[Fold, int], FinetunedFold]:
    """What makes the task of a fold and seed."""
    opened, method = ready.opened, ready.method
    controls = None
    if method.embeddings and len(opened.assay.unscored_controls):
        controls = crops_of(opened, method, controls=True)

    def task(fold: Fold, seed: int) -> FinetunedFold:
        one = ready.task(run, fold, seed, permuted(opened, method, seed), run.fold_path(fold, seed))
        return replace(one, controls=controls)

    return task


def finish(
    opened: Opened,
    method: MethodSettings,
    run: RunFolder,
    function: Callable[[Any], str],
    task: Callable[[Fold, int], Any],
    facts: dict[str, Any],
) -> FinishedRun:
    """Run the folds that are missing, then write the run's record."""
    missing = run.missing(opened.split, opened.study.seeds)
    opened.note(f"method {method.name}", run.path.name)
    if missing:
        with opened.stage(f"method {method.name}", run.path.name) as timed:
            tasks = [task(fold, seed) for fold, seed in missing]
            for _ in runner(opened, method)(function, tasks, f"{method.name}, by fold"):
                pass
            timed["detail"] = f"{len(missing)} folds"
    seeds = list(opened.study.seeds)
    record = read_json(run.record_path) if run.record_path.exists() else None
    now = _description(opened, method)
    if missing or record is None or record["seeds"] != seeds:
        record = _record(opened, method, run) | facts
        write_json(run.record_path, record)
    elif record != record | now:
        record |= now  # what ran it, and when, stays as it was
        write_json(run.record_path, record)
    return FinishedRun(method, run, record)


def _description(opened: Opened, method: MethodSettings) -> dict[str, Any]:
    """What a record says of a method in words, and of its data: no prediction hangs on it, and it may change."""
    return {
        "role": _role(method),
        "control": method.labels == "permuted",
        "transductive": [*_transductive(opened, method), *_left_out(opened)],
        "data_lock": opened.lock_hash,
        "summary": summary(method, opened.assay.scoring == "controls", bool(opened.assay.channels)),
    }


def _transductive(opened: Opened, method: MethodSettings) -> list[str]:
    """What a method, and those it rests on, estimate from test wells without their labels; each said once."""
    parts = parts_of(opened.study.methods, method) if isinstance(method, DEPENDENT) else []
    said = [text for part in parts for text in _transductive(opened, part)]
    return list(dict.fromkeys([*said, *transductive(method, _corrected(opened, method))]))


def _left_out(opened: Opened) -> list[str]:
    """What quality control compared test fields with, where it left any out; it looked at no label."""
    if opened.study.quality.flagged != "leave_out" or opened.quality.empty:
        return []
    n = len(opened.quality.drop_duplicates(FIELD_KEY))
    return [f"{n} fields left out by quality control, each compared with its plate and the other wells of its "
            "treatment"]


def _role(method: MethodSettings) -> str:
    """Kind of contestant: a read-out of a few chosen features is not what "CellProfiler profiles" stands for."""
    if isinstance(method, ProfileMethod) and method.profile.features:
        return "other"
    return ROLES[method.kind]


def _corrected(opened: Opened, method: MethodSettings) -> str | None:
    """What the study's illumination correction estimated, where the method's pixels went through it."""
    if isinstance(method, BaselineMethod | EmbeddingMethod | FusionMethod):  # of the last two their parts say it
        return None
    source = method.profile.source if isinstance(method, ProfileMethod) else "cells"
    # Cell crops are cut where CellProfiler found nuclei in what it was given.
    if isinstance(method, CNN) and method.crops.kind == "tiles" and not method.crops.uses_illumination:
        return None
    crops_see = isinstance(method, CNN) and method.crops.uses_illumination and bool(opened.assay.channels)
    return opened.study.illumination.transductive if crops_see else pixels_seen(opened, source)


def runner(opened: Opened, method: MethodSettings) -> RunTasks:
    """What runs folds: they share one GPU, one after the other; tabular methods stay on the CPU."""
    if not isinstance(method, FinetunedMethod):
        return opened.run_tasks
    from benchmark.networks.device import resolve_device

    return run_serially if resolve_device(opened.device).type == "cuda" else opened.run_tasks


def _record(opened: Opened, method: MethodSettings, run: RunFolder) -> dict[str, Any]:
    """The run's record: configuration, hashes, versions, what ran it and what it cost."""
    folds = fold_facts(run, opened.split, opened.study.seeds)
    record: dict[str, Any] = {
        **run.config,
        "name": method.name,
        **_description(opened, method),
        "seeds": list(opened.study.seeds),
        "folds": len(opened.split.folds),
        "seconds": round(sum(f["seconds"] for f in folds), 2),
        "peak_mib": max(f["peak_mib"] for f in folds),
        "device": ", ".join(sorted({f["device"] for f in folds})),
        "machine": f"{platform.system()} {platform.machine()}, {available_cores()} cores",
        "versions": joined_versions(folds),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "run": run.path.name,
    }
    if folds[0].get("correction"):
        record["correction"] = folds[0]["correction"]
    if "chosen" in folds[0]:
        record["choices"] = summarise_choices([f["chosen"] for f in folds])
        record["features"] = folds[0]["features"]
        record["without_features"] = sum(f["without_features"] for f in folds)
    if "weights_of_parts" in folds[0]:
        record["weights_of_parts"] = {
            part: f"{min(found):.2f} to {max(found):.2f}" for part in folds[0]["weights_of_parts"]
            if (found := [f["weights_of_parts"][part] for f in folds])}
    if "weights" in folds[0]:
        record["weights"], record["weights_sha256"] = folds[0]["weights"], folds[0]["weights_sha256"]
        record["without_crops"] = sum(f["without_crops"] for f in folds)
        record["final_losses"] = [round(f["losses"][-1], 4) for f in folds]
    if "trunk" in folds[0] and isinstance(method, FinetunedMethod):
        from benchmark.workflow.finetuning import shared_cost

        record["shared"] = shared_cost(run, folds, method.training.epochs)
        record["seconds"] = round(record["seconds"] + record["shared"]["seconds"], 2)
    return record
