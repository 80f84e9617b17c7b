"""Objects measured by cp_measure, in this process, under CellProfiler's names.

A pipeline's Measure modules say what is measured of which objects in which images. cp_measure (Muñoz et al.,
"cp_measure: API-first feature extraction for image-based profiling workflows", 2025) holds CellProfiler's measurements
as functions; it names features without objects and images, and those names are made CellProfiler's here.

On CellProfiler's own masks (a field of BBBC013, 179 cells; granularity on drawn cells) shape, intensity, texture and
granularity are equal, and so is colocalisation but for RWC: cp_measure ranks pixels within an object, CellProfiler
within the field. Not equal either: radial distribution (centres are always the objects' own, and of several middles
another may be taken), and neighbours near the border, where CellProfiler counts objects that are in no mask.
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import combinations
from types import ModuleType

import numpy as np
import pandas as pd
from scipy import ndimage
from skimage.segmentation import relabel_sequential

from benchmark.base.errors import MorphobenchError
from benchmark.cellprofiler.cp_measure.segment import Objects, named
from benchmark.cellprofiler.cp_measure.steps import step
from benchmark.cellprofiler.pipeline import Module

REMEDY = "Run .venv/bin/pip install '.[cp-measure]', or install CellProfiler (`make setup`)."
_ARITHMETIC: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "Divide": np.divide, "Multiply": np.multiply, "Add": np.add, "Subtract": np.subtract}


@dataclass
class _Field:
    """One field as it is measured: objects' features by name, one value an object."""

    images: Mapping[str, np.ndarray]
    objects: Mapping[str, Objects]
    levels: int
    tables: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)

    def labels(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Labels from 1 without gaps, and the number of each."""
        clean, _, numbers = relabel_sequential(named(self.objects, name).labels)
        return clean, np.asarray(numbers)[1:].astype(int)

    def put(self, name: str, numbers: np.ndarray, values: Mapping[str, object]) -> None:
        """Add features of some objects; the others have none."""
        table = self.tables.setdefault(name, {})
        for feature, found in values.items():
            table[feature] = np.full(self.objects[name].count, np.nan)
            table[feature][numbers - 1] = np.asarray(found, float)

    def each(self, objects: str, images: str = "") -> Iterator[tuple[str, np.ndarray, np.ndarray, str, np.ndarray]]:
        """(object, labels, numbers, image, pixels) of all pairs, for objects of which there are any."""
        for name in listed(objects):
            clean, numbers = self.labels(name)
            for image in listed(images) or [""]:
                if len(numbers):
                    yield name, clean, numbers, image, named(self.images, image) if image else clean


def measure_objects(modules: tuple[Module, ...], images: Mapping[str, np.ndarray], objects: Mapping[str, Objects],
                    levels: int) -> dict[str, pd.DataFrame]:
    """All that the pipeline's Measure modules measure of one field's objects.

    Parameters
    ----------
    modules : tuple of Module
        The pipeline's.
    images : mapping
        Name → plane (H, W), float, 0 … 1.
    objects : mapping
        Name → `Objects`; masks may come from anywhere.
    levels : int
        255 or 65535: the scale of the files' pixels (Costes' threshold is searched on it).

    Returns
    -------
    dict
        Object → table with ``ObjectNumber``, ``Parent_<object>``, ``Location_Center_X/Y`` in pixels and features under
        CellProfiler's names (float64; NaN where an object has no pixel), sorted by name.

    Raises
    ------
    MorphobenchError
        A module names an image or objects that do not exist, or has a setting that is not a number.
    FieldFault
        A module failed at these pixels or masks.
    """
    place = _Field(images, objects, levels)
    tables = {}
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        # Objects of one pixel or one value, and those without any, divide by nothing: they get missing values.
        warnings.simplefilter("ignore", RuntimeWarning)
        for module in (m for m in modules if m.enabled and m.name in MEASURES):
            with step(module.name):
                MEASURES[module.name](module, place)
        for name, kind in objects.items():
            numbers = np.arange(1, kind.count + 1)
            centres = np.array(ndimage.center_of_mass(kind.labels > 0, kind.labels, numbers)).reshape(-1, 2)
            features = place.tables.get(name, {})
            tables[name] = pd.DataFrame({
                "ObjectNumber": numbers, **{f"Parent_{parent}": numbers for parent in kind.parents},
                "Location_Center_X": centres[:, 1], "Location_Center_Y": centres[:, 0],
                **{feature: features[feature] for feature in sorted(features)}})
    return tables


def _shape(module: Module, place: _Field) -> None:
    core = library("bulk").get_core_measurements(sanitize=False)
    for name, labels, numbers, _, _ in place.each(module.get("Select object sets to measure")):
        values = core["sizeshape"](labels, None, new_features=False,
                                   calculate_advanced=module.get("Calculate the advanced features?") == "Yes")
        values |= core["feret"](labels, None)
        if module.get("Calculate the Zernike features?") == "Yes":
            values |= core["zernike"](labels, None)
        place.put(name, numbers, {f"AreaShape_{feature}": found for feature, found in values.items()})


def _intensity(module: Module, place: _Field) -> None:
    # The older quantiles, at n·q instead of (n-1)·q, are CellProfiler's.
    core = library("bulk").get_core_measurements(legacy=True, sanitize=False)
    for name, labels, numbers, image, pixels in place.each(module.get("Select objects to measure"),
                                                           module.get("Select images to measure")):
        place.put(name, numbers, _of_image(core["intensity"](labels, pixels), image))


def _distribution(module: Module, place: _Field) -> None:
    core = library("bulk").get_core_measurements(sanitize=False)
    zernikes = module.get("Calculate intensity Zernikes?", "None")
    bins = list(zip(module.all("Scale the bins?"), module.as_numbers("Number of bins", int),
                    module.as_numbers("Maximum radius", int), strict=True))
    moment = module.as_number("Maximum zernike moment", 9)
    for name, labels, numbers, image, pixels in place.each(",".join(module.all("Select objects to measure")),
                                                           module.get("Select images to measure")):
        for scaled, count, radius in bins:
            # Centres are always the objects' own: cp_measure knows no others.
            values = core["radial_distribution"](labels, pixels, scaled == "Yes", count, radius)
            place.put(name, numbers, _of_image(values, image))
        if zernikes != "None":
            values = core["radial_zernikes"](labels, pixels, moment)
            place.put(name, numbers, _of_image({f: v for f, v in values.items()
                                                if "Phase" not in f or "phase" in zernikes}, image))


def _texture(module: Module, place: _Field) -> None:
    core = library("bulk").get_core_measurements(sanitize=False)
    if module.get("Measure whole images or objects?", "Objects") == "Images":
        return
    levels = module.as_number("Enter how many gray levels to measure the texture at", 256)
    scales = module.as_numbers("Texture scale to measure", int)
    for name, labels, numbers, image, pixels in place.each(module.get("Select objects to measure"),
                                                           module.get("Select images to measure")):
        for scale in scales:
            values = core["texture"](labels, pixels, scale, levels)
            place.put(name, numbers, _of_image({f"Texture_{f}": v for f, v in values.items()}, image))


def _granularity(module: Module, place: _Field) -> None:
    core = library("bulk").get_core_measurements(sanitize=False)
    if module.get("Measure within objects?") != "Yes":
        return
    for name, labels, numbers, image, pixels in place.each(module.get("Select objects to measure"),
                                                           module.get("Select images to measure")):
        values = core["granularity"](labels, pixels,
                                     module.as_number("Subsampling factor for granularity measurements", 0.25),
                                     module.as_number("Subsampling factor for background reduction", 0.25),
                                     module.as_number("Radius of structuring element", 10),
                                     module.as_number("Range of the granular spectrum", 16))
        place.put(name, numbers, _of_image(values, image))


def _colocalization(module: Module, place: _Field) -> None:
    functions = library("core.measurecolocalization")
    everything = module.get("Run all metrics?") == "Yes"
    share = module.as_number("Set threshold as percentage of maximum intensity for the images", 15.0)
    metrics: list[tuple[Callable[..., dict[str, list[float]]], str, dict[str, object]]] = [
        (functions.get_correlation_pearson, "Calculate correlation and slope metrics?", {}),
        (functions.get_correlation_manders_fold, "Calculate the Manders coefficients?", {"thr": share}),
        (functions.get_correlation_rwc, "Calculate the Rank Weighted Colocalization coefficients?",
         {"thr": share}),
        (functions.get_correlation_overlap, "Calculate the Overlap coefficients?", {"thr": share}),
        (functions.get_correlation_costes, "Calculate the Manders coefficients using Costes auto threshold?",
         {"fast_costes": module.get("Method for Costes thresholding", "Faster"), "scale_max": place.levels})]
    if module.get("Select where to measure correlation") == "Across entire image":
        return
    for name, labels, numbers, _, _ in place.each(module.get("Select objects to measure")):
        for one, other in combinations(listed(module.get("Select images to measure")), 2):
            for function, setting, more in metrics:
                if everything or module.get(setting) == "Yes":
                    values = function(named(place.images, one), named(place.images, other), labels, **more)
                    place.put(name, numbers, {_pair_name(f, one, other): v for f, v in values.items()
                                              if f != "Correlation_Slope"})


def _neighbors(module: Module, place: _Field) -> None:
    function = library("multimask.measureobjectneighbors").measureobjectneighbors
    name = module.get("Select objects to measure")
    if module.get("Select neighboring objects to measure") != name:
        return
    for _, labels, numbers, _, _ in place.each(name):
        if len(numbers) > 1:
            values = function(labels, labels, module.get("Method to determine neighbors"),
                              module.as_number("Neighbor distance", 5))
            place.put(name, numbers, values)


def _math(module: Module, place: _Field) -> None:
    values, owners = [], []
    for which in ("first", "second"):
        owner = module.get(f"Select the {which} operand objects")
        table = place.tables.get(owner, {})
        feature = module.get(f"Select the {which} operand measurement")
        if module.get(f"Select the {which} operand measurement type") != "Object" or feature not in table:
            return
        values.append(table[feature])
        owners.append(owner)
    # The settings of factor and power carry the same text for both operands.
    factors = module.as_numbers("Multiply the above operand by", float)
    powers = module.as_numbers("Raise the power of above operand by", float)
    first, second = ((v * f) ** p for v, f, p in zip(values, factors, powers, strict=True))
    if module.get("Operation") not in _ARITHMETIC or len(first) != len(second):
        return
    result = _ARITHMETIC[module.get("Operation")](first, second)
    result = np.log10(result) if module.get("Take log10 of result?") == "Yes" else result
    result = result * module.as_number("Multiply the result by", 1.0)
    result = result ** module.as_number("Raise the power of result by", 1.0)
    result = result + module.as_number("Add to the result", 0.0)
    for owner in dict.fromkeys(owners):
        place.put(owner, np.arange(1, len(result) + 1), {f"Math_{module.get('Name the output measurement')}": result})


MEASURES: dict[str, Callable[[Module, _Field], None]] = {
    "MeasureObjectSizeShape": _shape, "MeasureObjectIntensity": _intensity,
    "MeasureObjectIntensityDistribution": _distribution, "MeasureTexture": _texture,
    "MeasureGranularity": _granularity, "MeasureColocalization": _colocalization,
    "MeasureObjectNeighbors": _neighbors, "CalculateMath": _math}


def _of_image(values: Mapping[str, object], image: str) -> dict[str, object]:
    """``<Category>_<feature>[_<more>]`` → ``<Category>_<feature>_<image>[_<more>]``."""
    parts = {name: name.split("_") for name in values}
    return {"_".join([*parts[name][:2], image, *parts[name][2:]]): v for name, v in values.items()}


def _pair_name(feature: str, one: str, other: str) -> str:
    """``Correlation_K_2`` of images A and B → ``Correlation_K_B_A``; ``Correlation_Pearson`` is CellProfiler's
    ``Correlation_Correlation``."""
    category, kind, *side = feature.split("_")
    images = (other, one) if side == ["2"] else (one, other)
    return "_".join((category, "Correlation" if kind == "Pearson" else kind, *images))


def listed(text: str) -> list[str]:
    """The items of a setting that lists names, separated by commas."""
    return [part.strip() for part in text.split(",") if part.strip()]


def library(name: str) -> ModuleType:
    """A module of cp_measure, which is not always installed."""
    try:
        return importlib.import_module(f"cp_measure.{name}")
    except ImportError as error:
        raise MorphobenchError(f"cp_measure is not installed ({error})", "cellprofiler.backend", REMEDY) from error
