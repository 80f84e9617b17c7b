"""Fetching a collection: what is still missing of its tables and archives, into one folder with a lock file."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import pooch

from benchmark.assays.columns import read_text_table
from benchmark.assays.fetching.archives import (
    ARCHIVES,
    UNPACKING,
    WRONG_ADDRESS,
    Job,
    changed,
    disk_errors,
    fetch_archives,
    retrieve,
)
from benchmark.assays.fetching.collections import (
    Archive,
    archives_of,
    base_address,
    find_collection,
    plate_archives,
    refuse_package,
)
from benchmark.assays.fetching.download import Patience
from benchmark.assays.fetching.lock import LOCK_NAME, LockBook, LockedArchive, LockedFile, unsound_files
from benchmark.assays.fetching.unpack import wanted
from benchmark.base.errors import Fault, FaultsError, MorphobenchError
from benchmark.base.files import sha256_file
from benchmark.base.tasks import progress_bar

LARGEST_TABLE = 1 << 28
PATIENCE = Patience()


def fetch_assay(name: str, folder: Path, *, plates: Sequence[str] = (), base_url: str | None = None, jobs: int = 4,
                keep_archives: bool = False, patience: Patience = PATIENCE) -> Path:
    """Bring a collection from its server, or what is still missing of it.

    What was fetched whole is never fetched again. May be killed at any moment: archives that are finished stay,
    one under way is resumed by the next call. Folders of images that lie there without ever having been fetched
    are taken as they are, if complete, and locked.

    Parameters
    ----------
    name : str
        ``bbbc021``, ``bbbc014`` or ``bbbc013``.
    folder : Path
        Data folder; everything lands in ``folder / name``.
    plates : sequence of str
        Plates wanted (``Week1_22123``); all where empty.
    base_url : str, optional
        Another server; by default ``MORPHOBENCH_BBBC_URL``, else the Broad's.
    jobs : int
        Archives fetched in parallel.
    keep_archives : bool
        Keep the zip files, in ``archives/``.
    patience : Patience
        Time limits and tries.

    Returns
    -------
    Path
        The lock file.

    Raises
    ------
    MorphobenchError, FaultsError
        Whatever hinders: unknown name or plate, a folder inside the package, no network, no room, an address that
        does not exist, an archive that is damaged, unsafe or not the one that was locked. Archives that can be fetched
        are.
    """
    collection = find_collection(name)
    refuse_package(folder)
    root = folder.expanduser().absolute() / collection.name
    base = base_address(base_url)
    pooch.get_logger().setLevel("WARNING")  # it would print hashes that the lock file has
    with disk_errors(root), _alone(root):
        _sweep(root)
        book = LockBook(root / LOCK_NAME, collection.name)
        job = Job(collection, root, base, book, patience, keep_archives)
        try:
            for remote in collection.tables:
                _fetch_table(job, remote)
            archives = archives_of(collection, root, plates)
            _adopt_all(job, archives)
            fetch_archives(job, [a for a in archives if not _finished(job, a)], max(1, jobs))
        finally:
            with suppress(OSError):  # not empty: kept archives, or parts that the next try continues
                (root / ARCHIVES).rmdir()
    for note in job.notes:
        print(note, file=sys.stderr)
    return root / LOCK_NAME


@contextmanager
def _alone(root: Path) -> Iterator[None]:
    """Hold a folder against a second fetch; the lock of a killed one is released by the system."""
    root.mkdir(parents=True, exist_ok=True)
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    with (root / ".fetching").open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise MorphobenchError("another fetch is at work here", str(root), "Wait until it has ended.") from error
        except OSError:
            pass  # a network disk that cannot lock
        yield


def _sweep(root: Path) -> None:
    """Remove what a killed fetch left under temporary names (parts stay: they are resumed)."""
    for folder in root.glob(f"{UNPACKING}*"):
        shutil.rmtree(folder)
    for left in [*(root / ARCHIVES).glob("tmp*"), *(root / ARCHIVES).glob(".*.tmp.json"),
                 *root.glob(".lock.json.*.tmp.json")]:
        left.unlink()


def _fetch_table(job: Job, remote: str) -> None:
    """Bring a CSV or platemap file to the top of the folder, or adopt the one that is there."""
    name = remote.rsplit("/", 1)[-1]
    path, locked = job.root / name, job.book.get(name)
    if locked and not unsound_files(job.root, locked):
        return
    if not locked and path.exists():
        _judge_table(job, path)
        job.book.record(name, LockedArchive(files={name: _locked_file(path)}))
        return
    got = retrieve(job, remote, LARGEST_TABLE)
    try:
        _judge_table(job, got)
    except MorphobenchError:
        got.unlink()
        raise
    file = _locked_file(got)
    if locked and locked.files.get(name) != file:
        got.unlink()
        raise changed(job, remote, "has another SHA-256", path)
    job.book.record(name, LockedArchive(url=job.url(remote), **file.model_dump(), files={name: file}))
    got.replace(path)


def _judge_table(job: Job, path: Path) -> None:
    """Before locking, refuse what is not a table: a page of HTML, a truncated CSV file, or one without plates."""
    if path.read_bytes().removeprefix(b"\xef\xbb\xbf").lstrip()[:1] in (b"", b"<"):
        raise MorphobenchError("is no table (empty, or a page of HTML)", path.name, WRONG_ADDRESS)
    if path.name == job.collection.plate_table:
        plate_archives(path)
    elif path.suffix.lower() == ".csv":
        read_text_table(path)


def _locked_file(path: Path) -> LockedFile:
    return LockedFile(size=path.stat().st_size, sha256=sha256_file(path))


def _finished(job: Job, archive: Archive) -> bool:
    locked = job.book.get(archive.name)
    return locked is not None and not unsound_files(job.root, locked)


def _adopt_all(job: Job, archives: Sequence[Archive]) -> None:
    """Lock folders of images that no fetch put there; an incomplete folder is left alone and reported."""
    complete: list[tuple[Archive, list[Path]]] = []
    faults = []
    for archive in archives:
        folder = job.root / archive.folder
        if job.book.get(archive.name) is not None:
            continue
        nested = job.root / archive.folder.split("_")[0] / archive.folder
        if not folder.exists() and nested.is_dir():
            faults.append(Fault("is there already, in the layout of the image table, in which it is used but not "
                                "fetched nor locked", str(nested), f"Move it to {folder} to have it locked."))
            continue
        files = sorted(f for f in folder.rglob("*") if f.is_file() and wanted(f.relative_to(folder)))
        if not files:
            continue
        have = {f.name.lower() for f in files}
        lacking = len(archive.names - have) if archive.names else archive.images - len(have)
        if lacking > 0:
            faults.append(Fault(f"is there already, no fetch put it there, and it lacks {lacking} of "
                                f"{archive.images} images", str(folder), "Move it away to have it fetched."))
        complete.append((archive, files))
    if faults:
        raise FaultsError(faults, "Nothing was fetched, because of folders that are there already:", 60)
    with progress_bar("Hashing images that are there already", len(complete)) as advance:
        for archive, files in complete:
            job.book.record(archive.name, LockedArchive(
                files={f.relative_to(job.root).as_posix(): _locked_file(f) for f in files}))
            advance()
