"""Labels permuted between compounds: the control that shows a leak."""

from __future__ import annotations

import numpy as np
import pandas as pd

from benchmark.errors import MorphobenchError
from benchmark.tables import COMPOUND, LABEL


def permute_labels(table: pd.DataFrame, seed: int) -> dict[str, str]:
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
    draws = [rng.permutation(labels) for _ in range(200)]
    best = min(draws, key=lambda d: int((d == labels).sum()))
    return dict(zip(compounds, best.tolist(), strict=True))


def with_labels(table: pd.DataFrame, labels: dict[str, str] | None) -> pd.DataFrame:
    """``table`` with the labels of its compounds replaced; unchanged where ``labels`` is None."""
    if labels is None:
        return table
    return table.assign(**{LABEL: table[COMPOUND].map(labels)})
