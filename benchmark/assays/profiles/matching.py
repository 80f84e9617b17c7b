"""Whether wells of the profiles and of their metadata are the same ones: what is said where they are not."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from benchmark.assays.places import Origin, several
from benchmark.assays.spelling import name_key, well_key
from benchmark.base.errors import Fault
from benchmark.base.tables import SITE, WELL_COLUMNS, WELL_KEY

#: With fewer features rows may be equal by chance.
TELLING = 5


def unknown_fault(path: Path, unknown: pd.MultiIndex, known: pd.MultiIndex, total: int) -> Fault:
    """Wells of the features that the metadata do not name."""
    other = spelt_otherwise(unknown, known)
    if other:
        remedy = f"{other} Plate and well must be spelt alike in both."
    else:
        remedy = (f"Metadata name their wells like {known[0][0]} {known[0][1]}: plate and well must be spelt alike. "
                  if len(known) else "") + "Set assay.unlabelled to leave_out to go on without such wells."
    return Fault(f"{len(unknown)} of {total} wells have no metadata, for example "
                 f"{', '.join(f'{p} {w}' for p, w in unknown[:5])}", path.name, remedy)


def spelt_otherwise(unknown: pd.MultiIndex, known: pd.MultiIndex) -> str:
    """A sentence about wells that both sides name, each in its own spelling; empty without any."""
    def keys(wells: pd.MultiIndex) -> dict[tuple[str, str], tuple[str, str]]:
        plates = {p: name_key(p) for p in wells.unique(0)}
        names = {w: well_key(w) for w in wells.unique(1)}
        return {(plates[p], names[w]): (p, w) for p, w in wells}

    here, there = keys(unknown), keys(known)
    both = [key for key in here if key in there]
    if not both:
        return ""
    (plate, well), (other_plate, other_well) = here[both[0]], there[both[0]]
    return (f"{len(both)} of them are spelt in another way in the metadata: plate {plate!r}, well {well!r} here is "
            f"plate {other_plate!r}, well {other_well!r} there.")


def rows_of_wells(features: pd.DataFrame, where: str) -> list[Fault]:
    """That wells have several rows and nothing tells these apart: cells of a well should, two plates should not."""
    sizes = features.groupby(WELL_KEY).size()
    if SITE in features or not (sizes > 1).any():
        return []
    return [Fault(f"{len(features)} rows are of {len(sizes)} wells, up to {sizes.max()} a well, and no column says "
                  "which field each is of: all rows of a well count as cells or fields of it", where,
                  "Where rows of a well differ in anything else (time, cell line, plate), give each its own plate.")]


def repeated_rows(features: pd.DataFrame, where: str) -> list[Fault]:
    """That rows of a well are the very same in all of their features, at least `TELLING`: they count twice.

    Rows without values are passed over, as are tables with few features, in which cells may be equal by chance.
    """
    columns = [c for c in features if not str(c).startswith("Metadata_")]
    rows = features[features[columns].notna().any(axis=1)]
    if len(columns) < TELLING or not rows.duplicated(WELL_KEY).any():
        return []
    again = rows.duplicated([*WELL_KEY, *columns])
    if not again.any():
        return []
    wells = rows.loc[again, WELL_KEY].drop_duplicates()
    return [Fault(f"{int(again.sum())} of {len(features)} rows repeat another row of their well to the last digit, in "
                  f"{len(wells)} wells ({several([f'{p} {w}' for p, w in wells.itertuples(index=False)])}): they count "
                  "twice", where, "Take the copies out.", warns=True)]


def disagreeing(wells: pd.DataFrame, origin: Origin) -> list[Fault]:
    """Wells whose rows differ: one fault for all that differ in the same columns."""
    found: dict[str, list[str]] = {}
    for (plate, well), rows in wells[wells.duplicated(WELL_KEY, keep=False)].groupby(WELL_KEY):
        differing = ", ".join(origin.name(c) for c in WELL_COLUMNS if c in rows and rows[c].nunique() > 1)
        found.setdefault(differing, []).append(f"plate {plate}, well {well}")
    return [Fault(f"rows of {'the well' if len(places) == 1 else f'{len(places)} wells'} disagree on {columns}",
                  origin.at(several(places))) for columns, places in found.items()]
