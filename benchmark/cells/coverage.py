"""Rows of a table of measurements that lack most of what other rows have: a well without cells in all but name."""

from __future__ import annotations

import numpy as np

#: A row that lacks more than this share of what most rows have is not used: more of it would be filled in than
#: measured.
UNUSABLE = 0.5


def lacks_most(known: np.ndarray) -> np.ndarray:
    """Rows that lack more than `UNUSABLE` of the columns in which most rows have a value.

    Columns that most rows lack (a channel of some plates alone) count for none: they are the column's fault.

    Parameters
    ----------
    known : ndarray
        (rows, columns) bool: where there is a value.

    Returns
    -------
    ndarray
        (rows,) bool; a row without any value is always among them.
    """
    usual = known.mean(axis=0) > 0.5 if len(known) else np.zeros(known.shape[1], bool)
    share = known[:, usual].mean(axis=1) if usual.any() else np.ones(len(known))
    return np.asarray(~known.any(axis=1) | (share < 1 - UNUSABLE))
