"""The ``cellprofiler:`` block of a study file."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from benchmark.base.settings import Settings


class CellProfilerSettings(Settings):
    """How CellProfiler measures an assay.

    Attributes
    ----------
    pipeline : str
        A .cppipe file, absolute or relative to the study's file or to the project. Where it loads by
        NamesAndTypes, its input modules are replaced by LoadData with the same image names.
    images : dict
        Image name in the pipeline → channel of the assay. Without it, ``Orig<Channel>`` or ``<Channel>``
        is assumed to be the channel of that name.
    settings : dict
        Module → setting → value, changed in the pipeline before it runs. ``Module[2]`` is the second
        module of that name (without an index: all of them), ``setting[2]`` the second setting of that
        text within its module.
    illumination : str
        ``study``: the study's illumination functions, by which crops are divided too, are loaded in the place of
        those that the pipeline's CorrectIlluminationCalculate modules make; where the study has none
        (``illumination: {method: none}``) the pipeline runs unchanged. ``pipeline``: it always runs unchanged.
    shard_fields : int
        Fields that one CellProfiler process measures; its memory grows with them.
    timeout_minutes : float
        A shard that runs longer is ended and halved; parts of it have twice their share of the time, but 10 minutes at
        least. A field that times out alone fails, and is measured again when it would have more time.
    attempts : int
        How often a shard that CellProfiler fails on is tried; then it is halved, until the fields that fail alone are
        found. Those are left out of both arms, cells or not, and listed with their reason.
    failed_fields : float
        Largest share of fields that may fail; beyond it the study stops, since the pipeline is then at fault. With
        several pipelines, the largest of their shares applies to the fields that any of them failed on.
    backend : str
        ``cellprofiler``, or ``cp_measure``: masks by scikit-image, measured by cp_measure under CellProfiler's column
        names, where CellProfiler cannot be installed. The two differ (radial distribution above all).
    nuclei, cells : str
        Names of the pipeline's objects that cells are counted by and cell crops centred on (``nuclei``) and cut out
        by (``cells``). Empty: found in the pipeline (the first primary objects; the secondary objects made of them).
    """

    pipeline: str = "pipelines/analysis.cppipe"
    images: dict[str, str] = Field(default={})
    settings: dict[str, dict[str, str | int | float | bool]] = Field(default={})
    illumination: Literal["study", "pipeline"] = "study"
    shard_fields: int = Field(24, ge=1, le=500)
    timeout_minutes: float = Field(60, gt=0)
    attempts: int = Field(2, ge=1, le=5)
    failed_fields: float = Field(0.2, ge=0, le=1)
    backend: Literal["cellprofiler", "cp_measure"] = "cellprofiler"
    nuclei: str = ""
    cells: str = ""

    @model_validator(mode="after")
    def _own_backend(self) -> CellProfilerSettings:
        if self.backend == "cp_measure" and self.illumination == "pipeline":
            raise ValueError("backend: cp_measure runs no CorrectIlluminationCalculate: set illumination to study")
        return self


class WholeFieldSettings(CellProfilerSettings):
    """The same for measurements of whole fields: another pipeline unless the study names one."""

    pipeline: str = "pipelines/whole_field.cppipe"

    @model_validator(mode="after")
    def _objects_only(self) -> WholeFieldSettings:
        if self.backend == "cp_measure":
            raise ValueError("backend: cp_measure measures objects alone; whole fields take CellProfiler")
        return self
