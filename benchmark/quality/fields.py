"""Which fields a study leaves out, and why: images that cannot be used, fields that CellProfiler cannot measure,
and fields that quality control flags.

A field is left out for both arms or for neither, before folds are made. Whatever is lost with it (a well, a treatment,
a plate's controls) is named.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from benchmark.assays.fetching.lock import lock_faults
from benchmark.assays.fieldtable import Assay, lone_labels, row_name
from benchmark.base.account import Loss
from benchmark.base.errors import Fault, FaultsError, MorphobenchError
from benchmark.base.files import digest, once, read_json
from benchmark.base.tables import COMPOUND, CONTROL, FIELD_KEY, LABEL, PLATE, TREATMENT_KEY, WELL_KEY, path_column
from benchmark.base.tasks import RunTasks, run_serially
from benchmark.quality.check import ImageFaults, assay_hash, check_images, file_hashes
from benchmark.quality.flags import COLUMNS, flag_fields
from benchmark.quality.found import lost_plates
from benchmark.quality.losses import cause_of, field_losses, gone_with_fields
from benchmark.quality.measures import measure_quality
from benchmark.quality.settings import QualitySettings

#: With more bad fields than this something is wrong with the whole assay, and continuing would hide it.
MOST_BAD = 0.2
LISTED = "`morphobench assay check` lists every image."
#: Of fields in a record of an earlier version, which did not note it.
UNNOTED = "their images cannot be used"


@dataclass(frozen=True)
class Bad:
    """What is wrong with a field's images: in words that name its files, and as a cause that fields share."""

    words: str
    cause: str

    @classmethod
    def of(cls, faults: tuple[Fault, ...]) -> Bad:
        """From the faults of one field, each listed once, without the name of the field."""
        texts = (f"{f.where.rsplit(', ', 1)[-1]} {f.what}" for f in faults)
        return cls("; ".join(dict.fromkeys(texts)), cause_of(faults))


@dataclass(frozen=True)
class Sound:
    """An assay whose every image can be used, the SHA-256 of its files, and the hash of it all."""

    assay: Assay
    hashes: Mapping[str, str]
    assay_hash: str


def sound_assay(assay: Assay, checked: Path, lone: str = "refuse") -> Sound:
    """Check every pixel (once), and leave out single fields whose images are bad.

    A field is bad where a plane is missing, unreadable, truncated, constant, or of another size or depth than most.

    Parameters
    ----------
    assay : Assay
        As its loader gives it.
    checked : Path
        Folder in which hashes and the result of the check are kept.
    lone : {'refuse', 'leave_out'}
        What to do with a label that is left with a single compound; see `without_fields`.

    Returns
    -------
    Sound
        The same object where nothing is bad.

    Raises
    ------
    FaultsError
        More than `MOST_BAD` of the fields are bad, every field of a plate is, a fault is of the table as a whole (the
        same picture in two fields, several planes of which the study names none), or files differ from the lock file
        they were fetched with. All faults are listed.
    """
    title = f"The images of {assay.name} have"
    absent = _absent(assay)
    if len(absent) > MOST_BAD * len(assay.fields):
        faults = check_images(assay).faults
        raise FaultsError(faults, f"{title} {len(faults)} fault(s):")
    gone = _images_of(assay, absent)
    bad = {absent[i]: Bad.of(faults) for i, faults in gone.of_fields.items()}
    there = [i for i in range(len(assay.fields)) if i not in bad]
    rest = replace(assay, fields=assay.fields.iloc[there]) if bad else assay
    hashes = file_hashes(rest, known=checked / "hashes.json")
    _check_lock(rest, hashes)
    rest_hash = assay_hash(rest, hashes)
    for i, found in _checked(rest, rest_hash, checked, len(assay.fields), gone).items():
        bad[there[i]] = found
    if not bad:
        return Sound(assay, hashes, rest_hash)
    _refuse_lost_plates(assay, bad)
    losses = field_losses(assay.fields, {i: bad[i].cause for i in sorted(bad)}, remedy=LISTED)
    sound = without_fields(assay, {i: f"left out: {bad[i].words}" for i in sorted(bad)}, losses, lone)
    return Sound(sound, hashes, assay_hash(sound, hashes))


def _refuse_lost_plates(assay: Assay, bad: Mapping[int, Bad]) -> None:
    """Refuse to go on without a whole plate: that is no field gone bad, but an export that differs from the others.

    Raises
    ------
    FaultsError
        Every field of a plate is bad; one fault a plate.
    """
    plates = assay.fields[PLATE].astype(str).to_numpy()
    faults = []
    for plate in lost_plates(assay, set(bad)):
        rows = np.flatnonzero(plates == plate).tolist()
        faults.append(Fault(f"all {len(rows)} fields of the plate are bad; the first: {bad[rows[0]].words}",
                            f"plate {plate}",
                            "Export or copy its images again; to go on without the plate, take its rows out of the "
                            "table (`morphobench assay check` lists every fault)."))
    if faults:
        raise FaultsError(faults, f"{assay.name} would lose whole plates; {len(faults)} fault(s):")


def _absent(assay: Assay) -> list[int]:
    """Positions of fields with a file that is missing or may not be read."""
    columns = [path_column(c) for c in assay.channels]
    names = {str(name) for c in columns for name in assay.fields[c].unique()}
    lost = {n for n in names if not ((assay.root / n).is_file() and os.access(assay.root / n, os.R_OK))}
    rows = assay.fields[columns].itertuples(index=False, name=None)
    return [i for i, row in enumerate(rows) if lost & set(map(str, row))] if lost else []


def _images_of(assay: Assay, positions: list[int]) -> ImageFaults:
    """What is wrong with the images of some fields, by their places among them."""
    return check_images(replace(assay, fields=assay.fields.iloc[positions])) if positions else ImageFaults((), {}, ())


def _check_lock(assay: Assay, hashes: Mapping[str, str]) -> None:
    """Fetched images must still match the lock file."""
    faults = lock_faults(assay.lock, assay.root, hashes) if assay.lock is not None else []
    if faults:
        raise FaultsError(faults, f"{len(faults)} image(s) of {assay.name} differ from {assay.lock}:")


def _checked(assay: Assay, its_hash: str, folder: Path, n: int, absent: ImageFaults) -> dict[int, Bad]:
    """Bad fields by position; from an earlier check of the same assay where there is one.

    ``n`` is the number of fields with those whose files are ``absent``.
    """

    def check() -> dict[str, object]:
        result = check_images(assay)
        if result.of_table or len(result.of_fields) + len(absent.of_fields) > MOST_BAD * n:
            faults = [*absent.faults, *result.faults]
            raise FaultsError(faults, f"The images of {assay.name} have {len(faults)} fault(s):")
        record: dict[str, object] = {"assay_hash": its_hash, "fields": len(assay.fields)}
        if result.of_fields:
            bad = {str(i): Bad.of(faults) for i, faults in result.of_fields.items()}
            record["bad"] = {i: of.words for i, of in bad.items()}
            record["causes"] = {i: of.cause for i, of in bad.items()}
        return record

    # An assay's hash does not tell whether its planes were given or are to be the only ones.
    unsaid = f"-{digest(assay.only_plane, 8)}" if assay.only_plane else ""
    path = once(folder / f"{its_hash[:16]}{unsaid}.json", check)
    found = read_json(path)
    causes = found.get("causes", {})
    return {int(i): Bad(str(words), str(causes.get(i, UNNOTED))) for i, words in found.get("bad", {}).items()}


def flagged_fields(sound: Sound, settings: QualitySettings, checked: Path, run_tasks: RunTasks = run_serially,
                   counts: pd.DataFrame | None = None, lost: pd.DataFrame | None = None) -> pd.DataFrame:
    """Quality flags of an assay, see `benchmark.quality.flags.flag_fields`; images are measured once.

    Parameters
    ----------
    lost : DataFrame, optional
        `FIELD_KEY` of fields that are out already: not flagged, and nothing is compared with them.

    Returns
    -------
    DataFrame
        No row where the settings say ``off`` or the assay has no images.
    """
    if settings.flagged == "off" or not sound.assay.channels:
        return pd.DataFrame(columns=COLUMNS)
    measures = measure_quality(sound.assay, sound.assay_hash, checked, run_tasks)
    fields = sound.assay.fields
    if lost is not None:
        fields = fields[~_among(fields, lost)]
    return flag_fields(measures, fields, sound.assay.channels, settings, counts)


def _among(fields: pd.DataFrame, some: pd.DataFrame) -> np.ndarray:
    """Which rows of a field table are among some fields, by their keys."""
    return pd.MultiIndex.from_frame(fields[FIELD_KEY]).isin(pd.MultiIndex.from_frame(some[FIELD_KEY]))


def without_lost(sound: Sound, lost: pd.DataFrame, most: float, lone: str = "refuse") -> Sound:
    """The assay without the fields that CellProfiler could not measure; the same object where there are none.

    Parameters
    ----------
    lost : DataFrame
        `FIELD_KEY`, as in the field table, and ``reason``.
    most : float
        Largest share of the fields that may be left out so.

    Raises
    ------
    FaultsError
        More are lost; all are listed.
    """
    if lost.empty:
        return sound
    n = len(sound.assay.fields)
    words = [f"could not be measured by CellProfiler: {reason}" for reason in lost["reason"]]
    if len(lost) > most * n:
        faults = [Fault(text, row_name(row)) for text, (_, row) in zip(words, lost.iterrows(), strict=True)]
        raise FaultsError(faults, f"{len(lost)} of {n} fields of {sound.assay.name} could not be measured, more than "
                                  f"failed_fields allows ({most:.0%}):")
    why = dict(zip(lost[FIELD_KEY].itertuples(index=False, name=None), words, strict=True))
    # Not counted here: what could not be measured is counted by pipeline, with what was measured.
    return _without(sound, {key: f"left out: {text}" for key, text in why.items()}, "", lone)


def _without(sound: Sound, why: Mapping[tuple[object, ...], str], asked: str, lone: str) -> Sound:
    """The assay without the fields of some keys; the same object where it has none of them.

    ``asked`` is what of the study asks for it, in words; then they are counted.
    """
    keys = sound.assay.fields[FIELD_KEY].itertuples(index=False, name=None)
    gone = {i: why[key] for i, key in enumerate(keys) if key in why}
    if not gone:
        return sound
    losses = field_losses(sound.assay.fields, dict.fromkeys(gone, asked), asked=True) if asked else []
    assay = without_fields(sound.assay, gone, losses, lone)
    return Sound(assay, sound.hashes, assay_hash(assay, dict(sound.hashes)))


def without_flagged(sound: Sound, flags: pd.DataFrame, lone: str = "refuse") -> Sound:
    """The assay without its flagged fields; the same object where there are none.

    Raises
    ------
    MorphobenchError
        More than `MOST_BAD` of the fields are flagged.
    """
    if flags.empty:
        return sound
    why = {tuple(key): f"left out by quality control: {'; '.join(rows['reason'])}"
           for key, rows in flags.groupby(FIELD_KEY, sort=False)}
    n, gone = len(sound.assay.fields), int(_among(sound.assay.fields, flags).sum())
    if gone > MOST_BAD * n:
        raise MorphobenchError(f"quality control would leave out {gone} of {n} fields", "quality",
                               "Raise quality.deviations, or set quality.flagged to keep.")
    return _without(sound, why, "flagged by quality control, and quality.flagged is leave_out", lone)


def without_fields(assay: Assay, gone: Mapping[int, str], losses: Sequence[Loss] = (), lone: str = "refuse") -> Assay:
    """An assay without some fields: each, and all that is lost with them, is named in ``left_out`` and counted.

    Parameters
    ----------
    gone : mapping
        Position in the field table → why, in words.
    losses : sequence of Loss
        The same fields, counted by cause.
    lone : {'refuse', 'leave_out'}
        What to do with a label that had several compounds and is left with one, which cannot be scored.

    Raises
    ------
    MorphobenchError
        No field is left, or a label is left with one compound and ``lone`` refuses it.
    """
    before = assay.fields
    after = before.drop(index=before.index[list(gone)])
    if after.empty:
        raise MorphobenchError("none of the fields can be used", assay.name, "`morphobench assay check` lists why.")
    notes = [*assay.left_out, *(Fault(words, row_name(before.iloc[i])) for i, words in gone.items()),
             *_gone_with_them(before, after)]
    asked = bool(losses) and all(loss.asked for loss in losses)
    counted = [*assay.losses, *losses, *gone_with_fields(before, after, asked)]
    alone = lone_labels(after) if assay.scoring == "treatments" else {}
    for label, compound in alone.items():
        if label in lone_labels(before):
            continue
        if lone == "refuse":
            raise MorphobenchError(f"without the fields that are left out, the label {label!r} has a single compound "
                                   f"({compound}): leave-one-compound-out cannot score it", assay.name,
                                   "Mend the images, set quality.flagged to keep, or set "
                                   "assay.single_compound_labels to leave_out.")
        notes.append(Fault(f"label {label!r} left out: a single compound ({compound})"))
        kept = after[(after[LABEL] != label) | (after[CONTROL] == "negative")]
        wells = [len(table.drop_duplicates(WELL_KEY)) for table in (after, kept)]
        counted.append(Loss("wells", wells[0] - wells[1], wells[0],
                            f"the label {label!r} is left with a single compound, and single_compound_labels is "
                            "leave_out", asked=True))
        after = kept
    return replace(assay, fields=after.reset_index(drop=True), left_out=tuple(notes), losses=tuple(counted))


def _gone_with_them(before: pd.DataFrame, after: pd.DataFrame) -> list[Fault]:
    """Wells, treatments, compounds, plates and plates' negative controls that have no field any more, by name."""
    notes = []
    for key, words in ((WELL_KEY, "well"), (TREATMENT_KEY, "treatment"), ([COMPOUND], "compound"), ([PLATE], "plate")):
        lost = before[~before.set_index(key).index.isin(after.set_index(key).index)].drop_duplicates(key)
        notes += [Fault(f"the {words} is left without a field", ", ".join(f"{v:g}" if isinstance(v, float) else str(v)
                                                                           for v in row if v != ""))
                  for row in lost[key].itertuples(index=False, name=None)]
    controls = [set(t.loc[t[CONTROL] == "negative", PLATE]) for t in (before, after)]
    still = set(after[PLATE])
    notes += [Fault("the plate is left without negative controls", str(plate))
              for plate in sorted((controls[0] - controls[1]) & still, key=str)]
    return notes
