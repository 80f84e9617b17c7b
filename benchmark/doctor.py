"""What is installed and what is missing, and how to fix it."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil

from benchmark.base import preflight
from benchmark.base.cluster import available_cores
from benchmark.base.errors import MorphobenchError
from benchmark.methods.workers.runs import versions


@dataclass(frozen=True)
class Finding:
    """One line of the doctor: what was looked at, what was found, and the remedy where something is wrong.

    ``state`` is ``ok``, ``note`` (works without it) or ``missing``.
    """

    subject: str
    state: str
    found: str
    remedy: str = ""


def examine() -> list[Finding]:
    """Check everything that a study needs. Quick, and changes nothing."""
    return [check() for check in CHECKS]


def _packages() -> Finding:
    installed = versions()
    missing = [p for p, v in installed.items() if v == "not installed"]
    text = ", ".join(f"{p} {v}" for p, v in installed.items())
    return Finding("Python packages", "missing" if missing else "ok", text, "Run `make setup`." if missing else "")


def _cellprofiler() -> Finding:
    from benchmark.cellprofiler.find import find_cellprofiler

    try:
        program = find_cellprofiler()
    except MorphobenchError as error:
        return Finding("CellProfiler", "missing", error.fault.what, error.fault.remedy)
    return Finding("CellProfiler", "ok", f"{program.version} ({program.origin}: {' '.join(program.command)})")


def _java() -> Finding:
    home = preflight.find_java_home()
    if home:
        return Finding("JDK", "ok", str(home))
    return Finding("JDK", "missing", "no javac with its headers", "Install a JDK (Debian: default-jdk-headless) or set "
                   "JAVA_HOME. CellProfiler cannot be installed without it.")


def _compiler() -> Finding:
    compiler = preflight.find_compiler()
    if compiler:
        return Finding("C compiler", "ok", compiler)
    return Finding("C compiler", "missing", "none of gcc, cc and clang",
                   "Install gcc; CellProfiler's Java bridge is compiled.")


def _weights() -> Finding:
    from benchmark.networks.settings import NetworkSettings
    from benchmark.networks.weights.location import EMBEDDED, weights_identity

    try:
        sha = weights_identity(NetworkSettings())
    except MorphobenchError as error:
        return Finding("Pretrained weights", "missing", str(error), error.fault.remedy)
    return Finding("Pretrained weights", "ok", f"{EMBEDDED}, ImageNet, SHA-256 {sha[:16]}",
                   "Other networks: a file or folder in network.weights, else timm downloads them.")


def _device() -> Finding:
    import torch

    if torch.cuda.is_available():
        return Finding("GPU", "ok", torch.cuda.get_device_name(0))
    return Finding("GPU", "note", "none that PyTorch can use: networks run on the CPU",
                   "With an NVIDIA GPU, check `nvidia-smi` and the driver.")


def _machine() -> Finding:
    memory, disk = psutil.virtual_memory().total / 2**30, shutil.disk_usage(".").free / 1e9
    text = f"{platform.platform()}, {available_cores()} cores, {memory:.0f} GiB memory, {disk:.0f} GB free here"
    if memory < 4 or disk < 2:
        return Finding("Machine", "note", text, "A study needs at least 4 GiB of memory and 2 GB of disk.")
    return Finding("Machine", "ok", text)


def _data() -> Finding:
    folder = os.environ.get("MORPHOBENCH_DATA", "")
    if not folder:
        return Finding("MORPHOBENCH_DATA", "note", "not set",
                       "Set it to the folder of your image sets for studies that "
                       "name it, such as bbbc021-fields. The demo needs none.")
    if not Path(folder).is_dir():
        return Finding("MORPHOBENCH_DATA", "missing", f"{folder} is not a folder", "Correct it or unset it.")
    names = sorted(p.name for p in Path(folder).iterdir())
    return Finding("MORPHOBENCH_DATA", "ok", f"{folder}: {', '.join(names[:8])}")


CHECKS: tuple[Callable[[], Finding], ...] = (
    _machine, _packages, _weights, _device, _cellprofiler, _java, _compiler, _data,
)
