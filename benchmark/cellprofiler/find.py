"""Which CellProfiler runs: the user's own, or the one this project installed."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmark.base.errors import MorphobenchError
from benchmark.base.files import PROJECT, read_json, write_json

#: Command and origin of what measures in place of CellProfiler (`benchmark.cellprofiler.cp_measure.cpshard`).
OWN = "cp_measure"
VENV = PROJECT / ".venv-cellprofiler"
#: Last file of an installation; without it the installation is not whole.
STAMP = "morphobench-installed.json"
_VERSION = re.compile(r"^\s*(\d+\.\d+[\w.+-]*)\s*$", re.MULTILINE)


@dataclass(frozen=True)
class CellProfiler:
    """A CellProfiler that can be run.

    Attributes
    ----------
    command : tuple of str
        What to start, before its options.
    version : str
        As it states itself.
    origin : str
        How it was found, for the record and the report.
    """

    command: tuple[str, ...]
    version: str
    origin: str


def version_of(executable: Path, seconds: float = 120) -> str:
    """The version that a CellProfiler reports; starting it takes seconds.

    Raises
    ------
    MorphobenchError
        It cannot be started, does not end, or states no version.
    """
    remedy = "Set CELLPROFILER to the path of a working `cellprofiler` command, or unset it and run `make setup`."
    try:
        done = subprocess.run([str(executable), "--version"], capture_output=True, encoding="utf-8", errors="replace",
                              timeout=seconds, stdin=subprocess.DEVNULL, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise MorphobenchError(f"cannot be run ({error})", str(executable), remedy) from error
    # Installations without MySQL put a traceback before the version.
    found = _VERSION.findall(done.stdout) or _VERSION.findall(done.stderr)
    if done.returncode or not found:
        last = (done.stderr.strip() or done.stdout.strip() or "no output").splitlines()[-1]
        raise MorphobenchError(f"does not state its version (exit status {done.returncode}: {last})", str(executable),
                               remedy)
    return found[-1]


def find_cellprofiler(environ: Mapping[str, str] = os.environ, venv: Path = VENV) -> CellProfiler:
    """The CellProfiler to use.

    ``CELLPROFILER`` in the environment comes first and must then work; else the installation in
    ``venv``, whose version was written down when it was made.

    Raises
    ------
    MorphobenchError
        ``CELLPROFILER`` names nothing that runs, or nothing is installed.
    """
    own = environ.get("CELLPROFILER", "").strip()
    if own:
        path = Path(own).expanduser().absolute()
        if not path.is_file():
            raise MorphobenchError("CELLPROFILER names no file", own,
                                   "Give the path of the `cellprofiler` command itself, or unset CELLPROFILER.")
        if not os.access(path, os.X_OK):
            raise MorphobenchError("CELLPROFILER names a file that cannot be executed", own, f"Try chmod +x {path}.")
        return CellProfiler((str(path),), version_of(path), "CELLPROFILER")
    path, stamp = venv.absolute() / "bin" / "cellprofiler", venv / STAMP
    if not path.is_file() or not stamp.is_file():
        raise MorphobenchError("CellProfiler is not installed", str(venv),
                               "Run `make setup`, or set CELLPROFILER to the path of your own `cellprofiler` command.")
    return CellProfiler((str(path),), str(read_json(stamp)["version"]), venv.name)


def write_stamp(venv: Path, version: str, requirements: str) -> None:
    """Mark an installation as whole."""
    write_json(venv / STAMP, {"version": version, "requirements": requirements})
