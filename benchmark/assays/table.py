"""A user's own assay: a CSV with one row per field, a folder of images, and a mapping of columns."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

import pandas as pd
from pydantic import Field, field_validator, model_validator

from benchmark.assays.columns import expand, read_text_table
from benchmark.assays.faults import faults_of
from benchmark.assays.fieldfaults import CHANNEL_NAME, field_table_faults
from benchmark.assays.fieldtable import Assay, first_sites, lone_label_faults, make_assay
from benchmark.assays.imagefiles import NAME, ChannelFile, add_files
from benchmark.assays.metadata import (
    Metadata,
    control_faults,
    metadata_of,
    partly_unlabelled,
    rule_of,
    unlabelled_note,
)
from benchmark.assays.registry import ASSAYS, AssaySettings, Place
from benchmark.assays.settings import REQUIRED, ColumnRule, Doses, Key, Unlabelled
from benchmark.base.account import Loss
from benchmark.base.errors import Fault, FaultsError, MorphobenchError
from benchmark.base.tables import SITE, WELL_KEY


@ASSAYS.register
class TableAssaySettings(AssaySettings):
    """A user's own assay: a CSV with one row per field, and a folder of images."""

    kind: Literal["table"] = "table"
    csv: str = Field(min_length=1, description="Relative to the study file; ${VARIABLE} is expanded.")
    root: str | None = Field(None, description="Folder the file templates start from; by default the CSV's.")
    separator: Annotated[str, Field(min_length=1, max_length=1)] = ","
    columns: dict[Key, str | ColumnRule]
    channels: dict[str, ChannelFile] = Field(min_length=1)
    negative_controls: list[str] = Field([], description="Names of compounds that are untreated or DMSO.")
    positive_controls: list[str] = Field([], description="Names of compounds with a known strong effect.")
    unlabelled: Unlabelled = Field("refuse", description="Rows without a label that are no control; kept ones are in "
                                   "no fold.")
    doses: Doses = Field("nominal", description="Doses of a compound less than 5 % apart: one dose, or each its own.")
    single_compound_labels: Literal["refuse", "leave_out"] = "refuse"
    fields_per_well: int | None = Field(None, ge=1, description="Keep the first n sites of each well: a quick look.")
    source: str = Field("", description="A sentence for the report: where the images come from.")

    @field_validator("columns")
    @classmethod
    def _required_columns(cls, columns: dict[Key, str | ColumnRule]) -> dict[Key, str | ColumnRule]:
        missing = [key for key in REQUIRED if key not in columns]
        if missing:
            raise ValueError(f"lacks {', '.join(missing)}; required are {', '.join(REQUIRED)}")
        return columns

    @field_validator("channels")
    @classmethod
    def _plain_names(cls, channels: dict[str, ChannelFile]) -> dict[str, ChannelFile]:
        odd = [c for c in channels if not CHANNEL_NAME.fullmatch(c)]
        if odd:
            raise ValueError(f"{', '.join(odd)}: a channel's name is letters and digits, a letter first")
        return channels

    @model_validator(mode="after")
    def _one_kind_of_control(self) -> TableAssaySettings:
        both = sorted(set(self.negative_controls) & set(self.positive_controls))
        if both:
            raise ValueError(f"{', '.join(both)}: both a negative and a positive control")
        return self

    @property
    def lone_labels(self) -> Literal["refuse", "leave_out"]:
        """As ``single_compound_labels`` states."""
        return self.single_compound_labels

    @property
    def only_plane(self) -> tuple[str, ...]:
        """Channels whose plane is not given."""
        return tuple(channel for channel, spec in self.channels.items() if spec.plane is None)

    def load(self, place: Place) -> Assay:
        """Load an assay from the user's CSV; see `load_table`."""
        return load_table(self, place.name, place.base)

    def faults(self, place: Place) -> tuple[Assay | None, list[Fault]]:
        """Everything wrong with the user's CSV; see `table_faults`."""
        return table_faults(self, place.name, place.base)


def load_table(settings: TableAssaySettings, name: str, base: Path) -> Assay:
    """Load an assay from a CSV.

    Parameters
    ----------
    settings : TableAssaySettings
        The ``assay:`` block of the study.
    name : str
        Name of the assay.
    base : Path
        Folder of the study file; relative paths start there.

    Returns
    -------
    Assay
        Its fields checked, but not its images (see `benchmark.quality.check.image_faults`).

    Raises
    ------
    FaultsError
        With everything that is wrong.
    """
    assay, faults = table_faults(settings, name, base)
    if assay is None or faults:
        raise FaultsError(faults, f"The assay {name} has {len(faults)} fault(s):")
    return assay


def table_faults(settings: TableAssaySettings, name: str, base: Path) -> tuple[Assay | None, list[Fault]]:
    """Everything wrong with a CSV and its mapping, and the assay as far as it can be made.

    Parameters
    ----------
    settings, name, base
        As `load_table`.

    Returns
    -------
    assay : Assay or None
        Where there are faults, the rows without one, so that their images can be checked as well; it is not
        for use. None where the CSV or its mapping gave no row.
    faults : list of Fault
        Rows are counted as `benchmark.base.errors.sheet_row` does. A value that is wrong in many rows is one fault.
    """
    try:
        path = expand(settings.csv, base)
        root = expand(settings.root, base) if settings.root is not None else path.parent
        cells = read_text_table(path, settings.separator)
    except MorphobenchError as error:
        return None, faults_of(error)
    faults = [] if root.is_dir() else [Fault("is not a folder", str(root), "Correct assay.root in the study.")]
    missing = _missing_columns(settings, cells.columns)
    if missing:
        remedy = f"The CSV has: {_listed(cells.columns)}."
        if len(cells.columns) == 1:
            remedy += f" Is {settings.separator!r} the right assay.separator?"
        return None, [*faults, *(Fault(m, path.name, remedy) for m in missing)]
    metadata = metadata_of(settings, cells, path.name, faults)
    table, bad = metadata.table, metadata.bad
    if SITE not in table:
        table[SITE] = table.groupby(WELL_KEY).cumcount() + 1
    file_notes = add_files(settings.channels, cells, table, root, path.name, bad, faults)
    faults += [*control_faults(settings, table, path.name), *partly_unlabelled(metadata)]
    bad -= metadata.aside
    # Rows that have a fault are left out of the further checks, which would only report its consequences.
    sound = table.drop(index=sorted(bad | metadata.aside))
    if len(sound) or not bad:
        faults += field_table_faults(sound, list(settings.channels), unlabelled=settings.unlabelled == "keep",
                                     origin=metadata.origin)
    if faults:
        if settings.single_compound_labels == "refuse":
            faults += lone_label_faults(table, metadata.origin)
        some = Assay(name, root, sound, tuple(settings.channels), only_plane=settings.only_plane)
        return (some if len(sound) and root.is_dir() else None), faults
    notes, losses = _accounts(settings, metadata, sound)
    try:
        assay = make_assay(name, root, first_sites(sound, settings.fields_per_well), list(settings.channels),
                           source=settings.source, single_compound_labels=settings.single_compound_labels,
                           unlabelled="keep" if settings.unlabelled == "keep" else "refuse",
                           left_out=[*file_notes, *notes], losses=losses, origin=metadata.origin)
    except MorphobenchError as error:
        return None, faults_of(error)
    return replace(assay, only_plane=settings.only_plane), []


def _accounts(settings: TableAssaySettings, metadata: Metadata, sound: pd.DataFrame) -> tuple[list[Fault], list[Loss]]:
    """What was read as empty, merged, left out and assumed, as notes and counted."""
    where = metadata.origin.where
    notes, losses = unlabelled_note(metadata, len(metadata.aside), len(metadata.table), "rows")
    fields = sound.groupby(WELL_KEY).size()
    if "site" not in settings.columns and (fields > 1).any():
        notes.append(Fault(f"{int((fields > 1).sum())} of {len(fields)} wells have several rows, up to {fields.max()}: "
                           "no column is mapped to `site`, so their rows count as sites 1, 2, … in the CSV's order",
                           where, "Map a column to `site` under assay.columns if rows of a well differ in anything "
                           "else (time, plane, plate)."))
    most = settings.fields_per_well
    if most is not None and (fields > most).any():
        losses.append(Loss("fields", int((fields - most).clip(lower=0).sum()), len(sound),
                           f"fields_per_well is {most}", where, asked=True))
    return [*metadata.notes, *notes], losses


def _listed(values: Sequence[object] | pd.Index) -> str:
    """``'a', 'b'``: an empty header cell shows as ``''``."""
    return ", ".join(repr(v) for v in values)


def _missing_columns(settings: TableAssaySettings, have: pd.Index) -> list[str]:
    """Sentences about columns that the mapping or a file template names and the CSV lacks."""
    sentences = []
    for key, source in settings.columns.items():
        column = rule_of(source).column
        if column is not None and column not in have:
            sentences.append(f"has no column {column!r}, wanted for assay.columns.{key}")
    for channel, spec in settings.channels.items():
        for name in dict.fromkeys(NAME.findall(spec.file)):
            if name not in have and name != "row":
                sentences.append(f"has no column {name!r}, wanted for assay.channels.{channel}.file")
        if re.search(r"[{}]", NAME.sub("", spec.file)):
            sentences.append(f"assay.channels.{channel}.file {spec.file!r} has a brace without its partner")
    return sentences
