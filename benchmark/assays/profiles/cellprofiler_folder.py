"""The CSV files of a folder and below it as exports of ExportToSpreadsheet; none that belongs to one is skipped.

The table of images is a CSV whose name ends in ``Image`` and that has a column ImageNumber; the files beside it that
begin like it (``MyExpt_``) and have ImageNumber and ObjectNumber are its objects. Files of other content (a plate map,
Experiment.csv) are passed over. A plate would be gone without a word if its table of images were passed over too: a
file that looks like a part of an export and cannot be read as one is a fault.
"""

from __future__ import annotations

import csv
import gzip
import os
import re
import zlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmark.assays.columns import open_text
from benchmark.assays.profiles.cellprofiler_csv import csv_image, csv_objects, holds_objects
from benchmark.assays.profiles.cellprofiler_tables import AGAIN, Export
from benchmark.base.errors import Fault, FaultsError
from benchmark.cells.objects import IMAGE_NUMBER, OBJECT_NUMBER

_CSV = (".csv", ".txt", ".csv.gz", ".txt.gz")
#: What other programs part columns by.
_SEPARATORS = {";": "semicolons", "\t": "tabs", ",": "commas", "|": "vertical bars"}
#: What file managers and browsers append to the name of a copy.
_COPY = re.compile(r"(?: \(\d+\)| - Copy(?: \(\d+\))?|[ _]copy(?: \d+)?)$", re.IGNORECASE)
_TITLE = "cannot be read as CellProfiler's output:"


@dataclass(frozen=True)
class Head:
    """The first two rows of a file, empty where it is no table; ``why`` it cannot be read, in words, and what to do."""

    first: tuple[str, ...] = ()
    second: tuple[str, ...] = ()
    why: str = ""
    remedy: str = ""

    @property
    def objects(self) -> bool:
        """Whether it is the head of a table of objects."""
        return not self.why and holds_objects(self.first, self.second)


def files_below(folder: Path, suffixes: Sequence[str]) -> Iterator[Path]:
    """Files by the end of their names, in a folder and below it, by path; folders that are links are entered once."""
    seen: set[str] = set()
    found = []
    for place, folders, names in os.walk(folder, followlinks=True):
        folders[:] = [f for f in folders if f[0] != "."]
        real = os.path.realpath(place)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        found += [Path(place, n) for n in names if n[0] != "." and n.lower().endswith(tuple(suffixes))]
    yield from sorted(p for p in found if p.is_file())


def csv_exports(folder: Path, separator: str) -> list[Export]:
    """Exports of ExportToSpreadsheet in a folder and below it, by path.

    Raises
    ------
    FaultsError
        A folder holds tables of objects and no table of images, or a file that belongs to an export cannot be read.
    """
    heads = {p: _head(p, separator) for p in files_below(folder, _CSV)}
    images = [p for p, head in heads.items() if _is_images(p, head)]
    faults, explained = _orphans(folder, heads, images)
    faults += _unread(folder, {p: h for p, h in heads.items() if p not in explained}, images)
    exports = {p: Export(str(p.relative_to(folder)), csv_image(p, separator, heads[p].first), {}) for p in images}
    for path, head in heads.items():
        image = _image_of(path, images)
        if path in exports or image is None or head.why:
            continue
        name = path.stem.removeprefix(_prefix(image))
        objects = csv_objects(path, separator, head.first, head.second, name)
        if not objects and f"Count_{name}" in exports[image].images.columns:
            faults.append(Fault("is cut off or no table of objects: lacks ImageNumber or ObjectNumber", str(path),
                                AGAIN))
        twice = set(objects) & set(exports[image].objects)
        if twice:
            faults.append(Fault(f"{', '.join(sorted(twice))} are in two files", str(path), "Remove one."))
        exports[image].objects.update(objects)
    if faults:
        raise FaultsError(faults, f"{folder} {_TITLE}")
    return [Export(e.where, e.images, dict(sorted(e.objects.items()))) for e in exports.values()]


def _head(path: Path, separator: str) -> Head:
    try:
        with open_text(path) as handle:
            rows = csv.reader(handle, delimiter=separator)
            first, second = tuple(next(rows, ())), tuple(next(rows, ()))
    except UnicodeDecodeError:
        return Head(why="is not UTF-8 text", remedy="Save it as `CSV UTF-8`.")
    except (csv.Error, OSError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        return Head(why=f"cannot be read ({' '.join(str(error).split())[:100]})", remedy=AGAIN)
    if not any(first):
        return Head(why="is empty (cut off, or never written)", remedy=AGAIN)
    for mark, word in _SEPARATORS.items():
        if mark != separator and len(first) == 1 and IMAGE_NUMBER in _cells(first[0], mark):
            return Head(why=f"has columns parted by {word}",
                        remedy=f"Export it again, or set assay.separator to {mark!r} if all files are like that.")
    if path.suffix == ".gz" and IMAGE_NUMBER in (*first, *second):
        return Head(why="is gzipped", remedy="Unpack it: tables of CellProfiler are read as they were written.")
    return Head(first, second)


def _cells(row: str, mark: str) -> list[str]:
    return [c.strip().strip('"') for c in row.split(mark)]


def _is_images(path: Path, head: Head) -> bool:
    return (path.stem.endswith("Image") and path.suffix != ".gz" and IMAGE_NUMBER in head.first
            and OBJECT_NUMBER not in head.first)


def _prefix(image: Path) -> str:
    return image.stem.removesuffix("Image")


def _image_of(path: Path, images: Iterable[Path]) -> Path | None:
    """The table of images beside a file that begins like it; the one with the longest name where several do."""
    own = [p for p in images if p.parent == path.parent and path.name.startswith(_prefix(p))]
    return max(own, key=lambda p: len(p.name), default=None)


def _orphans(
    folder: Path, heads: Mapping[Path, Head], images: Sequence[Path]
) -> tuple[list[Fault], set[Path]]:
    """A fault for each folder with objects and no table of images, and the files that these faults name."""
    bare: dict[Path, list[Path]] = defaultdict(list)
    for path, head in heads.items():
        if head.objects and _image_of(path, images) is None:
            bare[path.parent].append(path)
    faults, explained = [], set()
    for place, paths in bare.items():
        other = [p for p in heads if p.parent == place and "image" in p.name.lower() and p not in (*images, *paths)]
        reasons = [f"{p.name} {_why_none(heads[p])}" for p in other[:3]]
        remedy = next((heads[p].remedy for p in other if heads[p].remedy), "")
        faults.append(Fault(f"holds tables of objects ({_names(paths)}) and no readable table of images"
                            + (f": {'; '.join(reasons)}" if reasons else ""), _place(folder, place),
                            remedy or "Put Image.csv beside them (with the prefix of the others, and with its column "
                                      "ImageNumber), or take the tables of objects out."))
        explained |= {*other, *paths}
    return faults, explained


def _why_none(head: Head) -> str:
    if head.why:
        return head.why
    if IMAGE_NUMBER not in head.first:
        return f"has no column {IMAGE_NUMBER}"
    return "is not named as one (…Image.csv, with the prefix of the others)"


def _unread(folder: Path, heads: Mapping[Path, Head], images: Sequence[Path]) -> list[Fault]:
    """A fault for each reason for which files of a folder cannot be read, and for copies beside the original."""
    alike: dict[tuple[Path, str, str], list[Path]] = defaultdict(list)
    for path, head in heads.items():
        stem = path.name.split(".")[0]
        if head.why and (path.suffix != ".txt" or _image_of(path, images) is not None):
            alike[path.parent, head.why, head.remedy].append(path)
        elif IMAGE_NUMBER in (*head.first, *head.second) and _COPY.search(stem):
            alike[path.parent, "has the name of a copy", "Remove it, or give it its own name."].append(path)
    return [Fault(f"{_names(paths)} {why}", _place(folder, place), remedy)
            for (place, why, remedy), paths in alike.items()]


def _names(paths: Sequence[Path]) -> str:
    return ", ".join(p.name for p in paths[:3]) + (", …" if len(paths) > 3 else "")


def _place(folder: Path, place: Path) -> str:
    """How messages name a folder: from the one that the study names."""
    return str(folder) if place == folder else str(Path(folder.name) / place.relative_to(folder))
