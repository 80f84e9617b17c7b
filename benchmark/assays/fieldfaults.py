"""Everything wrong with a field table's own cells: one fault a cause, with how many, the first three, and a remedy."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

import pandas as pd

from benchmark.assays.places import Origin, fields_named, listed, rows_named, several
from benchmark.assays.spelling import shortened_faults, spelling_faults
from benchmark.assays.words import is_missing
from benchmark.base.errors import Fault
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
    WELL_KEY,
    path_column,
    plane_column,
)

CONTROLS = ("", "negative", "positive")
Scoring = Literal["treatments", "controls"]
#: Channel names become column and feature names, so they must be plain words.
CHANNEL_NAME = re.compile(r"[A-Za-z][A-Za-z0-9]*")


def field_table_faults(
    table: pd.DataFrame,
    channels: Sequence[str],
    scoring: Scoring = "treatments",
    unlabelled: bool = False,
    origin: Origin | None = None,
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
    origin : Origin, optional
        What the user calls the columns.

    Returns
    -------
    list of Fault
        Empty for a table without faults; one fault a cause, however many rows have it. Missing columns are reported
        alone, since nothing else can be checked.
    """
    origin = origin or Origin()
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
    things = "rows" if channels else "wells"
    faults += [*_cells(table, things, origin), *_words(table, things, origin)]
    if not unlabelled:
        faults += _unlabelled(table, things, origin)
    faults += [*_repeated(table, channels, origin), *_disagreeing(table, origin), *spelling_faults(table, origin),
               *shortened_faults(table, origin)]
    if scoring == "treatments":
        faults += _shared_with_controls(table, origin)
    return faults + _several_labels(table, [COMPOUND] if scoring == "treatments" else TREATMENT_KEY, origin)


def _rows(table: pd.DataFrame, wrong: pd.Series) -> list[int]:
    return table.index[wrong].tolist()


def empty_faults(table: pd.DataFrame, columns: Sequence[str], things: str, origin: Origin) -> list[Fault]:
    """Columns that are empty where they may not be."""
    return [Fault(f"{origin.name(column)} is empty", origin.at(rows_named(rows, things)),
                  origin.missing(column).strip())
            for column in columns if (rows := _rows(table, table[column].str.strip() == ""))]


def _cells(table: pd.DataFrame, things: str, origin: Origin) -> list[Fault]:
    """Cells that are empty or hold what they may not hold."""
    faults = empty_faults(table, (PLATE, WELL, COMPOUND, BATCH), things, origin)
    dose = table[CONCENTRATION]
    if rows := _rows(table, dose.isna() | (dose < 0)):
        faults.append(Fault(f"{origin.name(CONCENTRATION)} is {listed(dose[rows].unique().tolist())}, not a number of "
                            "at least 0", origin.at(rows_named(rows, things))))
    if rows := _rows(table, ~table[CONTROL].isin(CONTROLS)):
        faults.append(Fault(f"{CONTROL} is {listed(table[CONTROL][rows].unique())}, not one of {CONTROLS}",
                            origin.at(rows_named(rows, things))))
    return faults


def _words(table: pd.DataFrame, things: str, origin: Origin) -> list[Fault]:
    """Names that are words for a missing value; a control may be called `None`, as the study names it."""
    faults = []
    for column in (PLATE, WELL, COMPOUND, BATCH, LABEL, CELL_LINE):
        words = [v for v in table[column].unique() if v.strip() and is_missing(v)]
        wrong = table[column].isin(words)
        if column in (COMPOUND, LABEL):
            wrong &= table[CONTROL] == ""
        if rows := _rows(table, wrong):
            faults.append(Fault(f"{origin.name(column)} is {listed(sorted(table[column][rows].unique()))}, a word for "
                                "a missing value", origin.at(rows_named(rows, things)),
                                "Leave the cell empty, or give it a name."))
    return faults


def _unlabelled(table: pd.DataFrame, things: str, origin: Origin) -> list[Fault]:
    rows = _rows(table, (table[LABEL] == "") & (table[CONTROL] == ""))
    if not rows:
        return []
    compounds = sorted(set(table[COMPOUND][rows]) - {""})
    which = f"Their compounds are {listed(compounds)}: add those that are untreated to assay.negative_controls. " \
        if compounds else ""
    return [Fault(f"{origin.name(LABEL)} is empty and the well is no control", origin.at(rows_named(rows, things)),
                  f"{origin.missing(LABEL)}{which}Set assay.unlabelled to leave_out to go on without them, or to keep "
                  "to have them in no fold.")]


def _repeated(table: pd.DataFrame, channels: Sequence[str], origin: Origin) -> list[Fault]:
    """Fields, and image planes, that an earlier row has already."""
    faults = []
    if rows := _rows(table, table.duplicated(FIELD_KEY)):
        faults.append(Fault("the same field appears twice in the table", origin.at(fields_named(table, rows)),
                            "Remove the row, or map a column to `site`."))
    files = table[[path_column(c) for c in channels] + [plane_column(c) for c in channels]]
    if channels and (rows := _rows(table, files.duplicated())):
        faults.append(Fault("names the same image planes as an earlier row", origin.at(fields_named(table, rows)),
                            "Remove the row, or correct the names of its files."))
    return faults


def differing(table: pd.DataFrame, key: Sequence[str], column: str) -> list[tuple[str, list[object]]]:
    """Values of ``key`` (joined to one string) for which ``column`` takes several values, with those values."""
    distinct = table.drop_duplicates([*key, column])
    distinct = distinct[distinct.duplicated(list(key), keep=False)]
    found = []
    for name, rows in distinct.groupby(list(key)):
        parts = name if isinstance(name, tuple) else (name,)
        found.append((", well ".join(map(str, parts)), rows[column].tolist()))
    return found


def _disagreeing(table: pd.DataFrame, origin: Origin) -> list[Fault]:
    """Wells whose rows say different things, and plates in several batches."""
    faults = []
    for what in (COMPOUND, CONCENTRATION, LABEL, CONTROL, BATCH, CELL_LINE):
        if wells := differing(table, WELL_KEY, what):
            who = "the well's rows" if len(wells) == 1 else f"the rows of {len(wells)} wells"
            first = "" if len(wells) == 1 else " in the first"
            faults.append(Fault(f"{who} disagree on {origin.name(what)}: {listed(wells[0][1])}{first}",
                                origin.at(several([f"plate {key}" for key, _ in wells]))))
    if plates := differing(table, [PLATE], BATCH):
        who = "the plate is" if len(plates) == 1 else f"{len(plates)} plates are"
        first = "" if len(plates) == 1 else " for the first"
        faults.append(Fault(f"{who} in several batches: {listed(plates[0][1])}{first}",
                            origin.at(several([f"plate {key}" for key, _ in plates])),
                            "Give plates of different batches different names, for example with the batch in front."))
    return faults


def _shared_with_controls(table: pd.DataFrame, origin: Origin) -> list[Fault]:
    """Labels of negative controls that other compounds carry: vehicles that were not listed would be a mechanism."""
    labelled = table[table[LABEL] != ""]
    negative = labelled[CONTROL] == "negative"
    faults = []
    for label in sorted(set(labelled[LABEL][negative]) & set(labelled[LABEL][~negative])):
        rows = labelled[labelled[LABEL] == label]
        controls, others = (sorted(rows[COMPOUND][which].unique()) for which in (
            rows[CONTROL] == "negative", rows[CONTROL] != "negative"))
        faults.append(Fault(
            f"the label {label!r} of {origin.name(LABEL)} is that of the negative control {listed(controls)} and of "
            f"{listed(others)}, which {'is' if len(others) == 1 else 'are'} not listed as such and would be scored as "
            "a mechanism", origin.where,
            f"Add {'it' if len(others) == 1 else 'them'} to assay.negative_controls, or give another label."))
    return faults


def _several_labels(table: pd.DataFrame, key: Sequence[str], origin: Origin) -> list[Fault]:
    found = differing(table[table[LABEL] != ""], key, LABEL)
    if not found:
        return []
    who = "the compound has" if len(found) == 1 else f"{len(found)} compounds have"
    first = "" if len(found) == 1 else " for the first"
    return [Fault(f"{who} several labels: {listed(found[0][1])}{first}",
                  origin.at(several([f"compound {name}" for name, _ in found])),
                  "Give each compound one label, or leave it out.")]
