"""scikit-learn transformers fitted on the training wells of a fold."""

from __future__ import annotations

import numpy as np
import pandas as pd
from pycytominer import feature_select
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted

#: A normalised feature beyond this many (robust) deviations is clipped: a ratio with a near-zero
#: denominator in one cell-poor well must not rule the scale of a feature.
CLIP = 20.0


class ProfileSelector(TransformerMixin, BaseEstimator):
    """Drop features that are missing, nearly constant or redundant over the training profiles.

    pycytominer's ``drop_na_columns``, ``variance_threshold`` and ``correlation_threshold`` decide, on the
    rows given to `fit` alone. Values still missing in other rows become the training median.

    Parameters
    ----------
    correlation : float
        Threshold of absolute Pearson correlation.
    """

    def __init__(self, correlation: float = 0.95) -> None:
        self.correlation = correlation

    def fit(self, X: pd.DataFrame, y: object = None) -> ProfileSelector:
        """Choose features on ``X`` (rows are training profiles, columns are features)."""
        operations = ["drop_na_columns", "variance_threshold", "correlation_threshold"]
        columns = list(X.columns)
        if len(columns) > 1:
            kept = feature_select(X.astype(np.float64), features=columns, operation=operations, na_cutoff=0,
                                  corr_threshold=self.correlation)
            columns = list(kept.columns)
        # The only feature, or none that passes: keep what varies rather than nothing at all.
        self.columns_ = columns or [c for c in X.columns if X[c].nunique() > 1] or list(X.columns)
        self.medians_ = X[self.columns_].median().fillna(0.0)
        return self

    def transform(self, X: pd.DataFrame) -> np.ndarray:
        """Selected features of ``X``, filled: (rows, features) float64."""
        check_is_fitted(self)
        return X[self.columns_].fillna(self.medians_).to_numpy(np.float64)


class Clip(TransformerMixin, BaseEstimator):
    """Clip standardised features to ± `CLIP` deviations."""

    def fit(self, X: np.ndarray, y: object = None) -> Clip:
        """Nothing to learn."""
        self.n_features_in_ = X.shape[1]
        return self

    def transform(self, X: np.ndarray) -> np.ndarray:
        """``X`` with its tails cut."""
        return np.clip(X, -CLIP, CLIP)
