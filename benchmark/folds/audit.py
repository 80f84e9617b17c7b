"""What must hold for folds before anything is trained on them: the audit that `benchmark.folds.make` runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from benchmark.assays.fieldtable import Assay
from benchmark.base.errors import LeakError
from benchmark.base.tables import LABEL, TREATMENT_KEY, WELL_KEY, path_column

if TYPE_CHECKING:
    from benchmark.folds.fold import Fold, Split, Unscored


def why_unscored(test: pd.DataFrame, train: pd.DataFrame, also: str) -> tuple[str, str] | None:
    """Why no model of the wells that may be trained on could score the held-out wells.

    Parameters
    ----------
    test, train : DataFrame
        Scored wells (or fields) that are held out, and those that may be trained on.
    also : str
        Column whose values test and training do not share, besides the compound (the batch).

    Returns
    -------
    (label, reason) or None
        None where a model can be right and can be wrong: each label of the held-out wells is among those of the
        training wells, and these have at least two labels (with a single one every answer would be right).
    """
    labels, learnt = set(test[LABEL]), set(train[LABEL])
    missing = sorted(labels - learnt)
    own = ", ".join(sorted(test[also].unique()))
    if missing:
        return ", ".join(missing), f"no other compound has this label outside its own batches ({own})"
    if len(learnt) < 2:
        return ", ".join(sorted(labels)), f"all other compounds outside its own batches ({own}) have this one label"
    return None


def audit(split: Split, assay: Assay, assay_hash: str, file_hashes: Mapping[str, str] | None = None) -> None:
    """Assert that every fold is disjoint in what its scheme keeps apart, and in well, field and image content.

    Also: the split was made on this very assay; every scored well is tested exactly once, or its compound is named
    as unscored for a reason that holds; every test label can be learnt from training; every well of a dose series is
    predicted exactly once, where its compound (or cell line) is held out, and trained on nowhere.

    Parameters
    ----------
    file_hashes : mapping of str to str, optional
        Relative path to content hash. With it, one image under two names on both sides is detected.

    Raises
    ------
    LeakError
        Any of these does not hold. The fold and the first offender are named.
    """
    if split.assay_hash != assay_hash:
        raise LeakError("the split was made on other images or labels than this assay",
                        remedy="Delete the study's splits.json to make it again.")
    by_well = {key: rows for key, rows in assay.treated.groupby(WELL_KEY)}
    _audit_once([w for f in split.folds for w in f.test], [w for u in split.unscored for w in u.wells], by_well)
    responses = {key: rows for key, rows in assay.responses.groupby(WELL_KEY)}
    predicted = [w for f in split.folds for w in f.response] + [w for u in split.unscored for w in u.response]
    if sorted(predicted) != sorted(responses):
        raise LeakError(f"the dose series of all folds ({len(predicted)} wells) is not the assay's "
                        f"({len(responses)} wells), each once")
    for fold in split.folds:
        _audit_fold(fold, split.apart, by_well, responses, assay.channels, file_hashes)
    for left in split.unscored:
        _audit_unscored(left, split.apart, assay.treated, assay.responses)


def _audit_once(tested: Sequence[Any], unscored: Sequence[Any], by_well: Mapping[Any, pd.DataFrame]) -> None:
    """Every scored well is a test well once, or unscored once, and never both."""
    count = Counter([*tested, *unscored])
    if sorted([*tested, *unscored]) != sorted(by_well):
        twice = sorted(w for w, n in count.items() if n > 1)
        missing, extra = sorted(set(by_well) - set(count)), sorted(set(count) - set(by_well))
        raise LeakError(f"the test wells of all folds are not the scored wells, each once: twice {twice[:3]}, "
                        f"missing {missing[:3]}, unknown {extra[:3]}")


def _wells(rows: pd.DataFrame) -> list[tuple[str, str]]:
    """(plate, well) of the rows, each once, sorted."""
    return sorted(rows[WELL_KEY].drop_duplicates().itertuples(index=False, name=None))


def _audit_unscored(
    left: Unscored, apart: Sequence[tuple[str, str]], treated: pd.DataFrame, responses: pd.DataFrame
) -> None:
    """What has no fold is a whole compound and could not have been learnt: both are derived again from the assay."""
    where = f"unscored {left.name!r}"
    if len(apart) < 2:
        raise LeakError("this scheme scores every compound", where)
    (column, words), (also, _) = apart
    own = treated[column] == left.name
    if sorted(left.wells) != _wells(treated[own]):
        raise LeakError(f"its wells are not those of this {words}", where)
    if sorted(left.response) != _wells(responses[responses[column] == left.name]):
        raise LeakError(f"its dose series is not that of this {words}", where)
    shut = {*treated.loc[own, also], *responses.loc[responses[column] == left.name, also]}
    reason = why_unscored(treated[own], treated[~own & ~treated[also].isin(shut)], also)
    told = (left.label, left.reason)
    if reason != told or left.treatments != len(treated.loc[own, TREATMENT_KEY].drop_duplicates()):
        raise LeakError(f"what is recorded of it does not hold: it says {told}, the assay says "
                        f"{reason or 'that it can be scored'}", where)


def _audit_fold(
    fold: Fold,
    apart: Sequence[tuple[str, str]],
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
    # What is predicted but not scored must be kept apart from training just as what is scored.
    held = pd.concat([test, *(responses[w] for w in fold.response)])
    train = pd.concat([by_well[w] for w in fold.train]) if fold.train else test.iloc[:0]
    unlearnable = sorted(set(test[LABEL]) - set(train[LABEL]))
    if unlearnable:
        raise LeakError(f"no training well has the label {unlearnable[0]!r}: it cannot be scored", where)
    if len(apart) > 1 and train[LABEL].nunique() < 2:
        raise LeakError("all training wells have one label: there is nothing to decide", where)
    pairs: list[tuple[str, set[Any], set[Any]]] = [
        *((words, set(held[column]), set(train[column])) for column, words in apart),
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
