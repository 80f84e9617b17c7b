"""Do two methods differ? Tests on the same treatments."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations

import numpy as np
import pandas as pd

from benchmark.base.errors import MorphobenchError
from benchmark.base.tables import COMPOUND, LABEL, UNIT_KEY
from benchmark.evaluation.metrics import BOOTSTRAP_SEED, cluster_bootstrap

PAIR_COLUMNS = [
    "method_a", "method_b", "seed", "n", "correct_a", "correct_b", "difference", "cluster_low",
    "cluster_high", "b", "c", "p", "p_holm", "p_compounds",
]  # fmt: skip


def mcnemar_exact(b: int, c: int) -> float:
    """Two-sided exact McNemar test (McNemar 1947, as a binomial test of the discordant pairs).

    Parameters
    ----------
    b, c : int
        Units that only the first, and only the second, method predicts correctly.

    Returns
    -------
    float
        p value; 1 where the methods never disagree.
    """
    from scipy.stats import binomtest

    return 1.0 if b + c == 0 else float(binomtest(b, b + c, 0.5).pvalue)


def swap_test(difference: np.ndarray, clusters: np.ndarray) -> float:
    """Two-sided permutation test that exchanges the two methods within whole compounds.

    McNemar's test treats the treatments as independent. Here a compound's treatments are exchanged
    together, so a compound counts as one observation (sign-flip test; Good 2005, §3.2.1). Exact up to 12
    compounds on which the methods differ, else 4,999 random exchanges from a fixed seed.

    Parameters
    ----------
    difference : ndarray, shape (n,)
        First method's correct (0/1) minus the second's, one value per treatment.
    clusters : ndarray, shape (n,)
        Compound of each treatment.

    Returns
    -------
    float
        p value; 1 where the methods differ on fewer than two compounds.
    """
    from scipy.stats import permutation_test

    sums = pd.Series(np.asarray(difference, float)).groupby(np.asarray(clusters, dtype=object)).sum()
    nonzero = sums[sums != 0].to_numpy()
    if len(nonzero) < 2:
        return 1.0
    result = permutation_test(
        (nonzero,),
        lambda x, axis: np.sum(x, axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=2**12 if len(nonzero) <= 12 else 4999,
        rng=np.random.default_rng(BOOTSTRAP_SEED),
    )
    return float(min(1.0, result.pvalue))


def aligned(a: pd.DataFrame, b: pd.DataFrame, unit: str, names: tuple[str, str]) -> pd.DataFrame:
    """Join two methods' reduced predictions on the units, which must be the same.

    Parameters
    ----------
    a, b : DataFrame
        As `benchmark.evaluation.aggregate.reduce_to` returns them, of one method and seed each.
    unit : str
        What a row is.
    names : tuple of str
        The methods, for messages.

    Returns
    -------
    DataFrame
        The unit's key, compound, true label, ``correct_a`` and ``correct_b``, sorted by key.

    Raises
    ------
    MorphobenchError
        A unit is predicted by one method only, or the two tables give it different true labels.
    """
    key = UNIT_KEY[unit]
    # A treatment's key already contains its compound; a column must not be selected twice.
    left = a[list(dict.fromkeys([*key, COMPOUND, LABEL, "correct"]))]
    right = b[[*key, LABEL, "correct"]]
    both = left.merge(right, on=key, how="outer", suffixes=("_a", "_b"), indicator=True, validate="1:1")
    lone = both[both["_merge"] != "both"]
    where = f"{names[0]} and {names[1]}"
    if len(lone):
        one = " ".join(f"{k.removeprefix('Metadata_').lower()} {lone.iloc[0][k]}" for k in key)
        owner = names[0] if lone.iloc[0]["_merge"] == "left_only" else names[1]
        raise MorphobenchError(
            f"do not predict the same {unit}s: {len(lone)} are predicted by one of them only (first: {one}, "
            f"by {owner})",
            where,
            "Only methods run on the same assay and splits can be compared: run the stale one again.",
        )
    differ = both[both[f"{LABEL}_a"] != both[f"{LABEL}_b"]]
    if len(differ):
        first = differ.iloc[0]
        raise MorphobenchError(
            f"disagree in the true label of {len(differ)} {unit}s (first: compound {first[COMPOUND]}, "
            f"{first[f'{LABEL}_a']!r} and {first[f'{LABEL}_b']!r})",
            where,
            "The assay changed between the runs: run both again.",
        )
    both = both.rename(columns={f"{LABEL}_a": LABEL}).drop(columns=[f"{LABEL}_b", "_merge"])
    return both.astype({"correct_a": bool, "correct_b": bool})


def pairwise(reduced: Mapping[str, pd.DataFrame], unit: str = "treatment") -> pd.DataFrame:
    """Compare every two methods on their treatments (or wells).

    Parameters
    ----------
    reduced : mapping of str to DataFrame
        For each method its units as `reduce_to` returns them; one or several seeds. Two methods
        are compared at the first seed that both have.
    unit : str
        What a row is.

    Returns
    -------
    DataFrame
        One row per pair with `PAIR_COLUMNS`: ``difference`` (accuracy of a minus accuracy of b) with its
        95 % interval from resampling compounds (nan with few); ``b`` and ``c`` (units that only a, only b predicts
        correctly); McNemar's exact ``p`` and, adjusted for the number of pairs, Holm's ``p_holm`` (Holm 1979);
        ``p_compounds``, the test that treats a compound as one observation.

    Raises
    ------
    MorphobenchError
        Two methods have no seed in common, or not the same units and labels.
    """
    from statsmodels.stats.multitest import multipletests

    rows: list[dict[str, object]] = []
    for name_a, name_b in combinations(reduced, 2):
        a, b = reduced[name_a], reduced[name_b]
        common = sorted(set(a["seed"]) & set(b["seed"]))
        if not common:
            raise MorphobenchError("have no seed in common", f"{name_a} and {name_b}", "Run both with the same seeds.")
        both = aligned(a[a["seed"] == common[0]], b[b["seed"] == common[0]], unit, (name_a, name_b))
        right_a, right_b = both["correct_a"].to_numpy(int), both["correct_b"].to_numpy(int)
        only_a, only_b = int((right_a > right_b).sum()), int((right_b > right_a).sum())
        low, high = cluster_bootstrap(right_a - right_b, both[COMPOUND].to_numpy())
        rows.append({
            "method_a": name_a, "method_b": name_b, "seed": common[0], "n": len(both),
            "correct_a": int(right_a.sum()), "correct_b": int(right_b.sum()),
            "difference": float((right_a - right_b).mean()), "cluster_low": low, "cluster_high": high,
            "b": only_a, "c": only_b, "p": mcnemar_exact(only_a, only_b),
            "p_compounds": swap_test(right_a - right_b, both[COMPOUND].to_numpy()),
        })  # fmt: skip
    pairs = pd.DataFrame(rows, columns=[c for c in PAIR_COLUMNS if c != "p_holm"])
    pairs["p_holm"] = multipletests(pairs["p"], method="holm")[1] if len(pairs) else pd.Series(dtype=float)
    return pairs[PAIR_COLUMNS]
