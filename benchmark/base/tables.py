"""Column names of the tables that flow between the rooms, and their checks.

All tables are pandas frames stored as parquet. Keys carry pycytominer's ``Metadata_`` prefix.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from benchmark.base.errors import MorphobenchError

BATCH = "Metadata_Batch"
PLATE = "Metadata_Plate"
WELL = "Metadata_Well"
SITE = "Metadata_Site"
REPLICATE = "Metadata_Replicate"
COMPOUND = "Metadata_Compound"
CONCENTRATION = "Metadata_Concentration"  # µM, float; 0 for controls without one
LABEL = "Metadata_Label"
CONTROL = "Metadata_Control"  # '', 'negative' or 'positive'
CROP = "Metadata_Crop"  # number of a crop in its field, of embeddings
CELL_LINE = "Metadata_CellLine"  # '' where an assay has one

WELL_KEY = [PLATE, WELL]
FIELD_KEY = [PLATE, WELL, SITE]
TREATMENT_KEY = [COMPOUND, CONCENTRATION, CELL_LINE]
#: What every field table holds, in this order, before its Path_/Plane_ columns.
FIELD_COLUMNS = [BATCH, PLATE, WELL, SITE, REPLICATE, COMPOUND, CONCENTRATION, LABEL, CONTROL, CELL_LINE]
#: The same for a table with one row per well.
WELL_COLUMNS = [c for c in FIELD_COLUMNS if c != SITE]

UNITS = ("crop", "field", "well", "treatment")
UNIT_KEY = {"crop": [*FIELD_KEY, "crop"], "field": FIELD_KEY, "well": WELL_KEY, "treatment": TREATMENT_KEY}

#: Key columns that are text, also where a table writes numbers: plate ``0012`` is no number.
TEXT_KEYS = (BATCH, PLATE, WELL, COMPOUND, LABEL, CONTROL, CELL_LINE)
#: Key columns that are whole numbers (int64), so that site 10 comes after site 2.
NUMBER_KEYS = (SITE, REPLICATE)


def typed(table: pd.DataFrame) -> pd.DataFrame:
    """A table with each key column in its one type; called where a table is read, so that nothing after it casts.

    Text: batch, plate, well, compound, label, control, cell line (missing values are ``''``). Whole numbers (int64):
    site and replicate. Where these are names (``left``), the names of the table are numbered from 1 in their sorted
    order, which is therefore the order of the fields. Float64: the concentration (NaN where it is no number).

    Parameters
    ----------
    table : DataFrame
        Any of the key columns, and any others.

    Returns
    -------
    DataFrame
        The very same object where all types are right already.
    """
    new = {c: _text(table[c]) for c in TEXT_KEYS if c in table and not _is_text(table[c])}
    new |= {c: _whole_numbers(table[c]) for c in NUMBER_KEYS if c in table and table[c].dtype != np.int64}
    if CONCENTRATION in table and table[CONCENTRATION].dtype != np.float64:
        new[CONCENTRATION] = pd.to_numeric(table[CONCENTRATION], errors="coerce").astype(np.float64)
    return table.assign(**new) if new else table


def _is_text(values: pd.Series) -> bool:
    """Whether a column has pandas' type of text and no missing values."""
    return bool(values.dtype == "str" and not values.isna().any())


def _text(values: pd.Series) -> pd.Series:
    return values.astype(object).where(values.notna(), "").astype(str)


def _whole_numbers(values: pd.Series) -> pd.Series:
    """Numbers as they are, or names as their places in sorted order, from 1."""
    if pd.api.types.is_float_dtype(values) and (values == values.round()).all():
        return values.astype(np.int64)
    text = _text(values).str.strip()
    if text.str.fullmatch(r"[0-9]{1,9}(\.0*)?").all():  # also where a missing value made an integer column float
        text = text.str.split(".").str[0]
    else:
        text = text.map({name: i for i, name in enumerate(sorted(text.unique()), 1)})
    return text.astype(np.int64)


def path_column(channel: str) -> str:
    """Field-table column with the file of a channel, relative to the assay's root."""
    return f"Path_{channel}"


def plane_column(channel: str) -> str:
    """Field-table column with the index of a channel's plane inside its file (0-based int)."""
    return f"Plane_{channel}"


def probability_columns(labels: Sequence[str]) -> list[str]:
    """``p_<label>`` for each label, in sorted order."""
    return [f"p_{label}" for label in sorted(labels)]


def labels_of(table: pd.DataFrame) -> list[str]:
    """Labels a prediction table has probabilities for, in sorted order."""
    return [c.removeprefix("p_") for c in table.columns if c.startswith("p_")]


def check_predictions(table: pd.DataFrame, where: str = "prediction table") -> None:
    """Refuse a malformed table of predictions.

    One row per predicted unit: the ``Metadata_*`` keys of the unit with compound, concentration and
    label; ``unit`` (one of `UNITS`); ``crop`` (int) where the unit is a crop; ``method, fold, seed``;
    and ``p_<label>`` (float, rows summing to 1) for each label in sorted order. The cell line may be left out where
    there is one.

    Raises
    ------
    MorphobenchError
        A column is missing, a probability is not finite or out of range, a row does not sum to 1,
        a true label has no probability column, or a unit is predicted twice.
    """
    # Predictions of treatments only have no wells: their profiles are means over wells.
    wells = [] if "unit" in table and (table["unit"] == "treatment").all() else WELL_KEY
    missing = [c for c in [*wells, COMPOUND, CONCENTRATION, LABEL, "unit", "method", "fold", "seed"]
               if c not in table]
    if missing:
        raise MorphobenchError(f"lacks the columns {', '.join(missing)}", where)
    columns = [c for c in table.columns if c.startswith("p_")]
    if len(columns) < 2 or columns != sorted(columns):
        raise MorphobenchError("needs two or more p_<label> columns in sorted order", where)
    if table.empty:
        raise MorphobenchError("has no rows", where)
    apart = table["unit"] != "treatment"  # beside others, treatments have the columns of wells, and nothing in them
    lacking = [c for c in wells if table.loc[apart, c].isna().any()]
    lacking += [c for c in (COMPOUND, CONCENTRATION, LABEL, "unit", "method", "fold", "seed") if table[c].isna().any()]
    if lacking:
        raise MorphobenchError(f"has rows without a value in {', '.join(lacking)}", where)
    unknown = set(table[LABEL].astype(str)) - set(labels_of(table))
    if unknown:
        raise MorphobenchError(f"has no probability column for the labels {sorted(unknown)}", where)
    text = [c for c in columns if not pd.api.types.is_float_dtype(table[c])]
    if text:
        raise MorphobenchError(f"has probabilities that are no floating-point numbers ({text[0]} is "
                               f"{table[text[0]].dtype})", where)
    p = table[columns].to_numpy(float)
    if not np.isfinite(p).all() or (p < -1e-6).any() or not np.allclose(p.sum(axis=1), 1, atol=1e-3):
        raise MorphobenchError("has probabilities that are not finite or do not sum to 1", where)
    for unit in sorted(table["unit"].unique()):
        rows = table[table["unit"] == unit]
        if unit not in UNITS:
            raise MorphobenchError(f"has the unit {unit!r}, not one of {', '.join(UNITS)}", where)
        key = [c for c in UNIT_KEY[unit] if c in table]
        if rows.duplicated([*key, "method", "seed"]).any():
            raise MorphobenchError(f"predicts a {unit} twice", where)
