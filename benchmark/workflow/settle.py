"""Before any method runs: CellProfiler measures, and what it says of fields settles which of them both arms see.

A field that it cannot measure goes for both arms, since the networks would otherwise be scored on other fields than
the profiles. So does one with too few cells, where quality control leaves fields out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import pandas as pd

from benchmark.assays.fieldtable import Assay
from benchmark.base.tables import FIELD_KEY
from benchmark.methods.base import CNN, CellCountMethod, MethodSettings, ProfileMethod
from benchmark.workflow.grid import applicable, tables_of
from benchmark.workflow.measured import Block, block_of, counts_if_any, field_counts, measure_assay, measured_already
from benchmark.workflow.opened import Opened, after_measuring

if TYPE_CHECKING:
    from benchmark.cellprofiler.measure import Measured


def settled(opened: Opened) -> Opened:
    """Measure by all pipelines that the study uses, and settle what both arms see.

    Raises
    ------
    MorphobenchError
        As `benchmark.workflow.measured.measure_assay` and `benchmark.workflow.opened.after_measuring`.
    """
    return _settled(opened, {block: measure_assay(opened, block) for block in pipelines(opened)})


def settled_for_networks(opened: Opened) -> tuple[Opened, str]:
    """The same by what has been measured already: networks run where there is no CellProfiler.

    Only what they cannot do without is measured here: nuclei to centre crops on, and counts where fields are left out
    for them.

    Returns
    -------
    Opened
    str
        A sentence for the user where fields may still be found that cannot be measured; else empty.
    """
    needed = _of_networks(opened)
    found = {block: measure_assay(opened, block) if block in needed else measured_already(opened, block)
             for block in pipelines(opened)}
    said = ""
    if None in found.values():
        said = ("CellProfiler has not measured this study yet, so the networks run on all its fields; should it fail "
                "on some, `make report` leaves them out of both arms and runs the networks again.")
    return _settled(opened, {block: measured for block, measured in found.items() if measured is not None}), said


def pipelines(opened: Opened) -> tuple[Block, ...]:
    """Pipelines that the study's methods, its grid or its quality control take anything from; none without images."""
    if not opened.whole.channels:
        return ()
    study = opened.study
    used = _of_methods(study.methods) | _of_networks(opened)
    if study.grid is not None:
        used |= {block_of(profile) for _, _, profile in tables_of(study.grid, applicable(opened, study.grid))}
    return tuple(block for block in ("cellprofiler", "whole_field") if block in used)


def _of_methods(methods: Iterable[MethodSettings]) -> set[Block]:
    found: set[Block] = set()
    for method in methods:
        if isinstance(method, ProfileMethod):
            found.add(block_of(method.profile))
        elif isinstance(method, CellCountMethod) or (isinstance(method, CNN) and method.crops.kind == "cells"):
            found.add("cellprofiler")
    return found


def _of_networks(opened: Opened) -> set[Block]:
    """What networks alone cannot do without."""
    quality = opened.study.quality
    found = _of_methods(m for m in opened.study.methods if isinstance(m, CNN))
    return found | {"cellprofiler"} if quality.flagged == "leave_out" and quality.cell_count else found


def _settled(opened: Opened, measured: Mapping[Block, Measured]) -> Opened:
    if not measured:
        return opened
    most = max(getattr(opened.study, block).failed_fields for block in measured)
    counts, quality = None, opened.study.quality
    if "cellprofiler" in measured and quality.cell_count and quality.flagged != "off":
        look = field_counts if quality.flagged == "leave_out" else counts_if_any
        counts = look(opened, measured["cellprofiler"])
    return after_measuring(opened, lost_fields(opened.whole, measured), most, counts)


def lost_fields(assay: Assay, measured: Mapping[Block, Measured]) -> pd.DataFrame:
    """Fields that any of some pipelines could not measure.

    Returns
    -------
    DataFrame
        `FIELD_KEY` and ``reason``, a row a field, in the order of the field table.
    """
    reasons: dict[tuple[object, ...], list[str]] = {}
    for block, found in measured.items():
        prefix = "whole fields: " if block == "whole_field" else ""
        for *key, reason in found.failed.itertuples(index=False, name=None):
            reasons.setdefault(tuple(key), []).append(f"{prefix}{reason}")
    keys = list(assay.fields[FIELD_KEY].itertuples(index=False, name=None))
    lost = assay.fields.loc[[key in reasons for key in keys], FIELD_KEY]
    said = ["; ".join(dict.fromkeys(reasons[key])) for key in keys if key in reasons]
    return lost.assign(reason=said).reset_index(drop=True)
