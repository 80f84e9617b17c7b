"""Doses as dispensed (9.98, 10.02) and as printed (0.30000000000000004), taken for the one dose that was meant.

A treatment is a compound at a dose. Where each well has a dose of its own, each well would count as a treatment, and
intervals would be too narrow.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from benchmark.assays.places import Origin, several
from benchmark.assays.settings import Doses
from benchmark.base.errors import Fault
from benchmark.base.tables import COMPOUND, CONCENTRATION

#: Doses of a compound that lie closer than this, as a ratio, are one nominal dose. Dilution series go in steps of
#: 1.5-fold or more (half-logarithmic ones 3.2-fold); acoustic and digital dispensers miss a dose by a few percent.
NOMINAL = 1.05
#: A group may spread this far: further, it is a fine series rather than one dose that scatters.
WIDEST = 1.2
#: The same number printed by two programs, one of which computes in float32.
PRINTED = 1 + 1e-5


@dataclass
class _Groups:
    """Groups of doses, counted, with words for each."""

    texts: list[str] = field(default_factory=list)
    values: int = 0

    def add(self, compound: object, group: Sequence[float]) -> None:
        written = [f"{v:.15g}" for v in group] if group[-1] > PRINTED * group[0] else [repr(float(v)) for v in group]
        span = f"{len(group)} doses from {written[0]} to {written[-1]}"
        self.texts.append(f"{compound}: {', '.join(written) if len(group) <= 3 else span}")
        self.values += len(group)


def merge_doses(table: pd.DataFrame, doses: Doses, origin: Origin) -> tuple[pd.DataFrame, list[Fault]]:
    """A field table with one value for each nominal dose.

    Parameters
    ----------
    table : DataFrame
        With compounds and concentrations in µM (float64); missing, infinite and negative ones are left alone.
    doses : {'nominal', 'as_written'}
        Whether doses of one compound within 5 % become one. What only printing keeps apart always does.
    origin : Origin
        For the notes.

    Returns
    -------
    table : DataFrame
        The same object where nothing is merged. A merged dose is the median over rows, rounded to as few digits as
        keep it among the doses that were merged.
    notes : list of Fault
        Which doses were merged, or are close and were kept.
    """
    usable = table[(table[COMPOUND] != "") & (table[CONCENTRATION] > 0) & np.isfinite(table[CONCENTRATION])]
    new = table[CONCENTRATION].copy()
    merged, kept, fine = _Groups(), _Groups(), _Groups()
    for compound, rows in usable.groupby(COMPOUND, sort=True)[CONCENTRATION]:
        for group in _groups(rows, NOMINAL):
            if group[-1] > WIDEST * group[0]:
                fine.add(compound, group)
            elif doses == "as_written" and group[-1] > PRINTED * group[0]:
                kept.add(compound, group)
            else:
                merged.add(compound, group)
                new[rows.index[rows.isin(group)]] = _plainest(float(rows[rows.isin(group)].median()), group)
                continue
            for same in _groups(rows[rows.isin(group)], PRINTED):
                new[rows.index[rows.isin(same)]] = _plainest(float(rows[rows.isin(same)].median()), same)
    return table.assign(**{CONCENTRATION: new}) if merged.texts or kept.texts or fine.texts else table, _notes(
        origin, merged, kept, fine)


def _groups(values: pd.Series, limit: float) -> list[list[float]]:
    """Positive numbers, sorted and split where one is more than ``limit`` times the one before; two and more."""
    groups: list[list[float]] = []
    for value in sorted(values.unique()):
        if groups and value <= limit * groups[-1][-1]:
            groups[-1].append(value)
        else:
            groups.append([value])
    return [group for group in groups if len(group) > 1]


def _plainest(median: float, group: Sequence[float]) -> float:
    """The median, rounded to as few digits as keep it within the group: 10 for 9.98 … 10.02."""
    for digits in range(1, 17):
        value = float(f"{median:.{digits}g}")
        if group[0] <= value <= group[-1]:
            return value
    return median


def _notes(origin: Origin, merged: _Groups, kept: _Groups, fine: _Groups) -> list[Fault]:
    name, notes = origin.name(CONCENTRATION), []
    percent = round(100 * (NOMINAL - 1))
    if merged.texts:
        notes.append(Fault(
            f"doses of one compound, each less than {percent} % from the next, were taken for one dose: "
            f"{merged.values} values of {name} became {len(merged.texts)} ({several(merged.texts)})", origin.where,
            "Set assay.doses to as_written if each is a treatment of its own."))
    if kept.texts:
        notes.append(Fault(
            f"{kept.values} values of {name} lie less than {percent} % from another dose of their compound and count "
            f"as treatments of their own, where {len(kept.texts)} may have been meant ({several(kept.texts)}); then "
            "intervals are too narrow", origin.where, "Set assay.doses to nominal to take them for one dose each.",
            warns=True))
    if fine.texts:
        notes.append(Fault(
            f"{len(fine.texts)} series of doses rise in steps of less than {percent} % and were kept as they are: too "
            f"wide for one dose that scatters, too fine for a series ({several(fine.texts)})", origin.where,
            f"Check {name}; if these are doses as dispensed, give the nominal ones."))
    return notes
