"""Common functions of the transformers of profile tables, and those too small for a module of their own.

A profile table is one DataFrame: ``Metadata_`` columns and float64 features, one row per well (or field).
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator, TransformerMixin

from benchmark.base.errors import MorphobenchError
from benchmark.profiles.wells import feature_columns

#: A normalised feature beyond this many (robust) deviations is clipped: a ratio with a near-zero
#: denominator in one cell-poor well must not dominate the scale of a feature.
CLIP = 20.0


def finite_features(table: pd.DataFrame, columns: list[str] | None = None) -> pd.DataFrame:
    """Features as float64, with infinite values missing.

    Parameters
    ----------
    columns : list of str, optional
        Features to select; all if None.

    Raises
    ------
    MorphobenchError
        A column is not in the table.
    """
    columns = feature_columns(table) if columns is None else columns
    lacking = [c for c in columns if c not in table]
    if lacking:
        raise MorphobenchError(f"lacks {len(lacking)} of {len(columns)} features, {lacking[0]} among them",
                               "profile table", "Transform a table with the features that were fitted.")
    values = table[columns].to_numpy(np.float64, copy=True)
    values[np.isinf(values)] = np.nan
    return pd.DataFrame(values, index=table.index, columns=columns)


def with_features(table: pd.DataFrame, values: np.ndarray, names: list[str]) -> pd.DataFrame:
    """The metadata of ``table`` with other features, (rows, names) float64; rows and index are kept."""
    metadata = table[[c for c in table.columns if c.startswith("Metadata_")]]
    return pd.concat([metadata, pd.DataFrame(values, index=table.index, columns=names)], axis=1)


def is_constant(X: pd.DataFrame) -> pd.Series:
    """Whether a feature has one value in all rows, or differs by rounding alone; missing values do not count.

    The bound on rounding is scikit-learn's for `StandardScaler`: a variance below (rows x mean x epsilon)².
    """
    n, eps = len(X), np.finfo(np.float64).eps
    variance = X.var(ddof=0).fillna(0.0)
    mean = X.mean().fillna(0.0)
    return (X.max() == X.min()) | (variance <= n * eps * variance + (n * mean * eps) ** 2)


class Clip(TransformerMixin, BaseEstimator):
    """Clip standardised features to ± `CLIP` deviations."""

    def fit(self, X: np.ndarray, y: object = None) -> Clip:
        """Nothing to learn."""
        self.n_features_in_ = X.shape[1]
        return self

    def transform(self, X: np.ndarray) -> np.ndarray:
        """``X``, clipped."""
        return np.clip(X, -CLIP, CLIP)
