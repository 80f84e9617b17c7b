"""What the named assays share: where their files lie, and reading the collections' own CSV files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from benchmark.assays.columns import expand, read_text_table
from benchmark.assays.fetching.collections import data_folder
from benchmark.assays.fetching.lock import LOCK_NAME
from benchmark.base.errors import MorphobenchError


def collection_root(root: str | None, name: str, base: Path) -> Path:
    """Folder of a collection: the study's ``assay.root``, else ``name`` in the data folder.

    Parameters
    ----------
    root : str or None
        As the study says it; relative to ``base``, with ``${VARIABLE}`` filled in.
    name : str
        ``bbbc021``, ``bbbc014`` or ``bbbc013``.
    """
    return expand(root, base) if root is not None else data_folder() / name


def lock_of(root: Path, images: str = "") -> Path | None:
    """The lock file that `morphobench assay fetch` wrote, where there is one.

    It is in the collection's folder, which is the parent folder where the root is its folder of ``images``.
    """
    path = (root.parent if images and root.name == images else root) / LOCK_NAME
    return path if path.is_file() else None


def fetch_hint(name: str, root: Path, plates: Sequence[str] = ()) -> str:
    """What to do about files of a collection that are not there."""
    chosen = f" --plates {','.join(plates)}" if plates else ""
    return (f"Fetch them: `morphobench assay fetch {name}{chosen}` (into {data_folder() / name}); or, where you have "
            f"them elsewhere, set assay.root in the study (now {root}).")


def has_official(folder: Path, stem: str) -> bool:
    """Whether a folder holds the CSV file, gzipped or not."""
    return _official(folder, stem) is not None


def _official(folder: Path, stem: str) -> Path | None:
    return next((p for p in (folder / f"{stem}.csv", folder / f"{stem}.csv.gz") if p.is_file()), None)


def read_official(folder: Path, stem: str, columns: Sequence[str], hint: str) -> tuple[pd.DataFrame, str]:
    """One of a collection's CSV files, gzipped or not.

    Parameters
    ----------
    folder : Path
        Where it is.
    stem : str
        Its name without ``.csv`` or ``.csv.gz``.
    columns : sequence of str
        Columns that it must have; others are ignored.
    hint : str
        What to do where it is missing.

    Returns
    -------
    table : DataFrame
        Those columns as text, blanks around cells dropped; index 0…n-1.
    name : str
        Name of the file, for messages.
    """
    path = _official(folder, stem)
    if path is None:
        raise MorphobenchError(f"holds no {stem}.csv (or .csv.gz)", str(folder), hint)
    table = read_text_table(path)
    missing = [c for c in columns if c not in table]
    if missing:
        raise MorphobenchError(f"lacks the columns {', '.join(missing)}", str(path),
                               "Use the collection's own file, unchanged.")
    return table[list(columns)].apply(lambda column: column.str.strip()), path.name
