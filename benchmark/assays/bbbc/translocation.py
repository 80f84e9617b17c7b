"""What the two translocation plates (BBBC013, BBBC014) share: their image files and their plate maps.

Both come from Ilya Ravkin in one style: 96 wells in rows A–H and columns 1–12, one field per well, one file per
channel named ``Channel 1-01-A-01.Bmp`` (channel, number of the well, row, column), and a plate map with one
dose per line, well after well.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from benchmark.base.errors import Fault, FaultsError, MorphobenchError
from benchmark.base.tables import WELL, path_column, plane_column

ROWS = "ABCDEFGH"
WELLS = tuple(f"{row}{column:02d}" for row in ROWS for column in range(1, 13))
#: Some copies carry a trailing field ``-00``, some are TIFF, some have no blank.
_FILE = re.compile(r"Channel ?([12])-(\d{2})-([A-H])-(\d{2})(?:-\d{2})?\.(?:bmp|tiff?)", re.IGNORECASE)
_POWER = re.compile(r"(?:([0-9.]+)\s*[x*×·]\s*)?10\^\(?([-+−]?[0-9.]+)\)?")


def plate_files(root: Path, subfolder: str, channels: Mapping[int, str], hint: str) -> pd.DataFrame:
    """Image files of a plate.

    Parameters
    ----------
    root : Path
        Holds the images, or ``subfolder`` with them; the one with more of them is used.
    subfolder : str
        As the archive has it, for example ``BBBC014_v1_images``.
    channels : mapping of int to str
        Number in the file name → name of the channel.
    hint : str
        What to do where files are missing.

    Returns
    -------
    DataFrame
        96 rows in the order of `WELLS`: ``Metadata_Well`` and ``Path_/Plane_`` of each channel.

    Raises
    ------
    MorphobenchError
        There is no image at all.
    FaultsError
        Images are missing, doubled, or numbered otherwise than their row and column say.
    """
    candidates = {folder: _matches(root / folder) for folder in (".", subfolder)}
    folder = max(candidates, key=lambda f: sum(map(len, candidates[f].values())))
    files = candidates[folder]
    if not files:
        raise MorphobenchError(f"holds no images of {subfolder.split('_')[0]}", str(root), hint)
    faults = []
    for (channel, well), names in sorted(files.items()):
        if len(names) > 1:
            faults.append(Fault(f"channel {channel} has several files: {', '.join(sorted(names))}", f"well {well}",
                                f"Keep one of them in {root / folder}."))
        for name in names:
            number = int(_FILE.fullmatch(name)[2])  # type: ignore[index]
            if WELLS.index(well) + 1 != number:
                faults.append(Fault(f"the name says well number {number}, and {well} is number "
                                    f"{WELLS.index(well) + 1} counted along the rows", name))
    missing = [f"{well} ({name})" for number, name in channels.items() for well in WELLS if (number, well) not in files]
    if missing:
        shown = ", ".join(missing[:10]) + (f" and {len(missing) - 10} more" if len(missing) > 10 else "")
        faults.append(Fault(f"{len(missing)} of {96 * len(channels)} images are missing: {shown}", str(root / folder),
                            hint))
    if faults:
        raise FaultsError(faults, f"The images in {root} have {len(faults)} fault(s):")
    table = pd.DataFrame({WELL: WELLS})
    for number, name in channels.items():
        table[path_column(name)] = [(Path(folder) / files[number, well][0]).as_posix() for well in WELLS]
        table[plane_column(name)] = 0
    return table


def _matches(folder: Path) -> dict[tuple[int, str], list[str]]:
    """(channel, well) → names of the files in a folder; names of other forms are ignored."""
    files: dict[tuple[int, str], list[str]] = defaultdict(list)
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        match = _FILE.fullmatch(path.name)
        if match and 1 <= int(match[4]) <= 12:
            files[int(match[1]), f"{match[3].upper()}{match[4]}"].append(path.name)
    return dict(files)


def find_platemap(root: Path, name: str) -> Path | None:
    """The plate map, which is beside the folder of images, whichever of the two the root is; None without one."""
    return next((p for p in (root / name, root.parent / name) if p.is_file()), None)


def read_platemap(path: Path) -> dict[str, float]:
    """Doses of a plate map: a heading, then 96 entries in the order of `WELLS`.

    Line ends of any system are read, and rows of 12 entries as well as one entry per line. An entry is a number
    (``0.98``, ``1e-7``) or a power of ten (``10^-7``, ``3x10^-8``).

    Returns
    -------
    dict
        Well → number as it is there; the file states no unit.

    Raises
    ------
    FaultsError
        Entries are not doses.
    MorphobenchError
        There are not 96 of them.
    """
    text = path.read_bytes().decode("utf-8-sig", errors="replace")
    lines = [line.strip() for line in re.split(r"[\r\n]+", text) if line.strip()]
    if lines and (lines[0].upper().startswith("DESCRIPTION") or any(math.isnan(_dose(e)) for e in _split(lines[0]))):
        lines = lines[1:]
    entries = lines if len(lines) == len(WELLS) else [entry for line in lines for entry in _split(line)]
    if len(entries) != len(WELLS):
        raise MorphobenchError(f"holds {len(entries)} entries below its heading, and the plate has {len(WELLS)} wells",
                               str(path), "Use the collection's own file, unchanged.")
    doses = {well: _dose(entry) for well, entry in zip(WELLS, entries, strict=True)}
    faults = [Fault(f"{entry!r} is no dose", f"{path.name}, entry {i} (well {well})",
                    "Use the collection's own file, unchanged.")
              for i, (well, entry) in enumerate(zip(WELLS, entries, strict=True)) if math.isnan(doses[well])]
    if faults:
        raise FaultsError(faults, f"{path} has {len(faults)} fault(s):")
    return doses


def _split(line: str) -> Sequence[str]:
    return re.split(r"[\s,;]+", line)


def _dose(entry: str) -> float:
    """The number of an entry; NaN where it is not a number, or is negative or not finite."""
    power = _POWER.fullmatch(entry.strip())
    try:
        if power is None:
            number = float(entry)
        else:
            factor, exponent = float(power[1] or 1), float(power[2].replace("−", "-"))
            # Six digits, so that 10^-7 is the very number 1e-7 and not one beside it.
            number = float(f"{factor * 10**exponent:.6g}")
    except (ValueError, OverflowError):
        return math.nan
    return number if math.isfinite(number) and number >= 0 else math.nan
