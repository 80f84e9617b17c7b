"""A study opened for work: its assay loaded and checked, hashed, and its folds audited."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from benchmark.assays.fetching.lock import lock_hash
from benchmark.assays.fieldtable import Assay
from benchmark.assays.registry import Place
from benchmark.base.cluster import Cluster, available_cores
from benchmark.base.errors import LeakError, MorphobenchError
from benchmark.base.files import digest
from benchmark.base.tables import FIELD_KEY
from benchmark.base.tasks import RunTasks
from benchmark.folds.fold import Split
from benchmark.folds.make import study_split
from benchmark.methods.base import uses_controls
from benchmark.quality.fields import Sound, flagged_fields, sound_assay, without_flagged, without_lost
from benchmark.quality.flags import COLUMNS
from benchmark.workflow.stage import stage, stage_file
from benchmark.workflow.study import Study, load_study, study_base

if TYPE_CHECKING:
    from benchmark.cellprofiler.measure import Measured

RUNS = Path("runs")
LOST = [*FIELD_KEY, "reason"]
QUALITY_STAGE = "quality of images"
REPORTS = Path("reports")


@dataclass(frozen=True)
class Opened:
    """A study and everything its methods share.

    Attributes
    ----------
    assay : Assay
        What both arms see: without bad images, without fields that CellProfiler could not measure, and without what
        quality control leaves out.
    hashes : mapping
        Relative image path to SHA-256 of its content; of all of ``whole``.
    assay_hash : str
        Over the assay's field table and those hashes.
    folder : Path
        ``runs/<study>``.
    jobs : int
        Worker processes.
    device : str
        ``auto``, ``cpu`` or ``cuda``.
    base : Path
        Folder of the study's file, from which its relative paths start.
    lock_hash : str
        Hash of the lock file of the collection that the images were fetched from; empty where there is none.
    used : set of str
        Names of the stage records that this study's results rest on; `runs/<study>/stages` may hold others, of
        settings it had before.
    whole : Assay
        The assay without bad images only, before anything else is left out: what is measured, and what illumination
        is averaged over, so that a change of quality control changes neither. ``assay`` itself where nothing is left
        out.
    whole_hash : str
        Its hash.
    quality : DataFrame
        Flags of its fields, see `benchmark.quality.flags.flag_fields`.
    lost : DataFrame
        Fields of ``whole`` that CellProfiler could not measure: `FIELD_KEY` and ``reason``. They have no flags.
    measured : dict
        What CellProfiler measured of ``whole``, as `benchmark.workflow.measured.measure_assay` keeps it for the next
        that asks.
    """

    study: Study
    assay: Assay
    hashes: Mapping[str, str]
    assay_hash: str
    split: Split
    folder: Path
    jobs: int
    device: str
    base: Path
    lock_hash: str = ""
    used: set[str] = field(default_factory=set)
    whole: Assay = field(default=None, repr=False)  # type: ignore[assignment]
    whole_hash: str = ""
    quality: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=COLUMNS), repr=False, compare=False)
    lost: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=LOST), repr=False, compare=False)
    measured: dict[str, Measured] = field(default_factory=dict, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.whole is None:
            object.__setattr__(self, "whole", self.assay)
            object.__setattr__(self, "whole_hash", self.assay_hash)

    @property
    def dropped(self) -> pd.DataFrame:
        """`FIELD_KEY` of the fields of ``whole`` that are not in ``assay``."""
        keys = [pd.MultiIndex.from_frame(a.fields[FIELD_KEY]) for a in (self.whole, self.assay)]
        return self.whole.fields.loc[~keys[0].isin(keys[1]), FIELD_KEY].reset_index(drop=True)

    @contextmanager
    def stage(self, name: str, key: str) -> Iterator[dict[str, Any]]:
        """`stage` of this study, noted as used."""
        self.note(name, key)
        with stage(self.folder, name, key) as facts:
            yield facts

    def note(self, name: str, key: str) -> None:
        """Note a stage that need not run again as one that results rest on."""
        self.used.add(stage_file(name, key))

    @property
    def threads(self) -> int:
        """Threads of each worker: the workers share the cores."""
        return max(1, available_cores() // self.jobs)

    @property
    def run_tasks(self) -> RunTasks:
        """The local cluster."""
        return Cluster(self.jobs, self.threads)


def place_of(study: Study, base: Path, folder: Path, run_tasks: RunTasks, noted: set[str]) -> Place:
    """Where the study's assay is loaded; stages of that are recorded, and added to ``noted``."""
    @contextmanager
    def noting(name: str, key: str) -> Iterator[dict[str, Any]]:
        noted.add(stage_file(name, key))
        with stage(folder, name, key) as facts:
            yield facts

    return Place(study.name, base, folder, run_tasks, noting)


def open_study(name: str, jobs: int = 0, device: str = "auto", runs: Path = RUNS) -> Opened:
    """Load a study, check its assay down to every pixel (once), and make or audit its folds.

    Parameters
    ----------
    jobs : int
        Worker processes; 0 takes as many as there are cores.

    Raises
    ------
    MorphobenchError
        The study, its assay or its folds have faults; all of an assay's faults are listed. A bad image costs its
        field alone (`benchmark.quality.fields.sound_assay`).
    """
    study = load_study(name)
    jobs = jobs or available_cores()
    if jobs < 0:
        raise MorphobenchError(f"{jobs} is no number of processes", "JOBS", "Use 1 or more; 0 for one a core.")
    folder = runs / study.name
    cluster = Cluster(jobs)
    base = study_base(name)
    noted: set[str] = set()
    assay = study.assay.load(place_of(study, base, folder, cluster, noted))
    _refuse_test_labels(study, assay)
    whole = sound_assay(assay, folder / "checked", _lone(study))
    flags, measured = _pixel_flags(study, whole, folder, cluster)
    used, split = _settled(study, whole, flags, folder)
    opened = Opened(study, used.assay, whole.hashes, used.assay_hash, split, folder, jobs, device, base,
                    lock_hash(assay.lock) if assay.lock else "", noted, whole=whole.assay, whole_hash=whole.assay_hash,
                    quality=flags)
    if measured:
        opened.note(QUALITY_STAGE, measured)
    return opened


def after_measuring(opened: Opened, lost: pd.DataFrame, most: float, counts: pd.DataFrame | None = None) -> Opened:
    """The study once CellProfiler has run: without the fields it could not measure, and with cell counts looked at.

    Folds are made anew where a field is left out for either: no method may have run before, of either arm. Where none
    is, the assay, its hash and its folds stay what they were.

    Parameters
    ----------
    lost : DataFrame
        Fields of ``opened.whole`` that could not be measured: `FIELD_KEY` and ``reason``.
    most : float
        Largest share of the fields that may be lost.
    counts : DataFrame, optional
        `FIELD_KEY` and ``cells``, of the others.

    Raises
    ------
    MorphobenchError
        More fields are lost than that, or quality control leaves out too many; or as
        `benchmark.quality.fields.without_fields`.
    """
    settings = opened.study.quality
    if not settings.cell_count or settings.flagged == "off":
        counts = None
    if lost.empty and counts is None:
        return opened
    whole = Sound(opened.whole, opened.hashes, opened.whole_hash)
    flags = flagged_fields(whole, settings, opened.folder / "checked", opened.run_tasks, counts, lost)
    rest = without_lost(whole, lost, most, _lone(opened.study))
    used, split = _settled(opened.study, rest, flags, opened.folder)
    return replace(opened, assay=used.assay, assay_hash=used.assay_hash, split=split, quality=flags, lost=lost)


def _pixel_flags(study: Study, whole: Sound, folder: Path, run_tasks: RunTasks) -> tuple[pd.DataFrame, str]:
    """Flags that need no segmentation, and the key of the stage that measured them; empty where nothing is asked."""
    if study.quality.flagged == "off" or not whole.assay.channels:
        return flagged_fields(whole, study.quality, folder / "checked"), ""
    key = whole.assay_hash[:16]
    with stage(folder, QUALITY_STAGE, key) as facts:
        flags = flagged_fields(whole, study.quality, folder / "checked", run_tasks)
        facts["detail"] = f"{len(whole.assay.fields)} fields"
    return flags, key


def _settled(study: Study, sound: Sound, flags: pd.DataFrame, folder: Path) -> tuple[Sound, Split]:
    """The assay that both arms see, and its folds."""
    used = without_flagged(sound, flags, _lone(study)) if study.quality.flagged == "leave_out" else sound
    path = folder / "splits" / f"{digest([used.assay_hash, study.split])}.json"
    return used, study_split(path, used.assay, used.assay_hash, study.split, used.hashes)


def _lone(study: Study) -> str:
    """What the study says of labels with a single compound."""
    return study.assay.lone_labels


def _refuse_test_labels(study: Study, assay: Assay) -> None:
    """Where controls are what is scored, nothing may look at which test wells are negative controls.

    Raises
    ------
    LeakError
        A method would scale or normalise by the plate's negative controls, or quality control would leave out fields.
    """
    if assay.scoring == "treatments":
        return
    if study.quality.flagged == "leave_out":
        raise LeakError("a field is spared by comparison with the other fields of its treatment, and in this assay the "
                        "treatment is the label: which test wells are scored would hang on their labels",
                        "quality.flagged: leave_out", "Set it to keep (fields are listed and used) or off.")
    for method in study.methods:
        setting = uses_controls(method)
        if setting:
            raise LeakError("scales by the plate's negative controls, which this assay scores: it would use the labels "
                            "of test wells", f"method {method.name}, {setting}",
                            "Scale by the whole plate (plate), or on the training wells (profile.normalise: training).")


