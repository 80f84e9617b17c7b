"""The image collections that can be fetched: where they lie, what they hold, which plates there are.

All come from the Broad Bioimage Benchmark Collection (Ljosa, Sokolnicki & Carpenter 2012, Nat Methods 9:637).
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from benchmark.assays.columns import read_text_table
from benchmark.base.errors import Fault, FaultsError, MorphobenchError, sheet_row

BASE_URL = "https://data.broadinstitute.org/bbbc/"
#: Environment variables: another server with the same files, and where data lie.
URL_VARIABLE = "MORPHOBENCH_BBBC_URL"
DATA_VARIABLE = "MORPHOBENCH_DATA"

GIB = 2**30
PLATE_COLUMN = "Image_Metadata_Plate_DAPI"
IMAGE_COLUMNS = ("Image_FileName_DAPI", "Image_FileName_Tubulin", "Image_FileName_Actin")
#: A plate's name becomes a folder and part of a URL, so it must be a plain word.
PLATE_NAME = re.compile(r"Week\d{1,3}_\d{1,8}")


@dataclass(frozen=True)
class Archive:
    """One archive of images.

    Attributes
    ----------
    remote : str
        Path below the base URL.
    folder : str
        Folder, below the collection's, where its images land.
    images : int
        How many images it should hold.
    names : frozenset of str
        Their names in lower case, where a table lists them.
    """

    remote: str
    folder: str
    images: int
    names: frozenset[str] = frozenset()

    @property
    def name(self) -> str:
        """File name of the archive; its key in the lock file."""
        return self.remote.rsplit("/", 1)[-1]


@dataclass(frozen=True)
class Collection:
    """One named collection.

    Attributes
    ----------
    name : str
        As in ``morphobench assay fetch NAME``; also its folder below the data folder.
    tables : tuple of str
        CSV and platemap files, paths below the base URL.
    archives : tuple of Archive
        Its archives; empty where ``plate_table`` lists the plates, an archive each.
    plate_table : str
        File name of that table.
    largest : int
        The largest size of an archive that is accepted, in bytes.
    """

    name: str
    tables: tuple[str, ...]
    archives: tuple[Archive, ...] = ()
    plate_table: str = ""
    largest: int = GIB


COLLECTIONS: Mapping[str, Collection] = {
    c.name: c
    for c in (
        Collection(
            "bbbc021",
            ("BBBC021/BBBC021_v1_image.csv", "BBBC021/BBBC021_v1_moa.csv", "BBBC021/BBBC021_v1_compound.csv"),
            plate_table="BBBC021_v1_image.csv", largest=8 * GIB,
        ),
        Collection(
            "bbbc014", ("BBBC014/BBBC014_v1_platemap_all.txt",),
            (Archive("BBBC014/BBBC014_v1_images.zip", "BBBC014_v1_images", 192),),
        ),
        Collection(
            "bbbc013", ("BBBC013/BBBC013_v1_platemap_all.txt",),
            (Archive("BBBC013/BBBC013_v1_images_bmp.zip", "BBBC013_v1_images_bmp", 192),),
        ),
    )
}


def data_folder(environ: Mapping[str, str] = os.environ) -> Path:
    """Where collections lie: ``MORPHOBENCH_DATA``, else the user's data directory."""
    named = environ.get(DATA_VARIABLE, "")
    return Path(named).expanduser() if named else Path(platformdirs.user_data_dir("morphobench", appauthor=False))


def refuse_package(folder: Path) -> None:
    """Refuse a data folder inside the package: an update or removal of morphobench would take the data with it.

    Raises
    ------
    MorphobenchError
        The folder is the package's, or is below it.
    """
    package = Path(__file__).resolve().parents[2]
    if folder.expanduser().resolve().is_relative_to(package):
        raise MorphobenchError("is inside the morphobench package, which is no place for data", str(folder),
                               f"Choose another folder with `--to` or {DATA_VARIABLE}.")


def base_address(given: str | None = None, environ: Mapping[str, str] = os.environ) -> str:
    """Base URL, ending in a slash: the argument, else ``MORPHOBENCH_BBBC_URL``, else the Broad's.

    Raises
    ------
    MorphobenchError
        It is not an http(s) address.
    """
    url = given or environ.get(URL_VARIABLE, "") or BASE_URL
    if not re.fullmatch(r"https?://[^\s?#]+", url):
        raise MorphobenchError("is not an http or https address", repr(url),
                               f"Correct or unset {URL_VARIABLE}; the default is {BASE_URL}.")
    return url.rstrip("/") + "/"


def find_collection(name: str) -> Collection:
    """The collection of that name (upper or lower case).

    Raises
    ------
    MorphobenchError
        There is none.
    """
    if name.lower() not in COLLECTIONS:
        raise MorphobenchError(f"there is no collection {name!r} to fetch", remedy=f"Known: {', '.join(COLLECTIONS)}.")
    return COLLECTIONS[name.lower()]


def archives_of(collection: Collection, root: Path, plates: Sequence[str] = ()) -> tuple[Archive, ...]:
    """The archives to fetch, chosen plates only if any are named.

    Parameters
    ----------
    collection : Collection
        The collection.
    root : Path
        Its folder; holds the plate table, if it has one.
    plates : sequence of str
        Plates wanted; all where empty.

    Raises
    ------
    MorphobenchError, FaultsError
        The plate table cannot be used, or a plate is not in it.
    """
    if not collection.plate_table:
        if plates:
            raise MorphobenchError(f"{collection.name} is one plate in one archive", remedy="Leave out `--plates`.")
        return collection.archives
    known = {a.folder: a for a in plate_archives(root / collection.plate_table)}
    faults = [Fault(f"{collection.name} has no such plate", repr(p), _instead(p, list(known)))
              for p in plates if p not in known]
    if faults:
        raise FaultsError(faults, "Plates cannot be chosen so:")
    return tuple(known[p] for p in dict.fromkeys(plates)) if plates else tuple(known.values())


def _instead(plate: str, known: list[str]) -> str:
    near = difflib.get_close_matches(plate, known, 3, 0.6)
    return f"Did you mean {' or '.join(near)}?" if near else f"Known: {', '.join(known)}."


def plate_archives(table: Path) -> list[Archive]:
    """One archive a plate of BBBC021, in the order of week and plate, from the official image table.

    Raises
    ------
    MorphobenchError, FaultsError
        It is not that table.
    """
    again = "It is not the official table: delete it and fetch again."
    cells = read_text_table(table)
    lacking = [c for c in (PLATE_COLUMN, *IMAGE_COLUMNS) if c not in cells]
    if lacking:
        raise MorphobenchError(f"lacks the column(s) {', '.join(lacking)}", str(table), again)
    odd = [Fault(f"{p!r} is not a plate's name such as Week1_22123", f"{table}, {sheet_row(i)}", again)
           for i, p in enumerate(cells[PLATE_COLUMN]) if not PLATE_NAME.fullmatch(p)]
    if odd:
        raise FaultsError(odd, "Plates cannot be looked up:")
    names = {str(plate): frozenset(name.lower() for column in IMAGE_COLUMNS for name in rows[column])
             for plate, rows in cells.groupby(PLATE_COLUMN)}
    ordered = sorted(names, key=lambda p: tuple(map(int, p[4:].split("_"))))
    return [Archive(f"BBBC021/BBBC021_v1_images_{p}.zip", p, len(names[p]), names[p]) for p in ordered]
