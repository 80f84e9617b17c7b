"""How fields become crops."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from benchmark.base.settings import Settings


class CropSettings(Settings):
    """One crop cache. The formulas are those of `benchmark.images.intensity`.

    Parameters
    ----------
    size : int
        Side of a crop in pixels, as given to the network.
    kind : str
        ``tiles``: the field cut on a grid. ``cells``: a square of ``box`` pixels around each nucleus segmented by
        CellProfiler, padded with zeros at the border of the field.
    grid : (int, int)
        Rows and columns of tiles. A tile that is not square is centre-cropped first, so the aspect ratio of cells is
        kept, then resized to ``size`` × ``size`` (area averages).
    intensity : str
        ``standard``: illumination-corrected as the study says, then scaled linearly, per plate and channel, from the
        ``quantiles`` of ``scale_from`` to the full range of ``depth``, and clipped. Limits are the same for the
        whole plate, so intensity differences between fields are kept.
        ``bit_depth``: stored value / maximum of the file's type; no correction.
        ``kensert2019``: the preparation of BBBC021 in Kensert et al. 2019, exactly: Anscombe transform;
        standardised by the mean and standard deviation of all the plate's negative-control pixels; minimum–maximum
        of the field over all channels to 0–255; 2 × 2 tiles, empty ones dropped; resized without keeping the aspect
        ratio.
        ``kensert2019_bbbc014``: their preparation of BBBC014: resized to 1024×1024, 4 × 4 tiles, channels
        (0, channel 1, channel 2), Anscombe transform, minimum–maximum of each tile.
    scale_from : str
        ``controls``: quantiles of the plate's negative-control fields; ``plate``: of all its fields. Both see pixels
        of test wells (never labels) and are reported as transductive.
    quantiles : (float, float)
        Lower and upper quantile, of all pixels, exact.
    depth : int
        Bits of a cached value, 8 or 16.
    box : int
        Side of a cell crop in pixels of the field, before it is resized to ``size``.
    mask : bool
        Set pixels outside the cell to zero, using CellProfiler's mask.
    """

    size: int = Field(128, ge=32, le=1024)
    kind: Literal["tiles", "cells"] = "tiles"
    grid: tuple[int, int] = (1, 1)
    intensity: Literal["standard", "bit_depth", "kensert2019", "kensert2019_bbbc014"] = "standard"
    scale_from: Literal["controls", "plate"] = "controls"
    quantiles: tuple[float, float] = (0.001, 0.999)
    depth: Literal[8, 16] = 8
    box: int | None = Field(None, ge=8, le=2048)
    mask: bool = False

    @model_validator(mode="before")
    @classmethod
    def _renamed(cls, given: Any) -> Any:
        if isinstance(given, dict) and given.get("intensity") in ("controls", "plate"):
            raise ValueError(f"intensity: {given['intensity']} is now intensity: standard with "
                             f"scale_from: {given['intensity']}; the intensities are standard, bit_depth, kensert2019 "
                             "and kensert2019_bbbc014")
        return given

    @model_validator(mode="after")
    def _sane(self) -> CropSettings:
        if not (0 <= self.quantiles[0] < self.quantiles[1] <= 1):
            raise ValueError("quantiles must rise within 0 to 1")
        if min(self.grid) < 1 or max(self.grid) > 16:
            raise ValueError("grid must be between 1 and 16 each way")
        if self.kind == "cells":
            if self.box is None:
                raise ValueError("kind: cells needs box, the side of a cell crop in pixels of the field")
            if self.grid != (1, 1):
                raise ValueError("grid cuts tiles; leave it out with kind: cells")
            if self.papers:
                raise ValueError(f"{self.intensity} cuts its own tiles; use intensity: standard with kind: cells")
        elif self.box is not None or self.mask:
            raise ValueError("box and mask are for cell crops; set kind: cells, or leave them out")
        if self.papers and self.grid != (1, 1):
            raise ValueError(f"{self.intensity} cuts its own tiles; leave grid out")
        if self.papers and self.depth != 8:
            raise ValueError(f"{self.intensity} gives 8-bit crops; leave depth out")
        if self.intensity != "standard" and self.model_fields_set & {"scale_from", "quantiles"}:
            raise ValueError("scale_from and quantiles are for intensity: standard; leave them out")
        return self

    @property
    def papers(self) -> bool:
        """Whether the scheme is one of the paper's, with tiles of its own."""
        return self.intensity.startswith("kensert2019")

    @property
    def one_a_field(self) -> bool:
        """Whether each field is one crop."""
        return self.kind == "tiles" and self.grid == (1, 1) and not self.papers

    @property
    def uses_illumination(self) -> bool:
        """Whether the study's illumination correction applies: the other schemes take stored values."""
        return self.intensity == "standard"

    @property
    def uses_controls(self) -> bool:
        """Whether pixels of a plate's negative controls enter its crops."""
        return self.intensity == "kensert2019" or (self.intensity == "standard" and self.scale_from == "controls")

    @property
    def transductive(self) -> str | None:
        """What is estimated from test wells without their labels, in words; None where nothing is."""
        if self.intensity == "kensert2019":
            return ("crop intensities standardised per plate by the mean and standard deviation of the plate's "
                    "negative controls")
        if self.intensity != "standard":
            return None
        if self.scale_from == "controls":
            return "crop intensities scaled per plate to quantiles of the plate's negative controls"
        return "crop intensities scaled per plate to quantiles of all its fields"

    @property
    def summary(self) -> str:
        """The settings in a few words, for records."""
        what = f"{self.grid[0]}x{self.grid[1]} tiles"
        if self.papers:
            what = "the paper's tiles"
        if self.kind == "cells":
            what = f"cells in {self.box} px boxes{', masked' if self.mask else ''}"
        return f"{self.size} px, {what}, {self.intensity}, {self.depth} bit"
