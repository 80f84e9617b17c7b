"""Everything wrong with an assay's image files, listed together, and the hash that names their content."""

from __future__ import annotations

import hashlib
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import pandas as pd

from benchmark.assays.fieldtable import Assay, row_name
from benchmark.base.errors import Fault, MorphobenchError
from benchmark.base.files import digest, inside, read_json, sha256_file, write_json
from benchmark.base.tables import PLATE, WELL, path_column, plane_column
from benchmark.base.tasks import progress_bar
from benchmark.images.reading import read_planes

A = TypeVar("A")
B = TypeVar("B")
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class _Plane:
    """What the check keeps of a decoded plane: never the pixels."""

    shape: tuple[int, int]
    dtype: str
    low: int
    high: int
    sha: str


def _threaded(function: Callable[[A], B], items: list[A], workers: int, label: str,
              progress: Progress | None) -> Iterator[B]:
    """``map`` over threads, in order, with a progress bar or a callback (done, total).

    Decoders and hashes release the interpreter's lock, so threads are enough here.
    """
    shown = label if progress is None else ""
    with ThreadPoolExecutor(max(1, workers)) as pool, progress_bar(shown, len(items)) as bar:
        for done, result in enumerate(pool.map(function, items), 1):
            if progress is None:
                bar()
            else:
                progress(done, len(items))
            yield result


def _files(assay: Assay) -> list[str]:
    """Distinct files of an assay, relative to its root, sorted."""
    return sorted({str(f) for c in assay.channels for f in assay.fields[path_column(c)]})


def file_hashes(assay: Assay, workers: int = 2, progress: Progress | None = None,
                known: Path | None = None) -> dict[str, str]:
    """SHA-256 of every image file's bytes.

    Parameters
    ----------
    assay : Assay
        Whose files.
    known : Path, optional
        A JSON file with the hashes of an earlier call, written again where it lacks some. A file's hash is taken from
        it where size and time of change are still the same (as Git's index does): 100 GB are not read at each start.
    workers : int
        Threads.
    progress : callable, optional
        Called with (done, total); by default a bar is shown on terminals.

    Returns
    -------
    dict
        Path relative to the root → 64 hexadecimal digits, each distinct file once, sorted by path.

    Raises
    ------
    MorphobenchError
        A file is missing, cannot be read or is outside the root.
    """
    names = _files(assay)
    places = {name: inside(assay.root, name) for name in names}
    before = _known_hashes(known, assay.root)
    stamps = {name: _stamp(path) for name, path in places.items()}
    hashes = {n: before[n][2] for n in names if n in before and before[n][:2] == stamps[n]}

    def one(name: str) -> str:
        try:
            return sha256_file(places[name])
        except OSError as error:
            raise MorphobenchError(f"cannot be read ({error.strerror})", str(places[name]),
                                   "`morphobench assay check` lists every missing file.") from error

    new = [n for n in names if n not in hashes]
    hashes |= dict(zip(new, _threaded(one, new, workers, "Hashing images", progress), strict=True))
    if known is not None and new:
        # A file changed in the last moments may change again within the same tick of its clock: not remembered.
        recent = time.time_ns() - 2 * 10**9
        kept = {n: [*stamps[n], hashes[n]] for n in names if stamps[n][1] < recent}
        write_json(known, {"root": str(assay.root.resolve()), "files": kept})
    return {n: hashes[n] for n in names}


def _stamp(path: Path) -> tuple[int, int]:
    """Size and time of change (ns) of a file; (-1, -1) where it cannot be read."""
    try:
        status = path.stat()
    except OSError:
        return -1, -1
    return status.st_size, status.st_mtime_ns


def _known_hashes(known: Path | None, root: Path) -> dict[str, tuple[int, int, str]]:
    """Size, time of change and hash of files of this root, as an earlier call wrote them."""
    if known is None or not known.exists():
        return {}
    raw = read_json(known)
    if raw.get("root") != str(root.resolve()):
        return {}
    return {name: (int(size), int(changed), str(sha)) for name, (size, changed, sha) in raw["files"].items()}


def assay_hash(assay: Assay, hashes: dict[str, str]) -> str:
    """Name of an assay's content: channels, the whole field table, what is scored, and the bytes of every file.

    Two runs are comparable only where this is equal. It does not depend on where the root is nor on
    the assay's name.

    Parameters
    ----------
    assay : Assay
        The assay.
    hashes : dict
        From `file_hashes`.

    Returns
    -------
    str
        64 hexadecimal digits.

    Raises
    ------
    MorphobenchError
        A file of the assay is not in ``hashes``.
    """
    lacking = [f for f in _files(assay) if f not in hashes]
    if lacking:
        raise MorphobenchError(f"{len(lacking)} file(s) of the assay have no hash, {lacking[0]} the first", assay.name)
    fields = assay.fields
    # Values as repr'd Python scalars: 1.0 and "1" differ, while NumPy's and pandas' own types do not show.
    rows = [[repr(v.item() if isinstance(v, np.generic) else v) for v in row]
            for row in fields.itertuples(index=False, name=None)]
    return digest({"channels": list(assay.channels), "columns": list(fields.columns), "rows": rows,
                   "scoring": assay.scoring, "features": assay.features_hash,
                   "files": {f: hashes[f] for f in _files(assay)}}, 64)


def image_faults(assay: Assay, workers: int = 2, progress: Progress | None = None) -> list[Fault]:
    """Everything wrong with the images of an assay; every plane in use is decoded whole.

    Looked for: files missing, unreadable, truncated or outside the root; planes that a file does not
    have; sizes and depths that differ from those of most fields; constant planes; and the same picture
    in two fields, which leaks from training to test when the wells differ.

    Parameters
    ----------
    assay : Assay
        The assay to check.
    workers : int
        Threads.
    progress : callable, optional
        Called with (done, total); by default a bar is shown on terminals.

    Returns
    -------
    list of Fault
        Files that cannot be read first, each kind in the order of the field table; empty for sound images.
    """
    return list(check_images(assay, workers, progress).faults)


@dataclass(frozen=True)
class _Found:
    """A fault of one plane of a file, and the (row position, channel) that use the plane."""

    fault: Fault
    name: str
    rows: list[tuple[int, str]]

    def of(self, assay: Assay, rows: list[tuple[int, str]]) -> Fault:
        """The fault as some of its users see it."""
        return Fault(self.fault.what, f"{_who(assay, rows)}, {self.name}", self.fault.remedy)


@dataclass(frozen=True)
class ImageFaults:
    """Faults of an assay's images.

    Attributes
    ----------
    faults : tuple of Fault
        All of them.
    of_fields : mapping
        Position in the field table → the faults that concern that field alone: a plane that is missing, truncated,
        unreadable, constant, or of another size or depth than most.
    of_table : tuple of Fault
        The others: what the table says of several fields cannot all be true (the same picture twice).
    """

    faults: tuple[Fault, ...]
    of_fields: Mapping[int, tuple[Fault, ...]]
    of_table: tuple[Fault, ...]


def check_images(assay: Assay, workers: int = 2, progress: Progress | None = None) -> ImageFaults:
    """The same as `image_faults`, with which field each fault concerns."""
    users = _users(assay)
    names = list(users)
    read = _threaded(lambda name: _look(assay.root, name, sorted(users[name])), names, workers, "Checking images",
                     progress)
    planes: dict[tuple[str, int], _Plane] = {}
    faulty: list[_Found] = []
    for name, result in zip(names, read, strict=True):
        for plane, seen in result.items():
            if isinstance(seen, Fault):
                faulty.append(_Found(seen, name, users[name][plane]))
            else:
                planes[name, plane] = seen
    faulty += _odd_planes(planes, users)
    of_table = _shared_pictures(assay, planes, users)
    of_fields: dict[int, list[Fault]] = defaultdict(list)
    for one in faulty:
        for row in one.rows:
            of_fields[row[0]].append(one.of(assay, [row]))
    return ImageFaults(tuple([*(one.of(assay, one.rows) for one in faulty), *of_table]),
                       {i: tuple(faults) for i, faults in sorted(of_fields.items())}, tuple(of_table))


def _users(assay: Assay) -> dict[str, dict[int, list[tuple[int, str]]]]:
    """File → plane → the (row position, channel) that use it."""
    users: dict[str, dict[int, list[tuple[int, str]]]] = defaultdict(lambda: defaultdict(list))
    for channel in assay.channels:
        pairs = zip(assay.fields[path_column(channel)], assay.fields[plane_column(channel)], strict=True)
        for i, (name, plane) in enumerate(pairs):
            users[str(name)][int(plane)].append((i, channel))
    return {name: dict(by_plane) for name, by_plane in users.items()}


def _who(assay: Assay, rows: list[tuple[int, str]]) -> str:
    """Row, plate, well, site and channel of the first user of a plane, and how many more there are."""
    i, channel = rows[0]
    more = f" and {len(rows) - 1} more" if len(rows) > 1 else ""
    return f"{row_name(assay.fields.iloc[i])}, {channel}{more}"


def _look(root: Path, name: str, planes: list[int]) -> dict[int, _Plane | Fault]:
    """Decode the planes of one file; an error becomes the fault of the plane (or planes) it concerns."""
    try:
        path = inside(root, name)
        pixels = read_planes(path, planes)
    except MorphobenchError as error:
        if len(planes) == 1:
            return {planes[0]: error.fault}
        return {k: v for p in planes for k, v in _look(root, name, [p]).items()}
    return {plane: _Plane(p.shape, p.dtype.name, int(p.min()), int(p.max()), hashlib.sha256(p.tobytes()).hexdigest())
            for plane, p in zip(planes, pixels, strict=True)}


def _odd_planes(planes: dict[tuple[str, int], _Plane], users: dict[str, dict[int, list[tuple[int, str]]]]
                ) -> list[_Found]:
    """Planes that are constant, or of another size or depth than most."""
    if not planes:
        return []
    shape = Counter(p.shape for p in planes.values()).most_common(1)[0][0]
    dtype = Counter(p.dtype for p in planes.values()).most_common(1)[0][0]
    faulty = []
    for (name, plane), seen in planes.items():
        faults = []
        if seen.shape != shape:
            faults.append(Fault(f"is {seen.shape[1]}×{seen.shape[0]} pixels, where most are {shape[1]}×{shape[0]}",
                                remedy="All fields of an assay must have one size."))
        if seen.dtype != dtype:
            faults.append(Fault(f"is {seen.dtype}, where most are {dtype}",
                                remedy="All fields of an assay must have one depth."))
        if seen.low == seen.high:
            faults.append(Fault(f"is constant: every pixel is {seen.low}",
                                remedy="Check that `plane` names the right channel, or leave the field out."))
        faulty += [_Found(fault, name, users[name][plane]) for fault in faults]
    return faulty


def _shared_pictures(assay: Assay, planes: dict[tuple[str, int], _Plane],
                     users: dict[str, dict[int, list[tuple[int, str]]]]) -> list[Fault]:
    """The same pixels in two fields: a leak across wells, a duplicated field within a well.

    Constant planes are left to `_odd_planes`. One fault a pair of fields, with all its channels.
    """
    by_sha: dict[str, list[tuple[int, str]]] = defaultdict(list)
    for (name, plane), seen in planes.items():
        if seen.low != seen.high:
            by_sha[seen.sha] += users[name][plane]
    pairs: dict[tuple[int, int], list[str]] = defaultdict(list)
    for rows in by_sha.values():
        first = min(rows)
        for i, channel in sorted(rows)[1:]:
            pairs[first[0], i].append(channel)
    return [_pair_fault(assay.fields, i, j, sorted(set(channels))) for (i, j), channels in sorted(pairs.items())]


def _pair_fault(fields: pd.DataFrame, i: int, j: int, channels: list[str]) -> Fault:
    one, other = fields.iloc[i], fields.iloc[j]
    where = f"{row_name(other)}, {' and '.join(channels)}"
    if i == j:
        return Fault("two channels of the field hold the same picture", where,
                     "Check `file` and `plane` of the channels in the study.")
    what = f"the same picture as {row_name(one)}"
    if (one[PLATE], one[WELL]) == (other[PLATE], other[WELL]):
        return Fault(f"{what}, of the same well", where, "Remove one of the two fields.")
    return Fault(f"{what}, another well: it would leak from training to test", where,
                 "Find out which well it belongs to, and correct the table or the file.")
