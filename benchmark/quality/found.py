"""Faults of image files, gathered: one a cause, with how many files and fields it concerns and the first of them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from benchmark.assays.fieldtable import Assay, row_name
from benchmark.assays.places import NAMED, several
from benchmark.base.errors import Fault
from benchmark.base.tables import PLATE


@dataclass(frozen=True)
class Found:
    """A fault of one plane of a file, and the (row position, channel) that use the plane.

    ``cause`` joins faults that have one reason; empty: those join whose words are the same but for numbers.
    """

    fault: Fault
    name: str
    rows: list[tuple[int, str]]
    cause: str = ""

    def of(self, assay: Assay, rows: list[tuple[int, str]]) -> Fault:
        """The fault as some of its users see it."""
        return Fault(self.fault.what, _place(assay, rows, self.name), self.fault.remedy)


def _place(assay: Assay, rows: Sequence[tuple[int, str]], name: str) -> str:
    """Plate, well, site, channels and file of the first field among a file's users, and how many more fields."""
    first = rows[0][0]
    channels = " and ".join(dict.fromkeys(channel for i, channel in rows if i == first))
    others = len({i for i, _ in rows}) - 1
    more = f" and {others} more" if others else ""
    return f"{row_name(assay.fields.iloc[first])}, {channels}{more}, {name}"


def one_fault_a_cause(assay: Assay, found: Sequence[Found]) -> list[Fault]:
    """Faults of one cause as one, in the order in which the causes were met.

    A cause that one file alone has is told as that file's; of several, the first `NAMED` are named.
    """
    causes: dict[tuple[str, str], list[Found]] = {}
    for one in found:
        words = one.cause or re.sub(r"\([^()]*\)|\d+", "", one.fault.what)
        causes.setdefault((words, one.fault.remedy if not one.cause else ""), []).append(one)
    return [_joined(assay, same) for same in causes.values()]


def _joined(assay: Assay, same: Sequence[Found]) -> Fault:
    files: dict[str, list[tuple[int, str]]] = {}
    for one in same:
        files.setdefault(one.name, []).extend(one.rows)
    first = same[0]
    if len(files) == 1:
        return first.of(assay, files[first.name])
    rows = {i for users in files.values() for i, _ in users}
    more = f" and {len(files) - NAMED} more" if len(files) > NAMED else ""
    places = "; ".join(_place(assay, users, name) for name, users in list(files.items())[:NAMED])
    of_first = "" if all(one.fault.what == first.fault.what for one in same) else " (the first of them)"
    return Fault(f"{first.fault.what}{of_first}", f"{len(files)} files, {len(rows)} fields{whole_plates(assay, rows)}: "
                                                  f"{places}{more}", first.fault.remedy)


def whole_plates(assay: Assay, rows: set[int]) -> str:
    """Plates that some fields are all of, in words that follow a number of fields; empty where they are of none."""
    plates = lost_plates(assay, rows)
    if not plates:
        return ""
    return f" (all of plate{'s' if len(plates) > 1 else ''} {several(plates, ', ')})"


def lost_plates(assay: Assay, rows: set[int]) -> list[str]:
    """Plates whose every field is among some positions of the field table."""
    plates = assay.fields[PLATE].astype(str)
    total, gone = plates.value_counts(sort=False), plates.iloc[sorted(rows)].value_counts(sort=False)
    return [plate for plate in total.index if gone.get(plate, 0) == total[plate]]
