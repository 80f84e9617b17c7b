"""What a study's methods are given: its fields, its folds, what was measured, and what is made of these on demand."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from benchmark.assays.fieldtable import Assay
from benchmark.base.tasks import RunTasks, run_serially
from benchmark.folds.fold import Split
from benchmark.methods.base import Method
from benchmark.methods.context import Features, Pipeline
from benchmark.workflow.fields import Fields
from benchmark.workflow.measured import settings_of
from benchmark.workflow.session import Session
from benchmark.workflow.study import Study

if TYPE_CHECKING:
    import pandas as pd

    from benchmark.cellprofiler.measure import Measured
    from benchmark.crops.settings import CropSettings
    from benchmark.profiles.settings import ProfileSettings


@dataclass(frozen=True)
class StudyContext:
    """A study whose fields are settled and whose folds are made: `benchmark.methods.context.Context`.

    Attributes
    ----------
    measured : mapping
        What each of the study's pipelines measured, of those that have run.
    user : str
        The method that asks, for the records of stages; empty where none does.
    """

    session: Session
    fields: Fields
    measured: Mapping[Pipeline, Measured]
    split: Split
    user: str = ""

    @property
    def study(self) -> Study:
        """The study, as its file says it."""
        return self.session.study

    @property
    def assay(self) -> Assay:
        """The fields that both arms see."""
        return self.fields.used.assay

    @property
    def assay_hash(self) -> str:
        """Hash of its field table and images."""
        return self.fields.used.assay_hash

    @property
    def seeds(self) -> tuple[int, ...]:
        """Each method runs once a seed."""
        return self.study.seeds

    @property
    def folder(self) -> Path:
        """``runs/<study>``."""
        return self.session.folder

    @property
    def device(self) -> str:
        """``auto``, ``cpu`` or ``cuda``."""
        return self.session.device

    @property
    def threads(self) -> int:
        """Threads of each worker process."""
        return self.session.threads

    @property
    def run_tasks(self) -> RunTasks:
        """The worker processes."""
        return self.session.run_tasks

    def runner(self, method: Method) -> RunTasks:
        """What runs folds: one after the other where they share one GPU, else the worker processes."""
        if not method.on_device:
            return self.run_tasks
        from benchmark.networks.device import resolve_device

        return run_serially if resolve_device(self.device).type == "cuda" else self.run_tasks

    def stage(self, name: str, key: str) -> AbstractContextManager[dict[str, Any]]:
        """A stage of the study, noted for the method that asks."""
        return self.session.log.stage(name, key, self.user)

    def note(self, name: str, key: str) -> None:
        """A stage that need not run again."""
        self.session.log.note(name, key, self.user)

    def profiles(self, profile: ProfileSettings, where: str) -> Features:
        """See `benchmark.workflow.tables.profile_features`."""
        from benchmark.workflow.tables import profile_features

        return profile_features(self, profile, where)

    def cell_counts(self, unit: Literal["well", "field"], where: str) -> Features:
        """See `benchmark.workflow.tables.count_features`."""
        from benchmark.workflow.tables import count_features

        return count_features(self, unit, where)

    def features(self, name: str, unit: str, build: Callable[[], pd.DataFrame]) -> tuple[Path, Path]:
        """See `benchmark.workflow.tables.feature_files`."""
        from benchmark.workflow.tables import feature_files

        return feature_files(self, name, unit, build)

    def crops(self, settings: CropSettings, where: str, controls: bool = False) -> tuple[Path, str]:
        """See `benchmark.workflow.crops.crops_of`."""
        from benchmark.workflow.crops import crops_of

        return crops_of(self, settings, where, controls)

    def program(self, pipeline: Pipeline) -> str:
        """Name of what measures by a pipeline; empty where the assay comes as profiles without images."""
        if not self.assay.channels:
            return ""
        return "cp_measure" if settings_of(self.study, pipeline).backend == "cp_measure" else "CellProfiler"

    def measured_pixels(self, pipeline: Pipeline) -> str | None:
        """What the illumination correction of the pixels that a pipeline measures was estimated from, in words."""
        used = settings_of(self.study, pipeline).illumination == "study" and self.assay.channels
        return self.study.illumination.transductive if used else None

    def crop_pixels(self) -> str | None:
        """The same of crops that the study's illumination correction applies to."""
        return self.study.illumination.transductive

    @property
    def by_well(self) -> Callable[[pd.DataFrame], pd.DataFrame]:
        """See `predictions_by_well`."""
        return predictions_by_well


def predictions_by_well(predictions: pd.DataFrame) -> pd.DataFrame:
    """Predictions of crops, fields or wells as predictions of wells."""
    from benchmark.evaluation.aggregate import reduce_to

    reduced = reduce_to(predictions, "well")
    if reduced is None:
        raise TypeError("predictions of treatments cannot be taken apart by well")
    return reduced
