"""The only place where folds are made, hashed and audited.

A split is written once for a study and used by every method. It is audited when it is made, when it
is loaded and when results are compared, so a fold that leaks stops the program instead of flattering a
method.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from sklearn.model_selection import StratifiedGroupKFold

from benchmark.assays.fieldtable import Assay
from benchmark.errors import LeakError, MorphobenchError
from benchmark.files import digest, read_json, write_json
from benchmark.tables import CELL_LINE, COMPOUND, CONTROL, LABEL, PLATE, WELL, WELL_KEY, path_column

Scheme = Literal["leave-one-compound-out", "leave-one-cell-line-out"]
WellKey = tuple[str, str]
#: What a scheme holds out, one value a fold; and the words for it.
HELD_OUT: Mapping[str, tuple[str, str]] = {
    "leave-one-compound-out": (COMPOUND, "compound"),
    "leave-one-cell-line-out": (CELL_LINE, "cell line"),
}


@dataclass(frozen=True)
class Fold:
    """Wells held out, and the wells that may be trained on. Wells are (plate, well).

    ``response`` are unlabelled wells of what is held out, a dose series: predicted, and neither trained nor
    scored on. They lie in no fold but where their compound (or cell line) is held out.
    """

    name: str
    test: tuple[WellKey, ...]
    train: tuple[WellKey, ...]
    response: tuple[WellKey, ...] = ()


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
    """

    scheme: str
    assay_hash: str
    folds: tuple[Fold, ...]
    left_out: tuple[str, ...] = ()

    @property
    def hash(self) -> str:
        """Hash of the folds and of the assay they belong to (64 hexadecimal digits)."""
        return digest([self.scheme, self.assay_hash, [[f.name, f.test, f.train, f.response] for f in self.folds]],
                      64)


def _leave_one_out(wells: pd.DataFrame, responses: pd.DataFrame, column: str) -> list[Fold]:
    """One fold a value of ``column``: its wells are tested, all others may be trained on."""

    def keys(table: pd.DataFrame, chosen: pd.Series) -> tuple[WellKey, ...]:
        return tuple(table.loc[chosen, WELL_KEY].itertuples(index=False, name=None))

    return [
        Fold(str(value), keys(wells, wells[column] == value), keys(wells, wells[column] != value),
             keys(responses, responses[column] == value))
        for value in sorted(wells[column].unique())
    ]


def make_split(assay: Assay, assay_hash: str, scheme: Scheme, file_hashes: Mapping[str, str] | None = None) -> Split:
    """Make the folds of a scheme and audit them.

    Only the assay's scored wells are in the folds: where treatments are scored, negative controls serve
    per-plate normalisation and are never a class.

    Raises
    ------
    MorphobenchError
        The assay has nothing to hold out by this scheme.
    LeakError
        A fold is not sound; see `audit`.
    """
    column, words = HELD_OUT[scheme]
    wells = assay.treated.drop_duplicates(WELL_KEY).sort_values(WELL_KEY)
    responses = assay.responses.drop_duplicates(WELL_KEY).sort_values(WELL_KEY)
    if wells[column].nunique() < 2:
        only = ", ".join(map(repr, wells[column].unique())) or "none"
        raise MorphobenchError(f"{scheme} needs two {words}s or more, and the scored wells have {only}", "study.split",
                               f"Schemes: {', '.join(HELD_OUT)}.")
    split = Split(scheme, assay_hash, tuple(_leave_one_out(wells, responses, column)), _not_scored(assay))
    audit(split, assay, assay_hash, file_hashes)
    return split


def _not_scored(assay: Assay) -> tuple[str, ...]:
    """What the assay holds and no fold scores, one sentence each."""
    sentences = [str(f) for f in assay.left_out]
    responses = len(assay.responses.drop_duplicates(WELL_KEY))
    controls = int(assay.wells[CONTROL].eq("negative").sum())
    unlabelled = int((assay.wells[LABEL].eq("") & assay.wells[CONTROL].eq("")).sum()) - responses
    if controls and assay.scoring == "treatments":
        sentences.append(f"{controls} negative-control wells are not scored; they serve normalisation only")
    if responses:
        sentences.append(f"{responses} wells of the dose series are predicted and not scored: they have no label")
    if unlabelled > 0:
        sentences.append(f"{unlabelled} wells without a label are neither trained on nor scored")
    return tuple(sentences)


def audit(split: Split, assay: Assay, assay_hash: str, file_hashes: Mapping[str, str] | None = None) -> None:
    """Assert that every fold is disjoint in what its scheme holds out, and in well, field and image content.

    Also: the split was made on this very assay; every scored well is tested exactly once; every test
    label can be learnt from training; every well of a dose series is predicted exactly once, where its compound
    (or cell line) is held out, and trained on nowhere.

    Parameters
    ----------
    file_hashes : mapping of str to str, optional
        Relative path to content hash. With it, the same image under two names on both sides is found.

    Raises
    ------
    LeakError
        Any of these does not hold. The fold and the first offender are named.
    """
    if split.assay_hash != assay_hash:
        raise LeakError("the split was made on other images or labels than this assay",
                        remedy="Delete the study's splits.json to make it anew.")
    treated = assay.treated
    by_well = {key: rows for key, rows in treated.groupby(WELL_KEY)}
    tested: list[WellKey] = [w for fold in split.folds for w in fold.test]
    if sorted(tested) != sorted(by_well):
        twice = sorted({w for w in tested if tested.count(w) > 1})
        missing = sorted(set(by_well) - set(tested))
        extra = sorted(set(tested) - set(by_well))
        raise LeakError(f"the test wells of all folds are not the scored wells, each once: twice {twice[:3]}, "
                        f"missing {missing[:3]}, unknown {extra[:3]}")
    responses = {key: rows for key, rows in assay.responses.groupby(WELL_KEY)}
    predicted = [w for fold in split.folds for w in fold.response]
    if sorted(predicted) != sorted(responses):
        raise LeakError(f"the dose series of all folds ({len(predicted)} wells) is not the assay's "
                        f"({len(responses)} wells), each once")
    for fold in split.folds:
        _audit_fold(fold, HELD_OUT[split.scheme], by_well, responses, assay.channels, file_hashes)


def _audit_fold(
    fold: Fold,
    held_out: tuple[str, str],
    by_well: Mapping[Any, pd.DataFrame],
    responses: Mapping[Any, pd.DataFrame],
    channels: tuple[str, ...],
    file_hashes: Mapping[str, str] | None,
) -> None:
    where = f"fold {fold.name!r}"
    unknown = sorted(set(fold.train) - set(by_well))
    if unknown:
        raise LeakError(f"trains on wells that are not scored wells: {unknown[:3]}", where)
    test = pd.concat([by_well[w] for w in fold.test])
    # What is predicted, scored or not, must be as far from training as what is scored.
    held = pd.concat([test, *(responses[w] for w in fold.response)])
    train = pd.concat([by_well[w] for w in fold.train]) if fold.train else test.iloc[:0]
    unlearnable = sorted(set(test[LABEL]) - set(train[LABEL]))
    if unlearnable:
        raise LeakError(f"no training well has the label {unlearnable[0]!r}: it cannot be scored", where)
    column, words = held_out
    pairs: list[tuple[str, set[Any], set[Any]]] = [
        (words, set(held[column]), set(train[column])),
        ("well", {*fold.test, *fold.response}, set(fold.train)),
    ]
    paths = [path_column(c) for c in channels]
    pairs.append(("image file", set(held[paths].to_numpy().ravel()), set(train[paths].to_numpy().ravel())))
    if file_hashes is not None:
        pairs.append(("image content", {file_hashes[p] for p in pairs[-1][1]}, {file_hashes[p] for p in pairs[-1][2]}))
    for what, in_test, in_train in pairs:
        shared = sorted(in_test & in_train)
        if shared:
            raise LeakError(f"the {what} {shared[0]!r} is in both test and training", where)


def save_split(path: Path, split: Split) -> None:
    """Write the folds as JSON with their hash."""
    folds = [{"name": f.name, "test": f.test, "train": f.train, "response": f.response} for f in split.folds]
    write_json(path, {"scheme": split.scheme, "assay_hash": split.assay_hash, "folds": folds,
                      "left_out": split.left_out, "hash": split.hash})


def load_split(path: Path, assay: Assay, assay_hash: str, file_hashes: Mapping[str, str] | None = None) -> Split:
    """Read a folds file, check its hash, and audit it against the assay.

    Raises
    ------
    MorphobenchError
        The file is malformed.
    LeakError
        Its content does not match its hash (edited by hand), or the audit fails.
    """
    raw = read_json(path)
    try:
        folds = tuple(
            Fold(f["name"], *(tuple((p, w) for p, w in f[part]) for part in ("test", "train", "response")))
            for f in raw["folds"]
        )
        if raw["scheme"] not in HELD_OUT:
            raise ValueError(f"unknown scheme {raw['scheme']!r}")
        split = Split(raw["scheme"], raw["assay_hash"], folds, tuple(raw["left_out"]))
        stated = raw["hash"]
    except (KeyError, TypeError, ValueError) as error:
        raise MorphobenchError(f"is not a folds file ({error!r})", str(path), "Delete it and run again.") from error
    if split.hash != stated:
        raise LeakError("the folds do not match the hash written with them", str(path),
                        "Folds are not edited by hand: delete the file to make them anew.")
    audit(split, assay, assay_hash, file_hashes)
    return split


def study_split(path: Path, assay: Assay, assay_hash: str, scheme: Scheme,
                file_hashes: Mapping[str, str] | None) -> Split:
    """The study's folds: loaded where ``path`` holds those of this assay and scheme, else made and saved.

    A folds file of another assay is not overwritten: callers give each assay its own path.
    """
    if path.exists():
        split = load_split(path, assay, assay_hash, file_hashes)
        if split.scheme == scheme:
            # What is left out is no part of the folds' hash: it is told as the assay tells it now.
            return replace(split, left_out=_not_scored(assay))
        raise MorphobenchError(f"holds the scheme {split.scheme}, the study asks for {scheme}", str(path))
    split = make_split(assay, assay_hash, scheme, file_hashes)
    save_split(path, split)
    return split


def rows_of(table: pd.DataFrame, wells: tuple[WellKey, ...]) -> pd.Series:
    """Boolean mask of the rows of ``table`` (with plate and well columns) that lie in ``wells``."""
    index = pd.MultiIndex.from_frame(table[[PLATE, WELL]])
    return pd.Series(index.isin(list(wells)), index=table.index)


def inner_groups(table: pd.DataFrame) -> pd.Series:
    """What `inner_folds` keeps together: compounds; where training has a single one, cell lines, else wells."""
    for column in (COMPOUND, CELL_LINE):
        if table[column].nunique() > 1:
            return table[column]
    return table[PLATE] + " " + table[WELL]


def inner_folds(
    compounds: Sequence[str], labels: Sequence[str], folds: int, seed: int
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Folds inside the training wells of a fold, for choosing settings: no compound on both sides.

    Stratified by label as far as compounds allow. Fewer folds are made where there are fewer compounds, or where the
    commonest label has fewer rows.

    Parameters
    ----------
    compounds : sequence of str
        Group of each row: its compound, or what stands for it (`inner_groups`).

    Returns
    -------
    list of (train, test)
        Row positions, int64. Empty where nothing can be held out.

    Raises
    ------
    LeakError
        A compound is on both sides (asserted, not assumed).
    """
    groups = np.asarray(compounds)
    most_rows = max(Counter(labels).values())  # no more folds than the commonest label has rows
    n = min(folds, len(set(compounds)), most_rows)
    if n < 2:
        return []
    splitter = StratifiedGroupKFold(n, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        # A label with fewer compounds than folds is normal here: it is absent from some test parts.
        warnings.filterwarnings("ignore", message="The least populated class", category=UserWarning)
        made = list(splitter.split(np.zeros(len(groups)), np.asarray(labels), groups))
    for train, test in made:
        shared = set(groups[train]) & set(groups[test])
        if shared:
            raise LeakError(f"the compound {sorted(shared)[0]!r} is on both sides of an inner fold")
    return [(train, test) for train, test in made if len(test)]
