"""Labels permuted: the control that shows a leak."""

from __future__ import annotations

from collections.abc import Hashable, Mapping

import numpy as np
import pandas as pd

from benchmark.errors import MorphobenchError
from benchmark.tables import COMPOUND, LABEL, WELL_KEY

DRAWS = 200
#: Compound, or (plate, well), to its permuted label.
Permuted = Mapping[Hashable, str]


def permute_labels(table: pd.DataFrame, seed: int) -> Permuted:
    """A permutation of labels over the compounds of a table, keeping how many compounds each label has.

    Drawn so that as few compounds as possible keep their own label (the best of 200 draws), since those that
    do would score above chance honestly.

    Returns
    -------
    dict of str to str
        Compound to its permuted label.
    """
    pairs = table.drop_duplicates(COMPOUND).sort_values(COMPOUND)
    compounds, labels = pairs[COMPOUND].tolist(), pairs[LABEL].to_numpy()
    if len(set(labels)) < 2:
        raise MorphobenchError("labels cannot be permuted: there is one only")
    rng = np.random.default_rng(seed)
    draws = [rng.permutation(labels) for _ in range(DRAWS)]
    best = min(draws, key=lambda d: int((d == labels).sum()))
    return dict(zip(compounds, best.tolist(), strict=True))


def permute_wells(table: pd.DataFrame, seed: int) -> Permuted:
    """A permutation of labels over the training wells of a fold, where a compound carries several labels.

    Test wells keep their own: whoever learns permuted labels must guess them. Of 200 draws the one whose labels
    are the least associated with the true ones is taken (Pearson's chi-square over the table of both): with a
    dozen wells and a plain phenotype, a draw that keeps or swaps most labels would score near 100 % or 0 %.

    Parameters
    ----------
    table : DataFrame
        Training rows of one fold.

    Returns
    -------
    dict of (plate, well) to str
    """
    wells = table.drop_duplicates(WELL_KEY).sort_values(WELL_KEY)
    labels = wells[LABEL].to_numpy()
    if len(set(labels)) < 2:
        raise MorphobenchError("labels cannot be permuted: there is one only")
    rng = np.random.default_rng(seed)
    draws = [rng.permutation(labels) for _ in range(DRAWS)]
    best = min(draws, key=lambda d: _association(labels, d))
    return dict(zip(wells[WELL_KEY].itertuples(index=False, name=None), best.tolist(), strict=True))


def _association(a: np.ndarray, b: np.ndarray) -> float:
    """Pearson's chi-square of two label vectors."""
    rows, columns = (np.unique(v, return_inverse=True)[1] for v in (a, b))
    table = np.zeros((rows.max() + 1, columns.max() + 1))
    np.add.at(table, (rows, columns), 1)
    expected = table.sum(1, keepdims=True) * table.sum(0, keepdims=True) / table.sum()
    return float(((table - expected) ** 2 / expected).sum())


def with_labels(table: pd.DataFrame, labels: Permuted | None) -> pd.DataFrame:
    """``table`` with the labels of its compounds (or of the wells that are named) replaced."""
    if labels is None or table.empty:
        return table
    if isinstance(next(iter(labels)), tuple):
        wells = table[WELL_KEY].itertuples(index=False, name=None)
        return table.assign(**{LABEL: [labels.get(w, own) for w, own in zip(wells, table[LABEL], strict=True)]})
    return table.assign(**{LABEL: table[COMPOUND].map(labels)})
