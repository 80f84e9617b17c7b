"""The one exception users see, and the fault a check collects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Fault:
    """One thing wrong with the input.

    Parameters
    ----------
    what : str
        What is wrong, in a sentence without a full stop.
    where : str
        File, row, column or well; empty where the fault is of the whole.
    remedy : str
        What the user can do about it; may be empty.
    warns : bool
        Of a note: figures may be wrong because of it, so that it belongs at the top of a page.
    """

    what: str
    where: str = ""
    remedy: str = ""
    warns: bool = False

    def __str__(self) -> str:
        text = f"{self.where}: {self.what}" if self.where else self.what
        return f"{text}. {self.remedy}" if self.remedy else text


def sheet_row(i: int) -> str:
    """How messages name a row of a user's table, given its index from 0: as a spreadsheet counts, the header being 1.

    Blank lines of a CSV are not rows and are not counted.
    """
    return f"row {i + 2}"


class MorphobenchError(Exception):
    """Bad input or a missing tool: says what, where, and what to do.

    Anything else that reaches the user is a bug of ours and keeps its traceback.
    """

    def __init__(self, what: str, where: str = "", remedy: str = "") -> None:
        self.fault = Fault(what, where, remedy)
        super().__init__(str(self.fault))


class LeakError(MorphobenchError):
    """A split lets test wells reach training. Never caught, never worked around."""


class FaultsError(MorphobenchError):
    """Several faults at once, all listed."""

    def __init__(self, faults: Sequence[Fault], title: str, most: int = 20) -> None:
        self.faults = tuple(faults)
        lines = [f"  - {f}" for f in self.faults[:most]]
        if len(self.faults) > most:
            lines.append(f"  … and {len(self.faults) - most} more (`morphobench assay check` lists them all)")
        super().__init__(f"{title}\n" + "\n".join(lines))
