"""What is wrong with several exports of CellProfiler taken together, though each can be read."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from benchmark.assays.profiles.cellprofiler_tables import Export
from benchmark.base.errors import Fault
from benchmark.base.tables import PLATE, WELL


def lacking_kinds(exports: Sequence[Export], where: str, prefixes: Sequence[str] | None) -> list[Fault]:
    """A fault for each kind of object that is wanted and that some exports lack: all plates would go without it."""
    kinds = dict.fromkeys(name for e in exports for name in e.objects)
    faults = []
    for name in kinds:
        lacking = [e.where for e in exports if name not in e.objects]
        wanted = not prefixes or any(p.startswith(f"{name}_") or f"{name}_".startswith(p) for p in prefixes)
        if lacking and wanted:
            everywhere = ", ".join(f"{k}_" for k in kinds if all(k in e.objects for e in exports))
            faults.append(Fault(
                f"{len(lacking)} of {len(exports)} exports have no table of {name}: {', '.join(lacking[:3])}"
                f"{', …' if len(lacking) > 3 else ''}", where,
                f"Export it again, or name the kinds to use in assay.prefixes ({everywhere or 'none is in all'})."))
    return faults


def not_in_csv(
    databases: Sequence[Export], where: str, images: pd.DataFrame, plate: str, well: str
) -> list[Fault]:
    """Databases beside CSV files with wells that the CSV files do not have: they are no second copy of them."""
    known = pd.MultiIndex.from_frame(images[[PLATE, WELL]])
    faults = []
    for export in databases:
        if not {plate, well} <= set(export.images.columns):
            continue
        wells = pd.MultiIndex.from_frame(export.images.text([plate, well]).drop_duplicates())
        more = wells[~wells.isin(known)]
        if len(more):
            faults.append(Fault(f"{export.where} has {len(more)} wells that the CSV files do not have "
                                f"({', '.join(f'{p} {w}' for p, w in more[:3])}{', …' if len(more) > 3 else ''})",
                                where, "Give one form of output: CSV files or databases."))
    return faults


def same_images(exports: Sequence[Export], again: pd.DataFrame) -> list[Fault]:
    """A fault for each export that holds images of another, or of its own, once more."""
    faults = []
    for export, rows in again.groupby("export", sort=True):
        row = rows.iloc[0]
        more = f", and {len(rows) - 1} more do" if len(rows) > 1 else ""
        faults.append(Fault(f"the same images appear twice{more}", f"{exports[int(str(export))].where}, plate "
                            f"{row[PLATE]}, well {row[WELL]}", "Keep one of the exports."))
    return faults
