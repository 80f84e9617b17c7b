"""A study to be run, where and with what; and the records of the stages that its results rest on."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmark.assays.registry import Place
from benchmark.base.cluster import available_cores
from benchmark.base.errors import MorphobenchError
from benchmark.base.files import read_json, write_json
from benchmark.base.tasks import RunTasks
from benchmark.workflow.study import Study

RUNS = Path("runs")
REPORTS = Path("reports")


class StageLog:
    """Which stages the results of this call rest on.

    The folder ``runs/<study>/stages`` has a record of every stage that ran, with what it cost when it really ran: a
    rerun that finds it done changes nothing. Some are of settings that the study had before; those are not noted here.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "stages"
        self._noted: dict[str, set[str]] = {}

    @contextmanager
    def stage(self, name: str, key: str, user: str = "") -> Iterator[dict[str, Any]]:
        """Time a stage and note it. The block may set ``detail`` (a few words for the report).

        Seconds of a run that was cut off are lost; those of the run that finishes count.
        """
        self.note(name, key, user)
        path = self._folder / _file(name, key)
        facts: dict[str, Any] = {}
        start = time.perf_counter()
        yield facts
        if not path.exists():
            write_json(path, {"stage": name, "key": key, "seconds": round(time.perf_counter() - start, 2), "detail": "",
                              "finished": datetime.now(UTC).isoformat(timespec="seconds"), **facts})

    def note(self, name: str, key: str, user: str = "") -> None:
        """Note a stage, which need not run again, as one that results rest on; ``user``: the method that asks."""
        self._noted.setdefault(_file(name, key), set()).update({user} if user else ())

    def records(self) -> list[dict[str, Any]]:
        """Records of the noted stages, in the order in which they finished; ``users`` are the methods that asked."""
        noted = [(self._folder / name, users) for name, users in self._noted.items()]
        records = [read_json(path) | {"users": sorted(users)} for path, users in noted if path.exists()]
        return sorted(records, key=lambda record: str(record["finished"]))


def _file(name: str, key: str) -> str:
    return f"{name.replace(' ', '-')}-{key}.json"


@dataclass(frozen=True)
class Session:
    """A study to be run, where and with what.

    Attributes
    ----------
    folder : Path
        ``runs/<study>``.
    jobs : int
        Worker processes.
    device : str
        ``auto``, ``cpu`` or ``cuda``.
    run_tasks : RunTasks
        The worker processes.
    log : StageLog
        Notes what ran.
    """

    study: Study
    folder: Path
    jobs: int
    device: str
    run_tasks: RunTasks
    log: StageLog

    @property
    def threads(self) -> int:
        """Threads of each worker: the workers share the cores."""
        return threads_of(self.jobs)

    @property
    def place(self) -> Place:
        """Where the study's assay is loaded for."""
        return Place(self.study.name, self.study.base, self.folder, self.run_tasks, self.log.stage)


def jobs_of(jobs: int) -> int:
    """Number of worker processes; 0 is one for each core.

    Raises
    ------
    MorphobenchError
        It is negative.
    """
    if jobs < 0:
        raise MorphobenchError(f"{jobs} is no number of processes", "JOBS", "Use 1 or more; 0 for one a core.")
    return jobs or available_cores()


def threads_of(jobs: int) -> int:
    """Threads of each of some worker processes."""
    return max(1, available_cores() // jobs)


def open_session(study: Study, run_tasks: RunTasks, jobs: int = 0, device: str = "auto", runs: Path = RUNS) -> Session:
    """A session of a study; nothing is read or made yet."""
    folder = runs / study.name
    return Session(study, folder, jobs_of(jobs), device, run_tasks, StageLog(folder))
