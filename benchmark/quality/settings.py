"""What quality control compares and does, as a study file gives it."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from benchmark.base.settings import Settings


class QualitySettings(Settings):
    """Quality control of fields, the same for CellProfiler and for crops.

    Parameters
    ----------
    flagged : str
        ``off``: not looked at. ``keep``: flagged fields are listed and shown in the report, and used. ``leave_out``:
        listed, shown, and left out of both arms; refused where controls are what is scored, since a field is compared
        with its treatment, and there the treatment is the label.
    deviations : float
        A field is flagged where a measure is this many robust deviations (1.4826 MAD) from its plate's median.
    cell_count : bool
        Whether the number of segmented cells is checked, too. With ``leave_out`` CellProfiler runs for it before
        anything else; with ``keep`` it is looked at where a method has CellProfiler find cells anyway.
    """

    flagged: Literal["off", "keep", "leave_out"] = "keep"
    deviations: float = Field(5.0, gt=0)
    cell_count: bool = True
