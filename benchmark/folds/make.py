"""The only place where folds are made, hashed and audited.

A split is written once for a study and used by every method. It is audited when it is made, when it
is loaded and when results are compared, so that a leaking fold stops the program instead of flattering a
method.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import pandas as pd

from benchmark.assays.fieldtable import Assay
from benchmark.base.errors import LeakError, MorphobenchError
from benchmark.base.files import read_json, write_json
from benchmark.base.tables import CONTROL, LABEL, TREATMENT_KEY, WELL_KEY
from benchmark.folds.audit import audit, why_unscored
from benchmark.folds.fold import ALSO_APART, HELD_OUT, Fold, Scheme, Split, Unscored, WellKey, well_keys


def _leave_one_out(
    wells: pd.DataFrame, responses: pd.DataFrame, column: str, also: str | None
) -> tuple[list[Fold], list[Unscored]]:
    """One fold per value of ``column``: its wells are tested, others may be trained on.

    With ``also``, only those that share no value of that column with what is tested or predicted. Where the labels
    could then not be learnt, there is no fold, and the value is returned as unscored.
    """
    folds, unscored = [], []
    for value in sorted(wells[column].unique()):
        test, response = wells[column] == value, responses[column] == value
        train = ~test
        if also:
            train &= ~wells[also].isin({*wells.loc[test, also], *responses.loc[response, also]})
        reason = why_unscored(wells[test], wells[train], also) if also else None
        if reason is None:
            folds.append(Fold(str(value), well_keys(wells, test), well_keys(wells, train),
                              well_keys(responses, response)))
        else:
            treatments = len(wells.loc[test, TREATMENT_KEY].drop_duplicates())
            unscored.append(Unscored(str(value), reason[0], treatments, well_keys(wells, test), reason[1],
                                     well_keys(responses, response)))
    return folds, unscored


def make_split(assay: Assay, assay_hash: str, scheme: Scheme, file_hashes: Mapping[str, str] | None = None) -> Split:
    """Make the folds of a scheme and audit them.

    Only the assay's scored wells are in the folds: where treatments are scored, negative controls serve
    per-plate normalisation and are never a class.

    Raises
    ------
    MorphobenchError
        The assay has nothing to hold out under this scheme, or no fold is left that could be learnt.
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
        # Older files of folds had nothing unscored.
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
                        "Folds are not edited by hand: delete the file to make them again.")
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
            # Sentences are not part of the folds' hash: what is left out is reported as the assay reports it now.
            return replace(split, left_out=_not_scored(assay, split.unscored))
        raise MorphobenchError(f"holds the scheme {split.scheme}, the study asks for {scheme}", str(path))
    split = make_split(assay, assay_hash, scheme, file_hashes)
    save_split(path, split)
    return split


