"""Everything wrong with an assay's image files, listed together, and the hash that names their content."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import pandas as pd

from benchmark.assays.fieldtable import Assay, row_name
from benchmark.assays.places import several
from benchmark.base.errors import Fault, MorphobenchError
from benchmark.base.files import digest, inside, read_json, sha256_file, write_json
from benchmark.base.tables import PLATE, WELL, path_column, plane_column
from benchmark.base.tasks import progress_bar
from benchmark.images.reading import look_into
from benchmark.quality.found import Found, one_fault_a_cause
from benchmark.quality.missing import Surroundings
from benchmark.quality.planes import Plane, Users, odd_planes, plane_of, several_planes

A = TypeVar("A")
B = TypeVar("B")
Progress = Callable[[int, int], None]


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
    """Everything wrong with the images of an assay, one fault for each cause; every plane in use is decoded whole.

    Looked for: files missing (and why), unreadable, truncated or outside the root; planes that a file does not
    have, or that it has beside others where the study does not say which; sizes and depths that differ from those of
    most fields; constant planes; and the same picture in two fields, which leaks from training to test when the wells
    differ.

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
class ImageFaults:
    """Faults of an assay's images.

    Attributes
    ----------
    faults : tuple of Fault
        All of them, one for each cause.
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
    around = Surroundings(assay.root)
    read = _threaded(lambda name: _look(assay.root, name, sorted(users[name])), names, workers, "Checking images",
                     progress)
    planes: dict[tuple[str, int], Plane] = {}
    faulty: list[Found] = []
    for name, result in zip(names, read, strict=True):
        for plane, seen in result.items():
            if isinstance(seen, Fault):
                cause, fault = around.why(name) if seen.what == "does not exist" else ("", seen)
                faulty.append(Found(fault, name, users[name][plane], cause))
            else:
                planes[name, plane] = seen
    faulty += odd_planes(assay, planes, users)
    unsaid = several_planes(assay, planes, users)
    of_table = [*unsaid, *_shared_pictures(assay, planes, users, bool(unsaid))]
    of_fields: dict[int, list[Fault]] = defaultdict(list)
    for one in faulty:
        for row in one.rows:
            of_fields[row[0]].append(one.of(assay, [row]))
    return ImageFaults(tuple([*one_fault_a_cause(assay, faulty), *of_table]),
                       {i: tuple(faults) for i, faults in sorted(of_fields.items())}, tuple(of_table))


def _users(assay: Assay) -> dict[str, dict[int, list[tuple[int, str]]]]:
    """File → plane → the (row position, channel) that use it."""
    users: dict[str, dict[int, list[tuple[int, str]]]] = defaultdict(lambda: defaultdict(list))
    for channel in assay.channels:
        pairs = zip(assay.fields[path_column(channel)], assay.fields[plane_column(channel)], strict=True)
        for i, (name, plane) in enumerate(pairs):
            users[str(name)][int(plane)].append((i, channel))
    return {name: dict(by_plane) for name, by_plane in users.items()}


def _look(root: Path, name: str, planes: list[int]) -> dict[int, Plane | Fault]:
    """Decode the planes of one file; an error becomes the fault of the plane (or planes) it concerns."""
    try:
        held, pixels = look_into(inside(root, name), planes)
    except MorphobenchError as error:
        if len(planes) == 1:
            return {planes[0]: error.fault}
        return {k: v for p in planes for k, v in _look(root, name, [p]).items()}
    return {plane: plane_of(p, held) for plane, p in zip(planes, pixels, strict=True)}


def _shared_pictures(assay: Assay, planes: dict[tuple[str, int], Plane], users: Users, between: bool) -> list[Fault]:
    """The same pixels in two fields: a leak across wells, a duplicated field within a well; one fault for each kind.

    Constant planes are left to `odd_planes`, rows that name the very planes of an earlier row to the faults of the
    table. With ``between``, only pictures of two fields are told: which plane a
    channel is has not been said.
    """
    by_sha: dict[str, list[tuple[int, str]]] = defaultdict(list)
    for (name, plane), seen in planes.items():
        if seen.low != seen.high:
            by_sha[seen.sha] += users[name][plane]
    if not by_sha:
        return []
    files = [column for channel in assay.channels for column in (path_column(channel), plane_column(channel))]
    again = assay.fields.duplicated(files).to_numpy()
    pairs: dict[tuple[int, int], list[str]] = defaultdict(list)
    for rows in by_sha.values():
        first = min(rows)
        for i, channel in sorted(rows)[1:]:
            if again[i]:
                continue
            pairs[first[0], i].append(channel)
    kinds: dict[str, list[Fault]] = defaultdict(list)
    for (i, j), channels in sorted(pairs.items()):
        if i != j or not between:
            fault = _pair_fault(assay.fields, i, j, sorted(set(channels)))
            kinds[fault.remedy].append(fault)
    return [_first_of(same) for same in kinds.values()]


def _first_of(same: list[Fault]) -> Fault:
    """Faults of one kind as one: the first in full, where the next are, and how many."""
    if len(same) == 1:
        return same[0]
    where = several([fault.where for fault in same])
    of_first = "" if all(fault.what == same[0].what for fault in same) else " (the first of them)"
    return Fault(f"{same[0].what}{of_first}", f"{len(same)} fields: {where}", same[0].remedy)


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
