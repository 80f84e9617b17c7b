"""The backend ``cp_measure``: a shard measured in this process, where CellProfiler cannot be installed.

The pipeline is read as a plan: its CorrectIlluminationApply and ImageMath modules make the images, its Identify modules
the masks (`benchmark.cellprofiler.cp_measure.segment`), its Measure modules say what is measured
(`benchmark.cellprofiler.cp_measure.cpmeasure`).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version

import numpy as np
import pandas as pd

from benchmark.base.errors import Fault, MorphobenchError
from benchmark.base.tables import FIELD_KEY
from benchmark.cellprofiler.check import Output
from benchmark.cellprofiler.cp_measure.cpmeasure import MEASURES, REMEDY, library, listed, measure_objects
from benchmark.cellprofiler.cp_measure.segment import PRIMARY, SECONDARY, TERTIARY, Objects, named, segment
from benchmark.cellprofiler.cp_measure.steps import FieldFault, step
from benchmark.cellprofiler.find import CellProfiler
from benchmark.cellprofiler.illumination import APPLY
from benchmark.cellprofiler.ingest import OBJECT_NUMBER, cell_table, image_table
from benchmark.cellprofiler.pipeline import Module, parse, saved_masks
from benchmark.cellprofiler.shards import NUMBER, Shard, StagedField
from benchmark.images.focus import power_slope
from benchmark.images.reading import read_plane

#: Changed when the masks or the measurements change: enters the keys of shards.
REVISION = 1
#: Modules that measure nothing, or that are run here.
_RUN = {"LoadData", "ExportToSpreadsheet", "ConvertObjectsToImage", "SaveImages", APPLY, "ImageMath", PRIMARY,
        SECONDARY, TERTIARY, *MEASURES}


@dataclass(frozen=True)
class OwnShard:
    """What this backend measured of a shard.

    Attributes
    ----------
    cells, images : DataFrame
        As `benchmark.cellprofiler.ingest` makes them of CellProfiler's tables.
    masks : dict
        Object whose masks the pipeline saves → label mask (uint16) of each field in ``fields``.
    fields : tuple of int
        Indices, in the shard, of the fields that were measured.
    failed : dict
        Index of each other field → why.
    odd : tuple of int
        Indices of those among them that could be read, but on which a module failed.
    objects_left_out : list of str
        Objects that do not pair off with the cells.
    modules_left_out : list of str
        Modules of the pipeline that this backend does not run, wholly or in part.
    """

    cells: pd.DataFrame
    images: pd.DataFrame
    masks: dict[str, list[np.ndarray]]
    fields: tuple[int, ...]
    failed: dict[int, Fault]
    odd: tuple[int, ...]
    objects_left_out: list[str]
    modules_left_out: list[str]


@dataclass(frozen=True)
class _Field:
    """What was measured of one field: its row of the table of images, its objects' tables, and its saved masks."""

    row: Mapping[str, object]
    tables: dict[str, pd.DataFrame]
    masks: dict[str, np.ndarray]


def backend() -> CellProfiler:
    """This backend in place of CellProfiler: its ``version`` enters the keys of shards.

    Raises
    ------
    MorphobenchError
        cp_measure is not installed.
    """
    library("bulk")
    try:
        parts = [f"{name} {version(name)}" for name in ("cp_measure", "centrosome", "scikit-image")]
    except PackageNotFoundError as error:
        raise MorphobenchError(f"{error.name} is not installed", "cellprofiler.backend", REMEDY) from error
    return CellProfiler(("cp_measure",), f"{', '.join(parts)}, revision {REVISION}", "cp_measure")


def measure_shard(shard: Shard, pipeline: str,
                  given: Sequence[Mapping[str, np.ndarray]] | None = None) -> OwnShard:
    """Measure every field of a shard.

    Parameters
    ----------
    shard : Shard
        Its fields' planes are read and, where they have illumination functions, divided by them; without functions
        they are taken as they are (CorrectIlluminationCalculate is never run).
    pipeline : str
        Text of the pipeline as it would run.
    given : sequence of mapping, optional
        For each field objects → label mask (H, W), where masks are known (CellProfiler's own, to compare the two).

    Returns
    -------
    OwnShard

    Raises
    ------
    MorphobenchError
        cp_measure is not installed, or the pipeline needs what this backend cannot do. A field that cannot be read, or
        at which a module fails with whatever a library raises, is not an error: it is listed in ``failed``.
    """
    modules = parse(pipeline)
    left_out = sorted({m.name for m in modules if m.enabled and m.name not in _RUN})
    if not any(m.enabled and m.name == PRIMARY for m in modules):
        raise MorphobenchError(f"the backend cp_measure needs a pipeline with {PRIMARY}", "cellprofiler.pipeline",
                               "Measure whole fields with CellProfiler (cellprofiler.backend).")
    saved = saved_masks(pipeline)
    found: dict[int, _Field] = {}
    failed: dict[int, Fault] = {}
    odd: list[int] = []
    for index, staged in enumerate(shard.fields):
        try:
            loaded, levels = read_images(staged)
        except MorphobenchError as error:
            failed[index] = error.fault
            continue
        try:
            found[index] = _measured(modules, saved, loaded, levels, _functions(staged),
                                     given[index] if given else None)
        except FieldFault as error:
            failed[index] = replace(error.fault, where=staged.name)
            odd.append(index)
    fields = tuple(found)
    masks = {name: [field.masks[name] for field in found.values()] for name in saved}
    if not fields:
        empty = pd.DataFrame(columns=FIELD_KEY)
        return OwnShard(empty.assign(**{OBJECT_NUMBER: np.empty(0, np.int32)}), empty, masks, (), failed, tuple(odd),
                        [], left_out)
    measured = Shard(shard.key, tuple(shard.fields[i] for i in fields))
    output = _output(list(found.values()))
    cells, apart = cell_table(output, measured)
    return OwnShard(cells, image_table(output, measured), masks, fields, failed, tuple(odd), apart, left_out)


def _measured(modules: tuple[Module, ...], saved: Collection[str], loaded: Mapping[str, np.ndarray], levels: int,
              functions: Mapping[str, np.ndarray], given: Mapping[str, np.ndarray] | None) -> _Field:
    """Measure one field; FieldFault where the field is to blame for a failure."""
    images = corrected(modules, loaded, functions)
    objects, thresholds = segment(modules, images, given)
    tables = measure_objects(modules, images, objects, levels)
    with step("MeasureImageQuality"):
        quality = image_quality(modules, loaded)
    row = {**{f"Count_{n}": o.count for n, o in sorted(objects.items())}, **quality,
           **{f"Threshold_FinalThreshold_{n}": t for n, t in sorted(thresholds.items())}}
    return _Field(row, tables, {name: _mask(named(objects, name)) for name in saved})


def _output(found: Sequence[_Field]) -> Output:
    """Fields as CellProfiler's tables have them, numbered in their order."""
    rows = [{"ImageNumber": number + 1, **field.row} for number, field in enumerate(found)]
    tables: dict[str, list[pd.DataFrame]] = {}
    for number, field in enumerate(found):
        for name, table in field.tables.items():
            tables.setdefault(name, []).append(table.assign(**{NUMBER: number, "ImageNumber": number + 1}))
    return Output(pd.DataFrame(rows), {name: _joined(parts) for name, parts in sorted(tables.items())}, {})


def _joined(tables: list[pd.DataFrame]) -> pd.DataFrame:
    """Objects of all fields; a field without any gives neither rows nor columns."""
    return pd.concat([t for t in tables if len(t)] or tables[:1], ignore_index=True)


def _mask(objects: Objects) -> np.ndarray:
    if objects.count > np.iinfo(np.uint16).max:
        raise FieldFault(f"{objects.count} objects are more than a mask of 16 bits holds")
    return objects.labels.astype(np.uint16)


def read_images(staged: StagedField) -> tuple[dict[str, np.ndarray], int]:
    """A field's planes (float32, 0 … 1 as CellProfiler scales them: over 255 or 65535), and that number.

    Raises
    ------
    MorphobenchError
        A plane is broken or constant, or planes differ in size.
    """
    images, levels = {}, 0
    for plane in staged.planes:
        pixels = read_plane(plane.path, plane.plane)
        where = f"{plane.path} (plane {plane.plane}; {staged.name})"
        if pixels.min() == pixels.max():
            raise MorphobenchError(f"every pixel of {plane.image} is {pixels.min()}: nothing can be segmented", where,
                                   "Leave the field out of the table.")
        levels = max(levels, int(np.iinfo(pixels.dtype).max))
        images[plane.image] = pixels.astype(np.float32) / np.float32(np.iinfo(pixels.dtype).max)
        if len({p.shape for p in images.values()}) > 1:
            raise MorphobenchError(f"planes of one field differ in size: {sorted(p.shape for p in images.values())}",
                                   where)
    return images, levels


def _functions(staged: StagedField) -> dict[str, np.ndarray]:
    return {f.image: np.load(f.path, allow_pickle=False) for f in staged.functions}


def corrected(modules: tuple[Module, ...], loaded: Mapping[str, np.ndarray],
              functions: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """All images of a field: as loaded, divided by their illumination functions, and multiplied.

    Parameters
    ----------
    modules : tuple of Module
        The pipeline's. Of those that make images CorrectIlluminationApply (Divide) and ImageMath (Operation: None) are
        run; what others make is missing, which is an error once it is used.
    loaded : mapping
        Name → plane (H, W), float32.
    functions : mapping
        Name → function (H, W), float32. Where one is missing, because the pipeline would make it itself, the image
        stays as it is.

    Returns
    -------
    dict
        Name → plane, float64 of float32's precision (CellProfiler's), so that equal pixels stay equal.

    Raises
    ------
    MorphobenchError
        A function is subtracted, or a setting is not a number.
    FieldFault
        A function's size is not that of the plane.
    """
    made = dict(loaded)
    for module in (m for m in modules if m.enabled):
        if module.name == APPLY:
            for source, function, how, name in zip(
                    module.all("Select the input image"), module.all("Select the illumination function"),
                    module.all("Select how the illumination function is applied"),
                    module.all("Name the output image"), strict=True):
                made[name] = named(made, source)
                if function in functions:
                    if how != "Divide":
                        raise MorphobenchError(f"{APPLY} cannot apply {function} to {source} by {how}",
                                               "cellprofiler.pipeline", "Choose Divide.")
                    if functions[function].shape != made[source].shape:
                        raise FieldFault(f"{source} is of the shape {made[source].shape}, its illumination function "
                                         f"{function} of {functions[function].shape}",
                                         remedy="All fields of a plate must have one size, that of its function.")
                    made[name] = _clipped(made[source] / functions[function].astype(np.float32), module,
                                          "Set output image values {} equal to {}?")
        elif module.name == "ImageMath" and module.get("Operation") == "None":
            pixels = named(made, module.get("Select the image")) * np.float32(
                module.as_number("Multiply the image by", 1.0))
            pixels = pixels ** np.float32(module.as_number("Raise the power of the result by", 1.0))
            pixels = pixels * np.float32(module.as_number("Multiply the result by", 1.0))
            pixels = pixels + np.float32(module.as_number("Add to result", 0.0))
            made[module.get("Name the output image")] = _clipped(pixels, module, "Set values {} equal to {}?")
    return {name: pixels.astype(np.float64) for name, pixels in made.items()}


def _clipped(pixels: np.ndarray, module: Module, setting: str) -> np.ndarray:
    low = 0 if module.get(setting.format("less than 0", 0), "Yes") == "Yes" else -np.inf
    high = 1 if module.get(setting.format("greater than 1", 1), "Yes") == "Yes" else np.inf
    return np.clip(pixels, low, high)


def image_quality(modules: tuple[Module, ...], loaded: Mapping[str, np.ndarray]) -> dict[str, float]:
    """MeasureImageQuality's measures of intensity, saturation and power of the images as loaded.

    Correlation, LocalFocusScore and Scaling are not made. As `ImageQuality_<measure>_<image>`.
    """
    found: dict[str, float] = {}
    for module in (m for m in modules if m.enabled and m.name == "MeasureImageQuality"):
        for image in listed(module.get("Select the images to measure")):
            if image not in loaded:
                continue
            pixels = loaded[image].astype(np.float64)
            median, mean = float(np.median(pixels)), float(pixels.mean())
            measures = {
                "MeanIntensity": mean, "StdIntensity": float(pixels.std()), "MedianIntensity": median,
                "MADIntensity": float(np.median(np.abs(pixels - median))), "MinIntensity": float(pixels.min()),
                "MaxIntensity": float(pixels.max()), "TotalIntensity": float(pixels.sum()), "TotalArea": pixels.size,
                "PercentMinimal": 100 * float((pixels == pixels.min()).mean()),
                "PercentMaximal": 100 * float((pixels == pixels.max()).mean()),
                "FocusScore": float(pixels.var()) / mean if mean else 0.0, "PowerLogLogSlope": power_slope(pixels)}
            found |= {f"ImageQuality_{measure}_{image}": value for measure, value in measures.items()}
    return found
