"""What happens to a shard that CellProfiler fails on.

One bad field makes CellProfiler drop all fields of its run (`tests/cellprofiler/test_faults_real.py` shows how), and
its exit status does not tell which. So a shard is tried again, then halved, and its halves in turn, until the fields
that fail even alone are known; they are left out, and the output of the other runs is combined as if a single run had
written it. A run that timed out is not tried again but halved at once. A field that cannot be staged is left out at
once. Faults that leaving out fields cannot cure (`check.PipelineFault`, `MachineError`) are never tried again. Where
every field of a shard fails alone, and they are more than the study tolerates, single fields are not to blame.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

import pandas as pd

from benchmark.base.errors import Fault, FaultsError, MorphobenchError
from benchmark.base.machine import MachineError
from benchmark.cellprofiler.check import Output, PipelineFault, check_run
from benchmark.cellprofiler.execute import LOG, OUT, CannotRunError, Execution, OutOfTimeError, execute
from benchmark.cellprofiler.find import CellProfiler
from benchmark.cellprofiler.shards import NUMBER, Shard, stage

T = TypeVar("T")
#: Errors that neither another try nor fewer fields can cure.
FINAL = (PipelineFault, MachineError)
#: With less free space a failure says nothing about the fields: CellProfiler reports a full disk as any other failure.
_LEAST_SPACE = 100 * 2**20
_IMAGES = "images"
#: Seconds that a part of a shard has at least, if the whole has them.
SHORTEST = 600.0


@dataclass(frozen=True)
class Run:
    """One run of CellProfiler that ended well.

    Attributes
    ----------
    fields : tuple of int
        Indices, in the whole shard, of the fields it measured.
    output : Output
        What it wrote, numbered from 0 within the run.
    folder : Path
        Where it ran.
    execution : Execution
        What it took.
    """

    fields: tuple[int, ...]
    output: Output
    folder: Path
    execution: Execution


@dataclass(frozen=True)
class Result:
    """What could be measured of a shard.

    Attributes
    ----------
    shard : Shard
        The measured fields alone, under the shard's key.
    fields : tuple of int
        Their indices in the whole shard.
    runs : tuple of Run
        Those that ended well, in the order of their fields.
    failed : dict
        Index of each other field → why, sorted by index.
    logs : dict
        Index of each field that CellProfiler failed on → log of the last run that it was alone in.
    out_of_time : dict
        Index of each field whose last run timed out → its time limit in seconds.
    started : int
        How often CellProfiler was started.
    """

    shard: Shard
    fields: tuple[int, ...]
    runs: tuple[Run, ...]
    failed: dict[int, Fault]
    logs: dict[int, Path]
    out_of_time: dict[int, float]
    started: int

    def output(self) -> Output | None:
        """Everything that the runs wrote, as of one run over the measured fields; None where there are none."""
        return merged([run.output for run in self.runs]) if self.runs else None


def halve(items: Sequence[int], attempt: Callable[[Sequence[int]], T],
          attempts: int) -> tuple[list[T], dict[int, Fault]]:
    """Find the items that fail even when each is tried alone.

    All items together are tried ``attempts`` times, then halves, quarters and so on once each, and single items
    ``attempts`` times; an attempt that times out (`OutOfTimeError`) is not repeated. One bad item among *n* takes about
    2 log₂ *n* attempts.

    Parameters
    ----------
    items : sequence of int
        One or more.
    attempt : callable
        Tries some of the items at once; raises MorphobenchError where that fails.
    attempts : int
        1 or more.

    Returns
    -------
    results : list
        Of the attempts that succeeded: together they cover every other item once, in order.
    failed : dict
        Item → fault of its last attempt.

    Raises
    ------
    MorphobenchError
        Those of `FINAL`, as they come.
    """
    def tried(part: Sequence[int], times: int) -> tuple[list[T], dict[int, Fault]]:
        fault = Fault("")
        for _ in range(times):
            try:
                return [attempt(part)], {}
            except FINAL:
                raise
            except OutOfTimeError as error:
                fault = error.fault
                break
            except MorphobenchError as error:
                fault = error.fault
        if len(part) == 1:
            return [], {part[0]: fault}
        middle = len(part) // 2
        halves = [tried(half, attempts if len(half) == 1 else 1) for half in (part[:middle], part[middle:])]
        return halves[0][0] + halves[1][0], halves[0][1] | halves[1][1]

    return tried(items, attempts)


def run_seconds(timeout_seconds: float, fields: int, of: int) -> float:
    """Time limit of a run over some fields of a shard.

    A part gets twice its share of the time, so that a pipeline that hangs is not waited for at full length once per
    field; but always enough to start and to measure one field (`SHORTEST`), however small the share.

    Parameters
    ----------
    timeout_seconds : float
        Of a run over the whole shard.
    fields, of : int
        Fields of the run, and of the whole shard.
    """
    return min(timeout_seconds, max(SHORTEST, timeout_seconds * 2 * fields / of))


def timeout_beyond(seconds: float, of: int) -> float:
    """The largest timeout (seconds) of a shard of so many fields with which a field alone has no more than ``seconds``
    (`run_seconds`)."""
    return seconds if seconds < SHORTEST else max(seconds, seconds * of / 2)


@dataclass
class _Attempts:
    """Runs of CellProfiler over parts of one shard, each in a folder of its own below ``work``."""

    shard: Shard
    pipeline: str
    cellprofiler: CellProfiler
    work: Path
    timeout_seconds: float
    log: str
    started: int = 0
    unreadable: dict[int, Fault] = field(default_factory=dict)
    logs: dict[int, Path] = field(default_factory=dict)
    out_of_time: dict[int, float] = field(default_factory=dict)
    slow: dict[tuple[int, ...], OutOfTimeError] = field(default_factory=dict)

    def __call__(self, items: Sequence[int]) -> Run | None:
        """Stage, run and check some fields; None where none of them can be staged."""
        wanted = [i for i in items if i not in self.unreadable]
        if late := self.slow.get(tuple(wanted)):  # a half that holds, but for unreadable fields, what the whole did
            raise late
        folder = self.work / f"run{self.started:03d}"
        shutil.rmtree(folder, ignore_errors=True)  # staged before, and nothing was left to run
        faults: dict[int, Fault] = {}
        part = stage(Shard(self.shard.key, tuple(self.shard.fields[i] for i in wanted)), self.pipeline, folder, faults)
        self.unreadable |= {wanted[k]: fault for k, fault in faults.items()}
        left = tuple(i for i in wanted if i not in self.unreadable)
        if not left:
            return None
        self.started += 1
        seconds = run_seconds(self.timeout_seconds, len(left), len(self.shard.fields))
        try:
            execution = execute(self.cellprofiler, folder, seconds, self.log)
            output = check_run(part, folder, self.pipeline, self.log)
        except MorphobenchError as error:
            shutil.rmtree(folder / OUT, ignore_errors=True)
            self.logs |= dict.fromkeys(left, folder / LOG)
            self.out_of_time = {i: s for i, s in self.out_of_time.items() if i not in left}
            if isinstance(error, OutOfTimeError):
                self.slow[left] = error
                self.out_of_time |= dict.fromkeys(left, seconds)
            free = shutil.disk_usage(self.work).free
            if free < _LEAST_SPACE:
                raise CannotRunError(f"the disk is full ({free / 2**20:.0f} MB left)", str(self.work.parent),
                                     "Make room, or set another folder for runs.") from None
            raise
        finally:
            shutil.rmtree(folder / _IMAGES, ignore_errors=True)
        return Run(left, output, folder, execution)


def run_with_retries(shard: Shard, pipeline: str, cellprofiler: CellProfiler, work: Path, timeout_seconds: float,
                     attempts: int, log: str, tolerated: int) -> Result:
    """Measure what can be measured of a shard.

    Parameters
    ----------
    shard : Shard
        Its fields.
    pipeline : str
        Text of the pipeline.
    cellprofiler : CellProfiler
        Which one runs.
    work : Path
        Folder for the runs, ``run000`` and so on.
    timeout_seconds : float
        Of a run over the whole shard.
    attempts : int
        How often the whole shard and single fields are tried.
    log : str
        How errors name the log of the run that failed, where it is moved afterwards.
    tolerated : int
        How many fields of the whole study may fail.

    Returns
    -------
    Result

    Raises
    ------
    PipelineFault, MachineError
        No field is to blame.
    FaultsError
        CellProfiler failed on every field alone, and more of them than may fail (`none_measured`).
    """
    attempt = _Attempts(shard, pipeline, cellprofiler, work, timeout_seconds, log)
    found, alone = halve(range(len(shard.fields)), attempt, attempts)
    runs = tuple(run for run in found if run is not None)
    if not runs:
        none_measured([Fault(f.what, f"{shard.fields[i].name}; {f.where}", f.remedy) for i, f in alone.items()],
                      tolerated, "CellProfiler")
    logs = {i: attempt.logs[i] for i in alone}
    out_of_time = {i: attempt.out_of_time[i] for i in alone if i in attempt.out_of_time}
    for i, seconds in out_of_time.items():
        minutes = timeout_beyond(seconds, len(shard.fields)) / 60
        remedy = f"It is measured once more when cellprofiler.timeout_minutes is above {minutes:g}."
        alone[i] = replace(alone[i], remedy=remedy)
    failed = attempt.unreadable | {
        i: Fault(f.what.replace(str(work), ""), f"log {failed_log(i)} of shard {shard.key}",
                 f.remedy.replace(str(work), "")) for i, f in alone.items()}
    fields = tuple(i for run in runs for i in run.fields)
    return Result(Shard(shard.key, tuple(shard.fields[i] for i in fields)), fields, runs,
                  dict(sorted(failed.items())), logs, out_of_time, attempt.started)


def none_measured(faults: Sequence[Fault], tolerated: int, backend: str) -> None:
    """Whether a shard in which nothing was measured may land, its fields counted as single failures.

    A shard of one field always may: the study counts such fields.

    Parameters
    ----------
    faults : sequence of Fault
        Of the fields that could be read, and were failed on alone.
    tolerated : int
        How many fields of the whole study may fail.
    backend : str
        Which program failed.

    Raises
    ------
    FaultsError
        It may not: the pipeline or all of the data are at fault, and the study would stop anyway.
    """
    if len(faults) > max(1, tolerated):
        raise FaultsError(faults, f"{backend} fails on each of {len(faults)} fields alone:")


def failed_log(number: int) -> str:
    """File name, in a shard's folder, of the log of a field that CellProfiler failed on."""
    return f"failed-{number:05d}.txt"


def merged(outputs: Sequence[Output]) -> Output:
    """Outputs of several runs as that of one run over all their fields, in this order.

    Numbers of fields and CellProfiler's image numbers are continued from run to run.
    """
    if len(outputs) == 1:
        return outputs[0]
    starts = [0]
    for output in outputs:
        starts.append(starts[-1] + len(output.images))
    images = [o.images.assign(ImageNumber=o.images["ImageNumber"] + n).set_index(o.images.index + n)
              for o, n in zip(outputs, starts[:-1], strict=True)]
    objects = {}
    for name in outputs[0].objects:
        tables = [(o.objects[name], n) for o, n in zip(outputs, starts[:-1], strict=True)]
        # CellProfiler writes fewer columns where it found nothing; such a table has neither rows nor types to add.
        filled = [t.assign(**{NUMBER: t[NUMBER] + n, "ImageNumber": t["ImageNumber"] + n}) for t, n in tables if len(t)]
        objects[name] = pd.concat(filled, ignore_index=True) if filled else tables[0][0]
    masks = {name: [path for o in outputs for path in o.masks[name]] for name in outputs[0].masks}
    return replace(outputs[0], images=pd.concat(images), objects=objects, masks=masks)
