"""What was done to the data: how much was read, how much is used, and why the rest is not."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Things = Literal["rows", "wells", "fields", "features", "cells", "compounds", "treatments"]
#: A loss that nobody asked for is a warning above this share: pycytominer and CellProfiler users expect a few percent
#: of missing values and of fields that cannot be read; beyond it something is wrong with the export.
WARNED = 0.1


@dataclass(frozen=True)
class Loss:
    """Some of the data that was read and is not used.

    Attributes
    ----------
    things : str
        What is counted: rows, wells, fields, features, cells, compounds or treatments.
    lost, total : int
        How many of how many.
    why : str
        The cause, in words that follow "left out: ".
    where : str
        File, plate or method; empty where it is the whole assay.
    asked : bool
        A setting of the study left them out, or a rule that selects features; never a warning.
    remedy : str
        What the user can do about it; may be empty.
    """

    things: Things
    lost: int
    total: int
    why: str
    where: str = ""
    asked: bool = False
    remedy: str = ""

    @property
    def share(self) -> float:
        """Share that is lost, 0 … 1."""
        return self.lost / self.total if self.total else 0.0

    @property
    def warns(self) -> bool:
        """Whether it belongs at the top of a page: nobody asked for it, and it is more than `WARNED`."""
        return not self.asked and self.share > WARNED

    def __str__(self) -> str:
        text = f"{self.lost} of {self.total} {self.things} left out ({100 * self.share:.3g} %): {self.why}"
        text = f"{self.where}: {text}" if self.where else text
        return f"{text}. {self.remedy}" if self.remedy else text


def warnings_of(losses: Iterable[Loss]) -> list[str]:
    """The losses that are warnings, in words, each once."""
    return list(dict.fromkeys(str(loss) for loss in losses if loss.warns))
