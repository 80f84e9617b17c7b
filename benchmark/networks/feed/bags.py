"""Bags of crops for multiple-instance learning: only the bag has a label."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Generator

from benchmark.networks.feed.source import CropSource


@dataclass(frozen=True, eq=False)
class Bags:
    """Crops by bag. A bag's number takes the place of a crop's.

    Attributes
    ----------
    crops : CropSource
        What they are read from.
    members : tuple of ndarray
        Numbers of each bag's crops: one at least, and each in one bag alone.
    size : int
        Most crops of a bag that are passed through the network at once.
    """

    crops: CropSource
    members: tuple[np.ndarray, ...] = field(repr=False)
    size: int

    def drawn(self, rows: np.ndarray, generator: Generator) -> np.ndarray:
        """Crops of some bags for an epoch, drawn without replacement.

        All bags give equally many, so that a step has one shape: `size`, or the number of crops of the largest bag if
        that is less. A bag with fewer gives all of its own, then again from the start in another order.

        Parameters
        ----------
        rows : ndarray
            (n,) numbers of bags.
        generator : Generator
            On the CPU.

        Returns
        -------
        ndarray
            (n, T) int64 numbers of crops.
        """
        held = [self.members[row] for row in rows]
        count = min(self.size, max(map(len, held)))
        return np.stack([_drawn(own, count, generator) for own in held])

    def parts(self, rows: np.ndarray, most: int) -> tuple[list[np.ndarray], np.ndarray]:
        """Every crop of some bags once, in parts of `size` or fewer, always the same ones.

        A bag's parts are as equal as can be, and each takes crops from all over the bag, as a draw does.

        Parameters
        ----------
        rows : ndarray
            (n,) numbers of bags.
        most : int
            Crops a batch; one part at least is in each.

        Returns
        -------
        batches : list of ndarray
            (k, t) numbers of crops: k parts of t crops.
        owners : ndarray
            Position in ``rows`` of each part's bag, in the order of the batches.
        """
        by_length: dict[int, list[tuple[int, np.ndarray]]] = {}
        for position, row in enumerate(rows):
            own = self.members[row]
            count = -(-len(own) // self.size)
            for start in range(count):
                part = own[start::count]
                by_length.setdefault(len(part), []).append((position, part))
        batches, owners = [], []
        for length, alike in sorted(by_length.items()):
            at_once = max(1, most // length)
            for start in range(0, len(alike), at_once):
                batches.append(np.stack([part for _, part in alike[start : start + at_once]]))
            owners += [position for position, _ in alike]
        return batches, np.array(owners, np.int64)


def _drawn(own: np.ndarray, count: int, generator: Generator) -> np.ndarray:
    rounds = -(-count // len(own))
    order = torch.cat([torch.randperm(len(own), generator=generator) for _ in range(rounds)])
    return own[order[:count].numpy()]


def mean_by_owner(values: np.ndarray, owners: np.ndarray | None) -> np.ndarray:
    """Mean over the parts of each bag, (parts, K) to (bags, K); ``values`` as they are where there are no bags."""
    if owners is None:
        return values
    total = np.zeros((owners.max() + 1, values.shape[1]), values.dtype)
    np.add.at(total, owners, values)
    return total / np.bincount(owners)[:, None]
