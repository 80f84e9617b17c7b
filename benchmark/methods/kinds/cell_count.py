"""Cell count alone: the baseline that every claim must beat."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from benchmark.methods.base import Arm, Role, TabularMethod
from benchmark.methods.registry import METHODS

if TYPE_CHECKING:
    from benchmark.methods.context import Context, Features, Pipeline


@METHODS.register
class CellCountMethod(TabularMethod):
    """log(1 + number of cells) of each well or field."""

    revision: ClassVar[int] = 2
    arm: ClassVar[Arm] = "classical"

    kind: Literal["cell_count"]
    unit: Literal["well", "field"] = "well"

    @property
    def role(self) -> Role:
        """Always ``count``."""
        return "count"

    @property
    def pipelines(self) -> frozenset[Pipeline]:
        """The pipeline that segments cells."""
        return frozenset({"cellprofiler"})

    def words(self, program: str) -> str:
        """What is counted, by well or by field."""
        what = "mean number of cells a field" if program else "number of rows of the profile table"
        return f"log(1 + {what}) of each {self.unit}"

    def corrected_pixels(self, context: Context) -> str | None:
        """As for the pixels in which CellProfiler segmented cells."""
        return context.measured_pixels("cellprofiler")

    def features(self, context: Context) -> Features:
        """log(1 + number of cells) of each well or field."""
        return context.cell_counts(self.unit, f"method {self.name}")
