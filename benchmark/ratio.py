"""A speed as a ratio: ours against a named rival, measured in the same run."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Ratio:
    """One line: what was measured, against what, and how many times faster (above 1) or slower it was."""

    what: str
    rival: str
    ours_seconds: float
    rival_seconds: float

    @property
    def times(self) -> float:
        """Rival's seconds over ours."""
        return self.rival_seconds / self.ours_seconds


def best_of(function: Callable[[], object], repeats: int) -> float:
    """Seconds of the fastest of some runs: the others measured the machine's noise."""
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        seconds.append(time.perf_counter() - start)
    return min(seconds)
