"""What a fold is: wells held out, and the wells that may be trained on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd

from benchmark.base.files import digest
from benchmark.base.tables import BATCH, CELL_LINE, COMPOUND, PLATE, WELL, WELL_KEY

Scheme = Literal["leave-one-compound-out", "leave-one-compound-and-batch-out", "leave-one-cell-line-out"]


WellKey = tuple[str, str]


#: The column whose values a scheme holds out, one value per fold, and its name in words.
HELD_OUT: Mapping[str, tuple[str, str]] = {
    "leave-one-compound-out": (COMPOUND, "compound"),
    "leave-one-compound-and-batch-out": (COMPOUND, "compound"),
    "leave-one-cell-line-out": (CELL_LINE, "cell line"),
}


#: What else test and training of a fold never share, for schemes that keep more apart than they hold out.
ALSO_APART: Mapping[str, tuple[str, str]] = {"leave-one-compound-and-batch-out": (BATCH, "batch")}


@dataclass(frozen=True)
class Fold:
    """Wells held out, and the wells that may be trained on. Wells are (plate, well).

    ``response`` are unlabelled wells of what is held out, a dose series: predicted, but neither trained on nor
    scored. They are only in the fold that holds out their compound (or cell line).
    """

    name: str
    test: tuple[WellKey, ...]
    train: tuple[WellKey, ...]
    response: tuple[WellKey, ...] = ()


@dataclass(frozen=True)
class Unscored:
    """A compound without a fold, since its label could not be learnt from anything that may be trained on.

    Attributes
    ----------
    name : str
        The compound.
    label : str
        Its label; where controls are scored, the labels that cannot be learnt, joined by commas.
    treatments : int
        Number of compound x concentration (x cell line) left out of the denominator.
    wells : tuple of (plate, well)
        Its scored wells, in no fold's test part.
    reason : str
        See `benchmark.folds.audit.why_unscored`.
    response : tuple of (plate, well)
        Its dose series, where the assay has one: not predicted.
    """

    name: str
    label: str
    treatments: int
    wells: tuple[WellKey, ...]
    reason: str
    response: tuple[WellKey, ...] = ()

    def __str__(self) -> str:
        size = ", ".join(f"{n} {what}{'' if n == 1 else 's'}"
                         for n, what in ((self.treatments, "treatment"), (len(self.wells), "well")))
        return f"{self.name} ({self.label}; {size}) is not scored: {self.reason}"


@dataclass(frozen=True)
class Split:
    """All folds of a scheme on one assay.

    Attributes
    ----------
    scheme : str
        How the folds were made.
    assay_hash : str
        Hash of the assay they were made on.
    folds : tuple of Fold
        In the order of their names.
    left_out : tuple of str
        What is not scored, and why, one sentence each.
    unscored : tuple of Unscored
        Compounds of the assay's scored wells that have no fold, in the order of their names. Their treatments are in
        no denominator.
    """

    scheme: str
    assay_hash: str
    folds: tuple[Fold, ...]
    left_out: tuple[str, ...] = ()
    unscored: tuple[Unscored, ...] = ()

    @property
    def hash(self) -> str:
        """Hash of the folds, of what has none, and of the assay they belong to (64 hexadecimal digits)."""
        parts: list[Any] = [self.scheme, self.assay_hash, [[f.name, f.test, f.train, f.response] for f in self.folds]]
        if self.unscored:  # else the hash stays that of splits made before this was recorded
            parts.append([[u.name, u.label, u.treatments, u.wells, u.reason, u.response] for u in self.unscored])
        return digest(parts, 64)

    @property
    def apart(self) -> tuple[tuple[str, str], ...]:
        """Columns whose values test and training of a fold never share, and their names; what is held out is first."""
        also = ALSO_APART.get(self.scheme)
        return (HELD_OUT[self.scheme], *((also,) if also else ()))

    @property
    def tested(self) -> frozenset[WellKey]:
        """Wells that are scored, each in the test part of one fold."""
        return frozenset(w for fold in self.folds for w in fold.test)


def well_keys(table: pd.DataFrame, chosen: pd.Series) -> tuple[WellKey, ...]:
    """Keys (plate, well) of the rows of ``table`` where the mask ``chosen`` is true, in their order."""
    return tuple(table.loc[chosen, WELL_KEY].itertuples(index=False, name=None))


def rows_of(table: pd.DataFrame, wells: tuple[WellKey, ...]) -> pd.Series:
    """Boolean mask of the rows of ``table`` (with plate and well columns) that lie in ``wells``."""
    index = pd.MultiIndex.from_frame(table[[PLATE, WELL]])
    return pd.Series(index.isin(list(wells)), index=table.index)
