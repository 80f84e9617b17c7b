"""What became of the features in a fold: how many were measured, what each step of the selection dropped, what is used.

Each fold notes it beside its predictions, since the selection is fitted on the fold's training wells; a record has the
range over folds.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import pandas as pd

from benchmark.profiles.wells import feature_columns

#: Numbers that a fold notes besides ``steps``.
NUMBERS = ("measured", "used", "imputed", "rows_without_values")


class FittedSelector(Protocol):
    """A fitted `benchmark.profiles.select.ProfileSelector`."""

    columns_: list[str]
    dropped_: dict[str, int]


def feature_facts(table: pd.DataFrame, selector: FittedSelector | None = None) -> dict[str, Any]:
    """Facts of a fold's features.

    Parameters
    ----------
    table : DataFrame
        All rows that the fold reads (training, test, controls), before the selection.
    selector : FittedSelector, optional
        Fitted on the training rows; every feature is used where there is none.

    Returns
    -------
    dict
        ``measured`` and ``used``, numbers of features; ``steps``, how many features each step of the selection
        dropped; ``imputed``, missing or infinite values of used features, which the selector replaces;
        ``rows_without_values``, rows in which no feature has a value.
    """
    measured = feature_columns(table)
    used = measured if selector is None else selector.columns_
    finite = np.isfinite(table[measured].to_numpy(np.float64))
    kept = finite[:, np.isin(measured, used)]
    return {"measured": len(measured), "steps": {} if selector is None else dict(selector.dropped_), "used": len(used),
            "imputed": int((~kept).sum()), "rows_without_values": int((~finite.any(axis=1)).sum()) if measured else 0}


def after_correction(selection: dict[str, Any], correction: Mapping[str, Any]) -> dict[str, Any]:
    """`feature_facts` with the features that a correction leaves out, given its facts."""
    gone = int(correction.get("left_out", 0))
    return selection | {"steps": {**selection["steps"], "correction": gone},
                        "used": selection["used"] - gone} if gone else selection


def side_by_side(parts: Sequence[Mapping[str, Any]], used: int) -> dict[str, Any]:
    """`feature_facts` of several tables of features that are one in a fusion: the sums.

    Parameters
    ----------
    used : int
        Features of the fused table.
    """
    steps = dict.fromkeys(step for part in parts for step in part["steps"])
    return {"measured": sum(part["measured"] for part in parts), "used": used,
            "steps": {step: sum(part["steps"].get(step, 0) for part in parts) for step in steps},
            "imputed": sum(part["imputed"] for part in parts)} if parts else {"used": used}


def feature_ranges(folds: Iterable[Any]) -> dict[str, Any]:
    """The range over folds of what each noted of its features.

    Parameters
    ----------
    folds : iterable
        `feature_facts` of each fold; of folds that ran with an earlier version the number of features, or None.

    Returns
    -------
    dict
        ``[least, most]`` of every number, ``steps`` a mapping of such, without what no fold noted.
    """
    noted = [facts if isinstance(facts, Mapping) else {"used": facts} for facts in folds if facts is not None]
    ranges: dict[str, Any] = {name: _range([of[name] for of in noted if name in of]) for name in NUMBERS}
    steps = [of["steps"] for of in noted if of.get("steps")]
    # A step that some fold did not take dropped nothing there.
    ranges["steps"] = {step: _range([of.get(step, 0) for of in steps]) for step in dict.fromkeys(s for of in steps
                                                                                                 for s in of)}
    return {name: found for name, found in ranges.items() if found}


def _range(values: Sequence[int]) -> list[int]:
    return [min(values), max(values)] if values else []
