"""Sphering on negative controls, and TVN: sphering, then CORAL across batches.

Variation among wells that were all treated alike is noise. Sphering gives every direction of it the same variance.
There are often fewer controls than features: then their covariance has no inverse, and it is shrunk by an amount
that is estimated and reported. The code is ours because pycytominer's ``Spherize`` refuses
controls of a rank below the smaller of their number less one and the features, and its ridge is a fixed constant.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from sklearn.covariance import ledoit_wolf_shrinkage, oas
from sklearn.preprocessing import StandardScaler

from benchmark.profiles.corrections.base import Correction, batches_of

#: Below this, Ledoit and Wolf's shrinkage counts as none: it is exactly zero for two controls.
NO_SHRINKAGE = 1e-6
#: Sun et al. 2016 add the identity to each covariance of whitened features.
CORAL_RIDGE = 1.0


@dataclass(frozen=True)
class CovariancePower:
    """A power of ``weight x covariance + ridge x identity``, represented by the axes that the rows span.

    Off those axes the matrix is a multiple of the identity, so no (features x features) matrix is made.

    Attributes
    ----------
    axes : ndarray
        (features, rank) float64, orthonormal.
    eigenvalues : ndarray
        (rank,) of the plain covariance along them, descending.
    gains : ndarray
        (rank,) of the power.
    rest : float
        Gain of every direction off the axes.
    """

    axes: np.ndarray
    eigenvalues: np.ndarray
    gains: np.ndarray
    rest: float

    @classmethod
    def of(cls, rows: np.ndarray, exponent: float, weight: float, ridge: float, ddof: int) -> CovariancePower:
        """From centred rows, (rows, features) float64.

        A covariance of full rank needs no ridge; of any other, the ridge must be above 0 where the exponent is not.
        """
        _, singular, axes = np.linalg.svd(rows, full_matrices=False)
        held = singular > singular.max(initial=0.0) * max(rows.shape) * np.finfo(np.float64).eps
        eigenvalues = singular[held] ** 2 / max(1, len(rows) - ddof)
        complete = held.sum() == rows.shape[1]
        if not complete and ridge <= 0 and exponent < 0:
            raise ValueError("a covariance without full rank has no inverse without a ridge")
        rest = 1.0 if complete else ridge ** exponent
        return cls(axes[held].T, eigenvalues, (weight * eigenvalues + ridge) ** exponent, rest)

    @property
    def rank(self) -> int:
        """Number of axes."""
        return len(self.eigenvalues)

    def apply(self, rows: np.ndarray) -> np.ndarray:
        """Rows times the matrix: (rows, features) float64."""
        return rows * self.rest + (rows @ self.axes) * (self.gains - self.rest) @ self.axes.T


def shrinkage_of(rows: np.ndarray) -> tuple[str, float]:
    """Name and amount of the shrinkage of a covariance towards a multiple of the identity.

    Ledoit and Wolf 2004 (J Multivar Anal 88:365) by scikit-learn. Where the covariance lacks full rank and their
    shrinkage is zero, as always for two rows, Chen et al. 2010 (oracle approximating, IEEE Trans Signal
    Process 58:5016), which is never zero there.

    Parameters
    ----------
    rows : ndarray
        (rows, features) float64, centred.
    """
    amount = float(ledoit_wolf_shrinkage(rows, assume_centered=True))
    if amount < NO_SHRINKAGE and np.linalg.matrix_rank(rows) < rows.shape[1]:
        return "oracle-approximating", float(oas(rows, assume_centered=True)[1])
    return "Ledoit-Wolf", amount


class Sphering(Correction):
    """ZCA-correlation whitening by the negative controls (Kessy, Lewin & Strimmer 2018, Am Stat 72:309).

    Features are standardised on the controls; the controls' correlation matrix R is shrunk towards the identity,
    (1 - a) R + a I, with a after `shrinkage_of`; features are multiplied by the inverse square root. Of all
    whitenings it keeps features closest to the original ones. Directions in which controls do not vary get the gain
    1 / √a: the smaller the shrinkage, the more they are amplified.
    """

    def _learn(self, values: np.ndarray, rows: pd.DataFrame) -> None:
        self.controls_ = len(rows)
        self.scaler_ = StandardScaler().fit(values)
        standard = self.scaler_.transform(values)
        self.shrunk_by_, self.shrinkage_ = shrinkage_of(standard)
        self.whitening_ = CovariancePower.of(standard, -0.5, 1 - self.shrinkage_, self.shrinkage_, ddof=0)

    def _apply(self, values: np.ndarray, table: pd.DataFrame) -> np.ndarray:
        return self.whitening_.apply(self.scaler_.transform(values))

    def _facts(self) -> dict[str, Any]:
        share = np.cumsum(self.whitening_.eigenvalues) / self.whitening_.eigenvalues.sum()
        p, rank, axes = len(self.columns_), self.whitening_.rank, int((share < 0.9).sum()) + 1
        return {
            "controls": self.controls_, "rank": rank, "regularisation": self.shrunk_by_,
            "shrinkage": self.shrinkage_, "first_axis_share": float(share[0]), "axes_of_90_percent": axes,
            "note": f"{self.controls_} controls, {p} features: rank {rank}"
                    f"{', short of full rank,' if rank < p else ''} regularised by {self.shrunk_by_} shrinkage of "
                    f"{self.shrinkage_:.3g}; one axis holds {100 * share[0]:.0f} % of the controls' variance, "
                    f"{axes} hold 90 %",
        }


class TVN(Sphering):
    """Typical variation normalisation (Ando, McLean & Berndl 2017, bioRxiv 161422).

    First whitening by principal axes of the negative controls: `Sphering`, which is the same up to a rotation,
    and rotations change neither distances nor angles nor what follows. Then CORAL (Sun, Feng & Saenko 2016, AAAI):
    each batch is centred on its controls (CORAL assumes centred domains), and their covariance C_b is aligned to
    that of all controls, C: rows of the batch times (C_b + I)^-½ (C + I)^½, the identity (`CORAL_RIDGE`) being
    CORAL's own regularisation. A batch with fewer than two controls is whitened only.
    """

    def _learn(self, values: np.ndarray, rows: pd.DataFrame) -> None:
        super()._learn(values, rows)
        white = super()._apply(values, rows)
        batches = batches_of(rows)
        self.target_ = CovariancePower.of(white - white.mean(axis=0), 0.5, 1.0, CORAL_RIDGE, ddof=1)
        self.centres_: dict[str, np.ndarray] = {}
        self.sources_: dict[str, CovariancePower] = {}
        self.unaligned_: set[str] = set()
        self.batch_controls_ = {str(b): int(n) for b, n in zip(*np.unique(batches, return_counts=True), strict=True)}
        for batch, n in self.batch_controls_.items():
            if n < 2:
                self.unaligned_.add(batch)
                continue
            own = white[batches == batch]
            self.centres_[batch] = own.mean(axis=0)
            self.sources_[batch] = CovariancePower.of(own - own.mean(axis=0), -0.5, 1.0, CORAL_RIDGE, ddof=1)

    def _apply(self, values: np.ndarray, table: pd.DataFrame) -> np.ndarray:
        white = super()._apply(values, table)
        batches = batches_of(table)
        for batch in np.unique(batches).tolist():
            if batch not in self.sources_:
                self.unaligned_.add(batch)
                continue
            own = batches == batch
            white[own] = self.target_.apply(self.sources_[batch].apply(white[own] - self.centres_[batch]))
        return white

    def _facts(self) -> dict[str, Any]:
        facts = super()._facts()
        aligned = [self.batch_controls_[b] for b in self.sources_]
        note = (f"; {len(aligned)} batches of {min(aligned)} to {max(aligned)} controls aligned with a ridge of "
                f"{CORAL_RIDGE:g}" if aligned else "; no batch has controls enough to be aligned")
        if self.unaligned_:
            note += f"; not aligned, for fewer than two controls: {', '.join(sorted(self.unaligned_))}"
        return facts | {"coral_ridge": CORAL_RIDGE, "batches": sorted(self.sources_),
                        "batches_unseen": sorted(self.unaligned_), "note": facts["note"] + note}
