"""Is this machine fit for set-up? Runs before anything is installed, on any Python's standard library.

`make` calls it as ``python benchmark/base/preflight.py suite|cellprofiler``. It prints one sentence with the remedy for
each thing that is missing and exits 1. Nothing newer than Python 3.8 is used: its own version check has to run.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

#: Free space each set-up needs, in GB: the size measured after installation, with room for pip's temporary files.
DISK_GB = {"suite": 9, "cellprofiler": 2}
NAMES = {"suite": "suite's", "cellprofiler": "CellProfiler"}


def find_java_home(
    environ: Mapping[str, str] = os.environ, jvm_folder: Path = Path("/usr/lib/jvm")
) -> Path | None:
    """Home of a JDK (javac and its headers): JAVA_HOME, else that of `javac` on the PATH, else below /usr/lib/jvm.

    None where there is none. Given as a Path; parameters are for tests.
    """
    homes = [Path(environ["JAVA_HOME"])] if environ.get("JAVA_HOME") else []
    javac = shutil.which("javac", path=environ.get("PATH"))
    if javac:
        homes.append(Path(javac).resolve().parent.parent)
    homes += sorted(jvm_folder.glob("*"))
    return next((h for h in homes if (h / "bin" / "javac").exists() and (h / "include" / "jni.h").is_file()), None)


def find_compiler(environ: Mapping[str, str] = os.environ) -> str | None:
    """A C compiler on the PATH; None where there is none."""
    found = (shutil.which(name, path=environ.get("PATH")) for name in ("gcc", "cc", "clang"))
    return next((path for path in found if path), None)


def problems(target: str, environ: Mapping[str, str] = os.environ) -> list[str]:
    """What is missing for a target (a key of `DISK_GB`), each with its remedy in one sentence."""
    found = []
    major, minor = sys.version_info[:2]
    remedy = "install Python 3.11 and run `make PYTHON=/path/to/python3.11`"
    if target == "cellprofiler" and (major, minor) != (3, 11):
        found.append(f"CellProfiler's pinned packages need Python 3.11, and this is {major}.{minor}: {remedy}.")
    elif (major, minor) < (3, 11):
        found.append(f"morphobench needs Python 3.11 or newer, and this is {major}.{minor}: {remedy}.")
    try:
        import ensurepip  # noqa: F401
        import venv  # noqa: F401
    except ImportError:
        found.append("This Python cannot make virtual environments: install its venv package (Debian: python3-venv).")
    if target == "cellprofiler":
        found += _build_tools(environ)
    free = shutil.disk_usage(".").free / 1e9
    if free < DISK_GB[target]:
        found.append(f"{free:.1f} GB are free here and the {NAMES[target]} environment needs {DISK_GB[target]} GB: "
                     "free some, or clone to a larger disk.")
    return found


def _build_tools(environ: Mapping[str, str]) -> list[str]:
    """What compiling CellProfiler's bridge to Java lacks."""
    found = []
    own = "or set CELLPROFILER to the path of a CellProfiler you have"
    if not find_java_home(environ):
        found.append("There is no JDK (javac and its headers): install one (Debian: default-jdk-headless) or set "
                     f"JAVA_HOME, {own}.")
    if not find_compiler(environ):
        found.append(f"There is no C compiler: install gcc (Debian: gcc libc6-dev), {own}.")
    return found


def main() -> int:
    """Print what is missing; exit status 1 if anything is."""
    target = sys.argv[1] if len(sys.argv) > 1 else "suite"
    own = os.environ.get("CELLPROFILER", "")
    if target == "cellprofiler" and own:
        found = [] if os.access(own, os.X_OK) else [
            f"CELLPROFILER is set to {own}, which is not an executable file: correct or unset it."]
    else:
        found = problems(target)
    for sentence in found:
        print("morphobench: " + sentence, file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
