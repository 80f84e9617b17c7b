"""Why a path does not lie below an assay's folder, and what the user can do about it."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import NamedTuple

from benchmark.base.errors import MorphobenchError
from benchmark.base.files import inside

_DRIVE = re.compile(r"[A-Za-z]:/|//")


class Outside(NamedTuple):
    """Why a path cannot be used.

    Attributes
    ----------
    cause : str
        Paths of one cause are told together.
    what, remedy : str
        As of a `Fault`; ``{folder}`` in the remedy is the folder that the paths of the cause have in common.
    columns : tuple of str
        Columns that alone are to blame; empty where the whole path is.
    folder : str
        Where the file is, or where its link leads; empty where there is none.
    """

    cause: str
    what: str
    remedy: str
    columns: tuple[str, ...] = ()
    folder: str = ""


def is_file(path: Path) -> bool:
    """Whether there is a file; a name that no file can have is none."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def why_outside(root: Path, text: str) -> Outside | None:
    """Why a path is not below a folder, by its spelling or by where its links lead; None where it is.

    Parameters
    ----------
    text : str
        With slashes; absolute or relative to ``root``.
    """
    plain = Path(os.path.normpath(root / text))
    try:
        inside(root, text)
    except MorphobenchError as error:
        if plain.is_relative_to(os.path.normpath(root)):
            return _linked(root, plain, error)
    else:
        return _of_other_system(root, text) if _DRIVE.match(text) else None
    if Path(text).is_absolute() and not is_file(plain):
        return _of_other_system(root, text)
    return Outside("outside", f"leads out of the assay's folder, {root}", "Set assay.root to {folder} (by default it "
                   "is the CSV's folder), and write paths below it.", folder=str(plain.parent))


def _linked(root: Path, plain: Path, error: MorphobenchError) -> Outside:
    """Of a path whose spelling is below the root: which of its parts is a link, and where that leads."""
    parts = plain.relative_to(os.path.normpath(root)).parts
    steps = [root.joinpath(*parts[:n]) for n in range(1, len(parts) + 1)]
    link = next((step for step in steps if step.is_symlink()), plain)
    try:
        target = link.resolve()
    except (OSError, RuntimeError):
        return Outside("circle", error.fault.what, error.fault.remedy)
    folder = target.parent if is_file(target) else target
    return Outside("link", f"leads out of the assay's folder, {root}: {link.relative_to(root).as_posix()} is a link to "
                   f"{target}", "Set assay.root to {folder} and write paths below it, or copy the images below the "
                   "folder.", folder=str(folder))


def _of_other_system(root: Path, text: str) -> Outside:
    """Of an absolute path that is not there: what of it is below the root."""
    parts = [part for part in text.split("/") if part]
    for n in range(1, len(parts)):
        rest = "/".join(parts[n:])
        if ".." not in parts[n:] and is_file(root / rest):
            before = text[: len(text) - len(rest)]
            return Outside("prefix", f"is a path of another machine; below {root} there is {rest}",
                           f"Take {before} off these cells: paths start at assay.root.")
    return Outside("machine", "is an absolute path that does not exist here", "Set assay.root to the folder that holds "
                   "the images on this machine, and write paths below it.")
