"""What a method is given by the study that it runs in, and what it gives back: how its folds run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    import pandas as pd

    from benchmark.assays.fieldtable import Assay
    from benchmark.base.tasks import RunTasks
    from benchmark.crops.settings import CropSettings
    from benchmark.folds.fold import Fold, Split
    from benchmark.methods.base import Method
    from benchmark.methods.workers.runs import FoldFacts, RunFolder
    from benchmark.methods.workers.source import ProfileSource
    from benchmark.profiles.settings import ProfileSettings

#: Pipelines of CellProfiler that a study has; each is a block of its settings.
Pipeline = Literal["cellprofiler", "whole_field"]


@dataclass(frozen=True)
class Features:
    """A method's features, on disk.

    Attributes
    ----------
    source : ProfileSource
        Where a fold reads its table.
    absent : Path
        Parquet: the predicted units that lack features.
    unit : str
        What a row is: ``field`` or ``well``.
    inputs : dict
        Hashes of what the features came from; they enter the run's key.
    facts : dict
        More about the same, for the run's record.
    selected : bool
        Whether features go through selection and correction in a fold.
    """

    source: ProfileSource
    absent: Path
    unit: str
    inputs: dict[str, Any]
    facts: dict[str, Any]
    selected: bool


class Context(Protocol):
    """What a study gives its methods: each table and cache is made once, and shared by all methods that ask for it."""

    @property
    def assay(self) -> Assay:
        """The fields that both arms see."""
        ...

    @property
    def assay_hash(self) -> str:
        """Hash of the assay's field table and images."""
        ...

    @property
    def split(self) -> Split:
        """The folds."""
        ...

    @property
    def seeds(self) -> tuple[int, ...]:
        """Each method runs once a seed."""
        ...

    @property
    def folder(self) -> Path:
        """``runs/<study>``."""
        ...

    @property
    def device(self) -> str:
        """``auto``, ``cpu`` or ``cuda``."""
        ...

    @property
    def threads(self) -> int:
        """Threads of each worker process."""
        ...

    @property
    def run_tasks(self) -> RunTasks:
        """The worker processes."""
        ...

    def runner(self, method: Method) -> RunTasks:
        """What runs the folds of a method: one after the other where they share a GPU, else the worker processes."""
        ...

    def stage(self, name: str, key: str) -> AbstractContextManager[dict[str, Any]]:
        """A block that is a step of the study; it may set ``detail``, a few words for the report."""
        ...

    def profiles(self, profile: ProfileSettings, where: str) -> Features:
        """CellProfiler profiles (or those of the assay's profile table); ``where`` names what asks, for messages."""
        ...

    def cell_counts(self, unit: Literal["well", "field"], where: str) -> Features:
        """log(1 + cells) of each well or field."""
        ...

    def features(self, name: str, unit: str, build: Callable[[], pd.DataFrame]) -> tuple[Path, Path]:
        """A feature table of predicted units, built where it is not there, and a table of those that lack features.

        ``name`` is ``<what>-<key>``: the key hashes everything that the features depend on.
        """
        ...

    def crops(self, settings: CropSettings, where: str, controls: bool = False) -> tuple[Path, str]:
        """A crop cache and its key; with ``controls`` that of negative controls that no fold tests."""
        ...

    def measured_pixels(self, pipeline: Pipeline) -> str | None:
        """What the illumination correction of the pixels that a pipeline measures was estimated from, in words."""
        ...

    def crop_pixels(self) -> str | None:
        """The same of crops that the study's illumination correction applies to."""
        ...

    @property
    def by_well(self) -> Callable[[pd.DataFrame], pd.DataFrame]:
        """What makes predictions of crops, fields or wells predictions of wells; a function that can be pickled."""
        ...


def nothing(run: RunFolder, missing: Sequence[tuple[Fold, int]]) -> None:
    """Nothing to do before or after the folds."""


def no_facts(run: RunFolder, folds: Sequence[FoldFacts]) -> Mapping[str, Any]:
    """Nothing to add to the record."""
    return {}


@dataclass(frozen=True)
class Plan:
    """How the folds of a method run.

    Attributes
    ----------
    inputs : dict
        Hashes of what the method starts from; they enter the run's key.
    worker : callable
        Gives what runs one fold in a worker process, writes its prediction file
        (`benchmark.methods.workers.runs.write_fold`) and returns the fold's name: a function at the top level of its
        module, imported when it is needed.
    task : callable
        What the worker is given for a fold and seed: a frozen dataclass whose field ``out`` is its prediction file.
    facts : dict
        For the run's record.
    before, after : callable
        Called around the folds that are missing: what they share is made, and removed.
    around : callable
        A context manager in which all of that happens, such as the owner of crops that folds hold in memory.
    summarise : callable
        What the record says besides, from the facts of all folds.
    """

    inputs: dict[str, Any]
    worker: Callable[[], Callable[[Any], str]]
    task: Callable[[RunFolder, Fold, int], Any]
    facts: dict[str, Any] = field(default_factory=dict)
    before: Callable[[RunFolder, Sequence[tuple[Fold, int]]], None] = nothing
    after: Callable[[RunFolder, Sequence[tuple[Fold, int]]], None] = nothing
    summarise: Callable[[RunFolder, Sequence[FoldFacts]], Mapping[str, Any]] = no_facts
    around: Callable[[], AbstractContextManager[Any]] = nullcontext


@dataclass(frozen=True)
class FinishedRun:
    """A method whose folds are all there.

    Attributes
    ----------
    folder : RunFolder
        Its run folder.
    record : dict
        Its record, as ``record.json`` has it.
    """

    method: Method
    folder: RunFolder
    record: dict[str, Any]

    @property
    def title(self) -> str:
        """For readers, from the study as it is now: a run's key and record do not depend on it."""
        return self.method.title or self.method.name
