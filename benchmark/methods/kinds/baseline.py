"""Baselines without a network or a segmented cell: mean intensities, position on the plate, batch."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from benchmark.base.errors import MorphobenchError
from benchmark.base.files import digest
from benchmark.base.tables import WELL
from benchmark.base.wells import well_places
from benchmark.methods.base import Arm, Role, TabularMethod
from benchmark.methods.registry import METHODS

if TYPE_CHECKING:
    import pandas as pd

    from benchmark.methods.context import Context, Features

WORDS = {
    "intensity": "mean of each channel's stored pixel values over each well's fields: no cells, no texture",
    "position": "row and column of the well on its plate, and nothing of its image",
    "batch": "which batch a well lies in, and nothing of its image",
}


@METHODS.register
class BaselineMethod(TabularMethod):
    """What any claim must beat, and what should not be able to tell anything.

    Parameters
    ----------
    feature : str
        ``intensity``: mean of each channel's stored pixel values over a field. ``position``: row and column of the
        well on its plate. ``batch``: which batch the well lies in, and nothing else. Where one of the last two scores
        well the assay is confounded.
    """

    revision: ClassVar[int] = 2
    arm: ClassVar[Arm] = "classical"

    kind: Literal["baseline"]
    feature: Literal["intensity", "position", "batch"]
    unit: Literal["well"] = "well"

    @property
    def role(self) -> Role:
        """Always ``baseline``."""
        return "baseline"

    @property
    def needs_images(self) -> bool:
        """Only mean intensities need images."""
        return self.feature == "intensity"

    @property
    def needs_positions(self) -> bool:
        """Only position does."""
        return self.feature == "position"

    def words(self, program: str) -> str:
        """What the chosen feature is."""
        return WORDS[self.feature]

    def features(self, context: Context) -> Features:
        """The chosen feature of each well."""
        from benchmark.methods.context import Features
        from benchmark.methods.workers.source import PLAIN, ProfileSource

        # Rows Aa, Ab, … were once read as 27, 28, …: what was made of such wells is not taken for what is made now.
        nested = self.needs_positions and well_places(context.assay.wells[WELL]).nested
        inputs = {"rows": "four in each row of 96"} if nested else {}
        key = digest([self.revision, context.assay_hash, self.feature, *inputs.values()])
        table, absent = context.features(f"{self.feature}-{key}", "well", lambda: self._build(context))
        return Features(ProfileSource(table, PLAIN), absent, "well", inputs, {}, False)

    def _build(self, context: Context) -> pd.DataFrame:
        from benchmark.images.means import mean_intensities
        from benchmark.profiles.baselines import batch_profiles, intensity_profiles, position_profiles

        wells = context.assay.wells
        if self.feature == "position":
            return position_profiles(wells)
        if self.feature == "batch":
            return batch_profiles(wells)
        if not context.assay.channels:
            raise MorphobenchError("mean intensities need images, and this assay comes as profiles without any",
                                   f"method {self.name}", "Take the method out of the study.")
        return intensity_profiles(wells, mean_intensities(context.assay, context.run_tasks))
