"""Several seeds of one method: how much they vary, and the ensemble that averages them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd

from benchmark.base.errors import MorphobenchError
from benchmark.base.tables import LABEL, UNIT_KEY, labels_of, probability_columns
from benchmark.evaluation.aggregate import predicted_unit, with_cell_line
from benchmark.evaluation.metrics import REPORTED

SPREAD_COLUMNS = ["method", "unit", "seeds", "n", "mean", "sd", "low", "high", "correct_low", "correct_high",
                  "changing"]
PAIR_COLUMNS = ["method_a", "method_b", "seeds", "n", "mean", "low", "high", "apart"]


@dataclass(frozen=True)
class Spread:
    """How much results vary between a study's seeds.

    Attributes
    ----------
    table : DataFrame
        As `spread_table`.
    pairs : DataFrame
        As `paired_spread`.
    """

    table: pd.DataFrame
    pairs: pd.DataFrame

    def of(self, method: str, unit: str) -> pd.Series | None:
        """The row of `table` for a method and unit, or None where the method has one seed."""
        rows = self.table[(self.table["method"] == method) & (self.table["unit"] == unit)]
        return rows.iloc[0] if len(rows) else None

    def pair(self, a: str, b: str) -> pd.Series | None:
        """The row of `pairs` for two methods in either order, or None."""
        table = self.pairs
        rows = table[table["method_a"].isin([a, b]) & table["method_b"].isin([a, b])]
        return rows.iloc[0] if len(rows) else None


def mean_over_seeds(predictions: pd.DataFrame, name: str) -> pd.DataFrame:
    """The ensemble of a method's seeds: the mean of their probabilities, by unit of prediction.

    Networks that differ only in their random numbers are averaged (Lakshminarayanan, Pritzel & Blundell 2017, NeurIPS;
    Cortés-Ciriano & Bender 2019, J Chem Inf Model 59:1269). The mean is taken before any reduction: of each
    crop's (field's, well's) probabilities, whose medians then represent wells and treatments as for any method. Nothing
    is fitted.

    Parameters
    ----------
    predictions : DataFrame
        Prediction table of one method and unit, several seeds; or of its dose series, without labels.
    name : str
        The ensemble's, its ``method``.

    Returns
    -------
    DataFrame
        A prediction table with the lowest seed, one row per unit sorted by key, whatever the seeds' order.

    Raises
    ------
    MorphobenchError
        The table mixes units; or a seed predicts other units, folds, labels or classes than another.
    """
    table = with_cell_line(predictions)
    key = UNIT_KEY[predicted_unit(table)]
    same = [*key, LABEL, "fold"]
    seeds = sorted(table["seed"].unique().tolist())
    parts = [table[table["seed"] == seed].sort_values(key, kind="stable").reset_index(drop=True) for seed in seeds]
    for seed, part in zip(seeds, parts, strict=True):
        if not part[same].equals(parts[0][same]):
            raise MorphobenchError(f"does not predict the same units with the seeds {seeds[0]} and {seed}",
                                   f"ensemble {name!r}", "Delete the run's folder and run it again.")
    columns = probability_columns(labels_of(table))
    mean = np.mean([part[columns].to_numpy(float) for part in parts], axis=0)
    if not np.isfinite(mean).all():
        raise MorphobenchError("has a class that not every seed knows", f"ensemble {name!r}")
    return parts[0].assign(method=name, **dict(zip(columns, mean.T, strict=True)))


def _by_seed(reduced: pd.DataFrame, unit: str, method: str, permuted: bool) -> pd.DataFrame:
    """Whether each unit (rows) is correct with each seed (columns); all seeds must have the same units and labels."""
    key = UNIT_KEY[unit]
    groups = reduced.groupby(key, sort=True, dropna=False, observed=True)
    counts, labels = groups.size(), groups[LABEL].nunique()
    if (counts != reduced["seed"].nunique()).any() or (not permuted and (labels > 1).any()):
        raise MorphobenchError(f"has other {unit}s, or other labels of them, with one seed than with another", method,
                               "Delete the run's folder and run it again.")
    return reduced.pivot(index=key, columns="seed", values="correct").astype(bool)


def spread_table(
    reduced: Mapping[str, Mapping[str, pd.DataFrame]], controls: Collection[str] = ()
) -> pd.DataFrame:
    """How much a method's accuracy varies from seed to seed.

    Parameters
    ----------
    reduced : mapping
        For each method, for each unit that it predicts: as `benchmark.evaluation.aggregate.reduce_to` returns it.
    controls : collection of str
        Methods with permuted labels, permuted anew for each seed.

    Returns
    -------
    DataFrame
        One row per unit and method with several seeds, `SPREAD_COLUMNS`: how many ``seeds``; of the accuracy over them
        ``mean``, ``sd`` (standard deviation of a sample), ``low`` and ``high``; ``correct_low`` and ``correct_high``
        of ``n``; and ``changing``, units that are correct with one seed and wrong with another (missing for controls,
        where each seed has other labels).

    Raises
    ------
    MorphobenchError
        A method has other units or labels with one seed than with another.
    """
    rows = []
    for unit in REPORTED:
        for method, by_unit in reduced.items():
            if unit not in by_unit or by_unit[unit]["seed"].nunique() < 2:
                continue
            permuted = method in controls
            right = _by_seed(by_unit[unit], unit, method, permuted)
            correct = right.sum()
            share = correct / len(right)
            rows.append({
                "method": method, "unit": unit, "seeds": len(correct), "n": len(right), "mean": share.mean(),
                "sd": share.std(ddof=1), "low": share.min(), "high": share.max(), "correct_low": int(correct.min()),
                "correct_high": int(correct.max()),
                "changing": pd.NA if permuted else int((right.nunique(axis=1) > 1).sum()),
            })  # fmt: skip
    return pd.DataFrame(rows, columns=SPREAD_COLUMNS).astype({"changing": "Int64"})


def paired_spread(reduced: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """The difference of every two methods at each seed that both have.

    Parameters
    ----------
    reduced : mapping of str to DataFrame
        For each method its units as `benchmark.evaluation.aggregate.reduce_to` returns them; no controls.

    Returns
    -------
    DataFrame
        One row per pair with several seeds in common, `PAIR_COLUMNS`: how many ``seeds``; of the accuracy of a minus
        that of b at the same seed ``mean``, ``low`` and ``high``; and ``apart``: whether the worst seed of one has more
        units correct than the best of the other, that is, whether the difference is larger than the spread over seeds.
    """
    shares = {method: table.groupby("seed")["correct"].mean() for method, table in reduced.items()}
    rows = []
    for a, b in combinations(reduced, 2):
        common = sorted(set(shares[a].index) & set(shares[b].index))
        if len(common) < 2:
            continue
        one, other = shares[a][common], shares[b][common]
        difference = one - other
        rows.append({
            "method_a": a, "method_b": b, "seeds": len(common), "n": len(reduced[a]) // reduced[a]["seed"].nunique(),
            "mean": difference.mean(), "low": difference.min(), "high": difference.max(),
            "apart": bool(one.min() > other.max() or other.min() > one.max()),
        })  # fmt: skip
    return pd.DataFrame(rows, columns=PAIR_COLUMNS).astype({"apart": bool})
