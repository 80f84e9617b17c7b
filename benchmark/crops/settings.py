"""How fields become crops."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from benchmark.settings import Settings


class CropSettings(Settings):
    """One crop cache.

    Parameters
    ----------
    size : int
        Side of a crop in pixels, as given to the network.
    grid : (int, int)
        Rows and columns of tiles a field is cut into. The field is cut first, then each tile is resized
        (area-averaging filter) to ``size`` × ``size``; a tile that is not square is centre-cropped first,
        so the aspect ratio of cells is kept.
    intensity : str
        ``bit_depth``: value / maximum of the file's type. ``controls`` or ``plate``: per plate and channel,
        linear from the ``quantiles`` of the plate's negative-control fields (or of all its fields) to 0–255,
        clipped. Both are fixed for the whole plate, so intensity differences between fields are kept.
        ``plate`` sees test wells' pixels (never labels) and is reported as transductive; so is ``controls``,
        since the controls of a test plate are used.
    quantiles : (float, float)
        Lower and upper quantile for ``controls`` and ``plate``.
    """

    size: int = Field(128, ge=32, le=1024)
    grid: tuple[int, int] = (1, 1)
    intensity: Literal["bit_depth", "controls", "plate"] = "bit_depth"
    quantiles: tuple[float, float] = (0.001, 0.999)

    @model_validator(mode="after")
    def _sane(self) -> CropSettings:
        if not (0 <= self.quantiles[0] < self.quantiles[1] <= 1):
            raise ValueError("quantiles must rise within 0 to 1")
        if min(self.grid) < 1 or max(self.grid) > 16:
            raise ValueError("grid must be between 1 and 16 each way")
        return self

    @property
    def transductive(self) -> str | None:
        """What is estimated from test wells without their labels, in words; None where nothing is."""
        if self.intensity == "controls":
            return "crop intensities scaled per plate to the plate's negative controls"
        if self.intensity == "plate":
            return "crop intensities scaled per plate to quantiles of all its fields"
        return None
