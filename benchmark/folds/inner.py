"""Folds inside a fold's training wells, by compound."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Sequence

import numpy as np
import pandas as pd

from benchmark.base.errors import LeakError
from benchmark.base.tables import CELL_LINE, COMPOUND, PLATE, WELL


def inner_groups(table: pd.DataFrame) -> pd.Series:
    """What `inner_folds` keeps together: compounds; with a single compound in training, cell lines, else wells."""
    for column in (COMPOUND, CELL_LINE):
        if table[column].nunique() > 1:
            return table[column]
    return table[PLATE] + " " + table[WELL]


def inner_folds(
    compounds: Sequence[str], labels: Sequence[str], folds: int, seed: int
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Folds inside the training wells of a fold, for choosing settings: no compound on both sides.

    Stratified by label as far as compounds allow. There are fewer folds if there are fewer compounds, or if the most
    common label has fewer rows.

    Parameters
    ----------
    compounds : sequence of str
        Group of each row: its compound, or what stands for it (`inner_groups`).

    Returns
    -------
    list of (train, test)
        Row positions, int64. Empty where nothing can be held out.

    Raises
    ------
    LeakError
        A compound is on both sides (asserted, not assumed).
    """
    from sklearn.model_selection import StratifiedGroupKFold

    groups = np.asarray(compounds)
    most_rows = max(Counter(labels).values())  # no more folds than the most common label has rows
    n = min(folds, len(set(compounds)), most_rows)
    if n < 2:
        return []
    splitter = StratifiedGroupKFold(n, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        # A label with fewer compounds than folds is normal here: it is absent from some test parts.
        warnings.filterwarnings("ignore", message="The least populated class", category=UserWarning)
        made = list(splitter.split(np.zeros(len(groups)), np.asarray(labels), groups))
    for train, test in made:
        shared = set(groups[train]) & set(groups[test])
        if shared:
            raise LeakError(f"the compound {sorted(shared)[0]!r} is on both sides of an inner fold")
    return [(train, test) for train, test in made if len(test)]
