"""Metadata of a user's table: the study's rules for which column is what, and what in it counts as empty."""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import cast

import pandas as pd

from benchmark.assays.doses import merge_doses
from benchmark.assays.places import NAMED, Origin, listed, rows_named, several, shown
from benchmark.assays.settings import ColumnRule, Key, Mapped
from benchmark.assays.spelling import name_key
from benchmark.assays.words import is_missing
from benchmark.base.account import Loss, Things
from benchmark.base.errors import Fault
from benchmark.base.tables import (
    BATCH,
    CELL_LINE,
    COMPOUND,
    CONCENTRATION,
    CONTROL,
    LABEL,
    PLATE,
    REPLICATE,
    SITE,
    WELL,
    WELL_KEY,
    typed,
)

_COLUMN_OF: dict[Key, str] = {
    "batch": BATCH, "plate": PLATE, "well": WELL, "site": SITE, "replicate": REPLICATE, "compound": COMPOUND,
    "concentration": CONCENTRATION, "label": LABEL, "cell_line": CELL_LINE,
}
#: Values of keys that the mapping leaves out; sites are left to the caller.
_DEFAULTS: dict[Key, str] = {"batch": "1", "replicate": "1", "cell_line": ""}
#: Keys whose values are numbers, or names that are numbered.
_NUMBERED: tuple[Key, ...] = ("site", "replicate")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


@dataclass(frozen=True)
class Metadata:
    """Metadata of a user's table.

    Attributes
    ----------
    table : DataFrame
        One row per row of the user's: ``Metadata_*`` of the mapping and of the defaults (batch and replicate 1, no cell
        line), the concentration in µM, with types as `benchmark.base.tables.typed` gives them.
    bad : set of int
        Rows that have a fault.
    aside : set of int
        Rows without a label that are no control, where ``unlabelled`` leaves them out; whatever else is wrong with
        them does not matter.
    origin : Origin
        What the user calls the columns.
    notes : list of Fault
        What was merged or read as missing.
    """

    table: pd.DataFrame
    bad: set[int]
    aside: set[int]
    origin: Origin
    notes: list[Fault]


def metadata_of(settings: Mapped, cells: pd.DataFrame, where: str, faults: list[Fault]) -> Metadata:
    """Metadata as a study's mapping of columns says, and controls by their compounds' names.

    Blanks around a cell are dropped, so that ``taxol`` and ``taxol `` are one compound. Words for a missing value (NA,
    nan, None, …; `benchmark.assays.words`) count as empty, unless the study lists such a word as a control.

    Parameters
    ----------
    settings : Mapped
        The mapping, the names of controls, and what to do with unlabelled rows and close doses.
    cells : DataFrame
        Text, with every column that the mapping names; index 0…n-1.
    where : str
        How messages name the table.
    faults : list of Fault
        What is wrong is added here.
    """
    # The rules of the settings keep a compound from being both.
    kinds = {c: "negative" for c in settings.negative_controls} | {c: "positive" for c in settings.positive_controls}
    rules: dict[Key, ColumnRule] = {key: ColumnRule(value=value) for key, value in _DEFAULTS.items()}
    rules |= {key: rule_of(source) for key, source in settings.columns.items()}
    words: dict[str, Counter[str]] = {}
    texts = {key: _without_words(rules[key], key, cells, kinds if key == "compound" else (), words)
             for key in _COLUMN_OF if key in rules}
    labels, compounds = (values_of(rules[key], key, texts[key], where, [], set()) for key in ("label", "compound"))
    control = [kinds.get(c, "") for c in compounds]
    aside = {i for i, text in enumerate(texts["label"]) if text == "" and labels[i] == "" and control[i] == ""
             and settings.unlabelled == "leave_out"}
    bad: set[int] = set()
    table = pd.DataFrame(index=cells.index)
    for key in texts:
        table[_COLUMN_OF[key]] = values_of(rules[key], key, texts[key], where, faults, bad, aside)
        _refuse_control_characters(table[_COLUMN_OF[key]], rules[key].column or key, where, faults, bad, aside)
        if key == "site" and (rows := [i for i, t in enumerate(texts[key]) if is_missing(t) and i not in aside | bad]):
            faults.append(Fault(f"{rules[key].column} is empty", f"{where}, {rows_named(rows)}", "Number the sites."))
            bad.update(rows)
    table[CONTROL] = control
    table[CONCENTRATION] = concentrations_of(table, where, faults, bad, aside)
    origin = Origin(where, {_COLUMN_OF[key]: rule.column for key, rule in rules.items() if rule.column is not None},
                    {_COLUMN_OF[cast(Key, key)]: sorted(found) for key, found in words.items()})
    table, notes = merge_doses(typed(table), settings.doses, origin)
    notes = [*(Fault(f"{sum(found.values())} cells of {rules[cast(Key, key)].column} count as empty: "
                     f"{', '.join(f'{word!r} ({n})' for word, n in sorted(found.items()))}", where)
               for key, found in words.items()), *notes]
    return Metadata(table, bad, aside, origin, notes)


def unlabelled_note(metadata: Metadata, lost: int, total: int, things: Things) -> tuple[list[Fault], list[Loss]]:
    """The rows or wells that ``unlabelled: leave_out`` leaves out, as a note and counted; none where there are none."""
    if not lost:
        return [], []
    origin = metadata.origin
    why = f"{origin.name(LABEL)} is empty and they are no control"
    return ([Fault(f"{lost} of {total} {things} left out: {why}", origin.where)],
            [Loss(things, lost, total, why, origin.where, asked=True)])


def partly_unlabelled(metadata: Metadata) -> list[Fault]:
    """Wells of which some rows would be left out for want of a label and others would stay."""
    table = metadata.table
    out = table.index.isin(sorted(metadata.aside))
    wells = pd.MultiIndex.from_frame(table[WELL_KEY])
    both = wells[out].intersection(wells[~out]).sort_values()
    if both.empty:
        return []
    return [Fault(f"{len(both)} wells have rows with and without {metadata.origin.name(LABEL)}",
                  metadata.origin.at(several([f"plate {p}, well {w}" for p, w in both])),
                  "Rows of a well share its label.")]


def control_faults(settings: Mapped, table: pd.DataFrame, where: str) -> list[Fault]:
    """Controls that the study names and no row has, with the names that come close."""
    have, faults = sorted(set(table[COMPOUND])), []
    for what, names in (("negative", settings.negative_controls), ("positive", settings.positive_controls)):
        for compound in dict.fromkeys(names):
            if compound not in have:
                near = [c for c in have if name_key(c) == name_key(compound)] or get_close_matches(compound, have)
                faults.append(Fault(f"{what}_controls names {compound!r}, a compound that no row has", where,
                                    f"Is it {listed(near)}?" if near else ""))
    return faults


def rule_of(source: str | ColumnRule) -> ColumnRule:
    """The rule of a key; a bare name is a column taken unchanged."""
    return ColumnRule(column=source) if isinstance(source, str) else source


def _without_words(rule: ColumnRule, key: Key, cells: pd.DataFrame, names: Collection[str],
                   words: dict[str, Counter[str]]) -> list[str]:
    """Text of a key's column in every row; words for a missing value become empty, and are counted."""
    if rule.column is None:
        return [str(rule.value).strip()] * len(cells)
    texts = [str(v).strip() for v in cells[rule.column]]
    if key in _NUMBERED:
        return texts
    missing = {t for t in set(texts) if t not in names and is_missing(t)}
    found = Counter(t for t in texts if t in missing and t)
    if found:
        words[key] = found
    return ["" if t in missing else t for t in texts]


def values_of(rule: ColumnRule, key: str, texts: Sequence[str], where: str, faults: list[Fault], bad: set[int],
              aside: Collection[int] = ()) -> list[str]:
    """Values of one key in every row: the texts, or what the pattern finds in them; nothing in empty ones.

    Rows in which it finds nothing are ``bad``, those set ``aside`` excepted.
    """
    if rule.pattern is None or rule.column is None:
        return list(texts)
    matches = [re.search(rule.pattern, t) if t else None for t in texts]
    values = [(m[1] or "").strip() if m else "" for m in matches]
    misses = {i: texts[i] for i, value in enumerate(values) if not value and texts[i] and i not in aside}
    faults += [Fault(f"{rule.column} is {text}, in which the pattern of assay.columns.{key} finds nothing "
                     f"({rule.pattern})", f"{where}, {rows}") for text, rows in _grouped(misses)]
    bad.update(misses)
    return values


def _refuse_control_characters(values: pd.Series, name: str, where: str, faults: list[Fault], bad: set[int],
                               aside: Collection[int]) -> None:
    """Names with line ends, escape sequences of terminals and the like: nobody sees that they differ from others."""
    odd = {i: text for i, text in enumerate(values) if i not in aside and _CONTROL.search(text)}
    faults += [Fault(f"{name} is {text}, which holds control characters", f"{where}, {rows}", "Type the name again.")
               for text, rows in _grouped(odd)]
    bad.update(odd)


def concentrations_of(table: pd.DataFrame, where: str, faults: list[Fault], bad: set[int],
                      aside: Collection[int] = ()) -> list[float]:
    """Concentrations in µM; an empty cell is 0 for a negative control and a fault otherwise."""
    numbers, wrong = [], {}
    for i, (text, control) in enumerate(zip(table[CONCENTRATION], table[CONTROL], strict=True)):
        try:
            number = 0.0 if text == "" and control == "negative" else float(text)
        except ValueError:
            number = math.nan
        if not math.isfinite(number) or "_" in text:  # Python reads 1_000 as a number, people as a mistake
            number = math.nan
            if i not in aside:
                wrong[i] = text
        numbers.append(number)
    for text, rows in _grouped(wrong):
        comma = " Write decimals with a point." if "," in text.replace("', '", "") else ""
        what = "the concentration is empty" if text == "''" else f"the concentration is {text}, not a number"
        faults.append(Fault(what, f"{where}, {rows}",
                            f"Give µM as a plain number.{comma}"))
    bad.update(wrong)
    return numbers


def _grouped(wrong: Mapping[int, str]) -> list[tuple[str, str]]:
    """Wrong texts by row → each distinct text with its rows, in words; all together where there are many texts."""
    rows: dict[str, list[int]] = defaultdict(list)
    for i, text in wrong.items():
        rows[text].append(i)
    if len(rows) > NAMED:
        return [(listed(rows), rows_named(sorted(wrong)))]
    return [(shown(text), rows_named(indices)) for text, indices in rows.items()]
