"""Batch corrections of profile tables: their base class.

A correction can hurt: it treats what differs between batches or among controls as noise, and where compounds were
each imaged in one batch, biology differs between batches too. So each is reported next to `NoCorrection`.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from benchmark.base.errors import MorphobenchError
from benchmark.base.tables import BATCH, CONTROL
from benchmark.profiles.transformers import finite_features, is_constant, with_features
from benchmark.profiles.wells import feature_columns

FitOn = Literal["controls", "training and controls", "all"]


class Correction(TransformerMixin, BaseEstimator):
    """A correction: fitted on some rows of a profile table, applied to all.

    Values missing in a row become the median of the rows it was fitted on, so that no result has missing values.
    Subclasses define in `_rows` which rows they are fitted on, in `_usable` which features, and do the rest in
    `_learn`, `_apply` and `_facts`.

    Attributes
    ----------
    fit_on : str
        Rows that `fit` is to be given: a table's negative controls, its training rows as well, or all of its rows.
        ``all``: transductive, and `transform` is for those rows only.
    columns_ : list of str
        Features that are corrected; the others are left out of the result.
    """

    fit_on: ClassVar[FitOn] = "controls"

    def fit(self, X: pd.DataFrame, y: object = None) -> Correction:
        """Fit on the rows of a profile table that this correction may use.

        Raises
        ------
        MorphobenchError
            There are too few such rows, or no feature varies over them.
        """
        rows = self._rows(X)
        features = finite_features(rows)
        columns = self._usable(features)
        if not columns:
            raise MorphobenchError(f"no feature varies over the {len(rows)} rows that it is fitted on",
                                   f"correction {type(self).__name__}", "Set correction to none.")
        self.columns_ = columns
        self.left_out_ = features.shape[1] - len(columns)
        self.medians_ = features[columns].median().fillna(0.0)
        self.filled_ = int(features[columns].isna().to_numpy().sum())
        self._learn(features[columns].fillna(self.medians_).to_numpy(), rows)
        return self

    def transform(self, X: pd.DataFrame) -> pd.DataFrame:
        """The table with corrected features, float64 without missing values.

        Raises
        ------
        MorphobenchError
            A feature that was fitted is not in the table.
        """
        check_is_fitted(self)
        values = self._apply(finite_features(X, self.columns_).fillna(self.medians_).to_numpy(), X)
        return with_features(X, values, self._names())

    @property
    def facts_(self) -> dict[str, Any]:
        """What was fitted on which rows, for a run's record: JSON types, with a sentence under ``note``."""
        check_is_fitted(self)
        own = self._facts()
        facts = {"correction": type(self).__name__.lower(), "fit_on": self.fit_on, "features": len(self.columns_),
                 "left_out": self.left_out_, "filled": self.filled_}
        extra = [f"{self.left_out_} features without spread left out"] if self.left_out_ else []
        extra += [f"{self.filled_} missing values set to the feature's median"] if self.filled_ else []
        return facts | own | {"note": "; ".join([str(own["note"]), *extra])}

    def _rows(self, X: pd.DataFrame) -> pd.DataFrame:
        controls = X[X[CONTROL] == "negative"]
        if len(controls) < 2:
            raise MorphobenchError(f"there are {len(controls)} negative controls, and it needs two or more",
                                   f"correction {type(self).__name__}", "Set correction to none, combat or harmony.")
        return controls

    def _usable(self, features: pd.DataFrame) -> list[str]:
        return list(features.columns[~is_constant(features)]) if len(features) else []

    def _learn(self, values: np.ndarray, rows: pd.DataFrame) -> None:
        raise NotImplementedError

    def _apply(self, values: np.ndarray, table: pd.DataFrame) -> np.ndarray:
        raise NotImplementedError

    def _facts(self) -> dict[str, Any]:
        raise NotImplementedError

    def _names(self) -> list[str]:
        return self.columns_


class NoCorrection(Correction):
    """The table as it is; what every correction is compared with."""

    def fit(self, X: pd.DataFrame, y: object = None) -> NoCorrection:
        """Nothing to learn."""
        self.columns_ = feature_columns(X)
        return self

    def transform(self, X: pd.DataFrame) -> pd.DataFrame:
        """The same table."""
        return X

    @property
    def facts_(self) -> dict[str, Any]:
        """That nothing was done."""
        return {"correction": "none", "fit_on": self.fit_on, "features": len(self.columns_),
                "note": "no correction"}


def batches_of(table: pd.DataFrame) -> np.ndarray:
    """Batch of each row as str."""
    return table[BATCH].astype(str).to_numpy()


