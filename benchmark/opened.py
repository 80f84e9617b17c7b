"""A study opened for work: its assay loaded and checked, hashed, and its folds audited."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmark.assays.bbbc013 import load_bbbc013
from benchmark.assays.bbbc014 import load_bbbc014
from benchmark.assays.bbbc021 import load_bbbc021
from benchmark.assays.demo import demo_key, make_demo
from benchmark.assays.fieldtable import Assay
from benchmark.assays.lock import lock_faults, lock_hash
from benchmark.assays.profile_table import load_bbbc021_profiles, load_profile_table
from benchmark.assays.settings import DemoAssaySettings
from benchmark.assays.table import load_table
from benchmark.cluster import Cluster, available_cores
from benchmark.errors import FaultsError, LeakError, MorphobenchError
from benchmark.files import digest, write_json
from benchmark.images.check import assay_hash, file_hashes, image_faults
from benchmark.methods.settings import uses_controls
from benchmark.splits import Split, study_split
from benchmark.study import Study, load_study, study_base
from benchmark.tasks import RunTasks

RUNS = Path("runs")
DEMO_STAGE = "demo assay"
REPORTS = Path("reports")


@dataclass(frozen=True)
class Opened:
    """A study and everything its methods share.

    Attributes
    ----------
    hashes : mapping
        Relative image path to SHA-256 of its content.
    assay_hash : str
        Over the field table and those hashes.
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


#: Reader of each kind of assay that lies on disk; the demo is drawn first.
LOADERS: Mapping[str, Callable[[Any, str, Path], Assay]] = {
    "table": load_table,
    "profile_table": load_profile_table,
    "bbbc021": load_bbbc021,
    "bbbc021-profiles": load_bbbc021_profiles,
    "bbbc014": load_bbbc014,
    "bbbc013": load_bbbc013,
}


def load_assay(study: Study, base: Path, folder: Path, run_tasks: RunTasks) -> Assay:
    """The study's assay; the simulated one is drawn first where it is not there."""
    if isinstance(study.assay, DemoAssaySettings):
        key = demo_key(study.assay)
        with stage(folder, DEMO_STAGE, key) as facts:
            assay = make_demo(study.assay, folder / "assay" / key, run_tasks=run_tasks)
            facts["detail"] = f"{len(assay.fields)} simulated fields"
        return assay
    return LOADERS[study.assay.kind](study.assay, study.name, base)


def open_study(name: str, jobs: int = 0, device: str = "auto", runs: Path = RUNS) -> Opened:
    """Load a study, check its assay down to every pixel (once), and make or audit its folds.

    Parameters
    ----------
    jobs : int
        Worker processes; 0 takes as many as there are cores.

    Raises
    ------
    MorphobenchError
        The study, its assay or its folds have faults; all of an assay's faults are listed.
    """
    study = load_study(name)
    jobs = jobs or available_cores()
    if jobs < 0:
        raise MorphobenchError(f"{jobs} is no number of processes", "JOBS", "Use 1 or more; 0 for one a core.")
    folder = runs / study.name
    cluster = Cluster(jobs)
    base = study_base(name)
    assay = load_assay(study, base, folder, cluster)
    _check_files_exist(assay)
    _refuse_test_labels(study, assay)
    hashes = file_hashes(assay, known=folder / "checked" / "hashes.json")
    _check_lock(assay, hashes)
    whole_hash = assay_hash(assay, hashes)
    checked = folder / "checked" / f"{whole_hash[:16]}.json"
    if not checked.exists():
        faults = image_faults(assay)
        if faults:
            raise FaultsError(faults, f"The images of {study.name} have {len(faults)} fault(s):")
        write_json(checked, {"assay_hash": whole_hash, "fields": len(assay.fields)})
    split = study_split(folder / "splits" / f"{digest([whole_hash, study.split])}.json", assay, whole_hash,
                        study.split, hashes)
    opened = Opened(study, assay, hashes, whole_hash, split, folder, jobs, device, base,
                    lock_hash(assay.lock) if assay.lock else "")
    if isinstance(study.assay, DemoAssaySettings):
        opened.note(DEMO_STAGE, demo_key(study.assay))
    return opened


def _refuse_test_labels(study: Study, assay: Assay) -> None:
    """Where controls are what is scored, no method may look at which test wells are negative controls.

    Raises
    ------
    LeakError
        A method would scale or normalise by the plate's negative controls.
    """
    if assay.scoring == "treatments":
        return
    for method in study.methods:
        setting = uses_controls(method)
        if setting:
            raise LeakError("scales by the plate's negative controls, which this assay scores: it would use the labels "
                            "of test wells", f"method {method.name}, {setting}",
                            "Scale by the whole plate (plate), or on the training wells (profile.normalise: training).")


def _check_lock(assay: Assay, hashes: Mapping[str, str]) -> None:
    """Images that were fetched must still be what the lock file says."""
    if assay.lock is None:
        return
    faults = lock_faults(assay.lock, assay.root, hashes)
    if faults:
        raise FaultsError(faults, f"{len(faults)} image(s) of {assay.name} differ from {assay.lock}:")


def _check_files_exist(assay: Assay) -> None:
    """Missing files are all listed before the first is read."""
    columns = [c for c in assay.fields.columns if c.startswith("Path_")]
    if all((assay.root / p).is_file() for c in columns for p in assay.fields[c].unique()):
        return
    faults = image_faults(assay)
    raise FaultsError(faults, f"The images of {assay.name} have {len(faults)} fault(s):")


@contextmanager
def stage(folder: Path, name: str, key: str) -> Iterator[dict[str, Any]]:
    """Time a stage, once. What it cost when it really ran is kept: a rerun that finds it done changes nothing.

    The block may set ``detail`` (a few words for the report). Seconds of a run that was cut off are lost; those of
    the run that finishes count.
    """
    path = folder / "stages" / stage_file(name, key)
    facts: dict[str, Any] = {}
    start = time.perf_counter()
    yield facts
    if not path.exists():
        record = {"stage": name, "key": key, "seconds": round(time.perf_counter() - start, 2),
                  "detail": "", "finished": datetime.now(UTC).isoformat(timespec="seconds"), **facts}
        write_json(path, record)


def stage_file(name: str, key: str) -> str:
    """File name of a stage's record."""
    return f"{name.replace(' ', '-')}-{key}.json"
