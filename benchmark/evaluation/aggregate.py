"""From what a method predicts (crops, fields, wells) to fields, wells and treatments."""

from __future__ import annotations

import numpy as np
import pandas as pd

from benchmark.base.errors import MorphobenchError
from benchmark.base.tables import (
    CELL_LINE,
    COMPOUND,
    CONCENTRATION,
    CONTROL,
    LABEL,
    SITE,
    UNIT_KEY,
    UNITS,
    WELL_COLUMNS,
    labels_of,
    probability_columns,
)

#: Columns that distinguish the predictions of several methods and seeds.
RUN_KEY = ["method", "seed"]
#: Columns that a unit's row keeps besides its key, where the table has them: all are constant within the unit.
KEPT = {
    "crop": [*WELL_COLUMNS, SITE],
    "field": [*WELL_COLUMNS, SITE],
    "well": WELL_COLUMNS,
    "treatment": [COMPOUND, CONCENTRATION, LABEL, CONTROL],
}


def predicted_unit(predictions: pd.DataFrame) -> str:
    """The unit that a prediction table predicts.

    Raises
    ------
    MorphobenchError
        The table is empty or mixes units, so that it is undefined which rows count.
    """
    units = predictions["unit"].unique()
    if len(units) != 1:
        raise MorphobenchError(
            f"predicts {len(units)} kinds of unit ({', '.join(map(str, units))}), not one",
            "prediction table",
            "Give each unit a table of its own.",
        )
    return str(units[0])


def with_cell_line(predictions: pd.DataFrame) -> pd.DataFrame:
    """``predictions`` with ``Metadata_CellLine``, empty where the table has none (published ones do not)."""
    return predictions if CELL_LINE in predictions else predictions.assign(**{CELL_LINE: ""})


def _normalised(p: np.ndarray, fallback: np.ndarray) -> np.ndarray:
    """Rows of ``p`` scaled to sum to 1; rows that are all zero are replaced by ``fallback``.

    The medians of the classes need not sum to 1, and all are zero where no class
    has half of the members (three one-hot crops that all differ): the mean then represents the unit.
    """
    total = p.sum(axis=1, keepdims=True)
    p = np.where(total > 0, p, fallback)
    return p / p.sum(axis=1, keepdims=True)


def _median_over(table: pd.DataFrame, unit: str) -> pd.DataFrame:
    """One row per ``unit``: median of each probability over its rows in ``table``."""
    columns = probability_columns(labels_of(table))
    key = [*RUN_KEY, *UNIT_KEY[unit]]
    kept = [c for c in [*KEPT[unit], "fold"] if c in table and c not in key]
    groups = table.groupby(key, sort=True, dropna=False, observed=True)
    if (groups[LABEL].nunique(dropna=False) > 1).any():
        raise MorphobenchError(f"gives one {unit} several true labels", "prediction table")
    # `min` and not `first`: a treatment spread over folds must not depend on the order of the rows.
    meta = groups[kept].min()
    p = _normalised(groups[columns].median().to_numpy(float), groups[columns].mean().to_numpy(float))
    out = pd.concat([meta, pd.DataFrame(p, index=meta.index, columns=columns)], axis=1).reset_index()
    out.insert(0, "unit", unit)
    return out


def with_prediction(table: pd.DataFrame) -> pd.DataFrame:
    """Add ``predicted`` (str), ``tied`` (bool) and ``correct`` (bool) to a prediction table.

    Several labels with exactly the highest probability are a tie: the first in sorted order is
    taken, so that a prediction never depends on the order of rows, and ``tied`` records it.
    """
    p = table[probability_columns(labels_of(table))].to_numpy(float)
    labels = np.array(labels_of(table), dtype=object)
    predicted = pd.Series(labels[p.argmax(axis=1)], index=table.index, dtype="str")
    return table.assign(
        predicted=predicted,
        tied=(p == p.max(axis=1, keepdims=True)).sum(axis=1) > 1,
        correct=(predicted == table[LABEL].astype("str")).to_numpy(),
    )


def reduce_to(predictions: pd.DataFrame, unit: str) -> pd.DataFrame | None:
    """Reduce predictions to fields, wells or treatments.

    The probability of each label is the **median** over the crops of a field, or over all the crops
    (or fields) of a well directly, and for a treatment (compound × concentration × cell line) the median over
    its wells' medians, each time scaled to sum to 1 (Kensert, Harrison & Spjuth 2019, SLAS Discovery
    24:466, Methods). Where every median is zero the mean is used.

    Parameters
    ----------
    predictions : DataFrame
        A prediction table (`benchmark.base.tables.check_predictions`) of one unit; methods and seeds are
        kept apart.
    unit : {'crop', 'field', 'well', 'treatment'}
        What one row of the result is.

    Returns
    -------
    DataFrame or None
        One row per unit, sorted by method, seed and the unit's key, with ``p_<label>`` (float64),
        ``predicted``, ``tied`` and ``correct``. None where the method predicts only something coarser
        than ``unit``: a method that predicts wells has no accuracy of fields.

    Raises
    ------
    MorphobenchError
        The unit is unknown, the table mixes units, or a unit has several true labels.
    """
    if unit not in UNITS:
        raise MorphobenchError(f"the unit is {unit!r}, not one of {', '.join(UNITS)}", "reduce_to")
    have = predicted_unit(predictions)
    predictions = with_cell_line(predictions)
    if UNITS.index(have) > UNITS.index(unit):
        return None
    table = predictions
    if unit == "treatment" and have in ("crop", "field"):
        table = _median_over(table, "well")
    return with_prediction(_median_over(table, unit))
