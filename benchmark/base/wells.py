"""Row and column of a well on its plate, from the names that microscopes, readers and vendors give to wells.

==============  =====================================================================================================
``B07, b-7``    Row letter and column number; rows after Z are AA, AB, … (AF is the last of 1536 wells).
``r02c07``      Row and column as numbers: Opera, Operetta and others.
``Aa07``        Rows of 1536 wells as four in each row of 96: Aa, Ab, Ac, Ad are rows 1 to 4, Hd is row 32.
``A01.a1``      The same for both axes (Yokogawa): well of 96, then one of its four rows and four columns.
``1`` … ``384``  Numbers along the rows of the smallest plate that holds them all, which is said to be assumed.
==============  =====================================================================================================
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from benchmark.base.errors import MorphobenchError

#: Rows and columns of 3456 wells, the most that a plate has.
MOST_ROWS, MOST_COLUMNS = 48, 72
#: Wells of a plate → its columns (ANSI/SLAS 4-2004 and its multiples).
_COLUMNS = {6: 3, 12: 4, 24: 6, 48: 8, 96: 12, 384: 24, 1536: 48}
_REMEDY = ("Wells are written B07, r02c07 (row 2, column 7), Aa07 or A01.a1 (1536 wells: rows Aa to Hd are 1 to 32), "
           "or as numbers along the rows.")


@dataclass(frozen=True)
class WellPlaces:
    """Where wells lie.

    Attributes
    ----------
    of : dict
        Name → row and column, both from 1.
    assumed : str
        What the names do not say and was assumed, a sentence without a full stop; empty where they say it all.
    nested : bool
        Rows are named as four in each row of 96.
    """

    of: dict[str, tuple[int, int]]
    assumed: str = ""
    nested: bool = False


def _letters(match: re.Match[str]) -> tuple[int, int]:
    row = 0
    for letter in match[1].upper():
        row = 26 * row + ord(letter) - 64
    return row, int(match[2])


def _nested(match: re.Match[str]) -> tuple[int, int]:
    return 4 * (ord(match[1]) - 65) + ord(match[2]) - 96, int(match[3])


def _nested_twice(match: re.Match[str]) -> tuple[int, int]:
    return 4 * (ord(match[1]) - 65) + ord(match[3]) - 96, 4 * (int(match[2]) - 1) + int(match[4])


#: How rows are named → pattern and what it gives. The first that matches counts: Aa07 is also two letters.
_KINDS: tuple[tuple[str, re.Pattern[str], Callable[[re.Match[str]], tuple[int, int]]], ...] = (
    ("numbered", re.compile(r"r(?:ow)?[-_ ]?(\d{1,3})[-_, ]*c(?:ol(?:umn)?)?[-_ ]?(\d{1,3})", re.IGNORECASE | re.ASCII),
     lambda match: (int(match[1]), int(match[2]))),
    ("nested", re.compile(r"([A-H])([a-d])[-_ ]?0*([1-9]\d?)", re.ASCII), _nested),
    ("nested", re.compile(r"([A-H])0*([1-9]|1[0-2])\.([a-d])([1-4])", re.ASCII), _nested_twice),
    ("letters", re.compile(r"([A-Za-z]{1,2})[-_ ]?0*([1-9]\d?)", re.ASCII), _letters),
)


def well_places(names: Iterable[str]) -> WellPlaces:
    """Row and column of wells.

    Parameters
    ----------
    names : iterable of str
        Names of all wells of an assay: what a name means can depend on the others.

    Raises
    ------
    MorphobenchError
        Names that give no place, or that can be read in two ways; all in one message.
    """
    wells = list(dict.fromkeys(names))
    texts = [name.strip() for name in wells]
    if texts and all(re.fullmatch(r"\d+", text, re.ASCII) for text in texts):
        return _counted(dict(zip(wells, map(int, texts), strict=True)))
    places: dict[str, tuple[int, int]] = {}
    kinds: dict[str, list[str]] = {}
    for well, text in zip(wells, texts, strict=True):
        for kind, pattern, place in _KINDS:
            match = pattern.fullmatch(text)
            if match:
                places[well] = place(match)
                kinds.setdefault(kind, []).append(well)
                break
    unread = [well for well in wells if well not in places]
    if unread:
        raise MorphobenchError(f"{len(unread)} of {len(wells)} wells have names that give no row and column: "
                               f"{_some(unread)}", "wells", _REMEDY)
    if "nested" in kinds and "letters" in kinds:
        raise MorphobenchError(f"rows are named in two ways: four in each row of 96 ({_some(kinds['nested'])}; Aa is "
                               f"row 1) and a letter each ({_some(kinds['letters'])}; AA is row 27)", "wells",
                               "Name all rows in one way: A to Z, AA to AF; or Aa to Hd.")
    outside = [well for well, (row, column) in places.items()
               if not (0 < row <= MOST_ROWS and 0 < column <= MOST_COLUMNS)]
    if outside:
        row, column = places[outside[0]]
        raise MorphobenchError(f"{len(outside)} of {len(wells)} wells lie on no plate: {_some(outside)}; the first "
                               f"would be row {row}, column {column}, and the largest plates have {MOST_ROWS} rows and "
                               f"{MOST_COLUMNS} columns", "wells", _REMEDY)
    return WellPlaces(places, nested="nested" in kinds)


def _counted(numbers: dict[str, int]) -> WellPlaces:
    """Wells that are numbered through."""
    most = max(numbers.values())
    size = next((size for size in _COLUMNS if size >= most), None)
    if size is None or min(numbers.values()) < 1:
        raise MorphobenchError(f"wells are the numbers {min(numbers.values())} to {most}, which no plate has", "wells",
                               _REMEDY)
    columns = _COLUMNS[size]
    return WellPlaces(
        {name: ((n - 1) // columns + 1, (n - 1) % columns + 1) for name, n in numbers.items()},
        f"wells are numbers up to {most}: read as places of a plate of {size}, counted along its rows ({columns} is "
        f"A{columns:02d}, {columns + 1} is B01)")


def _some(names: list[str]) -> str:
    """Up to three names, and how many more."""
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(map(repr, names[:3])) + more
