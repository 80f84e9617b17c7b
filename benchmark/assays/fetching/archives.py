"""Archives from a server into their folders: several at once, each checked, unpacked and locked once it has arrived."""

from __future__ import annotations

import shutil
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

import pooch
from rich.console import Console
from rich.filesize import decimal
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from benchmark.assays.fetching.collections import URL_VARIABLE, Archive, Collection
from benchmark.assays.fetching.download import GO_ON, Patience, Resume, StandstillError, Stopped, remote_size
from benchmark.assays.fetching.lock import LockBook, LockedArchive, LockedFile
from benchmark.assays.fetching.unpack import NoRoomError, Unpacked, unpack
from benchmark.base.errors import Fault, FaultsError, MorphobenchError

#: Unpacked bytes a packed byte, rounded up (a BBBC021 plate: 839 MB packed, 1.9 GB unpacked).
UNPACKED = 3.0
ARCHIVES = "archives"
UNPACKING = ".unpacking-"
WRONG_ADDRESS = f"Check the plate's name (`--plates`) and, if set, {URL_VARIABLE}; the collection may have moved."


@dataclass
class Job:
    """What the steps of one fetch share."""

    collection: Collection
    root: Path
    base: str
    book: LockBook
    patience: Patience
    keep: bool
    stop: threading.Event = field(default_factory=threading.Event)
    standstill: threading.Event = field(default_factory=threading.Event)
    sizes: dict[str, int | None] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def url(self, remote: str) -> str:
        """Address of a file on the server."""
        return self.base + quote(remote)

    def target(self, name: str) -> Path:
        """Where an archive is once it has been fetched completely."""
        return self.root / ARCHIVES / name

    def part(self, name: str) -> Path:
        """Where it gathers."""
        return self.root / ARCHIVES / f"{name}.part"

    def between(self) -> None:
        """Called between pieces of work: ends a thread once the fetch was stopped."""
        if self.stop.is_set():
            raise Stopped


def retrieve(job: Job, remote: str, most: int, advance: Callable[[int], None] = lambda n: None) -> Path:
    """Bring one file to ``archives/``, checked against the lock file if it is in there.

    Raises
    ------
    MorphobenchError
        It is another one than was locked, or it cannot be had.
    """
    name, url = remote.rsplit("/", 1)[-1], job.url(remote)
    locked = job.book.get(name)
    if name not in job.sizes:
        job.sizes[name] = remote_size(url, job.patience, job.stop)
    size, target = job.sizes[name], job.target(name)
    if locked and locked.size is not None and size not in (None, locked.size) and not target.exists():
        raise changed(job, remote, f"has another size ({size} bytes)")
    resume = Resume(job.part(name), job.patience, job.stop, advance, size, most, WRONG_ADDRESS)
    known = f"sha256:{locked.sha256}" if locked and locked.sha256 else None
    for last in (False, True):
        try:
            return Path(pooch.retrieve(url, known, name, target.parent, downloader=resume))
        except ValueError as error:  # pooch: the hash differs; it keeps nothing. Damaged on its way, or another file
            if last:
                raise changed(job, remote, "has another SHA-256") from error
    raise AssertionError  # the second round returns or raises


def changed(job: Job, remote: str, how: str, path: Path | None = None) -> MorphobenchError:
    """What to say when the server has another file than was locked; ``path`` is what is on disk of it."""
    there = path or f"what was unpacked of {remote.rsplit('/', 1)[-1]}"
    return MorphobenchError(
        f"is not what was fetched at first: it {how} than {job.book.path} says", job.url(remote),
        f"Another server may have the old one ({URL_VARIABLE}). To accept the new one, delete the lock file and "
        f"{there}.")


def fetch_archives(job: Job, needed: list[Archive], jobs: int) -> None:
    """All archives that are needed, some at once. One that fails does not hold up the others."""
    if not needed:
        return
    with _threads(job, jobs) as pool:
        asked = pool.map(lambda a: remote_size(job.url(a.remote), job.patience, job.stop), needed)
        job.sizes.update(zip((a.name for a in needed), asked, strict=True))
    _check_disk(job, needed, jobs)
    with _byte_bar(job.collection.name, [job.sizes[a.name] for a in needed]) as (advance, done), \
            _threads(job, jobs) as pool:
        count, faults = _gather([pool.submit(_fetch_archive, job, a, advance) for a in needed], done)
    if len(faults) == 1:
        raise MorphobenchError(faults[0].what, faults[0].where, faults[0].remedy)
    if faults:
        raise FaultsError(faults, f"{count} of {len(needed)} archives have come. {GO_ON} "
                                  "What went wrong:", 60)


@contextmanager
def _threads(job: Job, jobs: int) -> Iterator[ThreadPoolExecutor]:
    """A pool that an exception (Ctrl-C among them) ends: threads stop with their next piece, the rest never start."""
    with ThreadPoolExecutor(jobs) as pool:
        try:
            yield pool
        except BaseException:
            job.stop.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _gather(futures: list[Future[None]], done: Callable[[], None]) -> tuple[int, list[Fault]]:
    """Wait for all; how many went well, and what went wrong with others."""
    count, faults = 0, []
    for future in as_completed(futures):
        try:
            future.result()
            count += 1
            done()
        except CancelledError:
            continue
        except MorphobenchError as error:
            faults.append(error.fault)
    return count, faults


def _check_disk(job: Job, needed: list[Archive], jobs: int) -> None:
    """Refuse to start what the disk could not hold.

    Raises
    ------
    MorphobenchError
        With what is needed and what is free.
    """
    packed = sorted((job.sizes[a.name] or 0 for a in needed), reverse=True)
    zips = sum(packed) if job.keep else sum(packed[:jobs])
    here = sum(p.stat().st_size for a in needed for p in (job.part(a.name), job.target(a.name)) if p.exists())
    wanted, free = zips + UNPACKED * sum(packed) - here, shutil.disk_usage(job.root).free
    if wanted > free:
        raise MorphobenchError(
            f"{len(needed)} archive(s) of {decimal(sum(packed))} need about {decimal(int(wanted))} with what comes "
            f"out of them, and {decimal(free)} are free", str(job.root),
            "Make room, choose another data folder, or fetch fewer plates (`--plates`).")


def _fetch_archive(job: Job, archive: Archive, advance: Callable[[int], None]) -> None:
    """Download, unpack beside, lock, move into place: in this order a kill at any moment is mended by the next try."""
    if job.standstill.is_set():
        raise CancelledError
    unpacked_to = job.root / f"{UNPACKING}{archive.folder}"
    try:
        with disk_errors(job.root):
            path, unpacked = _sound_archive(job, archive, unpacked_to, advance)
            job.book.record(archive.name, _entry(job, archive, path, unpacked))
            _land(unpacked_to, job.root / archive.folder, unpacked)
            if not job.keep:
                path.unlink()
    except StandstillError:
        job.standstill.set()  # before this thread takes the next archive
        raise
    finally:
        shutil.rmtree(unpacked_to, ignore_errors=True)


def _sound_archive(job: Job, archive: Archive, folder: Path,
                   advance: Callable[[int], None]) -> tuple[Path, Unpacked]:
    """Download and unpack; an archive that turns out damaged is thrown away and fetched once more."""
    for last in (False, True):
        path = retrieve(job, archive.remote, job.collection.largest, advance)
        try:
            unpacked = unpack(path, folder, between=job.between)
            have = {f.rsplit("/", 1)[-1].lower() for f in unpacked.files}
            lacking = len(archive.names - have) if archive.names else archive.images - len(have)
            if archive.names and not archive.names & have:
                raise MorphobenchError(f"holds none of the {archive.images} images that the table lists for "
                                       f"{archive.folder}", archive.name, WRONG_ADDRESS)
            if lacking > 0 and not archive.names:  # one plate, of no use in part: this is another archive
                raise MorphobenchError(f"holds {len(have)} images, and {job.collection.name} has {archive.images}",
                                       archive.name, WRONG_ADDRESS)
            break
        except NoRoomError:
            raise
        except MorphobenchError as error:
            advance(-path.stat().st_size)
            path.unlink()
            if last:
                fault = error.fault
                raise MorphobenchError(f"{fault.what}; it was fetched twice", f"{job.url(archive.remote)} "
                                       f"({fault.where})", fault.remedy) from error
    if lacking > 0:
        job.notes.append(f"{archive.name} lacks {lacking} of {archive.images} images; they cannot be used.")
    return path, unpacked


def _entry(job: Job, archive: Archive, path: Path, unpacked: Unpacked) -> LockedArchive:
    """What to lock; refused where it contradicts what is locked."""
    files = {f"{archive.folder}/{name}": LockedFile(size=size, sha256=sha)
             for name, (size, sha) in unpacked.files.items()}
    locked = job.book.get(archive.name)
    if locked and locked.files != files:
        odd = sorted(f for f in {*locked.files, *files} if locked.files.get(f) != files.get(f))
        path.unlink()
        raise changed(job, archive.remote, f"holds other files ({len(odd)}, {odd[0]} the first)")
    sha = locked.sha256 if locked and locked.sha256 else pooch.file_hash(str(path))
    return LockedArchive(url=job.url(archive.remote), size=path.stat().st_size, sha256=sha, files=files,
                         skipped=unpacked.skipped)


def _land(source: Path, target: Path, unpacked: Unpacked) -> None:
    """Move a folder into place; where there is one, file by file, so that what the user put there stays."""
    if not target.exists():
        source.rename(target)
        return
    for name in unpacked.files:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).replace(target / name)


@contextmanager
def disk_errors(root: Path) -> Iterator[None]:
    """Disk full, no permission: what the user can mend, and what the other archives would meet too."""
    try:
        yield
    except NoRoomError as error:
        raise StandstillError(error.fault.what, error.fault.where, error.fault.remedy) from error
    except OSError as error:
        raise StandstillError(f"cannot be written ({error.strerror or error})", str(error.filename or root),
                              "Mend that and run the same command again: what has been fetched is kept.") from error


@contextmanager
def _byte_bar(label: str, sizes: Sequence[int | None]) -> Iterator[tuple[Callable[[int], None], Callable[[], None]]]:
    """A bar of bytes on a terminal, one line elsewhere; gives what to call with bytes gained, and per archive done."""
    total = None if None in sizes else sum(s or 0 for s in sizes)
    if not sys.stderr.isatty():
        amount = f", {decimal(total)}" if total else ""
        print(f"Fetching {label}: {len(sizes)} archive(s){amount}", file=sys.stderr, flush=True)
        yield lambda n: None, lambda: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(),
               TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(f"{label}: 0 of {len(sizes)} archives", total=total)
        finished = iter(range(1, len(sizes) + 1))
        yield (lambda n: bar.advance(task, n),
               lambda: bar.update(task, description=f"{label}: {next(finished)} of {len(sizes)} archives"))
