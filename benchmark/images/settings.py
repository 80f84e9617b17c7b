"""How uneven illumination is corrected."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from benchmark.base.settings import Settings


class IlluminationSettings(Settings):
    """Illumination correction, the same for CellProfiler and for crops.

    Parameters
    ----------
    method : str
        ``retrospective``: per plate and channel, the mean of all the plate's fields, smoothed, divided by its median
        (`benchmark.images.illumination`). ``none``: pixels are used as stored.
    window : float
        Side of the median filter that smooths the mean, as a fraction of the field's longer side. It should be much
        larger than a cell and smaller than the unevenness.
    """

    method: Literal["none", "retrospective"] = "retrospective"
    window: float = Field(0.25, ge=0.02, le=0.8)

    @property
    def transductive(self) -> str | None:
        """What is estimated from test wells without their labels, in words; None where nothing is."""
        if self.method == "none":
            return None
        return "illumination functions averaged over all fields of a plate"


