"""Folds that share a training: which, on which wells, and the audit that none of them is trained on what it tests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from benchmark.assays.fieldtable import Assay
from benchmark.base.errors import LeakError, MorphobenchError
from benchmark.base.files import digest
from benchmark.base.tables import LABEL
from benchmark.folds.fold import Split, WellKey, rows_of

#: Trunks of a split with enough folds: more would share less; in fewer, each would lack more compounds.
TRUNKS = 4
#: With fewer folds, nothing can be shared.
FEWEST_FOLDS = 4


@dataclass(frozen=True)
class Trunk:
    """A training that several folds start from.

    Attributes
    ----------
    name : str
    folds : tuple of str
        Names of the folds that start from it.
    train : tuple of (plate, well)
        What it may be trained on: wells that every one of these folds may be trained on.
    """

    name: str
    folds: tuple[str, ...]
    train: tuple[WellKey, ...]


def trunk_count(folds: int) -> int:
    """How many trunks so many folds share."""
    return min(TRUNKS, max(2, folds // 2))


def make_trunks(split: Split, assay: Assay) -> tuple[Trunk, ...]:
    """Assign the folds of a split to trunks, and audit them.

    Folds are assigned in turn in the order of their labels, so that those of one label are spread over as many trunks
    as possible: no trunk then lacks a label with two or more compounds, and of a label with up to `TRUNKS` compounds
    it lacks at most one.

    Raises
    ------
    MorphobenchError
        There are fewer than `FEWEST_FOLDS` folds, or a trunk would have fewer than two labels to learn.
    LeakError
        See `audit_trunks`.
    """
    if len(split.folds) < FEWEST_FOLDS:
        raise MorphobenchError(f"nothing can be shared by {len(split.folds)} folds", "training.folds: shared",
                               "Use folds: exact.")
    labels = {f.name: sorted(set(assay.treated.loc[rows_of(assay.treated, f.test), LABEL])) for f in split.folds}
    folds = sorted(split.folds, key=lambda f: (labels[f.name], f.name))
    count = trunk_count(len(folds))
    trunks = []
    for i in range(count):
        own = folds[i::count]
        common = set(own[0].train).intersection(*(f.train for f in own))
        trunks.append(Trunk(f"trunk-{i + 1}", tuple(sorted(f.name for f in own)), tuple(sorted(common))))
    audit_trunks(trunks, split, assay)
    return tuple(trunks)


def audit_trunks(trunks: Sequence[Trunk], split: Split, assay: Assay) -> None:
    """Assert that no trunk is trained on anything that a fold that starts from it tests or keeps apart.

    Checked independently of how trunks were made: wells, and the values of what the scheme keeps apart (compound,
    batch, cell line), in the assay's own table.

    Raises
    ------
    LeakError
        A trunk trains on a well that one of its folds may not train on, or on a value (a compound) that one of its
        folds tests or predicts; or a fold is in no trunk, or in two.
    MorphobenchError
        A trunk has fewer than two labels.
    """
    folds = {f.name: f for f in split.folds}
    assigned = [name for trunk in trunks for name in trunk.folds]
    if sorted(assigned) != sorted(folds):
        raise LeakError("trainings that folds share do not have each fold once", "training.folds: shared")
    for trunk in trunks:
        train = assay.treated[rows_of(assay.treated, trunk.train)]
        if train[LABEL].nunique() < 2:
            raise MorphobenchError(f"the training that the folds {', '.join(trunk.folds)} would share has fewer than "
                                   "two labels", "training.folds: shared", "Use folds: exact.")
        for name in trunk.folds:
            fold = folds[name]
            beyond = sorted(set(trunk.train) - set(fold.train))
            if beyond:
                raise LeakError(f"is trained on the well {beyond[0]}, which the fold {name!r} may not train on",
                                trunk.name)
            fields = assay.fields[rows_of(assay.fields, (*fold.test, *fold.response))]
            for column, words in split.apart:
                shared: list[Any] = sorted(set(fields[column]) & set(train[column]))
                if shared:
                    raise LeakError(f"is trained on the {words} {shared[0]!r}, which the fold {name!r} holds out",
                                    trunk.name)


def trunk_of(trunks: Sequence[Trunk], fold: str) -> Trunk:
    """The trunk that a fold starts from."""
    return next(t for t in trunks if fold in t.folds)


def trunks_hash(trunks: Sequence[Trunk]) -> str:
    """Hash of which folds share which trainings, and on what."""
    return digest([[t.name, t.folds, t.train] for t in trunks])
