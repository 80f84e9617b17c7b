"""How much of the range of their files images use: a 12-bit camera fills a sixteenth of 16 bits."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmark.assays.fieldtable import Assay
from benchmark.base.files import once, read_json
from benchmark.images.reading import read_field

#: So many fields are looked at, spread over the table: all that share a camera share its range.
FIELDS = 48
#: Below this share of the range a channel is dim: thresholds that are parts of the range may find nothing in it.
DIM = 0.1
#: Files of 16 bits by a camera of 12, the most common case, want this factor; no dim channel gets a larger one.
MOST = 16


@dataclass(frozen=True)
class Brightest:
    """The brightest pixel of a channel.

    Attributes
    ----------
    channel : str
    value : int
        In grey levels.
    bits : int
        That a pixel of its files has: 8 or 16.
    fields : int
        How many fields were looked at.
    """

    channel: str
    value: int
    bits: int
    fields: int

    @property
    def share(self) -> float:
        """Of the largest value that such a pixel can have, 0 … 1."""
        return self.value / (2**self.bits - 1)

    @property
    def factor(self) -> int:
        """The power of two by which the channel can be multiplied and nothing is clipped, 16 at most."""
        free = (2**self.bits - 1) // max(self.value, 1)
        return min(MOST, 2 ** max(0, free.bit_length() - 1))

    def __str__(self) -> str:
        return f"the brightest pixel of {self.channel} is {100 * self.share:.2g} % of what {self.bits} bits hold"


def brightest_pixels(assay: Assay, assay_hash: str, checked: Path) -> list[Brightest]:
    """The brightest pixel of each channel in some fields (`FIELDS`), looked at once.

    Parameters
    ----------
    assay : Assay
        With images that can be read.
    assay_hash : str
        Names the result.
    checked : Path
        Folder in which it is kept.
    """
    rows = np.unique(np.linspace(0, len(assay.fields) - 1, min(FIELDS, len(assay.fields))).round().astype(int))

    def look() -> list[list[int]]:
        most, bits = np.zeros(len(assay.channels), int), 8
        for i in rows:
            planes = read_field(assay, assay.fields.iloc[i])
            most, bits = np.maximum(most, planes.max(axis=(1, 2))), 8 * planes.dtype.itemsize
        return [[int(value), bits] for value in most]

    found = read_json(once(checked / f"brightest-{assay_hash[:16]}.json", look))
    return [Brightest(c, int(value), int(bits), len(rows)) for c, (value, bits) in
            zip(assay.channels, found, strict=True)]
