"""Corrections by batch: ComBat (location and scale, empirical Bayes) and Harmony (clusters, transductive)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import harmonypy
import numpy as np
import pandas as pd
from sklearn.decomposition import PCA
from sklearn.preprocessing import StandardScaler

from benchmark.base.errors import MorphobenchError
from benchmark.base.tables import BATCH, SITE, WELL_KEY
from benchmark.profiles.corrections.base import Correction, FitOn, batches_of

#: Principal components given to Harmony, as in its authors' examples.
COMPONENTS = 20
#: Korsunsky et al. 2019: diversity penalty, ridge penalty, width of clusters. Later releases estimate the second.
PUBLISHED = {"theta": 2.0, "lamb": 1.0, "sigma": 0.1}
#: ComBat's iteration ends when nothing changes by more than this share.
CONVERGED = 1e-8
ITERATIONS = 1000


@dataclass(frozen=True)
class BatchEffect:
    """Shift and factor of one batch's standardised features: (features,) float64 each."""

    shift: np.ndarray
    variance: np.ndarray


class ComBat(Correction):
    """ComBat with parametric priors (Johnson, Li & Rabinovic 2007, Biostatistics 8:118, section 3.1).

    Fitted on training wells and the controls of their batches, without covariates: labels would leak. Where batches
    have different compounds, these compounds' effects count as batch effect. Rows of a batch that was not fitted stay
    as they are, and the batch is named in the facts. A batch of one row is shifted but not scaled. As in sva, a feature
    without spread within a fitted batch of several rows is not corrected in any.
    """

    fit_on: ClassVar[FitOn] = "training and controls"

    def _rows(self, X: pd.DataFrame) -> pd.DataFrame:
        return X

    def _usable(self, features: pd.DataFrame) -> list[str]:
        return list(features.columns[features.notna().any()])

    def _learn(self, values: np.ndarray, rows: pd.DataFrame) -> None:
        batches = batches_of(rows)
        names, self.counts_ = np.unique(batches, return_counts=True)
        self.batches_: list[str] = names.tolist()
        self.unseen_: set[str] = set()
        members = [batches == b for b in self.batches_]
        several = [m for m in members if m.sum() > 1]
        spread = [np.ptp(values[m], axis=0) > 1e-12 * np.abs(values[m]).max(axis=0) for m in several]
        self.adjusted_ = np.logical_and.reduce(spread) if several else np.zeros(values.shape[1], dtype=bool)
        self.effects_: dict[str, BatchEffect] = {}
        if len(members) < 2 or not self.adjusted_.any():
            return
        X = values[:, self.adjusted_]
        means = np.array([X[m].mean(axis=0) for m in members])
        self.mean_ = self.counts_ @ means / len(X)
        residuals = X - means[np.searchsorted(names, batches)]
        self.deviation_ = np.sqrt((residuals ** 2).mean(axis=0))
        Z = (X - self.mean_) / self.deviation_
        for batch, m in zip(self.batches_, members, strict=True):
            self.effects_[batch] = _posterior(Z[m])

    def _apply(self, values: np.ndarray, table: pd.DataFrame) -> np.ndarray:
        batches, corrected = batches_of(table), values.copy()
        self.unseen_ |= set(batches.tolist()) - set(self.batches_)
        for batch, effect in self.effects_.items():
            own = np.ix_(batches == batch, self.adjusted_)
            Z = (values[own] - self.mean_) / self.deviation_
            corrected[own] = (Z - effect.shift) / np.sqrt(effect.variance) * self.deviation_ + self.mean_
        return corrected

    def _facts(self) -> dict[str, Any]:
        p, adjusted = len(self.columns_), int(self.adjusted_.sum())
        note = (f"{int(self.counts_.sum())} rows of {len(self.batches_)} batches ({self.counts_.min()} to "
                f"{self.counts_.max()} each), {p} features, {adjusted} of them corrected"
                if self.effects_ else f"nothing corrected: {len(self.batches_)} batch, {adjusted} features with spread")
        single = sorted(np.array(self.batches_)[self.counts_ == 1].tolist())
        note += f"; shifted but not scaled, having one row: {', '.join(single)}" if single else ""
        note += f"; not corrected, since not fitted: {', '.join(sorted(self.unseen_))}" if self.unseen_ else ""
        return {"rows": int(self.counts_.sum()), "corrected": adjusted if self.effects_ else 0,
                "batches": self.batches_, "batches_unseen": sorted(self.unseen_), "note": note}


def _posterior(Z: np.ndarray) -> BatchEffect:
    """Shift and variance of each feature, shrunk towards what all features of the batch have in common.

    Parameters
    ----------
    Z : ndarray
        (rows of one batch, features) float64, standardised over all batches.
    """
    n, p = Z.shape
    shift_hat = Z.mean(axis=0)
    single = n == 1
    variance_hat = np.ones(p) if single else Z.var(axis=0, ddof=1)
    if p < 2:  # no other features to learn from
        return BatchEffect(shift_hat, variance_hat)
    shift_bar, tau2 = shift_hat.mean(), shift_hat.var(ddof=1)
    m, s2 = variance_hat.mean(), variance_hat.var(ddof=1)
    # moments of the inverse gamma prior; with no spread between variances it is a point
    point = s2 <= 1e-12 * m ** 2
    a, b = (np.inf, np.inf) if point else ((2 * s2 + m ** 2) / s2, (m * s2 + m ** 3) / s2)
    shift, variance = shift_hat, variance_hat
    for _ in range(ITERATIONS):
        before = np.concatenate([shift, variance])
        shift = (tau2 * n * shift_hat + variance * shift_bar) / (tau2 * n + variance)
        if not single and not point:
            variance = (0.5 * ((Z - shift) ** 2).sum(axis=0) + b) / (n / 2 + a - 1)
        if np.allclose(np.concatenate([shift, variance]), before, rtol=CONVERGED, atol=CONVERGED):
            break
    return BatchEffect(shift, variance)


class Harmony(Correction):
    """Harmony (Korsunsky et al. 2019, Nat Methods 16:1289) on the principal components of the scaled features.

    Soft clusters that each hold all batches, and within each a shift by batch; the paper's settings, one thread.
    Where batches have different compounds, clusters of all batches are wrong: it removes biology.
    It is fitted on all rows, without labels, and has no rule for new ones: `transform` looks up the rows that were
    fitted. The result has components, not features.
    """

    fit_on: ClassVar[FitOn] = "all"

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed

    def _rows(self, X: pd.DataFrame) -> pd.DataFrame:
        if len(X) < 3:
            raise MorphobenchError(f"there are {len(X)} rows, and it needs three or more", "correction Harmony",
                                   "Set correction to none.")
        # in the order of their keys, so that the result does not depend on the order of rows
        return X.iloc[_keys(X).argsort()]

    def _learn(self, values: np.ndarray, rows: pd.DataFrame) -> None:
        self.keys_ = _keys(rows)
        if not self.keys_.is_unique:
            twice = self.keys_[self.keys_.duplicated()][0]
            raise MorphobenchError("is in the table twice", f"well {' '.join(map(str, twice))}",
                                   "Give a table with one row a well or field.")
        self.fitted_ = values
        scaled = StandardScaler().fit_transform(values)
        pca = PCA(min(COMPONENTS, len(values) - 1, values.shape[1]), svd_solver="full")
        components = pca.fit_transform(scaled)
        self.share_ = float(pca.explained_variance_ratio_.sum())
        batches = batches_of(rows)
        self.batches_ = sorted(set(batches.tolist()))
        # harmonypy's own number, but at least two: one cluster would be a plain shift by batch
        self.clusters_ = max(2, min(round(len(values) / 30), 100))
        self.corrected_ = components
        if len(self.batches_) > 1:
            fit = harmonypy.run_harmony(components, pd.DataFrame({BATCH: batches}), [BATCH], verbose=False,
                                        nclust=self.clusters_, random_state=self.seed, ncores=1, **PUBLISHED)
            self.corrected_ = np.asarray(fit.Z_corr, dtype=np.float64)
        if self.corrected_.shape != components.shape:  # harmonypy before 2.0 gives the transpose
            raise MorphobenchError(f"gave {self.corrected_.shape} numbers for {components.shape}",
                                   "correction Harmony", "Install harmonypy 2.0 or later.")
        if not np.isfinite(self.corrected_).all():
            raise MorphobenchError("gave components that are not finite numbers", "correction Harmony",
                                   "Set correction to none.")

    def _apply(self, values: np.ndarray, table: pd.DataFrame) -> np.ndarray:
        keys = _keys(table)
        at = self.keys_.get_indexer(keys)
        remedy = "Harmony has no rule for new rows: fit it on the table that is then transformed."
        if (at < 0).any():
            odd = keys[int(np.flatnonzero(at < 0)[0])]
            raise MorphobenchError("was not among the rows that Harmony was fitted on",
                                   f"well {' '.join(map(str, odd))}", remedy)
        same = np.isclose(values, self.fitted_[at], rtol=1e-6, atol=1e-9).all(axis=1)
        if not same.all():
            odd = keys[int(np.flatnonzero(~same)[0])]
            raise MorphobenchError("has other features than when Harmony was fitted",
                                   f"well {' '.join(map(str, odd))}", remedy)
        return self.corrected_[at]

    def _names(self) -> list[str]:
        return [f"Harmony_{i + 1}" for i in range(self.corrected_.shape[1])]

    def _facts(self) -> dict[str, Any]:
        components = self.corrected_.shape[1]
        done = (f"{self.clusters_} clusters, {len(self.batches_)} batches"
                if len(self.batches_) > 1 else "one batch, so nothing corrected")
        return {"rows": len(self.keys_), "components": components, "clusters": self.clusters_,
                "share_of_variance": self.share_, "batches": self.batches_, "seed": self.seed, **PUBLISHED,
                "note": f"{len(self.keys_)} rows, test wells among them (transductive), {len(self.columns_)} features: "
                        f"{components} components hold {100 * self.share_:.0f} % of the variance; {done}"}


def _keys(table: pd.DataFrame) -> pd.MultiIndex:
    """Key of each row: plate, well, and field where there are fields."""
    return pd.MultiIndex.from_frame(table[[*WELL_KEY, *([SITE] if SITE in table else [])]])
