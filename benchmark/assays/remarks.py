"""What a field table holds that is no fault and may not be meant: said, since nothing in the table can decide it."""

from __future__ import annotations

import re

import pandas as pd

from benchmark.assays.places import Origin, listed, several
from benchmark.assays.spelling import name_key
from benchmark.assays.words import UNKNOWN, UNTREATED
from benchmark.base.errors import Fault
from benchmark.base.tables import CELL_LINE, COMPOUND, CONCENTRATION, CONTROL, LABEL

#: An identifier with a batch at its end: BRD-K12345678-001-02-7 (compound, salt, batch, check digit: the Broad
#: Institute's), NCGC00015052-05, or a word for it (`cpd 7 lot 3`).
_BATCHES = (
    re.compile(r"(brd-[a-z][0-9]{8})((?:-[0-9]{1,3}){1,3})", re.IGNORECASE),
    re.compile(r"(.*[0-9]{5,}[a-z]?)((?:[-_.][0-9]{1,3}){1,3})", re.IGNORECASE),
    re.compile(r"(.*\w)\W*[\s_\-(]((?:batch|lot)[\s_\-#:.]*\w{1,12}\)?)", re.IGNORECASE),
)
#: Numbers of the Chemical Abstracts Service end in the same way and are no batches.
_CAS = re.compile(r"[1-9][0-9]{1,6}-[0-9]{2}-[0-9]")
#: Units of concentration that are not µM, as words of a column's name; M alone is too common a word.
_OTHER_UNIT = re.compile(r"(?:^|[^A-Za-z])(nM|pM|mM|fM|nmol(?:/l)?|mol/l|[nµu]?g/m[lL]|mg/m[lL]|%)(?:$|[^A-Za-z])")
#: What a spreadsheet makes of MARCH1 and SEPT2 (Ziemann et al. 2016, Genome Biol 17:177).
_DATE = re.compile(r"[0-9]{1,2}-(jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)"
                   r"|(jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)-[0-9]{1,2}", re.IGNORECASE)


def remarks(table: pd.DataFrame, origin: Origin) -> list[Fault]:
    """Notes about a sound field table, of which treatments are scored.

    Names that differ in a batch, a blank or a hyphen alone; units other than µM; compounds and labels whose words say
    that nothing was added or is known; names that look like a control's; gene names that became dates; cell lines that
    some rows lack.
    """
    scored = table[(table[LABEL] != "") & (table[CONTROL] != "negative")]
    negative = table.loc[table[CONTROL] == "negative", COMPOUND].unique()
    notes = [*_batches(scored, origin), *_alike(scored, origin), *_units(origin),
             *_untreated(scored, list(negative), origin), *_unknown(scored, origin)]
    for column in (COMPOUND, LABEL):
        dates = sorted(v for v in table[column].unique() if _DATE.fullmatch(v.strip()))
        if dates:
            notes.append(Fault(f"{origin.name(column)} holds {listed(dates)}, as a spreadsheet writes gene names that "
                               "look like dates; two genes may have become one", origin.where,
                               "Check them, and format the column as text."))
    lines = table[CELL_LINE] if CELL_LINE in table else pd.Series(dtype=str)
    if lines.eq("").any() and lines.ne("").any():
        notes.append(Fault(f"{origin.name(CELL_LINE)} is empty in {int(lines.eq('').sum())} of {len(lines)} rows, and "
                           "they count as a cell line of their own", origin.where, "Name the cell line in every row."))
    half = sorted(set(scored[COMPOUND]) & set(table.loc[(table[LABEL] == "") & (table[CONTROL] == ""), COMPOUND]))
    if half:
        notes.append(Fault(f"{len(half)} compounds have wells with a label and wells without, which are not scored: "
                           f"{listed(half)}", origin.where, f"Give {origin.name(LABEL)} in all of their rows."))
    return notes


def substance(name: str) -> str:
    """A compound's name without a batch at its end, or the name."""
    name = name.strip()
    if len(name) <= 200 and not _CAS.fullmatch(name):
        for pattern in _BATCHES:
            match = pattern.fullmatch(name)
            if match is not None:
                return match[1].strip()
    return name


def _batches(scored: pd.DataFrame, origin: Origin) -> list[Fault]:
    groups: dict[str, list[str]] = {}
    for name in sorted(scored[COMPOUND].unique()):
        groups.setdefault(name_key(substance(name)), []).append(name)
    same = [names for names in groups.values() if len(names) > 1]
    if not same:
        return []
    column = origin.name(COMPOUND)
    n = sum(map(len, same))
    broad = all(_BATCHES[0].match(name) for names in same for name in names)
    cut = f", or cut the batch off: compound: {{column: {column}, pattern: '^(BRD-.\\d{{8}}|.*)'}}" if broad else ""
    return [Fault(
        f"{n} names in {column} differ from another in a batch at their end alone: "
        f"{several([' and '.join(map(repr, names)) for names in same])}. If they are one substance, it is on both "
        "sides of a fold: a model is tested on a compound that it was trained on, and results are too good",
        origin.where,
        f"Map a column that names the substance{cut}.", warns=True)]


def _alike(scored: pd.DataFrame, origin: Origin) -> list[Fault]:
    """Compounds of one label that differ in blanks and hyphens alone, one of them having none: MG-132 and MG132."""
    groups: dict[tuple[str, str], list[str]] = {}
    for label, name in sorted(set(zip(scored[LABEL], scored[COMPOUND], strict=True))):
        groups.setdefault((label, re.sub(r"[\s_\-‐-―]+", "", name_key(name))), []).append(name)
    same = [names for names in groups.values() if len(names) > 1]
    if not same:
        return []
    return [Fault(f"names in {origin.name(COMPOUND)} differ in a blank or hyphen alone: "
                  f"{several([' and '.join(map(repr, names)) for names in same])}. If they are one substance, it is on "
                  "both sides of a fold, and results are too good", origin.where, "Spell it in one way.", warns=True)]


def _units(origin: Origin) -> list[Fault]:
    """A column of concentrations whose name says another unit than µM."""
    column = origin.name(CONCENTRATION)
    unit = _OTHER_UNIT.search(column)
    if unit is None or column == CONCENTRATION:
        return []
    return [Fault(f"the numbers of {column} are read as µM, and its name says {unit[1]}", origin.where,
                  "Give µM: dose-response figures and labels of treatments are in it.", warns=True)]


def _untreated(scored: pd.DataFrame, negative: list[str], origin: Origin) -> list[Fault]:
    controls = [key for c in negative if (key := name_key(c))]
    odd = []
    for name in sorted(scored[COMPOUND].unique()):
        key = name_key(name)
        if key in UNTREATED or any(key.startswith(c) and not key[len(c)].isalnum() for c in controls):
            odd.append(name)
    notes = []
    if odd:
        notes.append(Fault(f"{listed(odd)} in {origin.name(COMPOUND)} {'are' if len(odd) > 1 else 'is'} scored as "
                           "treatment, though the name is one of untreated wells or begins like a negative control's",
                           origin.where, "Add it to assay.negative_controls, or empty its label.", warns=True))
    labels = sorted(v for v in scored[LABEL].unique() if name_key(v) in UNTREATED)
    if labels:
        notes.append(Fault(f"the label {listed(labels)} of {origin.name(LABEL)} is scored as a mechanism, though the "
                           "word is one for untreated wells", origin.where,
                           "Add its compounds to assay.negative_controls, or empty the label.", warns=True))
    return notes


def _unknown(scored: pd.DataFrame, origin: Origin) -> list[Fault]:
    labels = sorted(v for v in scored[LABEL].unique() if name_key(v) in UNKNOWN)
    if not labels:
        return []
    n = scored.loc[scored[LABEL].isin(labels), COMPOUND].nunique()
    return [Fault(f"the label {listed(labels)} of {origin.name(LABEL)} is scored as a mechanism of {n} compounds that "
                  "need have nothing in common", origin.where,
                  "Empty it, and set assay.unlabelled to leave_out or keep.", warns=True)]
