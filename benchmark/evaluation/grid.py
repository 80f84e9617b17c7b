"""How often each combination of a grid is right."""

from __future__ import annotations

from typing import Literal

import pandas as pd

from benchmark.evaluation.aggregate import reduce_to
from benchmark.evaluation.metrics import scores
from benchmark.tables import GRID_PARTS, SEPARATOR


def summarise_grid(predictions: pd.DataFrame, unit: Literal["treatment", "well"]) -> pd.DataFrame:
    """Scores of every combination under one scheme.

    Parameters
    ----------
    predictions : DataFrame
        Predictions of all folds: wells of classifiers, treatments of the nearest treatment profile; ``method`` is a
        combination's name (`benchmark.tables.combination`).
    unit : {'treatment', 'well'}
        What is counted.

    Returns
    -------
    DataFrame
        One row a combination, in the order of the table: ``profile, normalise, correction, decision, unit``, and the
        columns of `benchmark.evaluation.metrics.scores` (``n, correct, accuracy, low, high, …``).
    """
    rows = []
    for name, table in predictions.groupby("method", sort=False):
        # A column of wells is empty where treatments are predicted.
        reduced = reduce_to(table.dropna(axis=1, how="all"), unit)
        assert reduced is not None  # nothing coarser than the unit is predicted
        rows.append(dict(zip(GRID_PARTS, str(name).split(SEPARATOR), strict=True)) | {"unit": unit} | scores(reduced))
    return pd.DataFrame(rows)
