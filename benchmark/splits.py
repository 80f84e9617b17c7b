"""The only place where folds are made, hashed and audited.

A split is written once for a study and used by every method. It is audited when it is made, when it
is loaded and when results are compared, so a fold that leaks stops the program instead of flattering a
method.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from sklearn.model_selection import StratifiedGroupKFold

from benchmark.assays.fieldtable import Assay
from benchmark.errors import LeakError, MorphobenchError
from benchmark.files import digest, read_json, write_json
from benchmark.splits_audit import audit, why_unscored
from benchmark.tables import BATCH, CELL_LINE, COMPOUND, CONTROL, LABEL, PLATE, TREATMENT_KEY, WELL, WELL_KEY

__all__ = ["HELD_OUT", "Fold", "Scheme", "Split", "Unscored", "WellKey", "audit", "inner_folds", "inner_groups",
           "load_split", "make_split", "rows_of", "save_split", "study_split"]

Scheme = Literal["leave-one-compound-out", "leave-one-compound-and-batch-out", "leave-one-cell-line-out"]
WellKey = tuple[str, str]
#: What a scheme holds out, one value a fold; and the words for it.
HELD_OUT: Mapping[str, tuple[str, str]] = {
    "leave-one-compound-out": (COMPOUND, "compound"),
    "leave-one-compound-and-batch-out": (COMPOUND, "compound"),
    "leave-one-cell-line-out": (CELL_LINE, "cell line"),
}
#: What test and training of a fold never share besides, of schemes that keep more apart than they hold out.
ALSO_APART: Mapping[str, tuple[str, str]] = {"leave-one-compound-and-batch-out": (BATCH, "batch")}


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
class Unscored:
    """A compound that a scheme gives no fold, since nothing that may be trained on could have told its label.

    Attributes
    ----------
    name : str
        The compound.
    label : str
        Its label; where controls are scored, those that cannot be told, joined.
    treatments : int
        Compound x concentration (x cell line) that fall out of the denominator.
    wells : tuple of (plate, well)
        Its scored wells, in no fold's test part.
    reason : str
        See `benchmark.splits_audit.why_unscored`.
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
        if self.unscored:  # else the hash is that of splits made before there was anything unscored
            parts.append([[u.name, u.label, u.treatments, u.wells, u.reason, u.response] for u in self.unscored])
        return digest(parts, 64)

    @property
    def apart(self) -> tuple[tuple[str, str], ...]:
        """Columns whose values test and training of a fold never share, what is held out first, and their names."""
        also = ALSO_APART.get(self.scheme)
        return (HELD_OUT[self.scheme], *((also,) if also else ()))

    @property
    def tested(self) -> frozenset[WellKey]:
        """Wells that are scored, each in one fold's test part."""
        return frozenset(w for fold in self.folds for w in fold.test)


def _keys(table: pd.DataFrame, chosen: pd.Series) -> tuple[WellKey, ...]:
    return tuple(table.loc[chosen, WELL_KEY].itertuples(index=False, name=None))


def _leave_one_out(
    wells: pd.DataFrame, responses: pd.DataFrame, column: str, also: str | None
) -> tuple[list[Fold], list[Unscored]]:
    """One fold a value of ``column``: its wells are tested, others may be trained on.

    With ``also``, only those that share no value of that column with what is tested or predicted. A fold whose
    labels could then not be told is none, and is named.
    """
    folds, unscored = [], []
    for value in sorted(wells[column].unique()):
        test, response = wells[column] == value, responses[column] == value
        train = ~test
        if also:
            train &= ~wells[also].isin({*wells.loc[test, also], *responses.loc[response, also]})
        found = why_unscored(wells[test], wells[train], also) if also else None
        if found is None:
            folds.append(Fold(str(value), _keys(wells, test), _keys(wells, train), _keys(responses, response)))
        else:
            treatments = len(wells.loc[test, TREATMENT_KEY].drop_duplicates())
            unscored.append(Unscored(str(value), found[0], treatments, _keys(wells, test), found[1],
                                     _keys(responses, response)))
    return folds, unscored


def make_split(assay: Assay, assay_hash: str, scheme: Scheme, file_hashes: Mapping[str, str] | None = None) -> Split:
    """Make the folds of a scheme and audit them.

    Only the assay's scored wells are in the folds: where treatments are scored, negative controls serve
    per-plate normalisation and are never a class.

    Raises
    ------
    MorphobenchError
        The assay has nothing to hold out by this scheme, or no fold is left that could be learnt.
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
    also = ALSO_APART.get(scheme)
    if also and wells[also[0]].nunique() < 2:
        raise MorphobenchError(
            f"{scheme} needs two {also[1]}es or more, and the scored wells lie in one ({wells[also[0]].iloc[0]!r})",
            "study.split", f"Map a column of the assay's table to `{also[1]}` if there were several, or use "
            f"{' or '.join(s for s in HELD_OUT if s not in ALSO_APART)}.")
    folds, unscored = _leave_one_out(wells, responses, column, also[0] if also else None)
    if not folds:
        raise MorphobenchError(f"{scheme} leaves no fold that could be scored ({unscored[0]}; and so on)",
                               "study.split", "Use leave-one-compound-out: labels and batches are the same thing here.")
    split = Split(scheme, assay_hash, tuple(folds), _not_scored(assay, unscored), tuple(unscored))
    audit(split, assay, assay_hash, file_hashes)
    return split


def _not_scored(assay: Assay, unscored: Sequence[Unscored]) -> tuple[str, ...]:
    """What the assay holds and no fold scores, one sentence each."""
    sentences = [str(f) for f in assay.left_out]
    sentences += [str(u) for u in unscored]
    responses = len(assay.responses.drop_duplicates(WELL_KEY))
    controls = int(assay.wells[CONTROL].eq("negative").sum())
    unlabelled = int((assay.wells[LABEL].eq("") & assay.wells[CONTROL].eq("")).sum()) - responses
    if controls and assay.scoring == "treatments":
        sentences.append(f"{controls} negative-control wells are not scored; they serve normalisation only")
    predicted = responses - sum(len(u.response) for u in unscored)
    if predicted:
        sentences.append(f"{predicted} wells of the dose series are predicted and not scored: they have no label")
    if unlabelled > 0:
        sentences.append(f"{unlabelled} wells without a label are neither trained on nor scored")
    return tuple(sentences)


def save_split(path: Path, split: Split) -> None:
    """Write the folds as JSON with their hash."""
    folds = [{"name": f.name, "test": f.test, "train": f.train, "response": f.response} for f in split.folds]
    write_json(path, {"scheme": split.scheme, "assay_hash": split.assay_hash, "folds": folds,
                      "left_out": split.left_out, "unscored": [asdict(u) for u in split.unscored],
                      "hash": split.hash})


def _wells(raw: Sequence[Sequence[str]]) -> tuple[WellKey, ...]:
    return tuple((plate, well) for plate, well in raw)


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
        folds = tuple(Fold(f["name"], *(_wells(f[part]) for part in ("test", "train", "response")))
                      for f in raw["folds"])
        # Folds files of before had nothing unscored.
        unscored = tuple(Unscored(**u | {part: _wells(u[part]) for part in ("wells", "response")})
                         for u in raw.get("unscored", ()))
        if raw["scheme"] not in HELD_OUT:
            raise ValueError(f"unknown scheme {raw['scheme']!r}")
        split = Split(raw["scheme"], raw["assay_hash"], folds, tuple(raw["left_out"]), unscored)
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
            # Sentences are no part of the folds' hash: what is left out is told as the assay tells it now.
            return replace(split, left_out=_not_scored(assay, split.unscored))
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
