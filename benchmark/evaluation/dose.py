"""Quality and dose response of an assay whose controls are scored: Z′, V, Hill EC50 and rank correlation.

The **score** of a well is the probability that a method gives to the label of the positive controls, at well level
(the median over crops or fields). Probabilities saturate: wells that a method is sure of all score near 0 or 1 and
scatter little there, so Z′ and V of such a score make an assay look better than one that measures a physical quantity:
they serve to compare methods with each other, not with published assays.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd

from benchmark.base.errors import MorphobenchError
from benchmark.base.tables import CELL_LINE, COMPOUND, CONCENTRATION, CONTROL, LABEL, PLATE, WELL_KEY, labels_of
from benchmark.evaluation.aggregate import RUN_KEY, reduce_to
from benchmark.evaluation.hill import hill_fit
from benchmark.evaluation.metrics import BOOTSTRAP_SEED, RESAMPLINGS

#: Key of the curves of one method and seed: each is held out as a whole and scored by one fitted model.
CURVE_KEY = [COMPOUND, CELL_LINE]
WELL_SCORES = [*RUN_KEY, *CURVE_KEY, CONCENTRATION, CONTROL, *WELL_KEY, "score"]


@dataclass(frozen=True)
class DoseResponse:
    """Dose response of every method.

    Attributes
    ----------
    positive : str
        Label whose probability is the score.
    table : DataFrame
        As `dose_table` returns it.
    wells : DataFrame
        One row per method × seed × well with `WELL_SCORES`.
    points : DataFrame
        One row per method × seed × curve × concentration: ``n, mean, sd`` (nan for a single well) of the scores.
    """

    positive: str
    table: pd.DataFrame
    wells: pd.DataFrame
    points: pd.DataFrame


def z_prime(positive: np.ndarray, negative: np.ndarray) -> float:
    """Z′ factor: the gap between controls in units of their spread (Zhang, Chung & Oldenburg 1999).

    ``1 - 3 (sd_p + sd_n) / |mean_p - mean_n|`` (J Biomol Screen 4:67). 1 is perfect, above 0.5 excellent, below 0 the
    controls overlap.

    Parameters
    ----------
    positive, negative : ndarray, shapes (n,) and (m,)
        Scores of control wells. The standard deviation divides by the number of wells, as CellProfiler's
        CalculateStatistics does, so that the numbers are comparable with its own; with four wells one that divides by
        n - 1 is 15 % larger.

    Returns
    -------
    float
        Minus infinity where the means are equal; nan with fewer than two wells on either side, which have no spread.
    """
    p, n = np.asarray(positive, float), np.asarray(negative, float)
    if min(len(p), len(n)) < 2:
        return float("nan")
    gap = abs(p.mean() - n.mean())
    return 1 - 3 * (p.std() + n.std()) / gap if gap > 0 else -np.inf


def v_factor(score: np.ndarray, dose: np.ndarray) -> float:
    """V factor: Z′ extended to all doses of a series (Ravkin 2004).

    ``1 - 6 mean(sd of each dose) / (largest - smallest mean of a dose)`` (I. Ravkin, Quality measures for
    imaging-based cellular assays, poster P12024, Society for Biomolecular Screening 2004), as CellProfiler's
    CalculateStatistics computes it. With two doses it is Z′. It counts the doses half-way, where wells scatter
    most, so saturation flatters it less than Z′.

    Parameters
    ----------
    score, dose : ndarray, shape (n,)

    Returns
    -------
    float
        Minus infinity where all means are equal. A dose with a single well counts towards the range but not the
        spread (CellProfiler counts its spread as zero); nan where no dose has two wells.
    """
    by_dose = pd.Series(np.asarray(score, float)).groupby(np.asarray(dose, float))
    means, spreads = by_dose.mean(), by_dose.std(ddof=0)[by_dose.size() > 1]
    if len(spreads) == 0 or len(means) < 2:
        return float("nan")
    gap = float(means.max() - means.min())
    return float(1 - 6 * spreads.mean() / gap) if gap > 0 else -np.inf


def spearman(dose: np.ndarray, score: np.ndarray, level: float = 0.95) -> tuple[float, float, float]:
    """Spearman's rank correlation of score and dose, with a percentile interval from resampling wells.

    Returns
    -------
    tuple of float
        Correlation, lower and upper bound (2000 resamplings from a fixed seed); all nan where either is constant.
    """
    from scipy.stats import rankdata, spearmanr

    x, y = np.asarray(dose, float), np.asarray(score, float)
    if len(x) < 3 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return float("nan"), float("nan"), float("nan")
    rng = np.random.default_rng(BOOTSTRAP_SEED)
    drawn = rng.integers(0, len(x), size=(RESAMPLINGS, len(x)))
    a, b = rankdata(x[drawn], axis=1), rankdata(y[drawn], axis=1)
    a, b = a - a.mean(axis=1, keepdims=True), b - b.mean(axis=1, keepdims=True)
    size = np.sqrt((a**2).sum(axis=1) * (b**2).sum(axis=1))
    rho = (a * b).sum(axis=1)[size > 0] / size[size > 0]
    low, high = np.quantile(rho, [(1 - level) / 2, (1 + level) / 2])
    return float(spearmanr(x, y).statistic), float(low), float(high)


def well_scores(predictions: pd.DataFrame, response: pd.DataFrame, positive: str) -> pd.DataFrame:
    """Score of every control well and of every well of the dose series.

    Parameters
    ----------
    predictions : DataFrame
        Prediction table of the scored control wells, with ``Metadata_Control``.
    response : DataFrame
        The same for the dose series, whose ``Metadata_Label`` is empty; the same unit and methods.
    positive : str
        Label of the positive controls.

    Returns
    -------
    DataFrame
        `WELL_SCORES`, sorted by them.

    Raises
    ------
    MorphobenchError
        There is no probability of the positive label, or a table lacks ``Metadata_Control``.
    """
    parts = []
    for table in (predictions, response):
        if table.empty:
            continue
        lacking = [c for c in (CONTROL, f"p_{positive}") if c not in table]
        if lacking:
            raise MorphobenchError(f"lacks the columns {', '.join(lacking)}", "prediction table of a dose series")
        parts.append(reduce_to(table, "well"))
    wells = pd.concat(parts, ignore_index=True).rename(columns={f"p_{positive}": "score"})
    wells[CONTROL] = wells[CONTROL].fillna("")
    return wells[WELL_SCORES].sort_values(WELL_SCORES[:-1], kind="stable").reset_index(drop=True)


def _curve(wells: pd.DataFrame) -> dict[str, object]:
    """What is reported about one method's curve."""
    score, dose = wells["score"].to_numpy(float), wells[CONCENTRATION].to_numpy(float)
    positive, negative = (score[wells[CONTROL] == kind] for kind in ("positive", "negative"))
    rho, low, high = spearman(dose, score)
    fit = asdict(hill_fit(dose, score))
    return {
        "n": fit.pop("n"), "plates": wells[PLATE].nunique(), "n_positive": len(positive), "n_negative": len(negative),
        "mean_positive": positive.mean() if len(positive) else np.nan,
        "mean_negative": negative.mean() if len(negative) else np.nan,
        "z_prime": z_prime(positive, negative), "v_factor": v_factor(score, dose),
        "spearman": rho, "spearman_low": low, "spearman_high": high,
        **fit,
        "lowest": dose[dose > 0].min(initial=np.inf), "highest": dose.max(),
    }  # fmt: skip


def dose_table(wells: pd.DataFrame) -> pd.DataFrame:
    """Quality and dose response of each method on each compound (and cell line).

    Z′ uses the compound's own control wells, all held out. The curve uses every well at its concentration: the
    dose series, wells without dose, and positive controls of the same compound.

    Parameters
    ----------
    wells : DataFrame
        As `well_scores` returns it; several methods and seeds in one table are kept apart.

    Returns
    -------
    DataFrame
        One row per method × seed × compound × cell line: ``n`` wells, ``plates, n_positive, n_negative``,
        ``mean_positive, mean_negative`` (score of controls), ``z_prime, v_factor, spearman`` with ``_low, _high``,
        the attributes of `HillFit` (``status, bottom, top, ec50`` in µM, ``slope`` …), and the ``lowest`` (above
        zero) and ``highest`` dose, µM.
    """
    keys = [*RUN_KEY, *CURVE_KEY]
    rows = [dict(zip(keys, key, strict=True)) | _curve(of) for key, of in wells.groupby(keys, sort=False)]
    return pd.DataFrame(rows)


def positive_label(tables: Iterable[pd.DataFrame]) -> str:
    """Label of the wells whose ``Metadata_Control`` is ``positive``; empty where there are none.

    Raises
    ------
    MorphobenchError
        Positive controls carry several labels, or one that negative controls carry too.
    """
    labels_by_control: dict[str, set[str]] = {"positive": set(), "negative": set()}
    for table in tables:
        for kind, labels in labels_by_control.items():
            labels |= set(table.loc[table[CONTROL] == kind, LABEL]) if CONTROL in table else set()
    positive, negative = labels_by_control["positive"], labels_by_control["negative"]
    if len(positive) > 1 or positive & negative:
        raise MorphobenchError(
            f"have the labels {sorted(positive)}, negative controls {sorted(negative)}",
            "positive controls", "A dose response needs one label for all positive controls, and another for negative.")
    return next(iter(positive), "")


def dose_response(
    predictions: Iterable[pd.DataFrame], responses: Iterable[pd.DataFrame], positive: str
) -> DoseResponse | None:
    """Dose response of several methods, one prediction table each; None where there is no dose series.

    Parameters
    ----------
    predictions, responses : iterables of DataFrame
        In the same order: for each method its scored controls and its dose series (may be empty).
    positive : str
        Label of the positive controls; see `positive_label`.
    """
    pairs = [(p, r) for p, r in zip(predictions, responses, strict=True) if len(r)]
    if not pairs:
        return None
    if not positive:
        raise MorphobenchError("has a dose series and no positive control with a label", "prediction tables",
                               "Name the assay's positive controls.")
    for p, r in pairs:
        if labels_of(p) != labels_of(r):
            raise MorphobenchError("predicts other labels for the dose series than for the controls",
                                   f"method {p['method'].iloc[0]}", "Run the method again.")
    wells = pd.concat([well_scores(p, r, positive) for p, r in pairs], ignore_index=True)
    by_dose = wells.groupby([*RUN_KEY, *CURVE_KEY, CONCENTRATION], sort=False)["score"]
    points = by_dose.agg(n="count", mean="mean", sd="std").reset_index()
    return DoseResponse(positive, dose_table(wells), wells, points)
