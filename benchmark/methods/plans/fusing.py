"""How a fusion runs: the parts inside the training wells of its folds first, then its own folds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmark.folds.fold import Fold
from benchmark.methods.base import keyed
from benchmark.methods.context import Plan
from benchmark.methods.plans.tabular import tabular_facts
from benchmark.methods.versions import PROFILES
from benchmark.methods.workers.runs import FoldFacts, RunFolder

if TYPE_CHECKING:
    from benchmark.methods.context import Context, FinishedRun
    from benchmark.methods.kinds.fusion import FusionMethod
    from benchmark.methods.workers.fusion import FeatureBlock, FusionFold, Predictions


def fusion_plan(method: FusionMethod, context: Context, parts: Sequence[FinishedRun]) -> Plan:
    """How a fusion's folds run; for a stacked one, the parts inside the training wells of missing folds run before."""
    inputs = {"parts": {part.method.name: part.folder.path.name for part in parts}, "classical": PROFILES}
    stacked = method.how == "stacked"
    blocks: list[Callable[[Fold, int], FeatureBlock]] = []

    def before(run: RunFolder, missing: Sequence[tuple[Fold, int]]) -> None:
        if not missing:
            return
        if not stacked:
            blocks.extend(part.method.feature_blocks(context, part) for part in parts)
            return
        with context.stage(f"inner folds of {method.name}", run.path.name) as facts:
            counts = [_fit_inside(context, method, part, missing) for part in parts]
            facts["detail"] = f"{sum(counts)} fits inside the training wells of {len(missing)} folds"

    def task(run: RunFolder, fold: Fold, seed: int) -> FusionFold:
        from benchmark.methods.workers.fusion import FusionFold

        fused: Any = (tuple(_predictions(context, method, part, fold, seed) for part in parts) if stacked
                      else tuple(block(fold, seed) for block in blocks))
        inner = tuple(f for f, _ in _inner(context, method, parts[0], fold, seed)) if stacked else ()
        return FusionFold(fused, context.assay.wells, method.name, fold, seed, method.classifier,
                          method.permuted(context, seed), tuple(context.assay.labels), run.fold_path(fold, seed),
                          context.by_well, inner)

    return Plan(keyed(method, context, inputs), fusion_worker, task, before=before, summarise=fusion_facts)


def fusion_worker() -> Callable[[FusionFold], str]:
    """What runs a fold; scikit-learn is loaded with it."""
    from benchmark.methods.workers.fusion import run_fusion_fold

    return run_fusion_fold


def fusion_facts(run: RunFolder, folds: Sequence[FoldFacts]) -> Mapping[str, Any]:
    """What the record of a fusion says of its folds; of a stacked one the range of each part's weight over them,
    of the other how many wells were given a part's mean over training wells, in the fold with most of them."""
    facts = tabular_facts(run, folds)
    weights = [f.more["weights_of_parts"] for f in folds if "weights_of_parts" in f.more]
    if weights:
        facts["weights_of_parts"] = {
            part: f"{min(values):.2f} to {max(values):.2f}" for part in weights[0]
            if (values := [w[part] for w in weights])}
    filled = [f.more["wells_given_the_training_mean"] for f in folds if "wells_given_the_training_mean" in f.more]
    if filled:
        facts["wells_given_the_training_mean"] = {part: max(of.get(part, 0) for of in filled) for part in filled[0]}
    return facts


def _inner(context: Context, method: FusionMethod, part: FinishedRun, fold: Fold, seed: int
           ) -> list[tuple[Fold, Path]]:
    """The inner folds of a fold, and where the part keeps its predictions of each."""
    from benchmark.methods.classifiers.labels import with_labels
    from benchmark.methods.workers.innerfolds import inner_path, inside

    wells = with_labels(context.assay.wells, method.permuted(context, seed))
    return [(inner, inner_path(part.folder, method.inner_folds, fold, seed, i))
            for i, inner in enumerate(inside(wells, fold, method.inner_folds, seed))]


def _predictions(context: Context, method: FusionMethod, part: FinishedRun, fold: Fold, seed: int) -> Predictions:
    from benchmark.methods.workers.fusion import Predictions

    return Predictions(part.method.name, part.folder.fold_path(fold, seed),
                       tuple(path for _, path in _inner(context, method, part, fold, seed)))


def _fit_inside(context: Context, method: FusionMethod, part: FinishedRun, missing: Sequence[tuple[Fold, int]]) -> int:
    """Fit a part in the inner folds that are missing; how many there were.

    Each has a file of its own, so that a stop costs one fit, and networks resume after their last epoch.
    """
    wanted = [(inner, path, seed) for fold, seed in missing
              for inner, path in _inner(context, method, part, fold, seed) if not path.exists()]
    if not wanted:
        return 0
    inside_wells = part.method.inside_training_wells()
    plan = inside_wells.plan(context, ())
    tasks = [replace(plan.task(part.folder, inner, seed), out=path) for inner, path, seed in wanted]
    with plan.around():
        for _ in context.runner(inside_wells)(plan.worker(), tasks,
                                              f"{method.name}: {part.method.name} inside the training wells"):
            pass
    return len(wanted)
