"""Whether anything was found in a study's images: dim channels before CellProfiler runs, no cells after it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from benchmark.base.errors import Fault, MorphobenchError
from benchmark.methods.context import Pipeline
from benchmark.workflow.measured import at_its_path, counts_if_any, pipelines_used, settings_of
from benchmark.workflow.session import Session

if TYPE_CHECKING:
    from benchmark.cellprofiler.measure import Measured
    from benchmark.cellprofiler.pipeline import Module
    from benchmark.quality.fields import Sound

_THRESHOLDS = ("Open an image in CellProfiler and look at what its thresholds find; the lower one is set by "
               "cellprofiler.settings: {IdentifyPrimaryObjects: {Lower and upper bounds on threshold: '0.001,1.0'}}.")


def with_dim_channels(session: Session, whole: Sound) -> Sound:
    """The assay with a note of the channels whose brightest pixels are a small part of what their files hold.

    Before CellProfiler runs: it may be about to look for hours and find nothing.
    """
    note = dim_channels(session, whole) if pipelines_used(session.study, whole.assay) else None
    return whole if note is None else replace(whole, assay=replace(whole.assay, left_out=(*whole.assay.left_out, note)))


def dim_channels(session: Session, whole: Sound) -> Fault | None:
    """Which channels are dim, and what to multiply them by; None where there are none, or the pipeline does already."""
    from benchmark.cellprofiler.measure import effective_pipeline
    from benchmark.cellprofiler.pipeline import parse
    from benchmark.quality.brightness import DIM, brightest_pixels

    settings = at_its_path(session.study, settings_of(session.study, "cellprofiler"))
    maths = [m for m in parse(effective_pipeline(settings)) if m.enabled and m.name == "ImageMath"]
    done = max([1.0, *(m.as_number("Multiply the result by", 1.0) for m in maths)])
    seen = brightest_pixels(whole.assay, whole.assay_hash, session.folder / "checked")
    dim = [one for one in seen if one.share * done < DIM]
    if not dim:
        return None
    n, total = seen[0].fields, len(whole.assay.fields)
    others = ", ".join(f"{one.channel} {100 * one.share:.2g} %" for one in dim[1:])
    what = f"{dim[0]}{f' ({others})' if others else ''}: CellProfiler's thresholds are parts of the whole range"
    factor = min(one.factor for one in dim)
    if not maths:
        how = f"multiply by {factor} with ImageMath modules in {settings.pipeline}"
    else:
        names = ["ImageMath"] if len(dim) == len(seen) else _named(maths, [one.channel for one in dim])
        how = "cellprofiler.settings: {" + ", ".join(f"{n}: {{Multiply the result by: {factor}}}" for n in names) + "}"
    return Fault(what, f"{n} fields" if n == total else f"{n} of {total} fields", f"If cells are missed: {how}.")


def _named(maths: Sequence[Module], channels: Sequence[str]) -> list[str]:
    """The modules that multiply some channels (``ImageMath[2]``): others would be clipped if they were multiplied."""
    of = [i for i, m in enumerate(maths, 1) if any(
        s.text in ("Select the image", "Name the output image") and s.value.endswith(tuple(channels))
        for s in m.settings)]
    return [f"ImageMath[{i}]" for i in of] or ["ImageMath"]


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
    remedy = _THRESHOLDS if dim is None else f"In {dim.where} {dim.what}. {dim.remedy}"
    raise MorphobenchError(f"no cell was found in any of {len(counts)} fields",
                           str(measured["cellprofiler"].record["pipeline"]), remedy)
