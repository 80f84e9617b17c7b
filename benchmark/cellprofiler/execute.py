"""Running CellProfiler headless as a child process that cannot outlive its time."""

from __future__ import annotations

import contextlib
import ctypes
import locale
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from benchmark.base.errors import MorphobenchError
from benchmark.base.machine import MachineError
from benchmark.cellprofiler.find import CellProfiler

PIPELINE, TABLE, LOG, DONE, OUT = "pipeline.cppipe", "load_data.csv", "log.txt", "done.txt", "out"
#: One process per core: libraries that start threads of their own would compete for it.
ONE_THREAD = {name: "1" for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS",
                                     "VECLIB_MAXIMUM_THREADS", "NUMEXPR_NUM_THREADS")}


_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


class CannotRunError(MachineError):
    """No run of CellProfiler can succeed here (it does not start, the disk is full): no field is to blame."""


@dataclass(frozen=True)
class Execution:
    """What a run took: its exit status (for the record, never trusted), wall and CPU seconds."""

    status: int
    seconds: float
    cpu_seconds: float


class OutOfTimeError(MorphobenchError):
    """A run had not ended within its time limit: another with the same limit would not end either."""


def execute(cellprofiler: CellProfiler, folder: Path, timeout_seconds: float, log_name: str = "") -> Execution:
    """Run the pipeline staged in ``folder`` over its load_data.csv.

    Writes ``log.txt``, ``done.txt`` and ``out/`` there. The child and all it starts form a process
    group of their own, which is ended on a timeout, an interrupt or any error here. ``log_name`` is how
    messages name the log, where it is moved afterwards.

    Raises
    ------
    CannotRunError
        CellProfiler cannot be started, or not in a folder of this name.
    OutOfTimeError
        It was still running at its time limit.
    """
    out = folder / OUT
    out.mkdir(exist_ok=True)
    command = [*cellprofiler.command, "-c", "-r", "-p", str(folder / PIPELINE), "--data-file", str(folder / TABLE),
               "-i", str(folder), "-o", str(out), "-d", str(folder / DONE)]
    environment = {**os.environ, **ONE_THREAD, **_utf8(folder)}
    start, before = time.monotonic(), children_cpu()
    with (folder / LOG).open("wb") as log:
        try:
            child = subprocess.Popen(command, cwd=folder, env=environment, stdin=subprocess.DEVNULL,
                                     stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
                                     preexec_fn=_die_with(os.getpid()))
        except OSError as error:
            raise CannotRunError(f"cannot be started ({error.strerror})", cellprofiler.command[0],
                                 "Run `morphobench doctor`.") from error
        try:
            status = child.wait(timeout=timeout_seconds)
        except subprocess.TimeoutExpired:
            raise OutOfTimeError(
                f"CellProfiler was still running after {timeout_seconds / 60:.3g} minutes and was ended",
                log_name or str(folder / LOG),
                "Raise cellprofiler.timeout_minutes or lower cellprofiler.shard_fields.") from None
        finally:
            _end(child)
    return Execution(status, time.monotonic() - start, children_cpu() - before)


def _utf8(folder: Path) -> dict[str, str]:
    """Environment in which CellProfiler's Python and Java read names of files as UTF-8, whatever the locale here.

    Without a locale (containers, cron, jobs of a cluster) Java finds no file below a folder with an accent.
    """
    if any(ord(c) < 32 for c in str(folder)):
        raise CannotRunError("CellProfiler cannot run in a folder with a line break in its name", ascii(str(folder)),
                             "Rename the folder, or run in another one.")
    name = utf8_locale()
    if not name and not str(folder).isascii():
        raise CannotRunError("CellProfiler finds no files here: the folder's name has letters beyond ASCII, and this "
                             "machine has no locale that knows them", str(folder),
                             "Install the locale C.UTF-8, or run in a folder with a plain name.")
    return {"PYTHONUTF8": "1", "PYTHONIOENCODING": "utf-8", **({"LC_ALL": name, "LANG": name} if name else {})}


@cache
def utf8_locale() -> str:
    """A locale with UTF-8 that this machine has and that writes numbers with points; '' where there is none."""
    before = locale.setlocale(locale.LC_CTYPE)
    try:
        for name in ("C.UTF-8", "C.utf8", "en_US.UTF-8", "en_GB.UTF-8"):
            with contextlib.suppress(locale.Error):
                locale.setlocale(locale.LC_CTYPE, name)
                return name
        return ""
    finally:
        locale.setlocale(locale.LC_CTYPE, before)


def _die_with(parent: int) -> Callable[[], None]:
    """For the child: be killed when the worker dies without a chance to clean up (Linux; elsewhere no help)."""
    def prepare() -> None:
        if _LIBC is not None:
            _LIBC.prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
            if os.getppid() != parent:  # it died before that
                os._exit(1)

    return prepare


def _end(child: subprocess.Popen[bytes]) -> None:
    """End the child's whole process group, whether or not the child itself still runs."""
    with contextlib.suppress(ProcessLookupError):  # the usual case: it ended by itself and left no process behind
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


def children_cpu() -> float:
    """CPU seconds of all children of this process that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
