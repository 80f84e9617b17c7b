"""The unit by which the methods of a study are compared."""

from __future__ import annotations

from typing import Literal


def counted_unit(scoring: str) -> Literal["treatment", "well"]:
    """Unit by which methods are compared: treatments, or wells where only controls are scored.

    Parameters
    ----------
    scoring : str
        What the assay scores: ``treatments`` or ``controls``, whose treatments are too few to compare methods by.
    """
    return "well" if scoring == "controls" else "treatment"
