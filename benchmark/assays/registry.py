"""What every kind of assay gives: its settings, how it is loaded, and what is published about it.

A kind is one module of this room: a class of settings, derived from `AssaySettings` and registered by
``@ASSAYS.register``, with a field ``kind`` that names it in the study file.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from benchmark.assays.faults import gathering
from benchmark.assays.fieldtable import Assay
from benchmark.base.errors import Fault
from benchmark.base.registry import Registry
from benchmark.base.settings import Settings
from benchmark.base.tasks import RunTasks, run_serially

#: ``stage(name, key)``: a block that is a stage of the run; what it sets in the dictionary goes into its record.
Stage = Callable[[str, str], AbstractContextManager[dict[str, Any]]]


@contextmanager
def unrecorded(name: str, key: str) -> Iterator[dict[str, Any]]:
    """A `Stage` of which no record is kept."""
    yield {}


@dataclass(frozen=True)
class Place:
    """Where an assay is loaded for, and with what.

    Attributes
    ----------
    name : str
        Name of the study, which names the assay.
    base : Path
        Folder of the study's file; relative paths of its settings start there.
    folder : Path
        ``runs/<study>``, for what a kind makes itself.
    run_tasks : RunTasks
        Runs tasks in parallel.
    stage : Stage
        Notes what takes time as a stage of the run.
    """

    name: str
    base: Path
    folder: Path
    run_tasks: RunTasks = field(default=run_serially)
    stage: Stage = field(default=unrecorded)


@dataclass(frozen=True)
class Published:
    """A published accuracy on an assay.

    Attributes
    ----------
    source, method, protocol : str
        Who published it, of which method, and how test treatments were chosen.
    percent : str
        As published: ``83``, ``96 / 95``.
    comparable : str
        Whether a study of the assay can be set beside it, and why or why not.
    """

    source: str
    method: str
    protocol: str
    percent: str
    comparable: str


class AssaySettings(Settings):
    """The ``assay:`` block of a study: base of every kind, which adds ``kind: Literal[...]`` and its own settings."""

    @abstractmethod
    def load(self, place: Place) -> Assay:
        """The assay, its field table checked, but not its images.

        Raises
        ------
        MorphobenchError, FaultsError
            With everything that is wrong.
        """

    def faults(self, place: Place) -> tuple[Assay | None, list[Fault]]:
        """Everything wrong with what describes the assay, and the assay as far as it can be made.

        A kind that can continue after a fault gives the rows without one as well, so that their images are checked
        too; such an assay is not for use.
        """
        faults: list[Fault] = []
        assay = None
        with gathering(faults):
            assay = self.load(place)
        return assay, faults

    @property
    def lone_labels(self) -> Literal["refuse", "leave_out"]:
        """What to do with a label that is left with a single compound, once fields have been left out."""
        return "refuse"

    def published(self) -> tuple[Published, ...]:
        """Published results on the same images, for the report."""
        return ()


#: Every kind of assay.
ASSAYS: Registry[AssaySettings] = Registry("assay", "benchmark.assays")
