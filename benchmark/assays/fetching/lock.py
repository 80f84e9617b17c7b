"""The lock file: size and SHA-256 of every archive that was fetched, and of every file inside.

No checksums of these archives are published, so the first fetch trusts what it gets and writes them down;
every later use is checked against that.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from benchmark.base.errors import Fault, MorphobenchError
from benchmark.base.files import digest, inside, sha256_file, write_json

LOCK_NAME = "lock.json"


class LockedFile(BaseModel):
    """A file: bytes, and SHA-256 as 64 hexadecimal digits."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    size: int = Field(ge=0)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


class LockedArchive(BaseModel):
    """An archive (or a table, which is its own only file), and what is on disk of it.

    Attributes
    ----------
    url : str
        Where it came from; empty where its files were there already and no archive was fetched.
    size, sha256
        Of the archive; None and empty in that case.
    files : dict
        Path relative to the lock file's folder → file.
    skipped : int
        Members that were left in the archive (no images).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    url: str = ""
    size: int | None = Field(default=None, ge=0)
    sha256: str = Field(default="", pattern=r"^([0-9a-f]{64})?$")
    files: dict[str, LockedFile]
    skipped: int = Field(default=0, ge=0)


class Lock(BaseModel):
    """A whole lock file."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    version: Literal[1] = 1
    collection: str
    archives: dict[str, LockedArchive] = {}

    @property
    def files(self) -> dict[str, LockedFile]:
        """All locked files by path."""
        return {path: f for archive in self.archives.values() for path, f in archive.files.items()}


def read_lock(path: Path) -> Lock:
    """Read a lock file.

    Raises
    ------
    MorphobenchError
        It is missing, or is none.
    """
    try:
        return Lock.model_validate_json(path.read_bytes())
    except FileNotFoundError as error:
        raise MorphobenchError("is missing", str(path), "`morphobench assay fetch` writes it.") from error
    except ValidationError as error:
        first = error.errors()[0]
        raise MorphobenchError(f"is no lock file of fetched data ({first['msg']})", str(path),
                               "Restore it, or delete it: the next fetch then trusts the files as they lie.") from error


class LockBook:
    """A lock file that grows archive by archive, from several threads; on disk it is whole at any moment."""

    def __init__(self, path: Path, collection: str) -> None:
        self.path = path
        self._mutex = threading.Lock()
        self._lock = read_lock(path) if path.exists() else Lock(collection=collection)
        if self._lock.collection != collection:
            raise MorphobenchError(f"is the lock file of {self._lock.collection}, not of {collection}", str(path),
                                   "Fetch into another folder.")

    def get(self, archive: str) -> LockedArchive | None:
        """What is locked of an archive, if anything."""
        return self._lock.archives.get(archive)

    def record(self, archive: str, entry: LockedArchive) -> None:
        """Lock an archive, and write the file."""
        with self._mutex:
            self._lock = self._lock.model_copy(update={"archives": {**self._lock.archives, archive: entry}})
            write_json(self.path, self._lock.model_dump())


def unsound_files(root: Path, entry: LockedArchive) -> list[str]:
    """Files of an archive that are missing on disk or have another size: a look, not a proof.

    Parameters
    ----------
    root : Path
        The lock file's folder.
    entry : LockedArchive
        What should be there.
    """
    def sound(path: str, locked: LockedFile) -> bool:
        try:
            return inside(root, path).stat().st_size == locked.size
        except OSError:
            return False

    return [path for path, locked in entry.files.items() if not sound(path, locked)]


def lock_faults(lock: Path, root: Path, hashes: Mapping[str, str]) -> list[Fault]:
    """Compare an assay's files with the lock file.

    Parameters
    ----------
    lock : Path
        Lock file; its folder is what the paths in it are relative to.
    root : Path
        What the paths in ``hashes`` are relative to: that folder, or one below it.
    hashes : mapping
        Path → SHA-256, as `benchmark.quality.check.file_hashes` gives. May be a part of the files.

    Returns
    -------
    list of Fault
        Files that changed since they were fetched (the collection's tables beside the lock file among them), and
        files that the lock does not know.

    Raises
    ------
    MorphobenchError
        The lock file is missing or is none.
    """
    locked = read_lock(lock).files
    base, top = str(lock.parent.resolve()), str(root.resolve())
    # Tables are beside the lock file; they say what is in each well, so they must be those of the images.
    tables = [name for name in locked if "/" not in name and (lock.parent / name).is_file()]
    actual = {name: (name, sha256_file(lock.parent / name)) for name in tables}
    actual |= {os.path.relpath(f"{top}/{path}", base).replace(os.sep, "/"): (path, sha) for path, sha in hashes.items()}
    faults = []
    for place, (path, sha) in actual.items():
        known = locked.get(place)
        if known is None:
            faults.append(Fault(f"is not in {lock.name}: it was not fetched with the rest", path,
                                "Remove it, or fetch its plate with `morphobench assay fetch`."))
        elif known.sha256 != sha:
            faults.append(Fault(f"changed since it was fetched (SHA-256 {sha[:12]}…, {lock.name} has "
                                f"{known.sha256[:12]}…)", path,
                                "Delete the file and run `morphobench assay fetch` again."))
    return faults


def lock_hash(lock: Path) -> str:
    """SHA-256 of what a lock file says: names, sizes and hashes, whatever their order and whichever the server.

    Returns
    -------
    str
        64 hexadecimal digits; goes into a study's record.

    Raises
    ------
    MorphobenchError
        The lock file is missing or is none.
    """
    content = read_lock(lock)
    return digest({"collection": content.collection,
                   "archives": {name: [a.size, a.sha256, {p: [f.size, f.sha256] for p, f in a.files.items()}]
                                for name, a in content.archives.items()}}, 64)
