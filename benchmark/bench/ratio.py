"""A speed as a ratio: ours against a named rival, measured in the same run."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True)
class Ratio:
    """One row: what was measured, against which rival, and how many times faster (above 1) or slower it was."""

    what: str
    rival: str
    ours_seconds: float
    rival_seconds: float

    @property
    def times(self) -> float:
        """Rival's seconds over ours."""
        return self.rival_seconds / self.ours_seconds


def best_of(function: Callable[[], object], repeats: int) -> float:
    """Seconds of the fastest of ``repeats`` runs: slower ones measure other load on the machine."""
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def interleaved(functions: Sequence[Callable[[], object]], repeats: int, warm_up: bool = False) -> list[float]:
    """Seconds of the fastest run of each function, taking turns, so that a machine that slows down slows all of them.

    Parameters
    ----------
    warm_up : bool
        A first round is not counted.
    """
    best = [float("inf")] * len(functions)
    for turn in range(repeats + warm_up):
        for i, function in enumerate(functions):
            seconds = best_of(function, 1)
            if turn or not warm_up:
                best[i] = min(best[i], seconds)
    return best


def print_ratios(console: Console, title: str, rows: Sequence[Ratio]) -> None:
    """Print the rows as a table."""
    table = Table(title=title)
    for column in ("what", "against", "ours, s", "rival, s", "times faster"):
        table.add_column(column, justify="left" if column in ("what", "against") else "right")
    for r in rows:
        table.add_row(r.what, r.rival, f"{r.ours_seconds:.2f}", f"{r.rival_seconds:.2f}", f"{r.times:.2f}")
    console.print(table)
