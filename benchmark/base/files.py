"""Writing whole files, hashing, and names that are safe on a disk."""

from __future__ import annotations

import ctypes
import errno
import hashlib
import json
import os
import re
import secrets
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from benchmark.base.errors import MorphobenchError
from benchmark.base.machine import trouble_of

if TYPE_CHECKING:
    import pandas as pd

#: The project's folder: pipelines and the environments that make builds are here, wherever a command is started.
PROJECT = Path(__file__).resolve().parents[2]

_LIBC = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None
#: Characters of a path that cannot be used that a message gives.
LONGEST_SHOWN = 120


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path`` that becomes ``path`` only when the block ends well.

    A file (or folder) that exists under its final name is therefore complete: the block may be
    killed at any moment. The data are flushed to disk before the rename.

    Raises
    ------
    MachineError
        The disk is full, read-only and the like; it names the folder.
    """
    tmp = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield tmp
        if tmp.is_file():
            with tmp.open("rb") as handle:
                os.fsync(handle.fileno())
        tmp.replace(path)
    except BaseException as error:
        if tmp.is_file():
            tmp.unlink()
        if isinstance(error, OSError) and (trouble := trouble_of(error, path.parent)):
            raise trouble from error
        raise


def process_tag() -> str:
    """Part of the name of a temporary folder that tells whose it is: host, process, its start (s), a random number."""
    me = psutil.Process()
    return f"{socket.gethostname()}_{me.pid}_{int(me.create_time())}_{secrets.token_hex(4)}"


def is_left_over(tag: str) -> bool:
    """Whether the process of a `process_tag` ran on this machine and no longer does; False for other machines' tags."""
    parts = tag.rsplit("_", 3)
    if len(parts) != 4 or parts[0] != socket.gethostname() or not (parts[1].isdigit() and parts[2].isdigit()):
        return False
    try:
        return abs(psutil.Process(int(parts[1])).create_time() - int(parts[2])) > 2
    except psutil.NoSuchProcess:
        return True
    except psutil.Error:
        return False


def replace_folder(new: Path, old: Path, aside: Path) -> None:
    """Replace a folder by a finished one on the same file system; the old one is kept elsewhere.

    Where the system can swap the two atomically (Linux on its local file systems), one of them is in place, whole, at
    every moment, whichever process is killed. Elsewhere there is a moment at which neither is in place and the old one
    lies, whole, under ``aside``.

    Parameters
    ----------
    new : Path
        The finished folder; afterwards it does not exist, or is the old one.
    old : Path
        Its place, which is taken.
    aside : Path
        Where the old one is put if the two cannot be swapped; nothing is there.
    """
    if _swapped(new, old):
        return
    old.rename(aside)
    try:
        new.rename(old)
    except OSError:
        aside.rename(old)
        raise


def _swapped(one: Path, other: Path) -> bool:
    """Swap two paths atomically; False where the system or the file system cannot."""
    swap = getattr(_LIBC, "renameat2", None)
    if swap is None:
        return False
    here, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE of linux/fs.h
    if swap(here, os.fsencode(one), here, os.fsencode(other), exchange) == 0:
        return True
    number = ctypes.get_errno()
    if number in (errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP, errno.EPERM):  # the last: a container that knows it not
        return False
    raise OSError(number, os.strerror(number), str(one), None, str(other))


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as indented JSON, whole or not at all."""
    with whole(path) as tmp:
        tmp.write_text(json.dumps(value, indent=1, ensure_ascii=False, sort_keys=True) + "\n", encoding="utf-8")


def read_json(path: Path) -> Any:
    """Read a JSON file; a broken one is named."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, UnicodeDecodeError) as error:
        raise MorphobenchError(f"is not valid JSON ({error})", str(path), "Delete it and run again.") from error


def once(path: Path, build: Callable[[], Any]) -> Path:
    """Make a file unless it exists; written whole, so that a file that exists need never be made again.

    Parameters
    ----------
    path : Path
        The file; its name must depend on everything that its content depends on.
    build : callable
        Gives the content: a DataFrame, written as parquet, or any JSON-able value. Not called where the file exists.

    Returns
    -------
    Path
        The same path.
    """
    if not path.exists():
        content = build()
        if hasattr(content, "to_parquet"):
            write_parquet(path, content)
        else:
            write_json(path, content)
    return path


def write_parquet(path: Path, table: pd.DataFrame) -> None:
    """Write a table as parquet (zstd), whole or not at all."""
    with whole(path) as tmp:
        table.to_parquet(tmp, index=False, compression="zstd")


def digest(value: Any, length: int = 16) -> str:
    """Hash of a JSON-able value; equal values give equal hashes on every machine."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:length]


def sha256_file(path: Path) -> str:
    """SHA-256 of a file's bytes, as 64 hexadecimal digits."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def safe_name(text: str) -> str:
    """A file name for any text (compound names hold slashes): readable, unique, never a path."""
    slug = re.sub(r"[^A-Za-z0-9]+", "-", text).strip("-").lower()[:40]
    return f"{slug or 'x'}-{hashlib.sha256(text.encode()).hexdigest()[:6]}"


def usable(path: Path, where: str = "") -> Path:
    """The same path, where the system can look it up at all, whether or not anything is there.

    Raises
    ------
    MorphobenchError
        It is too long, holds a NUL, goes round in a loop of links, or may not be looked at.
    """
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        pass
    except (OSError, ValueError) as error:
        name = where or str(path)
        shown = name if len(name) <= LONGEST_SHOWN else f"{name[:LONGEST_SHOWN]}…"
        why = getattr(error, "strerror", None) or error
        raise MorphobenchError(f"is no path that can be used ({why})", shown, "Correct it.") from error
    return path


def inside(root: Path, relative: str) -> Path:
    """``root / relative``, refusing any path that leaves ``root`` (absolute, ``..`` or a link)."""
    try:
        path = (root / relative).resolve()
    except (OSError, RuntimeError, ValueError) as error:  # links in a circle, a NUL
        raise MorphobenchError("cannot be followed: its links lead in a circle, or its name is none", relative,
                               f"Files must lie below {root}.") from error
    if not path.is_relative_to(root.resolve()):
        raise MorphobenchError("leads out of the assay's folder", relative, f"Files must lie below {root}.")
    return path
