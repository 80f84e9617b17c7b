"""Trouble of the machine, told apart from trouble of the input: full disks, permissions, locks, disks that fail.

A file that cannot be read since its disk or network fails is not damaged, and a field whose measurements found no room
is not at fault. Both would be thrown away for nothing.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from benchmark.base.errors import MorphobenchError

_ROOM = "Make room there, or run in a folder on a larger disk; what was finished is kept."
_DISK = "Try again, and ask who keeps the disk if it stays so. The file itself may be sound: do not delete it."
_LOCKS = "Unset HDF5_USE_FILE_LOCKING, or set it to FALSE. The file itself may be sound: do not delete it."
_PLACE = "Run in a folder that may be written to."
#: Number of a system error → what it means, what can be done.
_MEANING = {
    errno.ENOSPC: ("the disk is full", _ROOM),
    errno.EDQUOT: ("the quota of this disk is used up", _ROOM),
    errno.EFBIG: ("a file became larger than the file system allows", "Run in a folder on another file system."),
    errno.EROFS: ("the file system is read-only", _PLACE),
    errno.EACCES: ("permission is denied", "Change its permissions, or run as the user who owns it."),
    errno.EPERM: ("permission is denied", "Change its permissions, or run as the user who owns it."),
    errno.ENOLCK: ("the file system grants no locks", _LOCKS),
    errno.EIO: ("the disk or its network failed (input/output error)", _DISK),
    errno.ESTALE: ("the network disk was lost (stale file handle)", _DISK),
    errno.ENOTCONN: ("the network disk is not connected", _DISK),
    errno.EMFILE: ("too many files are open", "Use fewer processes (JOBS), or raise the limit (`ulimit -n 4096`)."),
    errno.ENFILE: ("too many files are open on this machine", "Use fewer processes (JOBS)."),
    errno.ENAMETOOLONG: ("the name is too long for the file system", "Use shorter names of folders and files."),
}
#: Folders that are none: a file or a link to nothing stands in their place.
_NO_FOLDER = (errno.ENOTDIR, errno.EEXIST)
#: HDF5 gives the number in words where h5py does not.
_IN_WORDS = re.compile(r"errno = (\d+)")


class MachineError(MorphobenchError):
    """The machine is at fault, neither the input nor a file that was read."""


def trouble_of(error: BaseException, place: Path | str = "") -> MachineError | None:
    """What of the machine an error tells of; None where it may be the file's own fault.

    Parameters
    ----------
    error : exception
        An OSError; HDF5's errors, which may be of another type, among them. That while which it was raised counts too.
    place : Path or str
        File or folder it is about, where the error names none outside it.
    """
    seen: BaseException | None = error
    while seen is not None:
        number = getattr(seen, "errno", None)
        words = _IN_WORDS.search(str(seen))
        if number not in _MEANING and words:
            number = int(words[1])
        if number in (errno.EAGAIN, errno.EWOULDBLOCK) and "lock" in str(seen):
            return MachineError("is locked by another process", str(place), _LOCKS)
        if number in _MEANING:
            return MachineError(_MEANING[number][0], _where(seen, place), _MEANING[number][1])
        seen = seen.__context__
    return None


def _where(error: BaseException, place: Path | str) -> str:
    """The file that an error names, unless it is (a temporary one) in ``place``."""
    name = getattr(error, "filename", None)
    if not isinstance(name, (str, bytes)) or not name:
        return str(place)
    path = Path(os.fsdecode(name))
    return str(place) if place and path.is_relative_to(place) else str(path)


@contextmanager
def blaming_machine(place: Path) -> Iterator[None]:
    """A block whose system errors are the machine's where they are known to be; ``place`` is what they name.

    Raises
    ------
    MachineError
        In the place of an OSError, or of an error of HDF5, that `trouble_of` knows.
    """
    try:
        yield
    except (OSError, RuntimeError, ValueError) as error:
        if trouble := trouble_of(error, place):
            raise trouble from error
        raise


def refuse_unwritable(folder: Path) -> None:
    """Make a folder unless it is there, and make sure that files can be written in it.

    Raises
    ------
    MachineError
        They cannot; it says why.
    """
    probe = folder / f".{secrets.token_hex(8)}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with probe.open("xb") as handle:
            handle.write(bytes(4096))
            handle.flush()
            os.fsync(handle.fileno())
    except OSError as error:
        if error.errno in _NO_FOLDER:
            what = "is a link that leads nowhere" if folder.is_symlink() else "a file stands where a folder is needed"
            where = str(error.filename or folder)
            raise MachineError(what, where, "Move it away, or run in another folder.") from error
        if trouble := trouble_of(error, folder):
            raise trouble from error
        raise
    finally:
        with suppress(OSError):
            probe.unlink()
