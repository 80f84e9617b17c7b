"""What the page says of methods whose folds share trainings: what that saved, and its cost against exact folds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from benchmark.evaluation.comparison import Comparison, Run
from benchmark.report.words import interval, p_equals, percent, points, turned


def sharing_notes(runs: Sequence[Run], comparison: Comparison) -> tuple[str, ...]:
    """A paragraph for each run whose folds shared trainings.

    The gap is measured where the study also has the same method with exact folds; otherwise the text states that it
    was not measured.
    """
    exact = {_rest(run): run for run in runs if "shared" not in run.record}
    return tuple(_note(run, exact.get(_rest(run)), comparison) for run in runs if "shared" in run.record)


def _rest(run: Run) -> str:
    """Everything about a method except its name and how its folds are trained."""
    method = dict(run.record.get("method", {}))
    training = {k: v for k, v in dict(method.get("training", {})).items() if k != "folds"}
    return repr(sorted({**{k: v for k, v in method.items() if k not in ("name", "title")},
                        "training": sorted(training.items(), key=str)}.items(), key=str))


def _note(run: Run, exact: Run | None, comparison: Comparison) -> str:
    cost: Mapping[str, Any] = run.record["shared"]
    title = comparison.titles[run.name]
    said = (f"{title}: its folds start from {cost['trunks']} shared trainings, none of which saw a compound that its "
            f"folds hold out, and showed the network {percent(cost['image_share'])} of the crops that exact folds "
            "would.")
    if exact is None:
        return (f"{said} How far it is from exact folds was not measured here: add the same method without folds: "
                "shared.")
    return f"{said} {_gap(run.name, exact.name, comparison)}"


def _gap(shared: str, exact: str, comparison: Comparison) -> str:
    """The difference from exact folds, in words."""
    units = []
    for unit in dict.fromkeys(comparison.accuracy["unit"]):
        rows = [comparison.score(name, unit) for name in (shared, exact)]
        if rows[0] is not None and rows[1] is not None:
            units.append(_both(rows[0], rows[1], unit))
    said = f"Beside the same method with exact folds ({comparison.titles[exact]}): {'; '.join(units)}."
    pair = comparison.pair(shared, exact)
    if pair is None:  # a permuted-label run is tested against nothing
        return said
    sign, low, high = turned(pair, shared, ("cluster_low", "cluster_high"))
    return (f"{said} By {comparison.unit} the difference is {points(sign * pair['difference'])} points (compounds "
            f"resampled: {interval(low, high)}; exact McNemar test, {p_equals(pair['p'])}).")


def _both(shared: pd.Series, exact: pd.Series, unit: str) -> str:
    return f"{shared['correct']} rather than {exact['correct']} of {shared['n']} {unit}s right"
