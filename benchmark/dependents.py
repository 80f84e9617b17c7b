"""Methods that rest on runs of other methods of the study: embeddings and fusion."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from benchmark.base.files import write_parquet
from benchmark.base.tables import WELL_KEY
from benchmark.evaluation.aggregate import reduce_to
from benchmark.folds.fold import Fold, rows_of
from benchmark.methods.base import (
    DEPENDENT,
    EmbeddingMethod,
    FinetunedMethod,
    FrozenMethod,
    FusionMethod,
    ProfileMethod,
)
from benchmark.methods.classifiers.labels import with_labels
from benchmark.methods.parts import names_of_parts
from benchmark.methods.workers.embeddings import embeddings_of
from benchmark.methods.workers.foldtable import Source
from benchmark.methods.workers.fusion import Block, FusionFold, Predictions, run_fusion_fold
from benchmark.methods.workers.innerfolds import inner_path, inside
from benchmark.methods.workers.runs import REVISION, open_run
from benchmark.methods.workers.tabular import TabularFold, run_tabular_fold
from benchmark.profiles.wells import without_cells
from benchmark.workflow.opened import Opened
from benchmark.workflow.run import (
    FinishedRun,
    finetuned_tasks,
    finish,
    frozen_source,
    permuted,
    refuse_nearest_wells,
    runner,
    tabular_tasks,
    with_permutation,
)
from benchmark.workflow.tables import PLAIN, classical_features


def run_dependents(opened: Opened, finished: Sequence[FinishedRun]) -> list[FinishedRun]:
    """Run the study's embedding and fusion methods all of whose parts are among ``finished``, in the study's order.

    So `make baseline` runs those of CellProfiler profiles alone, `make cnn` those of networks alone, and
    `make report` all.
    """
    by_name = {run.method.name: run for run in finished}
    done = []
    for method in opened.study.methods:
        if isinstance(method, DEPENDENT) and set(names_of_parts(method)) <= set(by_name):
            parts = [by_name[name] for name in names_of_parts(method)]
            done.append(_run_embedding(opened, method, parts[0]) if isinstance(method, EmbeddingMethod)
                        else _run_fusion(opened, method, parts))
    return done


def _run_embedding(opened: Opened, method: EmbeddingMethod, part: FinishedRun) -> FinishedRun:
    """The classical arm, fold by fold on the embeddings of the same fold's network."""
    refuse_nearest_wells(opened, method.name, method.decision)
    inputs = {"of": part.folder.path.name, "classical": REVISION["profile"]}
    run = open_run(opened.folder, method, opened.split, with_permutation(opened, method, inputs))
    absent = run.path / "absent.parquet"
    if not absent.exists():
        write_parquet(absent, _without_crops(opened, part))

    def task(fold: Fold, seed: int) -> TabularFold:
        source = Source(embeddings_of(part.folder, part.method, fold, seed, "well"), method.profile.whole,
                        embedded=True)
        return TabularFold(source, absent, "well", method.name, fold, seed, method.classifier, method.decision,
                           permuted(opened, method, seed), tuple(opened.assay.labels), True,
                           run.fold_path(fold, seed))

    return finish(opened, method, run, run_tabular_fold, task, {})


def _without_crops(opened: Opened, part: FinishedRun) -> pd.DataFrame:
    """Wells to predict that have no crops, and so no embedding: the same in all folds."""
    path = embeddings_of(part.folder, part.method, opened.split.folds[0], opened.study.seeds[0], "well")
    lacking = without_cells(pd.read_parquet(path, columns=WELL_KEY), opened.assay.predicted, "well")
    wanted = tuple(opened.assay.predicted[WELL_KEY].drop_duplicates().itertuples(index=False, name=None))
    return lacking[rows_of(lacking, wanted)] if len(lacking) else lacking


def _run_fusion(opened: Opened, method: FusionMethod, parts: Sequence[FinishedRun]) -> FinishedRun:
    """A fusion's folds; for a stacked one first the parts inside the training wells of the folds that are missing."""
    inputs = {"parts": {part.method.name: part.folder.path.name for part in parts}, "classical": REVISION["profile"]}
    run = open_run(opened.folder, method, opened.split, with_permutation(opened, method, inputs))
    missing = run.missing(opened.split, opened.study.seeds)
    if missing and method.how == "stacked":
        with opened.stage(f"inner folds of {method.name}", run.path.name) as facts:
            counts = [_fit_inside(opened, method, part, missing) for part in parts]
            facts["detail"] = f"{sum(counts)} fits inside the training wells of {len(missing)} folds"
    blocks = [_block(opened, part) for part in parts] if missing and method.how == "concatenated" else []

    def task(fold: Fold, seed: int) -> FusionFold:
        fused: Any = (tuple(block(fold, seed) for block in blocks) if method.how == "concatenated"
                      else tuple(_predictions(opened, method, part, fold, seed) for part in parts))
        inner = tuple(f for f, _ in _inner(opened, method, parts[0], fold, seed)) if method.how == "stacked" else ()
        return FusionFold(fused, opened.assay.wells, method.name, fold, seed, method.classifier,
                          permuted(opened, method, seed), tuple(opened.assay.labels), run.fold_path(fold, seed),
                          reduce_to, inner)

    return finish(opened, method, run, run_fusion_fold, task, {})


def _inner(opened: Opened, method: FusionMethod, part: FinishedRun, fold: Fold, seed: int) -> list[tuple[Fold, Path]]:
    """The inner folds of a fold, and where the part keeps its predictions of each."""
    wells = with_labels(opened.assay.wells, permuted(opened, method, seed))
    return [(inner, inner_path(part.folder, method.inner_folds, fold, seed, i))
            for i, inner in enumerate(inside(wells, fold, method.inner_folds, seed))]


def _predictions(opened: Opened, method: FusionMethod, part: FinishedRun, fold: Fold, seed: int) -> Predictions:
    return Predictions(part.method.name, part.folder.fold_path(fold, seed),
                       tuple(path for _, path in _inner(opened, method, part, fold, seed)))


def _fit_inside(opened: Opened, method: FusionMethod, part: FinishedRun, missing: Sequence[tuple[Fold, int]]) -> int:
    """Fit a part in the inner folds that are missing; how many there were.

    Each has a file of its own, so that what is stopped costs one fit, and networks go on from their last epoch.
    """
    wanted = [(inner, path, seed) for fold, seed in missing
              for inner, path in _inner(opened, method, part, fold, seed) if not path.exists()]
    if not wanted:
        return 0
    label = f"{method.name}: {part.method.name} inside the training wells"
    if isinstance(part.method, FinetunedMethod):
        from benchmark.methods.workers.finetuned import run_finetuned_fold
        from benchmark.networks.feed.held import held_crops
        from benchmark.workflow.finetuning import prepare_finetuning

        # Trained each on its own: what folds of the study share has seen what inner folds hold out.
        training = part.method.training.model_copy(update={"folds": "exact"})
        plain = part.method.model_copy(update={"embeddings": (), "training": training})
        train = finetuned_tasks(prepare_finetuning(opened, plain), part.folder)
        tasks = [replace(train(inner, seed), out=path) for inner, path, seed in wanted]
        with held_crops():
            for _ in runner(opened, plain)(run_finetuned_fold, tasks, label):
                pass
        return len(wanted)
    assert isinstance(part.method, ProfileMethod | FrozenMethod)  # a study is refused else
    found = (frozen_source(opened, part.method) if isinstance(part.method, FrozenMethod)
             else classical_features(opened, part.method))
    fold_task = tabular_tasks(opened, part.method, part.folder, found)
    for _ in opened.run_tasks(run_tabular_fold, [replace(fold_task(inner, seed), out=path)
                                                 for inner, path, seed in wanted], label):
        pass
    return len(wanted)


def _block(opened: Opened, part: FinishedRun) -> Callable[[Fold, int], Block]:
    """Where a fold finds a part's features of wells: those of its own network where there is one a fold."""
    method = part.method
    if isinstance(method, ProfileMethod):
        source = replace(classical_features(opened, method).source, profile=method.profile)
        return lambda fold, seed: Block(method.name, source, True)
    if isinstance(method, FrozenMethod):
        frozen = replace(frozen_source(opened, method).source, embedded=True)
        return lambda fold, seed: Block(method.name, frozen, False)
    return lambda fold, seed: Block(
        method.name, Source(embeddings_of(part.folder, method, fold, seed, "well"), PLAIN, embedded=True), False)
