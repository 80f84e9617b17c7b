"""Label masks by scikit-image, with the settings of a pipeline's own Identify modules.

For the backend ``cp_measure``. Nuclei: smoothing, minimum cross-entropy threshold (Li & Lee, Pattern Recognition 26,
1993; Li & Tam, Pattern Recognition Letters 19, 1998), watershed from the peaks of the distance transform or of the
smoothed intensity. Cells: grown from the nuclei by propagation (Jones, Carpenter & Golland, CVBIA 2005; the function of
centrosome) or by a distance. The masks are close to CellProfiler's, not equal: peaks are searched at full size, and
options that are not named here are ignored.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeVar

import numpy as np
from scipy import ndimage
from skimage.feature import peak_local_max
from skimage.filters import gaussian
from skimage.measure import label
from skimage.segmentation import clear_border, expand_labels, find_boundaries, relabel_sequential, watershed

from benchmark.base.errors import MorphobenchError
from benchmark.cellprofiler.cp_measure.steps import step
from benchmark.cellprofiler.cp_measure.threshold import Threshold, foreground, threshold_settings
from benchmark.cellprofiler.pipeline import Module

T = TypeVar("T")
PRIMARY, SECONDARY, TERTIARY = "IdentifyPrimaryObjects", "IdentifySecondaryObjects", "IdentifyTertiaryObjects"


@dataclass(frozen=True)
class Primary:
    """Settings of nuclei; diameters in pixels (CellProfiler's defaults)."""

    diameters: tuple[float, float] = (10.0, 40.0)
    threshold: Threshold = field(default_factory=Threshold)
    peaks: Literal["Shape", "Intensity"] = "Shape"
    lines: Literal["Shape", "Intensity"] = "Intensity"
    split: bool = True
    drop_border: bool = True
    drop_sizes: bool = True


@dataclass(frozen=True)
class Secondary:
    """Settings of cells; ``distance`` in pixels. ``weight`` is propagation's regularisation."""

    method: Literal["Propagation", "Distance - N", "Watershed - Image"] = "Propagation"
    distance: int = 10
    weight: float = 0.05
    threshold: Threshold = field(default_factory=Threshold)


@dataclass(frozen=True)
class Objects:
    """One kind of object of one field; ``labels`` (H, W) int32 from 1, of the same numbers as its ``parents``."""

    labels: np.ndarray
    count: int
    parents: tuple[str, ...] = ()


def primary_settings(module: Module) -> Primary:
    """Settings of an IdentifyPrimaryObjects module."""
    advanced = module.get("Use advanced settings?", "Yes") == "Yes"
    peaks = lines = "Intensity"
    if advanced:
        peaks = module.get("Method to distinguish clumped objects", "Shape")
        lines = module.get("Method to draw dividing lines between clumped objects", "Intensity")
    return Primary(module.as_pair("Typical diameter of objects, in pixel units (Min,Max)", (10, 40)),
                   threshold_settings(module), "Intensity" if peaks == "Intensity" else "Shape",
                   "Intensity" if lines == "Intensity" else "Shape", "None" not in (peaks, lines),
                   module.get("Discard objects touching the border of the image?", "Yes") == "Yes",
                   module.get("Discard objects outside the diameter range?", "Yes") == "Yes")


def secondary_settings(module: Module) -> Secondary:
    """Settings of an IdentifySecondaryObjects module.

    Raises
    ------
    MorphobenchError
        Its method is not one of ours.
    """
    method = module.get("Select the method to identify the secondary objects", Secondary.method)
    distance = module.as_number("Number of pixels by which to expand the primary objects", 10)
    weight = module.as_number("Regularization factor", 0.05)
    if method in ("Propagation", "Distance - N", "Watershed - Image"):
        return Secondary(method, distance, weight, threshold_settings(module))  # type: ignore[arg-type]
    raise MorphobenchError(f"the backend cp_measure cannot identify objects by {method!r}",
                           f"cellprofiler.settings.{SECONDARY}", "Choose Propagation, Distance - N or Watershed - "
                           "Image; or measure with CellProfiler (cellprofiler.backend).")


def segment(modules: tuple[Module, ...], images: Mapping[str, np.ndarray],
            given: Mapping[str, np.ndarray] | None = None) -> tuple[dict[str, Objects], dict[str, float]]:
    """All objects that a pipeline's Identify modules make of one field.

    Parameters
    ----------
    modules : tuple of Module
        The pipeline's, enabled or not.
    images : mapping
        Name in the pipeline → plane (H, W), float, 0 … 1.
    given : mapping, optional
        Objects → their label mask, where it is known: CellProfiler's own, to compare the two.

    Returns
    -------
    objects : dict
        Name → `Objects`, in the order of the pipeline. Objects made of others carry their numbers.
    thresholds : dict
        Name → threshold (its mean, where it is adaptive), of those that have one.

    Raises
    ------
    MorphobenchError
        A module names an image or objects that are not there, or a method that is not ours.
    FieldFault
        A module failed at these pixels.
    """
    found: dict[str, Objects] = {}
    grown_from: dict[str, np.ndarray] = {}  # with the objects at the border: they keep their area
    thresholds: dict[str, float] = {}
    known = {name: labels.astype(np.int32) for name, labels in (given or {}).items()}
    for module in (m for m in modules if m.enabled):
        if module.name == PRIMARY:
            name = module.get("Name the primary objects to be identified")
            if name in known:
                found[name] = Objects(known[name], int(known[name].max()))
                continue
            plane, primary = named(images, module.get("Select the input image")), primary_settings(module)
            with step(PRIMARY):
                labels, grown_from[name], thresholds[name] = nuclei(plane, primary)
            found[name] = Objects(labels, int(labels.max()))
        elif module.name == SECONDARY:
            name, seeds = module.get("Name the objects to be identified"), module.get("Select the input objects")
            kept = named(found, seeds)
            if name in known:
                found[name] = Objects(known[name], kept.count, (seeds,))
                continue
            plane, secondary = named(images, module.get("Select the input image")), secondary_settings(module)
            with step(SECONDARY):
                labels, threshold = cells(plane, kept.labels, grown_from.get(seeds, kept.labels), secondary)
            found[name] = Objects(labels, kept.count, (seeds,))
            if threshold is not None:
                thresholds[name] = threshold
        elif module.name == TERTIARY:
            large, small = (module.get(f"Select the {size} identified objects") for size in ("larger", "smaller"))
            cell, nucleus = named(found, large), named(found, small)
            shrink = module.get("Shrink smaller object prior to subtraction?", "Yes") == "Yes"
            with step(TERTIARY):
                ring = Objects(cytoplasm(cell.labels, nucleus.labels, shrink), cell.count, (large, small))
            found[module.get("Name the tertiary objects to be identified")] = ring
    return found, thresholds


def nuclei(plane: np.ndarray, settings: Primary) -> tuple[np.ndarray, np.ndarray, float]:
    """Nuclei of one plane.

    Parameters
    ----------
    plane : ndarray, shape (H, W)
        Float, 0 … 1.
    settings : Primary
        Diameters, threshold and what is dropped.

    Returns
    -------
    labels, everything : ndarray, int32, shape (H, W)
        The nuclei, numbered from 1; and those at the border and the oversized too, the former under the same numbers.
    threshold : float
    """
    smallest, largest = settings.diameters
    mask, threshold = foreground(plane, settings.threshold)
    holes = label(ndimage.binary_fill_holes(mask) & ~mask, connectivity=1)
    mask |= (holes > 0) & (np.bincount(holes.ravel()) < largest**2)[holes]
    if settings.split:
        sigma = smallest / 3.5  # CellProfiler's automatic smoothing of objects that are split
        smooth = gaussian(plane, sigma, mode="nearest")
        distance = ndimage.distance_transform_edt(mask)
        # A flat top of the distance has many highest pixels, which the smoothing makes one.
        height = smooth if settings.peaks == "Intensity" else gaussian(distance, 1)
        peaks = peak_local_max(height, min_distance=max(1, round(smallest / 1.5 - 0.5)), labels=label(mask),
                               exclude_border=False)
        markers = np.zeros(plane.shape, np.int32)
        markers[tuple(peaks.T)] = np.arange(1, len(peaks) + 1)
        labels = watershed(-plane if settings.lines == "Intensity" else -distance, markers, mask=mask)
        # Parts without a peak of their own (none, unless two share one by a flat top) stay objects.
        rest = label(mask & (labels == 0))
        labels = np.where(rest > 0, rest + labels.max(), labels)
    else:
        labels = label(mask)
    areas = np.bincount(labels.ravel())
    kept = areas >= np.pi / 4 * smallest**2 if settings.drop_sizes else areas > 0
    inside = np.where(kept[labels], labels, 0)
    good = clear_border(inside) if settings.drop_border else inside
    if settings.drop_sizes:
        good = np.where((areas <= np.pi / 4 * largest**2)[good], good, 0)
    final, _, _ = relabel_sequential(good)
    # Others are numbered after those that are kept.
    others, _, _ = relabel_sequential(np.where(good == 0, inside, 0))
    everything = np.where(final > 0, final, np.where(others > 0, others + final.max(), 0))
    return final.astype(np.int32), everything.astype(np.int32), threshold


def cells(plane: np.ndarray, kept: np.ndarray, everything: np.ndarray,
          settings: Secondary) -> tuple[np.ndarray, float | None]:
    """One cell around each nucleus, under its number.

    Parameters
    ----------
    plane : ndarray, shape (H, W)
        The cell channel, float, 0 … 1.
    kept, everything : ndarray, int32, shape (H, W)
        As `nuclei` gives them. Cells grow from all, and those of nuclei that are not kept are dropped afterwards.
    settings : Secondary

    Returns
    -------
    labels : ndarray, int32, shape (H, W)
    threshold : float or None
        None where none is needed.
    """
    threshold = None
    if settings.method == "Distance - N":
        grown = expand_labels(everything, settings.distance)
    else:
        mask, threshold = foreground(plane, settings.threshold)
        mask |= everything > 0
        if settings.method == "Propagation":
            from centrosome.propagate import propagate

            grown, _ = propagate(plane.astype(np.float64), everything, mask, settings.weight)
        else:
            grown = watershed(-plane, everything, mask=mask)
        grown = np.where(everything > 0, everything, np.where(mask, grown, 0))
        grown = _filled(grown)
    return np.where(grown <= kept.max(), grown, 0).astype(np.int32), threshold


def cytoplasm(cell: np.ndarray, nucleus: np.ndarray, shrink: bool = False) -> np.ndarray:
    """Cells without their nuclei, under the cells' numbers; ``shrink`` leaves the nuclei's outermost pixels in."""
    free = nucleus == 0
    if shrink:
        free |= find_boundaries(nucleus, mode="inner")
    return np.where(free, cell, 0).astype(np.int32)


def _filled(labels: np.ndarray) -> np.ndarray:
    """Holes enclosed by one object become part of it."""
    out = labels.copy()
    for number, box in enumerate(ndimage.find_objects(labels), 1):
        if box is not None:
            whole = ndimage.binary_fill_holes(labels[box] == number)
            part = out[box]
            part[whole & (part == 0)] = number
    return out


def named(found: Mapping[str, T], name: str) -> T:
    """What a module names.

    Raises
    ------
    MorphobenchError
        It is not there.
    """
    if name not in found:
        raise MorphobenchError(f"the backend cp_measure does not make {name!r}, which the pipeline uses",
                               "cellprofiler.pipeline", f"It makes {', '.join(found)}; measure with CellProfiler.")
    return found[name]
