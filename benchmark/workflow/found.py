"""Whether anything was found in a study's images: dim channels before CellProfiler runs, no cells after it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from benchmark.base.errors import Fault, MorphobenchError
from benchmark.methods.context import Pipeline
from benchmark.workflow.measured import at_its_path, counts_if_any, pipelines_used, settings_of
from benchmark.workflow.session import Session

if TYPE_CHECKING:
    from benchmark.cellprofiler.measure import Measured
    from benchmark.quality.fields import Sound

_THRESHOLDS = ("Open an image in CellProfiler and look at what its thresholds find; the lower one is set by "
               "cellprofiler.settings: {IdentifyPrimaryObjects: {Lower and upper bounds on threshold: '0.001,1.0'}}.")


def with_dim_channels(session: Session, whole: Sound) -> Sound:
    """The assay with a note of each channel whose brightest pixels are a small part of what its files hold.

    Before CellProfiler runs: it may be about to look for hours and find nothing.
    """
    notes = dim_channels(session, whole) if pipelines_used(session.study, whole.assay) else []
    if not notes:
        return whole
    return replace(whole, assay=replace(whole.assay, left_out=(*whole.assay.left_out, *notes)))


def dim_channels(session: Session, whole: Sound) -> list[Fault]:
    """A fault for each dim channel, with what to multiply it by; none where the pipeline multiplies already."""
    from benchmark.cellprofiler.measure import effective_pipeline
    from benchmark.cellprofiler.pipeline import parse
    from benchmark.quality.brightness import DIM, brightest_pixels

    settings = at_its_path(session.study, settings_of(session.study, "cellprofiler"))
    maths = [m for m in parse(effective_pipeline(settings)) if m.enabled and m.name == "ImageMath"]
    factors = [m.as_number("Multiply the result by", 1.0) for m in maths]
    seen = brightest_pixels(whole.assay, whole.assay_hash, session.folder / "checked")
    where = f"{seen[0].fields} fields" if seen[0].fields == len(whole.assay.fields) else (
        f"{seen[0].fields} of {len(whole.assay.fields)} fields")
    faults = []
    for one in seen:
        if one.share * max([1.0, *factors]) < DIM:
            how = (f"cellprofiler.settings: {{ImageMath: {{Multiply the result by: {one.factor}}}}}" if maths else
                   f"an ImageMath module in {settings.pipeline} that multiplies by {one.factor}")
            faults.append(Fault(f"{one}; CellProfiler's thresholds are parts of the whole range and may find nothing",
                                where, f"If cells are missed: {how}."))
    return faults


def refuse_without_cells(session: Session, whole: Sound, measured: Mapping[Pipeline, Measured],
                         networks_alone: bool = False) -> None:
    """Refuse a study that needs cells where none was found.

    Raises
    ------
    MorphobenchError
        Not one cell was found in any field that was measured.
    """
    if "cellprofiler" not in pipelines_used(session.study, whole.assay, networks_alone):
        return
    counts = counts_if_any(session.study, measured["cellprofiler"])
    if counts is None or counts["cells"].sum() > 0:
        return
    dim = dim_channels(session, whole)
    remedy = " ".join(f"In {f.where} {f.what}. {f.remedy}" for f in dim) or _THRESHOLDS
    raise MorphobenchError(f"no cell was found in any of {len(counts)} fields",
                           str(measured["cellprofiler"].record["pipeline"]), remedy)
