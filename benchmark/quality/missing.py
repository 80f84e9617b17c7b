"""Why an image file is not where a study says: what lies there under nearly that name, or the same name elsewhere."""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from benchmark.base.errors import Fault, MorphobenchError
from benchmark.base.files import inside
from benchmark.images.formats import SUFFIXES

#: So many folders beside each other are looked into for a file that is not where it should be.
_MOST_FOLDERS = 200


def _plain(text: str) -> str:
    """Without capitals, and with accents in one form: macOS writes them in two parts."""
    return unicodedata.normalize("NFC", text).casefold()


def _stem(text: str) -> str:
    """The plain name without a suffix that images have."""
    path = PurePosixPath(text)
    return _plain(path.stem if path.suffix.lower() in SUFFIXES else path.name)


@dataclass(frozen=True)
class _Listing:
    """Names in a folder: as they are, by `_plain`, and those of images by `_stem`."""

    names: frozenset[str]
    plain: Mapping[str, list[str]]
    stems: Mapping[str, list[str]]


class Surroundings:
    """Guesses why files below a folder do not exist; each folder is listed once."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._listed: dict[Path, _Listing] = {}

    def why(self, name: str) -> tuple[str, Fault]:
        """The cause, by which files are joined, and the fault of a file that does not exist.

        Parameters
        ----------
        name : str
            Relative to the root, as the field table has it.
        """
        there = self._nearly(PurePosixPath(name).parts, with_suffix=True)
        if there:
            return "case", Fault(f"does not exist; a name that differs in capitals or accents does: {there}", name,
                                 "Capitals count in file names: correct the study or the table, or rename the files.")
        there = self._nearly(PurePosixPath(name).parts, with_suffix=False)
        if there:
            return "suffix", Fault(f"does not exist; with another suffix it does: {there}", name,
                                   "Correct the suffix in assay.channels.<channel>.file, or in the table's column.")
        elsewhere = self._elsewhere(name)
        if elsewhere is not None:
            return f"root {elsewhere}", Fault(f"does not exist below {self._root}; it does below {elsewhere}", name,
                                              f"Set assay.root to {elsewhere}.")
        folder = self._first_missing_folder(name)
        if folder:
            return "folder", Fault(f"does not exist: there is no folder {folder} below {self._root}", name,
                                             "Check the file template and assay.root in the study; is a disk not "
                                             "mounted?")
        return "absent", Fault("does not exist", name,
                               "Check the file template and assay.root in the study, or take the field out of the "
                               "table.")

    def _listing(self, folder: Path) -> _Listing:
        if folder not in self._listed:
            try:
                names = sorted(p.name for p in folder.iterdir())
            except OSError:
                names = []
            plain, stems = defaultdict(list), defaultdict(list)
            for name in names:
                plain[_plain(name)].append(name)
                if PurePosixPath(name).suffix.lower() in SUFFIXES:
                    stems[_stem(name)].append(name)
            self._listed[folder] = _Listing(frozenset(names), plain, stems)
        return self._listed[folder]

    def _nearly(self, parts: Sequence[str], with_suffix: bool) -> str:
        """The file below the root that differs in capitals and accents, or in its suffix, alone; '' where none does."""
        folder, found = self._root, PurePosixPath()
        for i, part in enumerate(parts):
            listing = self._listing(folder)
            if with_suffix or i < len(parts) - 1:
                fitting = [part] if part in listing.names else listing.plain.get(_plain(part), [])
            else:
                fitting = listing.stems.get(_stem(part), [])
            if len(fitting) != 1:
                return ""
            folder, found = folder / fitting[0], found / fitting[0]
        return found.as_posix() if folder.is_file() else ""

    def _elsewhere(self, name: str) -> Path | None:
        """A folder just below or above the root below which the file is."""
        below = [self._root / folder for folder in sorted(self._listing(self._root).names)[:_MOST_FOLDERS]]
        for folder in [*below, self._root.parent]:
            try:
                if folder.is_dir() and inside(folder, name).is_file():
                    return folder
            except (OSError, MorphobenchError):
                continue  # a link that leads out, or what may not be read: a guess never stands in the fault's way
        return None

    def _first_missing_folder(self, name: str) -> str:
        parents = [p for p in reversed(PurePosixPath(name).parents) if p.parts]
        return next((p.as_posix() for p in parents if not (self._root / p).is_dir()), "")
