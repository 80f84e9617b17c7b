"""Unpacking archives from the network: only images, only below one folder, only of plausible size.

In place of `pooch.Unzip`, which limits neither names of members nor sizes, and does not hash what it writes.
"""

from __future__ import annotations

import hashlib
import lzma
import os
import re
import shutil
import stat
import struct
import unicodedata
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath, PurePosixPath

from rich.filesize import decimal

from benchmark.base.errors import MorphobenchError

#: Everything else (Thumbs.db, .DS_Store, __MACOSX/…) stays in the archive.
SUFFIXES = frozenset({".tif", ".tiff", ".bmp", ".png", ".csv", ".txt"})
CHUNK = 1 << 20
ENCRYPTED = 0x1
#: Separators and drives of Windows, and control characters, have no place in a member's name.
BAD_CHARACTERS = re.compile(r"[\\:\x00-\x1f\x7f]")
DISTRUST = "Do not use this archive; fetch it from the Broad's own server."
#: What zipfile and the decompressors raise on damaged bytes.
DAMAGE = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error, EOFError, OSError, ValueError, OverflowError,
          NotImplementedError, RuntimeError)


@dataclass(frozen=True)
class Limits:
    """What an archive may hold at most. Real plates: 720 files of 2.6 MB, packed to half.

    Attributes
    ----------
    members : int
        Entries.
    member, total : int
        Bytes of one file, and of all.
    ratio : float
        Unpacked bytes a packed byte, over the whole archive.
    """

    members: int = 20_000
    member: int = 1 << 29
    total: int = 1 << 34
    ratio: float = 100.0


@dataclass(frozen=True)
class Unpacked:
    """What an archive held: relative path → (size in bytes, SHA-256); and how many files were left inside."""

    files: dict[str, tuple[int, str]] = field(default_factory=dict)
    skipped: int = 0


class NoRoomError(MorphobenchError):
    """The disk is too small. No fault of the archive."""


LIMITS = Limits()


def unpack(archive: Path, folder: Path, limits: Limits = LIMITS,
           between: Callable[[], None] = lambda: None) -> Unpacked:
    """Unpack the images of a zip archive into an empty folder.

    Nothing is written before the whole directory of the archive has been judged. Folders that all files
    share are stripped, so that an archive with a folder and one without give the same result.

    Parameters
    ----------
    archive : Path
        Zip file, not trusted.
    folder : Path
        To be made; what lay there under that name is removed.
    limits : Limits
        Most members, bytes and expansion.
    between : callable
        Called between pieces of about a megabyte; may raise to stop the work.

    Returns
    -------
    Unpacked
        Files with sizes and hashes, taken while writing.

    Raises
    ------
    MorphobenchError
        Not a zip, truncated, damaged (the member is named), encrypted, a name that leads out of the folder,
        a link, a device, two members of one name, too large, or without images.
    NoRoomError
        The disk is too small.
    """
    if folder.exists():
        shutil.rmtree(folder)
    try:
        opened = zipfile.ZipFile(archive)
    except FileNotFoundError:
        raise
    except DAMAGE as error:
        raise _damaged(archive.name, str(error)) from error
    with opened:
        chosen, skipped = plan(opened.infolist(), archive.stat().st_size, limits, archive.name)
        _check_room(folder.parent, sum(info.file_size for info, _ in chosen), archive.name)
        files: dict[str, tuple[int, str]] = {}
        for info, path in chosen:
            target = folder / path
            target.parent.mkdir(parents=True, exist_ok=True)
            files[path.as_posix()] = _write(_chunks(opened, info, archive.name), target, between)
    return Unpacked(files, skipped)


def plan(members: Sequence[zipfile.ZipInfo], packed: int, limits: Limits,
         where: str = "") -> tuple[list[tuple[zipfile.ZipInfo, PurePosixPath]], int]:
    """Judge the directory of an archive: which members are unpacked, and to which relative paths.

    Parameters
    ----------
    members : sequence of ZipInfo
        All entries.
    packed : int
        Bytes of the archive.
    limits : Limits
        Most members, bytes and expansion.
    where : str
        Name of the archive, for errors.

    Returns
    -------
    list of (ZipInfo, PurePosixPath)
        Distinct paths (upper and lower case not told apart), none absolute, none with ``..``.
    int
        Files left in the archive.

    Raises
    ------
    MorphobenchError
        Anything unsafe or absurd, also in members that would not be unpacked; or no member would be.
    """
    if len(members) > limits.members:
        raise MorphobenchError(f"holds {len(members)} members; at most {limits.members} are accepted", where, DISTRUST)
    total = sum(info.file_size for info in members)
    if total > limits.total or total > limits.ratio * max(packed, 1):
        raise MorphobenchError(f"would unpack from {packed} to {total} bytes; at most {limits.ratio:g} times as much "
                               f"and {limits.total} bytes are accepted", where, DISTRUST)
    paths = [(info, _safe_path(info, limits, where)) for info in members]
    files = [(info, path) for info, path in paths if not info.is_dir()]
    kept = [(info, path) for info, path in files if wanted(path)]
    if not kept:
        raise MorphobenchError("holds no image", where, "It is not the archive it should be: check the address.")
    kept = _without_shared_folder(kept)
    _distinct([path for _, path in files], where)
    return kept, len(files) - len(kept)


def _safe_path(info: zipfile.ZipInfo, limits: Limits, where: str) -> PurePosixPath:
    """The member's path, refused when unsafe. ``orig_filename`` is as stored: zipfile cuts names at a NUL."""
    name = info.orig_filename
    here = f"{where}, member {name!r}"
    parts = name.removesuffix("/").split("/")
    too_long = max(len(p.encode()) for p in parts) > 240
    if too_long or BAD_CHARACTERS.search(name) or any(p in ("", ".", "..") for p in parts):
        raise MorphobenchError("is a name that could lead out of the folder", here, DISTRUST)
    kind = stat.S_IFMT(info.external_attr >> 16)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise MorphobenchError("is a link or a special file", here, DISTRUST)
    if info.flag_bits & ENCRYPTED:
        raise MorphobenchError("is encrypted", here, DISTRUST)
    if info.file_size > limits.member:
        raise MorphobenchError(f"would unpack to {info.file_size} bytes; at most {limits.member} are accepted", here,
                               DISTRUST)
    return PurePosixPath(*parts)


def wanted(path: PurePath) -> bool:
    """Whether a file is unpacked: an expected suffix, and neither hidden nor of a Mac's shadow folder."""
    return path.suffix.lower() in SUFFIXES and not any(p.startswith(".") or p == "__MACOSX" for p in path.parts)


def _without_shared_folder(
    kept: list[tuple[zipfile.ZipInfo, PurePosixPath]],
) -> list[tuple[zipfile.ZipInfo, PurePosixPath]]:
    while len({path.parts[0] for _, path in kept}) == 1 and all(len(path.parts) > 1 for _, path in kept):
        kept = [(info, PurePosixPath(*path.parts[1:])) for info, path in kept]
    return kept


def _distinct(paths: list[PurePosixPath], where: str) -> None:
    """Refuse two files of one name (as disks see it that ignore case), or a file that is also a folder."""
    def seen_by_disk(path: PurePosixPath) -> str:
        return unicodedata.normalize("NFC", path.as_posix()).casefold()

    names: set[str] = set()
    for path in paths:
        if seen_by_disk(path) in names:
            raise MorphobenchError("is in the archive twice", f"{where}, member {path.as_posix()!r}", DISTRUST)
        names.add(seen_by_disk(path))
    for path in paths:
        for parent in path.parents:
            if seen_by_disk(parent) in names:
                raise MorphobenchError("is both a file and a folder", f"{where}, member {parent.as_posix()!r}",
                                       DISTRUST)


def _check_room(folder: Path, needed: int, where: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise NoRoomError(f"unpacks to {decimal(needed)}, and {decimal(free)} are free in {folder}", where,
                          "Make room and run the same command again.")


def _chunks(opened: zipfile.ZipFile, info: zipfile.ZipInfo, where: str) -> Iterator[bytes]:
    """The bytes of one member; zipfile checks the CRC at the end. Never more than the directory promises."""
    size = 0
    try:
        with opened.open(info) as source:
            while chunk := source.read(CHUNK):
                size += len(chunk)
                if size > info.file_size:
                    raise zipfile.BadZipFile("longer than the archive's directory says")
                yield chunk
        if size != info.file_size:
            raise zipfile.BadZipFile("shorter than the archive's directory says")
    except DAMAGE as error:
        raise _damaged(where, f"{info.filename!r}: {error}") from error


def _write(chunks: Iterator[bytes], target: Path, between: Callable[[], None]) -> tuple[int, str]:
    """Write one file, to the disk; its size and SHA-256."""
    sha, size = hashlib.sha256(), 0
    with target.open("xb") as out:
        for chunk in chunks:
            between()
            out.write(chunk)
            sha.update(chunk)
            size += len(chunk)
        out.flush()
        os.fsync(out.fileno())
    return size, sha.hexdigest()


def _damaged(where: str, why: str) -> MorphobenchError:
    return MorphobenchError(f"is no sound zip archive ({why})", where,
                            "It was damaged on its way, or the server does not send the archive at all.")
