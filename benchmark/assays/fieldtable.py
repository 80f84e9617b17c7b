"""The field table: one row per field of view, the same for every assay, checked when made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pandas as pd

from benchmark.assays.fieldfaults import Scoring, field_table_faults
from benchmark.assays.places import NAMED, Origin, several
from benchmark.assays.places import row_name as row_name  # where the other rooms look for it
from benchmark.assays.remarks import remarks
from benchmark.base.account import Loss
from benchmark.base.errors import Fault, FaultsError
from benchmark.base.tables import (
    CELL_LINE,
    COMPOUND,
    CONTROL,
    FIELD_COLUMNS,
    FIELD_KEY,
    LABEL,
    PLATE,
    WELL_COLUMNS,
    WELL_KEY,
    path_column,
    plane_column,
    typed,
)


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


def lone_labels(table: pd.DataFrame) -> dict[str, str]:
    """Labels with a single compound, which leave-one-compound-out cannot score, and that compound."""
    scored = table[(table[LABEL] != "") & (table[CONTROL] != "negative")]
    compounds = scored.groupby(LABEL)[COMPOUND].unique()
    return {str(label): str(names[0]) for label, names in compounds.items() if len(names) == 1}


def lone_label_faults(table: pd.DataFrame, origin: Origin | None = None) -> list[Fault]:
    """One fault for all labels with a single compound."""
    lone = lone_labels(table)
    if not lone:
        return []
    remedy = "Set assay.single_compound_labels to leave_out to continue without "
    where = origin.where if origin is not None else ""
    if len(lone) <= NAMED:
        return [Fault(f"the label {label!r} has a single compound ({compound}): leave-one-compound-out cannot score it",
                      where, f"{remedy}it.") for label, compound in lone.items()]
    named = several([f"{label!r} ({compound})" for label, compound in lone.items()])
    return [Fault(f"{len(lone)} labels have a single compound each, and leave-one-compound-out cannot score them: "
                  f"{named}", where, f"{remedy}them.")]


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
    origin: Origin | None = None,
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
        As the attributes of `Assay`; ``left_out`` and ``losses`` are added to.
    origin : Origin, optional
        What the user calls the columns, for messages.

    Raises
    ------
    FaultsError
        The table has faults (all are listed), or a label has a single compound and the setting refuses it.
    """
    if CELL_LINE not in table:
        table = table.assign(**{CELL_LINE: ""})
    table = typed(table)
    origin = origin or Origin()
    faults = field_table_faults(table, channels, scoring, unlabelled == "keep" or scoring == "controls", origin)
    gone, counted = list(left_out), list(losses)
    if not faults and scoring == "treatments":
        if single_compound_labels == "refuse":
            faults += lone_label_faults(table, origin)
        else:
            lone = lone_labels(table)
            out = table[LABEL].isin(list(lone)) & (table[CONTROL] != "negative")
            gone += [Fault(f"label {label!r} left out: a single compound ({compound})")
                     for label, compound in lone.items()]
            if out.any():
                counted.append(Loss("fields" if channels else "wells", int(out.sum()), len(table),
                                    f"{len(lone)} labels with a single compound", origin.where, asked=True))
            table = table[~out]
        gone += remarks(table, origin)
    if faults:
        raise FaultsError(faults, f"The field table of {name} has {len(faults)} fault(s):")
    columns = FIELD_COLUMNS + [f(c) for c in channels for f in (path_column, plane_column)]
    table = table[columns].sort_values(FIELD_KEY, kind="stable").reset_index(drop=True)
    return Assay(name, root, table, tuple(channels), simulated, source, tuple(gone), tuple(counted), scoring, features,
                 features_hash, lock)
