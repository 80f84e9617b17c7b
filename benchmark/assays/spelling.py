"""What counts as one name: spellings that mean the same thing, and identifiers that a spreadsheet cut short.

Under two names one compound would be tested by a model that was trained on it, and one plate, batch or label would be
two. Names are compared, never changed: which spelling is right only the user can tell.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable

import pandas as pd

from benchmark.assays.places import NAMED, Origin, listed, rows_named, several
from benchmark.base.errors import Fault
from benchmark.base.tables import BATCH, CELL_LINE, COMPOUND, LABEL, PLATE, WELL

#: Columns whose values are names, each of one thing in the whole assay.
NAMES = (COMPOUND, LABEL, BATCH, CELL_LINE, PLATE)
#: Drawn as nothing, though Unicode counts them among letters or marks: joiners, fillers, variation selectors.
_UNSEEN = re.compile("[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0"
                     "\U000e0100-\U000e01ef]")
_QUOTES = str.maketrans({c: "'" for c in "`´‘’‚‛′ʹʼ＇"} | {c: '"' for c in "“”„‟″＂"})
_NUMBER = re.compile(r"([+-]?)([0-9]+)(?:\.([0-9]*))?(?:e([+-][0-9]{1,4}))?")
#: As spreadsheets, R and Python write it: the sign of the exponent is always there (``1E5`` is a name).
_SCIENTIFIC = re.compile(r"[0-9](?:[.,][0-9]+)?[eE]\+[0-9]+")
_BETWEEN_PARTS = re.compile(r"[|;,&+/]")


def visible(text: str) -> str:
    """A text without characters that do not show: of format and control (Unicode Cf, Cc), and fillers."""
    if text.isascii() and text.isprintable():
        return text
    shown = (c for c in text if c.isspace() or unicodedata.category(c) not in ("Cf", "Cc"))
    return _UNSEEN.sub("", "".join(shown))


def _one_form(text: str) -> str:
    return unicodedata.normalize("NFKC", text.translate(_QUOTES))


def _small(text: str) -> str:
    return unicodedata.normalize("NFKC", text.casefold())


def _plain_number(text: str) -> str:
    """``5290.00``, ``05290`` and ``5.29e+3`` as ``5290`` is; in other names, zeros before digits and ``.0`` at the end.

    Digit by digit: a float would take two long identifiers for one.
    """
    match = _NUMBER.fullmatch(text.strip())
    if match is None:
        # Not after a point: DMSO_0.01 is not DMSO_0.1.
        return re.sub(r"(?<=[0-9])\.0+$", "", re.sub(r"(?<![0-9.,])0+(?=[0-9])", "", text))
    sign, whole, decimals, exponent = match.groups()
    digits = whole + (decimals or "")
    kept = digits.lstrip("0")
    point = len(whole) + int(exponent or 0) - (len(digits) - len(kept))
    return f"{'minus' if sign == '-' and kept else ''}0.{kept.rstrip('0')}e{point if kept else 0}"


def _single_blanks(text: str) -> str:
    return re.sub(r"[\s_\-‐-―−]+", " ", text).strip()


def _sorted_parts(text: str) -> str:
    parts = sorted(part.strip() for part in _BETWEEN_PARTS.split(text))
    return text if all(p.isdigit() for p in parts) else "|".join(parts)


#: In what spellings of one name may differ, and the function that takes the difference away, in this order.
_DIFFERENCES: tuple[tuple[str, Callable[[str], str]], ...] = (
    ("characters that do not show", visible),
    ("two forms of one character", _one_form),
    ("capitals", _small),
    ("how a number is written", _plain_number),
    ("blanks, hyphens or underscores", _single_blanks),
    ("the order of parts", _sorted_parts),
)


def name_key(text: str) -> str:
    """What all spellings of one name have in common.

    Spellings differ in characters that do not show (Unicode Cf, Cc, variation selectors), compatibility forms (NFKC:
    no-break spaces, full-width digits, combining accents), quotes, capitals, decimals of whole numbers (``5290.0``),
    zeros in front (``0012``), blanks, hyphens and underscores, or in the order of parts (``A|B``).
    """
    for _, change in _DIFFERENCES:
        text = change(text)
    return text


def well_key(text: str) -> str:
    """The same for wells, in which blanks say nothing: ``A1``, ``a01`` and ``A-01``."""
    return name_key(text).replace(" ", "")


def spellings(values: Iterable[str], key: Callable[[str], str] = name_key) -> list[list[str]]:
    """Names that are the same but for their spelling: groups of two and more, sorted."""
    groups: dict[str, list[str]] = {}
    for value in sorted(set(values)):
        groups.setdefault(key(value), []).append(value)
    return [names for names in groups.values() if len(names) > 1]


def difference(names: Iterable[str]) -> str:
    """In what spellings of one name differ, in words: all that keeps them apart where the rest is taken away."""
    def left(steps: Iterable[int]) -> int:
        texts = every
        for i in steps:
            texts = {_DIFFERENCES[i][1](t) for t in texts}
        return len(texts)

    every, n = set(names), len(_DIFFERENCES)
    found = [i for i in range(n) if left(j for j in range(n) if j != i) > 1]
    # Two steps may take the same difference away: then it is the first that does.
    found = found or [i for i in range(n) if left(range(i + 1)) == 1][:1]
    return " and ".join(_DIFFERENCES[i][0] for i in found) or "blanks"


def spelling_faults(table: pd.DataFrame, origin: Origin) -> list[Fault]:
    """Compounds, labels, batches, cell lines, plates, and wells of a plate, that are spelt in several ways.

    One fault a column: it names the first groups of spellings and counts the rest.
    """
    faults = []
    for column in NAMES:
        groups = spellings(table[column])
        if groups:
            faults.append(_spelt(origin.name(column), groups, origin.where))
    groups, plates = [], []
    wells = table[[PLATE, WELL]].drop_duplicates()
    keys = {well: well_key(well) for well in wells[WELL].unique()}
    wells = wells.assign(key=wells[WELL].map(keys))
    for plate, rows in wells[wells.duplicated([PLATE, "key"], keep=False)].groupby(PLATE, sort=True):
        plates.append(f"plate {plate}")
        groups += spellings(rows[WELL], well_key)
    if groups:
        faults.append(_spelt(origin.name(WELL), groups, origin.at(several(plates))))
    return faults


def _spelt(column: str, groups: list[list[str]], where: str) -> Fault:
    remedy = "Spell it in one way, or give things that really differ names that differ more."
    if len(groups) == 1:
        names = groups[0]
        return Fault(f"{column} is spelt in {len(names)} ways: {', '.join(map(repr, names))} (they differ in "
                     f"{difference(names)})", where, remedy)
    first = "; ".join(" and ".join(map(repr, names)) for names in groups[:NAMED])
    more = f"; and {len(groups) - NAMED} more" if len(groups) > NAMED else ""
    differences = list(dict.fromkeys(difference(names) for names in groups))
    return Fault(f"{column} has {len(groups)} names that are spelt in several ways: {first}{more} (they differ in "
                 f"{' or '.join(differences[:NAMED])})", where, remedy)


def shortened_faults(table: pd.DataFrame, origin: Origin) -> list[Fault]:
    """Identifiers in scientific notation (``1.23E+11``): a spreadsheet's doing, and digits are lost.

    Two plates or compounds may have become one, which nothing in the table can tell.
    """
    faults = []
    for column in (*NAMES, WELL):
        odd = [v for v in table[column].unique() if _SCIENTIFIC.fullmatch(v.strip())]
        if odd:
            faults.append(Fault(
                f"{origin.name(column)} holds numbers in scientific notation, {listed(sorted(odd))}: a spreadsheet has "
                "cut identifiers short, and several may have become one",
                origin.at(rows_named(table.index[table[column].isin(odd)].tolist())),
                "Format the column as text where it still has all digits, and export it again."))
    return faults
