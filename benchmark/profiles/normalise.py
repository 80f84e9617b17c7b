"""Centre and scale each plate by its own negative controls, or by all its rows."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pandas as pd
from pycytominer.operations import RobustMAD
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.preprocessing import StandardScaler
from sklearn.utils.validation import check_is_fitted

from benchmark.base.errors import MorphobenchError
from benchmark.base.tables import CONTROL, PLATE
from benchmark.profiles.settings import Scaling
from benchmark.profiles.transformers import finite_features, is_constant, with_features
from benchmark.profiles.wells import feature_columns


def location_and_scale(X: pd.DataFrame, method: Scaling) -> tuple[pd.Series, pd.Series]:
    """What is subtracted from each feature, and what it is then divided by.

    Parameters
    ----------
    X : DataFrame
        Reference rows of one plate (wells, fields or cells), features alone, finite or missing.
    method : str
        ``standardize``: mean and standard deviation (divisor n), by scikit-learn. ``mad_robustize``: median and
        1.4826 x median absolute deviation, by pycytominer. ``ljosa``: the 1st percentile and its distance to the
        99th (Ljosa et al. 2013, J Biomol Screen 18:1321, Materials and Methods), linearly interpolated.

    Returns
    -------
    tuple of Series
        Location and scale, float64, one value per feature. The scale is missing where the reference has no spread:
        a deviation of zero must lead neither to a division by 1e-18 nor to a feature left in its original units.
    """
    if method == "standardize":
        standard = StandardScaler().fit(X)
        location, scale = standard.mean_, standard.scale_
    elif method == "mad_robustize":
        robust = RobustMAD(epsilon=0).fit(X)
        location, scale = robust.median.to_numpy(), robust.mad.to_numpy()
    else:
        location = X.quantile(0.01).to_numpy()
        scale = X.quantile(0.99).to_numpy() - location
    spread = pd.Series(scale, index=X.columns, dtype=np.float64).where(~is_constant(X))
    return pd.Series(location, index=X.columns, dtype=np.float64), spread.where(spread > 0)


class PlateNormaliser(TransformerMixin, BaseEstimator):
    """Centre and scale the features of each plate.

    Both forms use plates of test wells, without labels, and are transductive.

    Parameters
    ----------
    method : str
        See `location_and_scale`.
    samples : str
        ``controls``: by the plate's negative controls. ``plate``: by all its rows.

    Attributes
    ----------
    locations_, scales_ : DataFrame
        One row per plate, one column per feature, float64.
    """

    def __init__(self, method: Scaling = "mad_robustize", samples: Literal["controls", "plate"] = "controls") -> None:
        self.method = method
        self.samples = samples

    def fit(self, X: pd.DataFrame, y: object = None) -> PlateNormaliser:
        """Learn location and scale of each plate of a profile table.

        Raises
        ------
        MorphobenchError
            A plate has fewer than two reference rows.
        """
        columns = feature_columns(X)
        locations, scales = {}, {}
        for plate, rows in X.groupby(PLATE, sort=True):
            reference = rows[rows[CONTROL] == "negative"] if self.samples == "controls" else rows
            if len(reference) < 2:
                what = "negative controls" if self.samples == "controls" else "rows"
                raise MorphobenchError(
                    f"has {len(reference)} {what} with cells, and normalise: {self.samples} needs two or more",
                    f"plate {plate}",
                    f"Set normalise to {'plate or ' if self.samples == 'controls' else ''}training.")
            locations[plate], scales[plate] = location_and_scale(finite_features(reference, columns), self.method)
        self.columns_ = columns
        self.locations_ = pd.DataFrame(locations, index=columns).T
        self.scales_ = pd.DataFrame(scales, index=columns).T
        return self

    def transform(self, X: pd.DataFrame) -> pd.DataFrame:
        """The table with normalised features; missing where the plate's reference has no spread.

        Raises
        ------
        MorphobenchError
            A plate was not in the table that this was fitted on, or a feature is not in the table.
        """
        check_is_fitted(self)
        values = finite_features(X, self.columns_).to_numpy()
        at = self.locations_.index.get_indexer(pd.Index(X[PLATE]))
        if (at < 0).any():
            raise MorphobenchError("was not among the plates that the normalisation was fitted on",
                                   f"plate {X[PLATE].iloc[int(np.flatnonzero(at < 0)[0])]}",
                                   "Fit on a table that holds every plate.")
        values = (values - self.locations_.to_numpy()[at]) / self.scales_.to_numpy()[at]
        return with_features(X, values, self.columns_)
