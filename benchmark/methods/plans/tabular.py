"""How the folds of a method on a table of features run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from benchmark.base.errors import MorphobenchError
from benchmark.folds.fold import Fold
from benchmark.methods.base import Method, TabularMethod, keyed
from benchmark.methods.context import Context, Features, Plan
from benchmark.methods.workers.runs import FoldFacts, RunFolder

if TYPE_CHECKING:
    from benchmark.methods.workers.tabular import TabularFold


def tabular_plan(method: TabularMethod, context: Context, features: Features) -> Plan:
    """How the folds of a tabular method run on its features.

    Raises
    ------
    MorphobenchError
        The nearest treatment is to decide, and wells are what is scored.
    """
    if method.decides == "nearest":
        refuse_nearest_wells(context, method)

    def task(run: RunFolder, fold: Fold, seed: int) -> TabularFold:
        from benchmark.methods.workers.tabular import TabularFold

        return TabularFold(features.source, features.absent, features.unit, method.name, fold, seed,
                           method.classifier, method.decides, method.permuted(context, seed),
                           tuple(context.assay.labels), features.selected, run.fold_path(fold, seed))

    return Plan(keyed(method, context, features.inputs), tabular_worker, task, features.facts,
                summarise=tabular_facts)


def tabular_worker() -> Callable[[TabularFold], str]:
    """What runs a fold; scikit-learn is loaded with it."""
    from benchmark.methods.workers.tabular import run_tabular_fold

    return run_tabular_fold


def refuse_nearest_wells(context: Context, method: Method) -> None:
    """MorphobenchError where controls are scored: well by well, while the nearest treatment decides on treatments."""
    if context.assay.scoring == "controls":
        raise MorphobenchError("controls are scored here, well by well, and the nearest treatment decides on "
                               "treatments", f"method {method.name}, decision: nearest",
                               "Set decision to classifier.")


def tabular_facts(run: RunFolder, folds: Sequence[FoldFacts]) -> dict[str, Any]:
    """What the record of a tabular method says of its folds."""
    from benchmark.methods.classifiers.classifier import summarise_choices
    from benchmark.methods.workers.featurefacts import feature_ranges

    first = folds[0].more
    correction = {"correction": first["correction"]} if first.get("correction") else {}
    return correction | {
        # In the fold with most of them; folds that an earlier version ran did not note it.
        "train_without_features": max(f.more.get("train_without_features", 0) for f in folds),
        "choices": summarise_choices([f.more["chosen"] for f in folds]),
        "features": feature_ranges(f.more.get("features") for f in folds),
        "without_features": sum(f.more["without_features"] for f in folds),
        "predicts": first.get("predicts", ""),
    }
