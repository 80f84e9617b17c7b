"""Folds inside a fold's training wells, in which the parts of a fusion predict wells that they were not fitted on."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from benchmark.base.errors import MorphobenchError
from benchmark.base.files import safe_name
from benchmark.base.tables import LABEL, WELL_KEY
from benchmark.folds.fold import Fold, rows_of
from benchmark.folds.inner import inner_folds, inner_groups
from benchmark.methods.workers.runs import RunFolder


def inside(wells: pd.DataFrame, fold: Fold, folds: int, seed: int) -> list[Fold]:
    """The inner folds of a fold: by compound, of its training wells alone, each of which is in one test part.

    They keep compounds apart, and nothing besides: where the scheme leaves out batches too, inner predictions are a
    little better than those of the fold's own test wells.

    Parameters
    ----------
    wells : DataFrame
        One row a well, with the labels that are learnt.
    folds : int
        There are fewer where there are fewer compounds.

    Raises
    ------
    MorphobenchError
        There is nothing to hold out.
    """
    train = wells[rows_of(wells, fold.train)].sort_values(WELL_KEY)
    keys = list(train[WELL_KEY].itertuples(index=False, name=None))
    made = inner_folds(inner_groups(train).tolist(), train[LABEL].tolist(), folds, seed)
    if not made:
        raise MorphobenchError("nothing can be held out inside the training wells to fit a fusion on",
                               f"fold {fold.name!r}", "Use how: concatenated.")
    return [Fold(f"{fold.name}, inner {i + 1}", tuple(keys[j] for j in test), tuple(keys[j] for j in rest))
            for i, (rest, test) in enumerate(made)]


def inner_path(part: RunFolder, folds: int, fold: Fold, seed: int, number: int) -> Path:
    """Where a part keeps its predictions of an inner fold: in its own run, for every fusion that asks for the same."""
    return part.path / f"inner{folds}" / f"seed{seed}-{safe_name(fold.name)}-{number + 1}.parquet"
