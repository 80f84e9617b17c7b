"""The ``cellprofiler:`` block of a study file."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from benchmark.settings import Settings


class CellProfilerSettings(Settings):
    """How CellProfiler measures an assay.

    Attributes
    ----------
    pipeline : str
        A .cppipe file, absolute or relative to the study's file or to the project. It must load its
        images with LoadData.
    images : dict
        Image name in the pipeline → channel of the assay. Without it, ``Orig<Channel>`` or ``<Channel>``
        is taken to be the channel of that name.
    settings : dict
        Module → setting → value, changed in the pipeline before it runs. ``Module[2]`` is the second
        module of that name (without an index: all of them), ``setting[2]`` the second setting of that
        text within its module.
    illumination : str
        ``study``: the study's illumination functions, by which crops are divided too, are loaded in the place of
        those that the pipeline's CorrectIlluminationCalculate modules make; where the study has none
        (``illumination: {method: none}``) the pipeline runs as it is. ``pipeline``: it always does.
    shard_fields : int
        Fields that one CellProfiler process measures; its memory grows with them.
    timeout_minutes : float
        A shard that runs longer is ended and reported.
    """

    pipeline: str = "pipelines/analysis.cppipe"
    images: dict[str, str] = Field(default={})
    settings: dict[str, dict[str, str | int | float | bool]] = Field(default={})
    illumination: Literal["study", "pipeline"] = "study"
    shard_fields: int = Field(24, ge=1, le=500)
    timeout_minutes: float = Field(60, gt=0)
