"""One illumination for both arms: a study's functions in place of those that a pipeline makes itself.

Crops are divided by the study's illumination functions. So that CellProfiler sees the same pixels, its
CorrectIlluminationCalculate modules are switched off and the images that they made are loaded from the same
files; CorrectIlluminationApply then divides by them (CellProfiler's values are the file's over 255 or 65535,
and division keeps that scale).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import numpy as np

from benchmark.base.errors import MorphobenchError
from benchmark.cellprofiler.pipeline import Module, loaded_images, parse, with_modules_off
from benchmark.cellprofiler.shards import Plane, image_channels

if TYPE_CHECKING:
    from benchmark.images.illumination import Illumination

CALCULATE, APPLY = "CorrectIlluminationCalculate", "CorrectIlluminationApply"
_OWN = "Set `cellprofiler.illumination: pipeline` to let the pipeline's own modules run as they are"


def with_loaded_functions(text: str) -> str:
    """The pipeline with its CorrectIlluminationCalculate modules switched off, otherwise untouched to the byte."""
    return with_modules_off(text, CALCULATE)


def function_channels(text: str, images: Mapping[str, str],
                      channels: tuple[str, ...]) -> tuple[dict[str, str], dict[str, str]]:
    """What a pipeline without CorrectIlluminationCalculate must load: images, and illumination functions.

    A function belongs to the channel of the image that CorrectIlluminationApply divides by it; its own name is not
    used.

    Parameters
    ----------
    text : str
        From `with_loaded_functions`.
    images : mapping
        Pipeline image → channel as the study states it; may be empty (`image_channels`).
    channels : tuple of str
        Channels of the assay.

    Returns
    -------
    images, functions : dict
        Pipeline image → channel; both sorted by image.

    Raises
    ------
    MorphobenchError
        The pipeline applies no functions that it does not make, subtracts them, leaves an image uncorrected,
        corrects something other than a loaded image, or uses one function for two channels; or as
        `image_channels`.
    """
    applied = [row for m in parse(text) if m.enabled and m.name == APPLY for row in _applied(m)]
    free = set(loaded_images(text))
    pairs = {(function, image) for image, function, _ in applied if function in free}
    if not pairs:
        raise MorphobenchError("the pipeline loads no illumination functions: it has no CorrectIlluminationApply that "
                               "would take the study's", "cellprofiler.pipeline", f"Add one, or: {_OWN}.")
    functions: dict[str, str] = {}
    loaded = image_channels(text, images, channels, {f for f, _ in pairs})
    for function, image in sorted(pairs):
        channel = loaded.get(image)
        if channel is None:
            raise MorphobenchError(f"{APPLY} divides {image} by {function}, and {image} is not a loaded image: "
                                   "whose illumination it is cannot be told", "cellprofiler.pipeline",
                                   f"Correct images as loaded, before anything else; or: {_OWN}.")
        if functions.setdefault(function, channel) != channel:
            raise MorphobenchError(f"{function} is applied to images of {functions[function]} and of {channel}",
                                   "cellprofiler.pipeline", f"Give each channel a function of its own; or: {_OWN}.")
    for _, function, how in applied:
        if function in functions and how != "Divide":
            raise MorphobenchError(f"{APPLY} applies {function} by {how!r}; the study's functions have a median of 1 "
                                   "and divide", "cellprofiler.pipeline", f"Choose Divide; or: {_OWN}.")
    lacking = sorted(set(loaded) - {image for _, image in pairs})
    if lacking:
        raise MorphobenchError(f"the pipeline does not correct {', '.join(lacking)}, and crops would",
                               "cellprofiler.pipeline", f"Add it to {APPLY}; or: {_OWN}.")
    return loaded, functions


def _applied(module: Module) -> Iterable[tuple[str, str, str]]:
    """(input image, function, how) of each image of a CorrectIlluminationApply."""
    return zip(module.all("Select the input image"), module.all("Select the illumination function"),
               module.all("Select how the illumination function is applied"), strict=True)


def function_planes(illumination: Illumination, functions: Mapping[str, str],
                    plates: Iterable[str]) -> dict[str, tuple[Plane, ...]]:
    """Files of the illumination functions of each plate, with their hashes.

    Parameters
    ----------
    illumination : Illumination
        Of the study.
    functions : mapping
        Pipeline image → channel.
    plates : iterable of str
        Plates to be measured.

    Returns
    -------
    dict
        Plate → one `Plane` for each function, sorted by image.

    Raises
    ------
    MorphobenchError
        A file is missing or damaged, or is not a function: two-dimensional float32, finite, above 0.
    """
    return {plate: tuple(_plane(illumination, plate, channel, image) for image, channel in sorted(functions.items()))
            for plate in dict.fromkeys(plates)}


def _plane(illumination: Illumination, plate: str, channel: str, image: str) -> Plane:
    values = illumination.function(plate, channel)  # checked against its hash
    path = illumination.path(plate, channel).resolve()
    if values.ndim != 2 or values.dtype != np.float32 or not (np.isfinite(values).all() and (values > 0).all()):
        raise MorphobenchError(f"is not an illumination function: {values.dtype} {values.shape} from "
                               f"{values.min():g} to {values.max():g}, not two-dimensional float32 above 0",
                               f"{path} (plate {plate}, {channel})", f"Delete {path.parent} and run again.")
    return Plane(image, path, 0, illumination.sha256(plate, channel))
