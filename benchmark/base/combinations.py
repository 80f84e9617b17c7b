"""Names of the combinations of a grid, which methods write and evaluation reads."""

from __future__ import annotations

#: Parts of the name of a combination, and what stands between them.
GRID_PARTS = ("profile", "normalise", "correction", "decision")
SEPARATOR = " | "


def combination(profile: str, normalise: str, correction: str, decision: str) -> str:
    """Name of a combination, the ``method`` of its predictions."""
    return SEPARATOR.join((profile, normalise, correction, decision))
