"""Dose response on the page: how its numbers are written, its table and its figure."""

from __future__ import annotations

import math
from itertools import cycle
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator

from benchmark.base.tables import CELL_LINE, COMPOUND, CONCENTRATION
from benchmark.evaluation.comparison import Comparison
from benchmark.evaluation.dose import CURVE_KEY
from benchmark.evaluation.hill import hill
from benchmark.report.drawing import clean

#: Units of concentration and how many µM one is, the largest first.
CONCENTRATIONS = (("mM", 1e3), ("µM", 1.0), ("nM", 1e-3), ("pM", 1e-6))
PANEL = (4.9, 3.6)  # inches
GREY = "#8a8a8a"
#: Looks of the first method of each role, as in the other figures (cell count apart, since grey stands for permuted
#: labels here), and of further methods, in their order.
ROLE_LOOKS = {"classical": ("#0173b2", "o"), "frozen": ("#de8f05", "D"), "finetuned": ("#d55e00", "^"),
              "count": ("#cc78bc", "s")}  # fmt: skip
FURTHER_LOOKS = (("#029e73", "v"), ("#56b4e9", "P"), ("#ca9161", "X"), ("#555555", "*"), ("#fbafe4", "p"))


def _unit(micromolar: float) -> tuple[str, float]:
    """The most readable unit of a concentration: µM from 0.1 µM, nM below."""
    return next(((u, f) for u, f in CONCENTRATIONS[1:] if micromolar >= 0.1 * f), CONCENTRATIONS[-1])


def _digits(value: float, digits: int = 3) -> str:
    """``0.00123``, ``12.3``, ``1230``: significant digits without an exponent."""
    return np.format_float_positional(float(f"{value:.{digits}g}"), trim="-")


def concentration(micromolar: float) -> str:
    """``12.3 nM``, ``2.5 µM`` (no-break space)."""
    unit, factor = _unit(micromolar)
    return f"{_digits(micromolar / factor)}\u00a0{unit}"


def _determined(row: pd.Series) -> bool:
    """Whether the doses bound the EC50 on one side at least."""
    return row["status"] == "fitted" and not (row["ec50_low"] == 0 and math.isinf(row["ec50_high"]))


def ec50_text(row: pd.Series) -> str:
    """``12.3 nM [9.1 to 17 nM]``, or why there is no number.

    Parameters
    ----------
    row : Series
        Of `benchmark.evaluation.dose.dose_table`.
    """
    status = row["status"]
    if status == "below":
        return f"below the doses (<\u00a0{concentration(row['lowest'])})"
    if status == "above":
        return f"above the doses (>\u00a0{concentration(row['highest'])})"
    if status != "fitted":
        return {"flat": "none: no rise with dose", "too few": "none: too few doses or wells"}[str(status)]
    low, high = row["ec50_low"], row["ec50_high"]
    if not _determined(row):
        return "not determined"
    unit, factor = _unit(row["ec50"])
    low_text = f"<\u00a0{_digits(row['lowest'] / factor)}" if low == 0 else _digits(low / factor)
    high_text = f">\u00a0{_digits(row['highest'] / factor)}" if math.isinf(high) else _digits(high / factor)
    return f"{_digits(row['ec50'] / factor)}\u00a0{unit} [{low_text} to {high_text}]"


def slope_text(row: pd.Series) -> str:
    """``1.5 [1.1 to 2.1]``; ``≥ 3.2`` where the doses lie too far apart to tell how steep; a dash without a curve."""
    if not _determined(row):
        return "–"
    if math.isinf(row["slope_high"]):
        return f"≥\u00a0{_digits(row['slope_low'], 2)}"
    return f"{_digits(row['slope'], 2)} [{_digits(row['slope_low'], 2)} to {_digits(row['slope_high'], 2)}]"


def factor_text(value: float) -> str:
    """A Z′ or V factor: ``0.87``, ``−0.40``; far below zero only that is stated."""
    if math.isnan(value):
        return "–"
    return "<\u00a0−10" if value < -10 else f"{value:.2f}".replace("-", "−")


def _correlation(row: pd.Series) -> str:
    if math.isnan(row["spearman"]):
        return "–"
    numbers = (f"{row[c]:.2f}".replace("-", "−") for c in ("spearman", "spearman_low", "spearman_high"))
    value, low, high = numbers
    return f"{value} [{low} to {high}]"


def curve_name(row: pd.Series) -> str:
    """The compound, with its cell line where the assay has several."""
    return f"{row[COMPOUND]}, {row[CELL_LINE]}" if row[CELL_LINE] else str(row[COMPOUND])


def dose_rows(comparison: Comparison) -> list[dict[str, Any]]:
    """The dose-response table's cells, curve by curve and in the comparison's order; `first` begins a curve."""
    assert comparison.doses is not None
    rows: list[dict[str, Any]] = []
    table = comparison.doses.table
    for _, curve in table.groupby(CURVE_KEY, sort=True):
        ordered = curve.sort_values("method", key=lambda s: s.map(comparison.methods.index), kind="stable")
        for i, (_, row) in enumerate(ordered.iterrows()):
            inverted = row["mean_positive"] < row["mean_negative"]
            rows.append({
                "curve": curve_name(row), "first": i == 0, "method": row["method"],
                "title": comparison.titles[row["method"]], "control": row["method"] in comparison.controls,
                "seed": row["seed"], "wells": row["n"], "positive": row["n_positive"], "negative": row["n_negative"],
                "doses": row["doses"], "plates": row["plates"],
                "z_prime": factor_text(row["z_prime"]) + (" (inverted)" if inverted else ""),
                "means": f"{row['mean_negative']:.2f} → {row['mean_positive']:.2f}".replace("nan", "–"),
                "v_factor": factor_text(row["v_factor"]), "ec50": ec50_text(row), "slope": slope_text(row),
                "spearman": _correlation(row),
            })  # fmt: skip
    return rows


def _looks(comparison: Comparison, methods: list[str]) -> dict[str, tuple[str, str, str]]:
    """Colour, marker and line of each method; permuted-label runs are grey."""
    looks: dict[str, tuple[str, str, str]] = {}
    by_role, further = dict(ROLE_LOOKS), cycle(FURTHER_LOOKS)
    for method in methods:
        if method in comparison.controls:
            looks[method] = (GREY, "x", ":")
        else:
            looks[method] = (*(by_role.pop(comparison.roles[method], None) or next(further)), "-")
    return looks


def _axis(doses: np.ndarray, axes: Axes) -> tuple[float, float]:
    """Log axis in the unit of the middle dose, with a place for dose 0 left of the lowest.

    Returns
    -------
    tuple of float
        That place, and the mean step between doses, both in powers of ten of µM.
    """
    positive = np.unique(doses[doses > 0])
    unit, factor = _unit(float(np.median(positive)))
    step = np.log10(positive[-1] / positive[0]) / max(len(positive) - 1, 1)
    nought = np.log10(positive[0]) - max(1.6 * step, 0.3)
    ticks = np.arange(np.ceil(np.log10(positive[0] / factor) - 1e-9), np.floor(np.log10(positive[-1] / factor)) + 1)
    places, names = [t + np.log10(factor) for t in ticks], [_digits(10.0**t) for t in ticks]
    if (doses == 0).any():
        places, names = [nought, *places], ["0", *names]
        axes.axvline((nought + np.log10(positive[0])) / 2, color="#bbbbbb", linewidth=0.8, linestyle=(0, (2, 3)))
    axes.xaxis.set_major_locator(FixedLocator(places))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticklabels(names)
    axes.set_xlabel(f"concentration, {unit}", fontsize=9)
    axes.set_xlim((nought if (doses == 0).any() else np.log10(positive[0])) - 0.6 * step,
                  np.log10(positive[-1]) + 0.6 * step)  # fmt: skip
    return float(nought), float(step)


def _panel(axes: Axes, comparison: Comparison, key: tuple[Any, ...], looks: dict[str, tuple[str, str, str]]) -> None:
    """One compound: each method's wells (side by side), its curve, and its EC50 at the foot."""
    assert comparison.doses is not None

    def mine(table: pd.DataFrame) -> pd.DataFrame:
        same = (table[CURVE_KEY] == list(key)).all(axis=1)
        return table[same & (table["seed"] == table["method"].map(comparison.seeds))]

    wells = mine(comparison.doses.wells)
    fits = {str(row["method"]): row for _, row in mine(comparison.doses.table).iterrows()}
    nought, step = _axis(wells[CONCENTRATION].to_numpy(float), axes)
    order = [m for m in looks if m in fits]
    # Side by side, so that no method hides another, yet near their dose.
    width = min(0.5 * step, 0.16)
    offsets = dict(zip(order, np.linspace(-width / 2, width / 2, len(order)) if len(order) > 1 else [0.0], strict=True))
    for rank, method in enumerate(order):
        colour, marker, line = looks[method]
        rows, row = wells[wells["method"] == method], fits[method]
        dose = rows[CONCENTRATION].to_numpy(float)
        x = np.where(dose > 0, np.log10(np.where(dose > 0, dose, 1)), nought) + offsets[method]
        axes.plot(x, rows["score"], marker, color=colour, markersize=3.4, alpha=0.55, markeredgewidth=0.9,
                  linestyle="none", zorder=2)  # fmt: skip
        axes.plot([], [], marker + line, color=colour, markersize=5, label=clean(comparison.titles[method], most=46))
        if not _determined(row):
            continue
        over = np.linspace(np.log10(row["lowest"]) - 0.4 * step, np.log10(row["highest"]) + 0.4 * step, 200)
        axes.plot(over, hill(10**over, *row[["bottom", "top", "ec50", "slope"]].astype(float)), line, color=colour,
                  linewidth=1.7, zorder=3)  # fmt: skip
        foot = -0.05 - 0.035 * rank
        low, high = max(row["ec50_low"], row["lowest"]), min(row["ec50_high"], row["highest"])
        axes.plot(np.log10([low, high]), [foot, foot], "-", color=colour, linewidth=1.4, zorder=3)
        axes.plot(np.log10(row["ec50"]), foot, "|", color=colour, markersize=7, markeredgewidth=2, zorder=4)
    axes.axhline(0, color="#999999", linewidth=0.8, zorder=1)
    if any(_determined(row) for row in fits.values()):
        axes.text(0.01, -0.05, "EC50", fontsize=8, color="#555555", va="center",
                  transform=axes.get_yaxis_transform())  # fmt: skip
    axes.set(ylim=(-0.07 - 0.035 * len(order), 1.04), title=clean(curve_name(wells.iloc[0]), most=44))
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1], ["0", "0.25", "0.5", "0.75", "1"])
    axes.grid(visible=False, axis="x")
    sns.despine(ax=axes)


def dose_figure(comparison: Comparison) -> Figure:
    """Score against concentration: one panel per compound (and cell line), one colour and marker per method.

    Each method is drawn at the seed shown for it. Wells of several methods are drawn side by side at a dose, so that
    none hides another; the EC50 of each method is a tick below the axis with a bar for its 95 % interval.
    """
    assert comparison.doses is not None
    table = comparison.doses.table
    keys = sorted(set(table[CURVE_KEY].itertuples(index=False, name=None)))
    methods = [m for m in comparison.methods if m in set(table["method"])]
    looks = _looks(comparison, methods)
    columns = min(2, len(keys))
    rows = math.ceil(len(keys) / columns)
    legend = 0.24 * math.ceil(len(methods) / (2 if columns == 2 else 1))
    figure = Figure(figsize=(PANEL[0] * columns, PANEL[1] * rows + legend), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False, sharey=True).ravel()
    for axes, key in zip(panels, keys, strict=False):
        _panel(axes, comparison, key, looks)
    for axes in panels[len(keys):]:
        axes.set_visible(False)
    for axes in panels[::columns]:
        axes.set_ylabel(f"score: probability of “{clean(comparison.doses.positive, most=24)}”", fontsize=9)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=columns, fontsize=8.5, frameon=False)
    return figure
