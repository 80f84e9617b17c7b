"""Two backends side by side: do they measure the same of the same cells?"""

from __future__ import annotations

import re

import numpy as np
import pandas as pd

from benchmark.base.tables import FIELD_KEY
from benchmark.cellprofiler.ingest import OBJECT_NUMBER

#: Families of features, by CellProfiler's names of categories; all others are ``other``.
FAMILIES = ("AreaShape", "Intensity", "Texture", "Granularity", "RadialDistribution", "Correlation", "Neighbors")
#: Values so close, in standard deviations, count as the same.
CLOSE = 0.05
_FAMILY = re.compile(rf"_({'|'.join(FAMILIES)})_")


def compare_backends(cellprofiler: pd.DataFrame, own: pd.DataFrame, close: float = CLOSE) -> pd.DataFrame:
    """How far the features of two tables of the same cells lie apart, by family.

    Parameters
    ----------
    cellprofiler, own : DataFrame
        Cells as `benchmark.cellprofiler.ingest.cell_table` makes them: FIELD_KEY, ``Metadata_ObjectNumber``, features.
        Made on the same masks, so that cells of one field and number are the same; rows of one alone are left out.
    close : float
        Differences up to this many standard deviations count as agreement.

    Returns
    -------
    DataFrame
        One row a family that occurs, in the order of `FAMILIES`:
        ``features`` in both tables, ``cellprofiler_only`` and ``own_only`` (numbers); ``median`` and ``max`` absolute
        difference over cells and features, in units of CellProfiler's standard deviation of the feature over cells
        (where that is 0, equal values differ by 0 and others by inf); ``share`` of values that agree, where a value
        that one table lacks and the other has disagrees; ``features_agree``: share of features of which 95 % of
        the values agree; ``worst``: the feature with the smallest share.
    """
    keys = [*FIELD_KEY, OBJECT_NUMBER]
    one, two = (t.set_index(keys).drop(columns=[c for c in t if str(c).startswith("Metadata_") and c not in keys])
                for t in (cellprofiler, own))
    both = one.index.intersection(two.index)
    shared = [c for c in one if c in two]
    family = {c: found[1] if (found := _FAMILY.search(str(c))) else "other" for c in [*one, *two]}
    a, b = (t.loc[both, shared].to_numpy(np.float64) for t in (one, two))
    with np.errstate(all="ignore"):
        spread = np.array([np.nanstd(column) if np.isfinite(column).any() else np.nan for column in a.T])
        apart = np.where(a == b, 0.0, np.abs(a - b) / spread)
    missing = np.isnan(a) | np.isnan(b)
    agree = np.where(np.isnan(a) & np.isnan(b), np.nan, (apart <= close) & ~missing)
    rows = []
    for name in (*FAMILIES, "other"):
        at = np.array([i for i, c in enumerate(shared) if family[c] == name], int)
        counts = [sum(family[c] == name for c in t if c not in other) for t, other in ((one, two), (two, one))]
        if not len(at) and not any(counts):
            continue
        values = apart[:, at][~missing[:, at]]
        known = ~np.isnan(agree[:, at])
        shares = pd.Series([agree[known[:, k], i].mean() if known[:, k].any() else np.nan for k, i in enumerate(at)],
                           index=[shared[i] for i in at], dtype=float).dropna()
        rows.append({"family": name, "features": len(at), "cellprofiler_only": counts[0], "own_only": counts[1],
                     "median": np.median(values) if len(values) else np.nan,
                     "max": values.max() if len(values) else np.nan,
                     "share": agree[:, at][known].mean() if known.any() else np.nan,
                     "features_agree": (shares >= 0.95).mean() if len(shares) else np.nan,
                     "worst": shares.idxmin() if len(shares) else ""})
    return pd.DataFrame(rows).set_index("family")
