"""Several seeds on the page: their spread, differences of methods beside it, and ensembles."""

from __future__ import annotations

from typing import Any

import pandas as pd

from benchmark.evaluation.comparison import Comparison
from benchmark.report.words import ALPHA, p_equals, p_value, percent, points

ENSEMBLE_CITATIONS = (
    "Lakshminarayanan B, Pritzel A, Blundell C (2017). Simple and scalable predictive uncertainty estimation using "
    "deep ensembles. Advances in Neural Information Processing Systems 30.",
    "Cortés-Ciriano I, Bender A (2019). Deep Confidence: a computationally efficient framework for calculating "
    "reliable prediction errors for deep neural networks. J Chem Inf Model 59:1269–1281. doi:10.1021/acs.jcim.8b00542.",
)


def shown_seed(comparison: Comparison, row: pd.Series) -> str:
    """The seed of a row of accuracies: its number, or that it is a mean over all."""
    return "mean" if row["method"] in comparison.ensembles else str(row["seed"])


def _spread_rows(comparison: Comparison) -> list[dict[str, Any]]:
    """The cells of the table of spreads, unit by unit; `first` marks where a unit begins."""
    rows: list[dict[str, Any]] = []
    for _, row in comparison.spread.table.iterrows():
        low, high = row["correct_low"], row["correct_high"]
        rows.append({
            "unit": row["unit"], "first": not rows or rows[-1]["unit"] != row["unit"], "n": row["n"],
            "title": comparison.titles[row["method"]], "control": row["method"] in comparison.controls,
            "seeds": row["seeds"], "mean": percent(row["mean"]), "sd": f"{100 * row['sd']:.1f}",
            "range": f"{100 * row['low']:.1f}–{100 * row['high']:.1f}" if low < high else "none",
            "right": f"{low}–{high}" if low < high else str(low),
            "changing": "–" if pd.isna(row["changing"]) else str(row["changing"]),
        })  # fmt: skip
    return rows


def spread_lines(comparison: Comparison) -> list[list[str]]:
    """The spread by the unit that is compared, for the terminal: a heading and a row a method; empty with one seed."""
    table = comparison.spread.table
    rows = [["spread over seeds", "seeds", f"{comparison.unit}s right", "mean", "sd, points", "change"]]
    for _, row in table[table["unit"] == comparison.unit].iterrows():
        low, high = row["correct_low"], row["correct_high"]
        rows.append([
            str(row["method"]), str(row["seeds"]), f"{f'{low}–{high}' if low < high else low}/{row['n']}",
            percent(row["mean"]), f"{100 * row['sd']:.1f}", "–" if pd.isna(row["changing"]) else str(row["changing"]),
        ])  # fmt: skip
    return rows if len(rows) > 1 else []


def _pair_rows(comparison: Comparison) -> list[dict[str, Any]]:
    rows = []
    for _, row in comparison.spread.pairs.iterrows():
        tested = comparison.pair(row["method_a"], row["method_b"])
        assert tested is not None
        rows.append({
            "a": comparison.titles[row["method_a"]], "b": comparison.titles[row["method_b"]], "seeds": row["seeds"],
            "first": points(tested["difference"]), "p": p_equals(tested["p"]), "p_value": p_value(tested["p"]),
            "mean": points(row["mean"]),
            "range": f"{points(row['low'])} to {points(row['high'])}", "apart": bool(row["apart"]),
            "doubtful": bool(tested["p"] < ALPHA and not row["apart"]),
        })  # fmt: skip
    return rows


def seed_section(comparison: Comparison) -> dict[str, Any]:
    """What `seeds.html` shows; empty where each method has one seed.

    Returns
    -------
    dict
        ``spread`` and ``pairs``, rows of cells; ``doubtful``, those pairs whose test at one seed finds a difference
        that is no larger than the spread over seeds.
    """
    if not len(comparison.spread.table):
        return {}
    pairs = _pair_rows(comparison)
    return {"spread": _spread_rows(comparison), "pairs": pairs, "doubtful": [row for row in pairs if row["doubtful"]]}
