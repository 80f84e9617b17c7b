"""Feature selection, fitted only on the training profiles of a fold."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache

import numpy as np
import pandas as pd
from pycytominer.cyto_utils import get_blocklist_features
from scipy import stats
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from benchmark.base.errors import MorphobenchError
from benchmark.base.tables import TREATMENT_KEY, WELL_KEY
from benchmark.profiles.missing import too_often_missing, undefined
from benchmark.profiles.settings import Selection
from benchmark.profiles.transformers import finite_features, is_constant, with_features

#: pycytominer's ``min_variance``: features that vary less are dropped.
MIN_VARIANCE = 1e-6
#: Significance level: a feature is kept where replicates would agree this well by chance in at most this share of
#: cases.
CHANCE = 0.05
#: How `ProfileSelector.dropped_` names features without a value on a whole plate.
NO_SPREAD = "no spread on a plate"


class ProfileSelector(TransformerMixin, BaseEstimator):
    """Drop features, step by step, by criteria computed on the training profiles.

    Steps: ``missing`` (see `benchmark.profiles.missing`: a training plate has no value, or more than 5 % of training
    rows lack one), ``variance`` (below `MIN_VARIANCE`, or none), ``correlation`` (see `redundant`), ``blocklist``
    (pycytominer's list of noisy CellProfiler features; Way 2019, doi:10.6084/m9.figshare.10255811),
    ``reproducibility`` (see `irreproducible`). None uses a label. Values that are still missing, in training rows or
    others, become the training median. At least one feature is kept.

    Parameters
    ----------
    steps : sequence of str
        In the order in which they are applied.
    correlation : float
        Threshold of Pearson correlation.
    own_units : bool
        Features are not normalised: ``variance`` then drops only constant ones, since a variance of 1e-6 means one
        thing for an area in pixels and another for an intensity in 0…1.

    Attributes
    ----------
    columns_ : list of str
        Features that are kept, in the table's order.
    dropped_ : dict
        How many features each step dropped; those of ``missing`` that have no value on a whole plate, as where its
        controls have no spread, under `NO_SPREAD`.
    imputed_ : int
        Values of kept features that are missing in training rows.
    """

    def __init__(
        self, steps: Sequence[Selection] = ("missing", "variance", "correlation"), correlation: float = 0.95,
        own_units: bool = False,
    ) -> None:
        self.steps = steps
        self.correlation = correlation
        self.own_units = own_units

    def fit(self, X: pd.DataFrame, y: object = None) -> ProfileSelector:
        """Choose features.

        Parameters
        ----------
        X : DataFrame
            Profile table of the training rows only; metadata are used only for ``reproducibility``.
        """
        features = finite_features(X)
        unscaled = set(undefined(X[features.columns]))
        metadata = X.drop(columns=features.columns)
        rules: Mapping[str, Callable[[pd.DataFrame], list[str]]] = {
            "missing": lambda table: sorted(unscaled.intersection(table.columns).union(too_often_missing(table))),
            "variance": lambda table: list(table.columns[
                is_constant(table) if self.own_units else ~(table.var(ddof=0) > MIN_VARIANCE)]),
            "correlation": lambda table: redundant(table, self.correlation),
            "blocklist": lambda table: sorted(blocklist() & set(table.columns)),
            "reproducibility": lambda table: irreproducible(table, metadata),
        }
        kept = features
        self.dropped_: dict[str, int] = {}
        for step in self.steps:
            # A single feature is a read-out that was asked for: there is nothing to choose.
            gone = rules[step](kept) if kept.shape[1] and features.shape[1] > 1 else []
            kept = kept.drop(columns=gone)
            self.dropped_[step] = len(gone)
            if step == "missing" and (whole := len(unscaled.intersection(gone))):
                self.dropped_ |= {step: len(gone) - whole, NO_SPREAD: whole}
        # If none passes, keep what varies rather than nothing.
        self.columns_ = (list(kept.columns) or list(features.columns[features.nunique() > 1])
                         or list(features.columns))
        self.imputed_ = int(features[self.columns_].isna().to_numpy().sum())
        self.medians_ = features[self.columns_].median().fillna(0.0)
        return self

    def transform(self, X: pd.DataFrame) -> pd.DataFrame:
        """The table with the features that were kept, float64 and without missing values.

        Raises
        ------
        MorphobenchError
            A feature that was kept is not in the table.
        """
        check_is_fitted(self)
        filled = finite_features(X, self.columns_).fillna(self.medians_)
        return with_features(X, filled.to_numpy(), self.columns_)


def redundant(X: pd.DataFrame, threshold: float) -> list[str]:
    """Features that correlate more than ``threshold`` with one that is less redundant.

    pycytominer's ``correlation_threshold`` without its loop over pairs, which takes seconds for 1,500 features (why
    this is ours): of each pair with a Pearson correlation above the threshold, the one with the higher sum of absolute
    correlations with all features is dropped.

    Parameters
    ----------
    X : DataFrame
        (rows, features) float64.
    """
    if X.shape[1] < 2:
        return []
    if X.isna().to_numpy().any():
        r = X.corr().to_numpy()
    else:
        with np.errstate(invalid="ignore", divide="ignore"):
            r = np.corrcoef(X.to_numpy(), rowvar=False)
    # sorted by pandas as in pycytominer, so that ties are resolved alike
    order = pd.Series(np.nansum(np.abs(r), axis=0)).sort_values().index.to_numpy()
    rank = np.empty(len(order), dtype=int)
    rank[order] = np.arange(len(order))
    # of each pair, the one of lower rank is kept
    gone: np.ndarray = np.any((r > threshold) & (rank[:, None] > rank[None, :]), axis=1)
    return list(X.columns[gone])


@lru_cache(maxsize=1)
def blocklist() -> frozenset[str]:
    """Feature names of pycytominer's packaged blocklist."""
    return frozenset(get_blocklist_features())


def irreproducible(X: pd.DataFrame, metadata: pd.DataFrame) -> list[str]:
    """Features in which replicate wells of a treatment agree no better than wells of any treatments.

    Agreement is the intraclass correlation ICC(1) of a one-way random-effects model (Shrout & Fleiss 1979, Psychol
    Bull 86:420, case 1): what a replicate correlation over treatments estimates, for any number of replicates.
    Caicedo et al. 2017 (Nat Methods 14:849, "Feature selection") advise choosing features by their replicate
    correlation. A feature is dropped where its F = MSB / MSW is below the `CHANCE` upper quantile of F under ICC = 0.

    Replicates of one treatment that share a plate or batch also share its effect, which counts as agreement here:
    the step is more informative after normalisation by plate.

    Parameters
    ----------
    X : DataFrame
        (rows, features) float64; fields of a well are averaged first, since they are not replicates.
    metadata : DataFrame
        Columns of `TREATMENT_KEY` and `WELL_KEY` of the same rows.

    Returns
    -------
    list of str
        Empty where there are not two treatments, or no treatment has two wells.

    Raises
    ------
    MorphobenchError
        The metadata lack columns of treatment or well.
    """
    lacking = [c for c in [*WELL_KEY, *TREATMENT_KEY] if c not in metadata]
    if lacking:
        raise MorphobenchError(f"lacks {', '.join(lacking)}, and select: reproducibility needs them",
                               "profile table", "Give the selector the rows with their metadata.")
    names = list(X.columns)
    keys = [*WELL_KEY, *TREATMENT_KEY]
    wells = pd.concat([metadata[keys], X], axis=1).groupby(keys, dropna=False)[names].mean()
    treatment = wells.groupby(level=TREATMENT_KEY, dropna=False).ngroup().to_numpy()
    n, k = len(wells), len(set(treatment.tolist()))
    if k < 2 or n == k:
        return []
    values = wells.fillna(wells.median()).to_numpy()
    means = pd.DataFrame(values).groupby(treatment).transform("mean").to_numpy()
    between = ((means - values.mean(axis=0)) ** 2).sum(axis=0) / (k - 1)
    within = ((values - means) ** 2).sum(axis=0) / (n - k)
    limit = stats.f.ppf(1 - CHANCE, k - 1, n - k)
    return [name for name, gone in zip(names, ~(between > limit * within), strict=True) if gone]
