"""Installing CellProfiler 4.2.8.1 into an environment of its own.

Its release pins NumPy and SciPy of its day, has no metadata that fits Python 3.11, and demands wxPython,
which no headless run imports. So: exact versions, wheels without their dependencies, python-javabridge
built here, four modules patched, and a stamp written last. Imports only the base room, so that it runs
before anything else is set up.
"""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmark.base.errors import Fault, FaultsError, MorphobenchError
from benchmark.base.files import read_json
from benchmark.base.preflight import find_java_home, problems
from benchmark.cellprofiler.find import STAMP, version_of, write_stamp

#: What CellProfiler's source packages and `pkg_resources` imports need.
TOOLS = ("pip==24.3.1", "setuptools==69.5.1", "wheel==0.43.0")
#: Built here against the JDK; cannot come as a wheel.
JAVABRIDGE = "python-javabridge"
#: Their metadata demand wxPython, so they go in last and alone.
SUITE = ("cellprofiler-core", "cellprofiler")
#: Modules that pass ``selem=``, which scikit-image 0.20 calls ``footprint=``, and how often.
RENAMED = {"enhanceorsuppressfeatures.py": 3, "findmaxima.py": 1, "identifyprimaryobjects.py": 1,
           "measuregranularity.py": 4}


def requirements_hash(requirements: Path) -> str:
    """Hash of the requirements; another one means another installation."""
    return hashlib.sha256(requirements.read_bytes()).hexdigest()[:16]


def installed(venv: Path, requirements: Path) -> bool:
    """Whether ``venv`` holds a whole installation of these requirements."""
    stamp = venv / STAMP
    if not stamp.is_file() or not (venv / "bin" / "cellprofiler").is_file():
        return False
    return bool(read_json(stamp).get("requirements") == requirements_hash(requirements))


def preflight(requirements: Path, environ: Mapping[str, str] = os.environ) -> Path:
    """Refuse what could not work, before anything starts; returns the JDK's home.

    Raises
    ------
    FaultsError
        Wrong Python, no C compiler, no JDK or too little disk space (`benchmark.base.preflight`).
    MorphobenchError
        No requirements file.
    """
    if not requirements.is_file():
        raise MorphobenchError("is missing", str(requirements), "Run in the root of the repository.")
    found = problems("cellprofiler", environ)
    if found:
        raise FaultsError([Fault(sentence.rstrip(".")) for sentence in found], "CellProfiler cannot be installed:")
    home = find_java_home(environ)
    assert home is not None  # else it was among the problems
    return home


def install(venv: Path, requirements: Path) -> None:
    """Install CellProfiler into ``venv``, unless that is done already.

    A broken or outdated installation is continued or replaced: the stamp is removed first and written
    last. Takes about a minute.

    Parameters
    ----------
    venv : Path
        Environment to make.
    requirements : Path
        Exact versions (``name==version`` lines), python-javabridge and CellProfiler among them.

    Raises
    ------
    MorphobenchError
        Something needed is missing (before anything starts), or a step failed (with pip's own errors).
    """
    if installed(venv, requirements):
        return
    java = preflight(requirements)
    venv = venv.absolute()
    wheels, built, suite = split_requirements(requirements)
    (venv / STAMP).unlink(missing_ok=True)
    python = venv / "bin" / "python"
    environ = {**os.environ, "JAVA_HOME": str(java)}
    if not _usable(python):
        _say(f"making {venv.name}")
        _run([sys.executable, "-m", "venv", "--clear", str(venv)], environ, "making the environment")
    _say("packaging tools")
    _pip(python, [*TOOLS], environ, "installing pip, setuptools and wheel")
    _say(f"{len(wheels)} pinned packages")
    with tempfile.NamedTemporaryFile("w", suffix=".txt", encoding="utf-8") as pinned:
        pinned.write("\n".join(wheels) + "\n")
        pinned.flush()
        _pip(python, ["--no-deps", "--only-binary", ":all:", "-r", pinned.name], environ, "installing pinned packages")
    _say(f"building {built} with {java}")
    _pip(python, ["--no-deps", "--no-build-isolation", built], environ, f"building {built}")
    _say(" and ".join(suite))
    _pip(python, ["--no-deps", *suite], environ, "installing CellProfiler")
    mend(_modules_folder(python))
    _say("checking")
    version = version_of(venv / "bin" / "cellprofiler")
    write_stamp(venv, version, requirements_hash(requirements))
    _say(f"CellProfiler {version} is ready")


def split_requirements(requirements: Path) -> tuple[list[str], str, list[str]]:
    """Pinned wheels, python-javabridge, and CellProfiler's own packages (core first).

    Raises
    ------
    MorphobenchError
        A line is not ``name==version``, or one of the named packages is missing.
    """
    pins: dict[str, str] = {}
    for number, raw in enumerate(requirements.read_text(encoding="utf-8").splitlines(), 1):
        line = raw.split("#")[0].strip()
        if line:
            match = re.fullmatch(r"([A-Za-z0-9._-]+)==[A-Za-z0-9.+!]+", line)
            if not match:
                raise MorphobenchError(f"is not a pinned package: {line!r}", f"{requirements}, line {number}",
                                       "Write name==version.")
            pins[match[1].lower().replace("_", "-")] = line
    missing = [name for name in (JAVABRIDGE, *SUITE) if name not in pins]
    if missing:
        raise MorphobenchError(f"pins no {', '.join(missing)}", str(requirements))
    wheels = [line for name, line in pins.items() if name not in (JAVABRIDGE, *SUITE)]
    return wheels, pins[JAVABRIDGE], [pins[name] for name in SUITE]


def mend(modules: Path) -> None:
    """Rename ``selem=`` to ``footprint=`` in CellProfiler's modules, once and completely.

    scikit-image renamed the keyword in 0.19 and dropped the old one in 0.20; this is the only change that
    CellProfiler 4.2.8.1 needs there. A second call changes nothing.

    Raises
    ------
    MorphobenchError
        A module does not look as expected: another release, whose results nobody has compared.
    """
    for name, count in RENAMED.items():
        path = modules / name
        if not path.is_file():
            raise MorphobenchError("is missing", str(path), "Remove .venv-cellprofiler and run `make setup` again.")
        text = path.read_text(encoding="utf-8")
        old, new = len(re.findall(r"\bselem=", text)), len(re.findall(r"\bfootprint=", text))
        if old == 0 and new >= count:
            continue
        if old != count:
            raise MorphobenchError(f"has {old} places to patch, not {count}: not the release this is written for",
                                   str(path), "Check the versions in cellprofiler-requirements.txt.")
        path.write_text(re.sub(r"\bselem=", "footprint=", text), encoding="utf-8")


def _usable(python: Path) -> bool:
    """Whether an environment's interpreter runs and is of the right version."""
    if not python.exists():
        return False
    try:
        done = subprocess.run([str(python), "-c", "import sys, pip; print(*sys.version_info[:2])"], capture_output=True,
                              encoding="utf-8", errors="replace", check=False, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.stdout.split() == [str(part) for part in sys.version_info[:2]]


def _modules_folder(python: Path) -> Path:
    """Where CellProfiler's modules lie, without importing them."""
    code = "import sysconfig; print(sysconfig.get_paths()['purelib'])"
    done = subprocess.run([str(python), "-c", code], capture_output=True, encoding="utf-8", check=True)
    return Path(done.stdout.strip()) / "cellprofiler" / "modules"


def _pip(python: Path, arguments: Sequence[str], environ: Mapping[str, str], what: str) -> None:
    command = [str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check", *arguments]
    _run(command, environ, what)


def _run(command: Sequence[str], environ: Mapping[str, str], what: str) -> None:
    """Run a step quietly; its output is shown only when it fails."""
    try:
        done = subprocess.run(list(command), capture_output=True, encoding="utf-8", errors="replace", env=dict(environ),
                              check=False)
    except OSError as error:
        raise MorphobenchError(f"{what} failed ({error})", command[0]) from error
    if done.returncode:
        said = [line for line in (done.stdout + done.stderr).splitlines() if line.strip() and "is ignored" not in line]
        raise MorphobenchError(f"{what} failed", "CellProfiler's installation",
                               "Remove the cause and run `make setup` again. Its output:\n" + "\n".join(said[-25:]))


def _say(text: str) -> None:
    print(f"CellProfiler: {text}", file=sys.stderr, flush=True)
