"""How often a method is correct, and how certain that is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import pandas as pd

from benchmark.base.combinations import GRID_PARTS, SEPARATOR
from benchmark.base.tables import COMPOUND, LABEL
from benchmark.evaluation.aggregate import RUN_KEY, reduce_to

#: Units that are reported, the headline first.
REPORTED = ("treatment", "well", "field")
#: Number of resamplings of compounds for an interval, and their seed: the same numbers on every machine.
RESAMPLINGS = 2000
BOOTSTRAP_SEED = 20190401
#: Fewer clusters than these are not resampled: four give 35 different samples, too few for a 95 % interval.
FEWEST_CLUSTERS = 5


def wilson(correct: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of a proportion (Wilson 1927; Newcombe 1998, method 3).

    Returns
    -------
    tuple of float
        Lower and upper bound, in 0…1. For ``n == 0`` nothing is known: (0, 1).
    """
    if n == 0:
        return 0.0, 1.0
    from statsmodels.stats.proportion import proportion_confint

    low, high = proportion_confint(correct, n, alpha=1 - level, method="wilson")
    return float(low), float(high)


def cluster_bootstrap(
    values: np.ndarray, clusters: np.ndarray, level: float = 0.95, seed: int = BOOTSTRAP_SEED
) -> tuple[float, float]:
    """Percentile interval of a mean, from resampling whole clusters with replacement.

    The treatments (wells, fields) of one compound succeed and fail together, so there are about as
    many independent observations as compounds, not as treatments (Davison & Hinkley 1997, §3.8).

    Parameters
    ----------
    values : ndarray, shape (n,)
        One number per unit: 0/1 for correct, or the difference of two methods (-1, 0, 1).
    clusters : ndarray, shape (n,)
        Cluster (compound) of each unit.

    Returns
    -------
    tuple of float
        Lower and upper bound; nan with fewer than `FEWEST_CLUSTERS` clusters. Where every unit has the same
        value the interval has zero width: a bootstrap cannot show what the sample does not contain.
    """
    sums = pd.DataFrame({"cluster": clusters, "value": np.asarray(values, float)})
    sums = sums.groupby("cluster", sort=True)["value"].agg(["sum", "count"])
    if len(sums) < FEWEST_CLUSTERS:
        return float("nan"), float("nan")
    rng = np.random.default_rng(seed)
    draws = rng.integers(0, len(sums), size=(RESAMPLINGS, len(sums)))
    means = sums["sum"].to_numpy()[draws].sum(axis=1) / sums["count"].to_numpy()[draws].sum(axis=1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def confusion(reduced: pd.DataFrame, labels: Sequence[str]) -> pd.DataFrame:
    """Counts of predicted label (columns) for each true label (rows), both sorted.

    Parameters
    ----------
    reduced : DataFrame
        As `reduce_to` returns it, of one method and seed.
    """
    from sklearn.metrics import confusion_matrix

    order = sorted(labels)
    counts = confusion_matrix(reduced[LABEL].astype(object), reduced["predicted"].astype(object), labels=order)
    return pd.DataFrame(counts, index=pd.Index(order, name="true"), columns=pd.Index(order, name="predicted"))


def scores(reduced: pd.DataFrame) -> dict[str, float | int]:
    """Scores of one method and seed on one unit, as `summarise` lists them."""
    from sklearn.metrics import f1_score, recall_score

    n, correct = len(reduced), int(reduced["correct"].sum())
    low, high = wilson(correct, n)
    cluster_low, cluster_high = cluster_bootstrap(reduced["correct"].to_numpy(), reduced[COMPOUND].to_numpy())
    true, predicted = reduced[LABEL].astype(object), reduced["predicted"].astype(object)
    present = sorted(true.unique())
    return {
        "n": n,
        "correct": correct,
        "accuracy": correct / n,
        "low": low,
        "high": high,
        "cluster_low": cluster_low,
        "cluster_high": cluster_high,
        # Over the labels that occur: a label that is only predicted has no recall.
        "balanced_accuracy": float(recall_score(true, predicted, labels=present, average="macro")),
        "macro_f1": float(f1_score(true, predicted, labels=present, average="macro", zero_division=0)),
        "chance": float(true.value_counts(normalize=True).max()),
        "n_labels": len(present),
        "n_tied": int(reduced["tied"].sum()),
    }


def summarise(predictions: pd.DataFrame, units: Sequence[str] = REPORTED) -> pd.DataFrame:
    """Scores of every method, seed and unit in a prediction table.

    Returns
    -------
    DataFrame
        One row per method × seed × unit: ``n, correct, accuracy``, Wilson's 95 % interval ``low, high``
        (as if units were independent), the interval that resamples compounds ``cluster_low,
        cluster_high`` (nan with few compounds), ``balanced_accuracy`` (mean recall over the labels that occur),
        ``macro_f1``, ``chance`` (share of the most common label: what always guessing it would score), ``n_labels``
        and ``n_tied`` (units whose best two labels had equal probabilities). Units finer than what was
        predicted have no row.
    """
    rows: list[dict[str, object]] = []
    for (method, seed), table in predictions.groupby(RUN_KEY, sort=False):
        for unit in units:
            reduced = reduce_to(table, unit)
            if reduced is not None:
                rows.append({"method": method, "seed": seed, "unit": unit, **scores(reduced)})
    return pd.DataFrame(rows)


def summarise_grid(predictions: pd.DataFrame, unit: Literal["treatment", "well"]) -> pd.DataFrame:
    """Scores of every combination under one scheme.

    Parameters
    ----------
    predictions : DataFrame
        Predictions of all folds: wells of classifiers, treatments of the nearest treatment profile; ``method`` is a
        combination's name (`benchmark.base.tables.combination`).
    unit : {'treatment', 'well'}
        Unit that is counted.

    Returns
    -------
    DataFrame
        One row per combination, in the order of the table: ``profile, normalise, correction, decision, unit``, and the
        columns of `benchmark.evaluation.metrics.scores` (``n, correct, accuracy, low, high, …``).
    """
    rows = []
    for name, table in predictions.groupby("method", sort=False):
        # The well columns are empty where treatments are predicted.
        reduced = reduce_to(table.dropna(axis=1, how="all"), unit)
        assert reduced is not None  # nothing coarser than the unit is predicted
        rows.append(dict(zip(GRID_PARTS, str(name).split(SEPARATOR), strict=True)) | {"unit": unit} | scores(reduced))
    return pd.DataFrame(rows)
