"""What the check keeps of every plane in use, and which of them do not fit the others."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from benchmark.assays.fieldtable import Assay
from benchmark.base.errors import Fault
from benchmark.base.tables import PLATE
from benchmark.images.formats import Held
from benchmark.quality.found import Found

#: File → plane → the (row position, channel) that use it.
Users = Mapping[str, Mapping[int, list[tuple[int, str]]]]
#: No cell has been imaged on fewer pixels.
SMALLEST = 8
_DEPTH = "All fields of an assay must have one depth: export the others in the same way, or take them out of the table."


@dataclass(frozen=True)
class Plane:
    """What the check keeps of a decoded plane: never the pixels.

    ``shift`` is the number of low bits that are 0 in every pixel: 4 of 12-bit values that were scaled to 16 bits.
    ``held`` is what its file holds.
    """

    shape: tuple[int, int]
    dtype: str
    low: int
    high: int
    shift: int
    sha: str
    held: Held


def plane_of(pixels: np.ndarray, held: Held) -> Plane:
    """What is kept of a plane (H, W) of uint8 or uint16."""
    used = int(np.bitwise_or.reduce(pixels, axis=None))
    shift = (used & -used).bit_length() - 1 if used else 0
    return Plane(pixels.shape, pixels.dtype.name, int(pixels.min()), int(pixels.max()), shift,
                 hashlib.sha256(pixels.tobytes()).hexdigest(), held)


def odd_planes(assay: Assay, planes: Mapping[tuple[str, int], Plane], users: Users) -> list[Found]:
    """Planes that are constant or tiny, or of another size or depth than most."""
    if not planes:
        return []
    shape = Counter(p.shape for p in planes.values()).most_common(1)[0][0]
    dtype = Counter(p.dtype for p in planes.values()).most_common(1)[0][0]
    found = []
    for (name, plane), seen in planes.items():
        faults = []
        tiny = min(seen.shape) < SMALLEST
        if seen.shape != shape and not tiny:
            faults.append(Fault(f"is {seen.shape[1]}×{seen.shape[0]} pixels, where most are {shape[1]}×{shape[0]}",
                                remedy="All fields of an assay must have one size."))
        if seen.dtype != dtype:
            faults.append(Fault(f"is {seen.dtype}, where most are {dtype}", remedy=_DEPTH))
        if tiny:
            most = "" if seen.shape == shape else f", where most are {shape[1]}×{shape[0]}"
            faults.append(Fault(f"is {seen.shape[1]}×{seen.shape[0]} pixels{most}, too small for a field of cells",
                                remedy="Check that `file` names the images themselves, not thumbnails or masks."))
        elif seen.low == seen.high:
            faults.append(Fault(f"is constant: every pixel is {seen.low}",
                                remedy="Check that `plane` names the right channel, or leave the field out."))
        found += [Found(fault, name, users[name][plane]) for fault in faults]
    return found + _unscaled(assay, planes, users)


def _unscaled(assay: Assay, planes: Mapping[tuple[str, int], Plane], users: Users) -> list[Found]:
    """Planes of plates that hold 10-, 12- or 14-bit values as they are, where another plate's are scaled to 16 bits.

    A camera's 12 bits are stored as 0 … 4095 by some programs and times 16 by others, both as uint16. All planes of a
    plate in a channel must say so: each value of one plate a multiple of 2, 4, 16 or more, and none of the other above
    what is left of 16 bits.
    """
    of_plate: dict[tuple[str, str], list[tuple[str, int]]] = defaultdict(list)
    plates = assay.fields[PLATE].astype(str).tolist()
    for (name, plane), seen in planes.items():
        if seen.dtype == "uint16" and seen.low < seen.high:
            for plate, channel in sorted({(plates[i], channel) for i, channel in users[name][plane]}):
                of_plate[channel, plate].append((name, plane))
    found = []
    for channel in assay.channels:
        keys = {plate: of for (of_channel, plate), of in of_plate.items() if of_channel == channel}
        shifts = {plate: min(planes[key].shift for key in of) for plate, of in keys.items()}
        shift = max(shifts.values(), default=0)
        if shift < 2:
            continue
        top = 1 << 16 - shift
        times = [p for p, of in shifts.items() if of == shift]
        plain = [p for p, of in shifts.items() if of == 0 and max(planes[key].high for key in keys[p]) < top]
        if not plain:
            continue
        fewer, other = (plain, times[0]) if len(plain) <= len(times) else (times, plain[0])
        ways = "as they are", f"times {1 << shift}"
        here, there = ways if fewer is plain else ways[::-1]
        fault = Fault(f"holds {16 - shift}-bit values {here}, where plate {other} has them {there}", remedy=_DEPTH)
        found += [Found(fault, name, [u for u in users[name][plane] if u[1] == channel], f"scaled {here}")
                  for plate in fewer for name, plane in keys[plate]]
    return found


def several_planes(assay: Assay, planes: Mapping[tuple[str, int], Plane], users: Users) -> list[Fault]:
    """Files with several planes of channels whose study does not say which; one fault for each kind of file.

    Which plane a channel is cannot be guessed: the first of a stack is out of focus, the first of a colour image is
    red, whatever the channel is called.
    """
    kinds: dict[tuple[int, str], list[Found]] = defaultdict(list)
    for (name, plane), seen in planes.items():
        rows = [user for user in users[name][plane] if user[1] in assay.only_plane]
        if seen.held.n > 1 and rows:
            kinds[seen.held.n, seen.held.kind].append(Found(Fault(""), name, rows))
    faults = []
    for (n, kind), found in kinds.items():
        channels = [c for c in assay.channels if any(c == of for one in found for _, of in one.rows)]
        settings = ", ".join(f"assay.channels.{c}.plane" for c in channels)
        counted = ": red 0, green 1, blue 2" if kind.startswith("red") else ""
        stack = "" if counted or kind.startswith("grey") else "; of a stack the plane in focus, or export a projection"
        names = list(dict.fromkeys(one.name for one in found))
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        faults.append(Fault(f"{'each ' if len(names) > 1 else ''}holds {n} planes ({kind}), and the study does not say "
                            f"which to use", f"{len(names)} file{'s' if len(names) > 1 else ''}, {', '.join(names[:3])}"
                                             f"{more}",
                            f"Set {settings} (0 to {n - 1}{counted}{stack})."))
    return faults
