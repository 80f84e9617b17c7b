"""The field table: one row per field of view, the same for every assay, checked when made."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pandas as pd

from benchmark.base.account import Loss
from benchmark.base.errors import Fault, FaultsError, sheet_row
from benchmark.base.tables import (
    BATCH,
    CELL_LINE,
    COMPOUND,
    CONCENTRATION,
    CONTROL,
    FIELD_COLUMNS,
    FIELD_KEY,
    LABEL,
    PLATE,
    TREATMENT_KEY,
    WELL,
    WELL_COLUMNS,
    WELL_KEY,
    path_column,
    plane_column,
    typed,
)

CONTROLS = ("", "negative", "positive")
Scoring = Literal["treatments", "controls"]
#: Channel names become column and feature names, so they must be plain words.
CHANNEL_NAME = re.compile(r"[A-Za-z][A-Za-z0-9]*")


@dataclass(frozen=True)
class Assay:
    """An assay ready for use.

    Attributes
    ----------
    name : str
        Short name for files and headings.
    root : Path
        Folder that every ``Path_<Channel>`` is relative to.
    fields : DataFrame
        The field table, sorted by plate, well and site, index 0…n-1; types as `benchmark.base.tables.typed` has them.
    channels : tuple of str
        In the order in which crops stack them.
    simulated : bool
        Drawn by code, not imaged. Whatever shows a figure from it must say so.
    source : str
        A sentence for the report: where the images come from, and how to cite them.
    left_out : tuple of Fault
        What the table held and the assay does not (for example a label with one compound), and why; what was merged
        or assumed.
    losses : tuple of Loss
        The same with counts, where there are any.
    scoring : {'treatments', 'controls'}
        What is scored. ``treatments``: labelled wells that are no negative control, which serve normalisation
        only. ``controls``: negative and positive controls both carry a label and are scored; the unlabelled wells
        between them are a dose series, which methods predict and are never trained nor scored on.
    features : DataFrame or None
        Of an assay that comes as measured profiles without images (no channels): one or many rows a well, with
        plate, well and float features.
    features_hash : str
        SHA-256 of the files the features came from.
    lock : Path or None
        Lock file of the collection that the images were fetched from.
    only_plane : tuple of str
        Channels whose plane the study does not give: each of their files must hold a single one.
    """

    name: str
    root: Path
    fields: pd.DataFrame
    channels: tuple[str, ...]
    simulated: bool = False
    source: str = ""
    left_out: tuple[Fault, ...] = field(default=())
    losses: tuple[Loss, ...] = field(default=())
    scoring: Scoring = "treatments"
    features: pd.DataFrame | None = field(default=None, repr=False, compare=False)
    features_hash: str = ""
    lock: Path | None = None
    only_plane: tuple[str, ...] = ()

    @property
    def treated(self) -> pd.DataFrame:
        """Fields that are scored: with a label, and not negative controls (unless controls are scored)."""
        scored = self.fields[LABEL] != ""
        if self.scoring == "treatments":
            scored &= self.fields[CONTROL] != "negative"
        return self.fields[scored]

    @property
    def responses(self) -> pd.DataFrame:
        """Fields of a dose series: predicted, never trained on nor scored. None where treatments are scored."""
        series = (self.fields[LABEL] == "") & (self.fields[CONTROL] == "")
        return self.fields[series & (self.scoring == "controls")]

    @property
    def predicted(self) -> pd.DataFrame:
        """Fields that methods predict: those that are scored, and the dose series."""
        return self.fields.loc[sorted([*self.treated.index, *self.responses.index])]

    @property
    def unscored_controls(self) -> pd.DataFrame:
        """Fields of negative controls that are not scored, on plates with scored wells: corrections look at them."""
        unscored = (self.fields[CONTROL] == "negative") & (self.scoring == "treatments")
        return self.fields[unscored & self.fields[PLATE].isin(self.treated[PLATE])]

    @property
    def labels(self) -> list[str]:
        """Labels that are scored, sorted."""
        return sorted(self.treated[LABEL].unique())

    @property
    def wells(self) -> pd.DataFrame:
        """One row per well: the field table's metadata without the site."""
        return self.fields[WELL_COLUMNS].drop_duplicates(WELL_KEY).reset_index(drop=True)


def row_name(row: pd.Series) -> str:
    """How messages name a field: ``plate P, well W, site S``."""
    return f"plate {row[PLATE]}, well {row[WELL]}, site {row['Metadata_Site']}"


def _differing(table: pd.DataFrame, key: Sequence[str], column: str) -> list[tuple[str, list[object]]]:
    """Values of ``key`` (joined to one string) for which ``column`` takes several values, with those values."""
    distinct = table.drop_duplicates([*key, column])
    differing = []
    for name, rows in distinct.groupby(list(key)):
        if len(rows) > 1:
            parts = name if isinstance(name, tuple) else (name,)
            differing.append((", well ".join(map(str, parts)), rows[column].tolist()))
    return differing


def _spellings(table: pd.DataFrame, column: str) -> list[list[str]]:
    """Values of a column that differ in capitals, blanks, hyphens or underscores alone: two names of one thing."""
    values = sorted({str(v) for v in table[column].unique()})
    plain = [re.sub(r"[\s_\-‐-―]+", " ", unicodedata.normalize("NFKC", v).casefold()).strip() for v in values]
    groups: dict[str, list[str]] = {}
    for value, key in zip(values, plain, strict=True):
        groups.setdefault(key, []).append(value)
    return [names for names in groups.values() if len(names) > 1]


def field_table_faults(
    table: pd.DataFrame, channels: Sequence[str], scoring: Scoring = "treatments", unlabelled: bool = False
) -> list[Fault]:
    """Everything wrong with a field table's own cells (not with the files it names).

    Parameters
    ----------
    table : DataFrame
        One row per field with `FIELD_COLUMNS`, as `typed` gives them, and ``Path_/Plane_`` of each channel.
    channels : sequence of str
        Channel names; none for an assay of profiles.
    scoring : {'treatments', 'controls'}
        With ``controls`` a compound has one label at dose 0 and another at its highest.
    unlabelled : bool
        Whether the table may contain wells without a label that are not controls.

    Returns
    -------
    list of Fault
        Empty for a table without faults. Missing columns are reported alone, since nothing else can be checked.
    """
    if CELL_LINE not in table:
        table = table.assign(**{CELL_LINE: ""})
    wanted = FIELD_COLUMNS + [f(c) for c in channels for f in (path_column, plane_column)]
    missing = [c for c in wanted if c not in table]
    if missing:
        return [Fault(f"the field table lacks the columns {', '.join(missing)}")]
    if table.empty:
        return [Fault("the field table has no rows", remedy="Check the CSV and the filters in the study.")]
    faults = [
        Fault(f"the channel name {c!r} is not a plain word", remedy="Use letters and digits, a letter first.")
        for c in channels
        if not CHANNEL_NAME.fullmatch(c)
    ]
    for column in (PLATE, WELL, COMPOUND, BATCH):
        for i in table.index[table[column].str.strip() == ""]:
            faults.append(Fault(f"{column} is empty", sheet_row(i)))
    for i in table.index[table[CONCENTRATION].isna() | (table[CONCENTRATION] < 0)]:
        faults.append(Fault(f"{CONCENTRATION} is {table[CONCENTRATION][i]}, not a number of at least 0", sheet_row(i)))
    for i in table.index[~table[CONTROL].isin(CONTROLS)]:
        faults.append(Fault(f"{CONTROL} is {table[CONTROL][i]!r}, not one of {CONTROLS}", sheet_row(i)))
    for i in table.index[(table[LABEL] == "") & (table[CONTROL] == "") & (not unlabelled)]:
        faults.append(Fault(f"{LABEL} is empty and the well is no control", sheet_row(i)))
    for i in table.index[table.duplicated(FIELD_KEY)]:
        faults.append(Fault("the same field appears twice in the table", f"{sheet_row(i)}, {row_name(table.loc[i])}",
                            "Remove the row, or map a column to `site`."))
    files = table[[path_column(c) for c in channels] + [plane_column(c) for c in channels]]
    for i in table.index[files.duplicated()] if channels else ():
        faults.append(Fault("names the same image planes as an earlier row",
                            f"{sheet_row(i)}, {row_name(table.loc[i])}"))
    for what in (COMPOUND, CONCENTRATION, LABEL, CONTROL, BATCH, CELL_LINE):
        for key, values in _differing(table, WELL_KEY, what):
            faults.append(Fault(f"the well's rows disagree on {what}: {values}", f"plate {key}"))
    for key, values in _differing(table, [PLATE], BATCH):
        faults.append(Fault(f"the plate is in several batches: {values}", f"plate {key}"))
    for column in (COMPOUND, LABEL, BATCH, CELL_LINE, PLATE):
        # Under two names one compound would be tested by a model that was trained on it.
        faults += [Fault(f"{column} is spelt in {len(names)} ways: {', '.join(map(repr, names))}",
                         remedy="Spell it in one way, or give things that really differ names that differ more.")
                   for names in _spellings(table, column)]
    labels_of = [COMPOUND] if scoring == "treatments" else TREATMENT_KEY
    for key, values in _differing(table[table[LABEL] != ""], labels_of, LABEL):
        faults.append(Fault(f"the compound has several labels: {values}", f"compound {key}",
                            "Give each compound one label, or leave it out."))
    return faults


def lone_labels(table: pd.DataFrame) -> dict[str, str]:
    """Labels with a single compound, which leave-one-compound-out cannot score, and that compound."""
    scored = table[(table[LABEL] != "") & (table[CONTROL] != "negative")]
    compounds = scored.groupby(LABEL)[COMPOUND].unique()
    return {str(label): str(names[0]) for label, names in compounds.items() if len(names) == 1}


def first_sites(table: pd.DataFrame, n: int | None) -> pd.DataFrame:
    """The first ``n`` sites of each well, for a quick look; all where ``n`` is None."""
    if n is None:
        return table
    return table.sort_values(FIELD_KEY, kind="stable").groupby(WELL_KEY).head(n)


def make_assay(
    name: str,
    root: Path,
    table: pd.DataFrame,
    channels: Sequence[str],
    *,
    single_compound_labels: Literal["refuse", "leave_out"] = "refuse",
    simulated: bool = False,
    source: str = "",
    scoring: Scoring = "treatments",
    unlabelled: Literal["refuse", "keep"] = "refuse",
    features: pd.DataFrame | None = None,
    features_hash: str = "",
    lock: Path | None = None,
    left_out: Sequence[Fault] = (),
    losses: Sequence[Loss] = (),
) -> Assay:
    """Check a field table, sort it, and make it an `Assay`.

    Parameters
    ----------
    single_compound_labels : {'refuse', 'leave_out'}
        What to do with labels that leave-one-compound-out cannot score (where treatments are scored).
    unlabelled : {'refuse', 'keep'}
        Wells without a label that are no control: a mistake, or kept for unsupervised use. Where controls are
        scored they are the dose series and always kept.
    scoring, features, features_hash, lock, left_out, losses
        As the attributes of `Assay`; ``left_out`` is added to.

    Raises
    ------
    FaultsError
        The table has faults (all are listed), or a label has a single compound and the setting refuses it.
    """
    if CELL_LINE not in table:
        table = table.assign(**{CELL_LINE: ""})
    table = typed(table)
    faults = field_table_faults(table, channels, scoring, unlabelled == "keep" or scoring == "controls")
    gone = list(left_out)
    if not faults and scoring == "treatments":
        for label, compound in lone_labels(table).items():
            fault = Fault(
                f"the label {label!r} has a single compound ({compound}): leave-one-compound-out cannot score it",
                remedy="Set assay.single_compound_labels to leave_out to continue without it.",
            )
            if single_compound_labels == "refuse":
                faults.append(fault)
            else:
                gone.append(Fault(f"label {label!r} left out: a single compound ({compound})"))
                table = table[(table[LABEL] != label) | (table[CONTROL] == "negative")]
    if faults:
        raise FaultsError(faults, f"The field table of {name} has {len(faults)} fault(s):")
    columns = FIELD_COLUMNS + [f(c) for c in channels for f in (path_column, plane_column)]
    table = table[columns].sort_values(FIELD_KEY, kind="stable").reset_index(drop=True)
    return Assay(name, root, table, tuple(channels), simulated, source, tuple(gone), tuple(losses), scoring, features,
                 features_hash, lock)
