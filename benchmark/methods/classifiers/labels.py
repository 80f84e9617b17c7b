"""Permuted labels: the control that reveals a leak."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence

import numpy as np
import pandas as pd

from benchmark.base.errors import MorphobenchError
from benchmark.base.tables import CELL_LINE, COMPOUND, LABEL, WELL_KEY

DRAWS = 200
#: Compound, or (plate, well), to its permuted label.
Permuted = Mapping[Hashable, str]


def permute_labels(table: pd.DataFrame, seed: int) -> Permuted:
    """A permutation of labels over the compounds of a table, keeping how many compounds each label has.

    Of 200 draws a typical one is used: the one whose association with the true labels (Pearson's chi-square over
    compounds) is nearest to its expectation over permutations. A model that follows the phenotype, without any leak,
    would do much better than guessing where labels merely swapped their names (with two labels, the draw in which
    fewest compounds keep theirs does just that), and get almost nothing correct where compounds that look alike never
    share a permuted label: a leak could hide below chance.

    Returns
    -------
    dict of str to str
        Compound to its permuted label.
    """
    pairs = table.drop_duplicates(COMPOUND).sort_values(COMPOUND)
    compounds, labels = pairs[COMPOUND].tolist(), pairs[LABEL].to_numpy()
    if len(set(labels)) < 2:
        raise MorphobenchError("labels cannot be permuted: there is only one")
    rng = np.random.default_rng(seed)
    expected = (len(set(labels)) - 1) ** 2 * len(labels) / (len(labels) - 1)
    draws = [rng.permutation(labels) for _ in range(DRAWS)]
    typical = min(draws, key=lambda drawn: abs(_association(labels, drawn) - expected))
    return dict(zip(compounds, typical.tolist(), strict=True))


def permute_wells(table: pd.DataFrame, seed: int) -> Permuted:
    """A permutation of labels over scored wells, where a compound carries several labels.

    Wells are permuted within each compound and cell line, so that every fold trains and tests on as many of each
    label as before. Test wells are permuted like the others, and are scored against their permuted labels: those
    are unrelated to the phenotype, so a model that follows it, either way round, does no better than guessing, and one
    that saw test wells does. (If test wells were scored on their true labels, the same model would be nearly always
    correct or nearly always wrong by luck, and a leak could not be distinguished from it.) Of 200 draws for each
    compound the one whose labels are least associated with the true ones is used (Pearson's chi-square over
    the table of both).

    Parameters
    ----------
    table : DataFrame
        All scored rows of the assay. Where some compound has a single label, wells are permuted over all of it.

    Returns
    -------
    dict of (plate, well) to str
    """
    wells = table.drop_duplicates(WELL_KEY).sort_values(WELL_KEY)
    if wells[LABEL].nunique() < 2:
        raise MorphobenchError("labels cannot be permuted: there is only one")
    blocks = [rows for _, rows in wells.groupby([COMPOUND, CELL_LINE])]
    if any(rows[LABEL].nunique() < 2 for rows in blocks):
        blocks = [wells]
    rng = np.random.default_rng(seed)
    permuted: dict[Hashable, str] = {}
    for rows in blocks:
        labels = rows[LABEL].to_numpy()
        draws = [rng.permutation(labels) for _ in range(DRAWS)]
        best = min(draws, key=lambda drawn, own=labels: _association(own, drawn))  # type: ignore[misc]
        permuted |= dict(zip(rows[WELL_KEY].itertuples(index=False, name=None), best.tolist(), strict=True))
    return permuted


def _association(a: np.ndarray, b: np.ndarray) -> float:
    """Pearson's chi-square of two label vectors."""
    rows, columns = (np.unique(v, return_inverse=True)[1] for v in (a, b))
    table = np.zeros((rows.max() + 1, columns.max() + 1))
    np.add.at(table, (rows, columns), 1)
    expected = table.sum(1, keepdims=True) * table.sum(0, keepdims=True) / table.sum()
    return float(((table - expected) ** 2 / expected).sum())


def label_frequencies(train: pd.DataFrame, labels: Sequence[str], rows: int) -> np.ndarray:
    """Prediction for units without features or crops: how often training compounds have each label.

    A compound counts once; where controls are scored it has several labels, and each of them counts once.

    Returns
    -------
    ndarray of float64, shape (rows, labels)
    """
    prior = train.drop_duplicates([COMPOUND, LABEL])[LABEL].value_counts(normalize=True)
    return np.tile([float(prior.get(label, 0.0)) for label in labels], (rows, 1))


def with_labels(table: pd.DataFrame, labels: Permuted | None) -> pd.DataFrame:
    """``table`` with the labels of its compounds (or of the wells that are named) replaced."""
    if labels is None or table.empty:
        return table
    if isinstance(next(iter(labels)), tuple):
        wells = table[WELL_KEY].itertuples(index=False, name=None)
        return table.assign(**{LABEL: [labels.get(w, own) for w, own in zip(wells, table[LABEL], strict=True)]})
    # Tables of profiles also contain negative controls, which take no part in a permutation.
    return table.assign(**{LABEL: [labels.get(c, own) for c, own in zip(table[COMPOUND], table[LABEL], strict=True)]})
