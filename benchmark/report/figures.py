"""Figures of a comparison: accuracies, right-and-wrong heat map, confusion matrices (seaborn)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure

from benchmark.base.files import safe_name
from benchmark.base.tables import CELL_LINE, COMPOUND, CONCENTRATION, LABEL, PLATE, WELL
from benchmark.evaluation.comparison import Comparison
from benchmark.evaluation.metrics import REPORTED
from benchmark.report.dose import dose_figure
from benchmark.report.drawing import SIMULATED, STYLES, Picture, clean, save, style

RIGHT, WRONG = "#a9cfe8", "#c2540a"


def _accuracy_panel(axes: Axes, comparison: Comparison, unit: str) -> None:
    """One row per method: a point per seed with Wilson's interval, and correct/n at the right."""
    table = comparison.accuracy[comparison.accuracy["unit"] == unit]
    methods = [m for m in comparison.methods if m in set(table["method"])]
    for y, method in enumerate(methods):
        rows = table[table["method"] == method].sort_values("seed")
        colour, marker, filling = STYLES[comparison.roles[method]]
        offsets = (np.arange(len(rows)) - (len(rows) - 1) / 2) * min(0.22, 0.7 / len(rows))
        for offset, (_, row) in zip(offsets, rows.iterrows(), strict=True):
            error = 100 * np.array([[row["accuracy"] - row["low"]], [row["high"] - row["accuracy"]]])
            axes.errorbar(
                100 * row["accuracy"], y + offset, xerr=error.clip(0), color=colour, marker=marker, markersize=7,
                fillstyle=filling, markeredgewidth=1.5, elinewidth=1.8, capsize=3, linestyle="none", clip_on=False,
            )  # fmt: skip
        first = rows.iloc[0]
        axes.text(104, y, f"{first['correct']}/{first['n']}", va="center", ha="left", fontsize=9, color="#333333")
    chance = table["chance"].iloc[0]
    axes.axvline(100 * chance, color="#333333", linestyle="--", linewidth=1, zorder=0)
    axes.text(100 * chance, -0.62, " chance", fontsize=8, color="#333333", va="center", ha="left")
    axes.set(xlim=(0, 100), ylim=(len(methods) - 0.4, -0.9), xlabel="", title=f"by {unit}")
    axes.set_yticks(range(len(methods)), [_row_name(comparison, m) for m in methods], fontsize=9)
    for tick, method in zip(axes.get_yticklabels(), methods, strict=True):
        tick.set_fontstyle("italic" if method in comparison.controls else "normal")
    axes.grid(visible=False, axis="y")
    sns.despine(ax=axes, left=True)


def _row_name(comparison: Comparison, method: str) -> str:
    return clean(comparison.titles[method], 24)


def accuracy_figure(comparison: Comparison) -> Figure:
    """Accuracy of every method by treatment, well and field, one panel each, below one another."""
    units = [u for u in REPORTED if u in set(comparison.accuracy["unit"])]
    counts = [comparison.accuracy.loc[comparison.accuracy["unit"] == u, "method"].nunique() for u in units]
    lines = max(_row_name(comparison, m).count("\n") + 1 for m in comparison.methods)
    figure = Figure(figsize=(5.4, sum(0.2 * max(lines, 2) * n + 0.75 for n in counts)), layout="constrained")
    panels = figure.subplots(len(units), 1, squeeze=False, height_ratios=[n + 0.6 for n in counts])
    for axes, unit in zip(panels[:, 0], units, strict=True):
        _accuracy_panel(axes, comparison, unit)
    panels[-1, 0].set_xlabel("accuracy, %", fontsize=10)
    return figure


def _heat_rows(table: pd.DataFrame, methods: list[str]) -> tuple[np.ndarray, list[str], list[int]]:
    """Values (rows × methods; 0 wrong, 1 right, nan nothing), row names, and where the label headings are."""
    values: list[list[float]] = []
    names: list[str] = []
    headings: list[int] = []
    plates = table[PLATE].nunique() if PLATE in table else 0
    for label, rows in table.groupby(LABEL, sort=True):
        headings.append(len(values))
        values.append([np.nan] * len(methods))
        names.append(clean(str(label), most=46))
        for _, row in rows.iterrows():
            values.append([np.nan if pd.isna(row[m]) else float(row[m]) for m in methods])
            names.append(_unit_name(row, plates > 1))
    return np.array(values, float), names, headings


def _unit_name(row: pd.Series, name_plate: bool) -> str:
    """``compound 3 µM``, with its cell line where there are several, and its well where a row is one."""
    name = f"{clean(row[COMPOUND], most=26)} {row[CONCENTRATION]:g} µM"
    if row[CELL_LINE]:
        name += f", {clean(row[CELL_LINE], most=14)}"
    if WELL in row:
        name += f", {clean(row[PLATE], most=14) + ' ' if name_plate else ''}{clean(row[WELL], most=8)}"
    return name


def heat_figure(comparison: Comparison) -> Figure:
    """Right and wrong of every method (columns) on every treatment or well (rows), grouped by label."""
    methods = list(comparison.methods)
    values, names, headings = _heat_rows(comparison.outcomes, methods)
    # Room for the names, in inches: a layout without room collapses.
    side = 0.075 * max(len(name) for i, name in enumerate(names) if i not in headings)
    figure = Figure(figsize=(side + 0.9 + 0.45 * len(methods), 2.1 + 0.2 * len(names)), layout="constrained")
    axes = figure.subplots()
    sns.heatmap(
        values, ax=axes, cmap=ListedColormap([WRONG, RIGHT]), vmin=0, vmax=1, cbar=False, linewidths=1.2,
        linecolor="white", mask=np.isnan(values), xticklabels=False, yticklabels=False,
    )  # fmt: skip
    for y, x in zip(*np.nonzero(values == 0), strict=True):
        axes.text(x + 0.5, y + 0.52, "×", ha="center", va="center", color="white", fontsize=10)
    treated = [i for i in range(len(names)) if i not in headings]
    axes.set_yticks([i + 0.5 for i in treated], [names[i] for i in treated], fontsize=8, rotation=0)
    for i in headings:
        axes.text(0, i + 0.55, names[i], va="center", ha="left", fontsize=8.5, fontweight="bold")
    axes.set_xticks([i + 0.5 for i in range(len(methods))])
    axes.set_xticklabels([clean(comparison.titles[m], 22) for m in methods], rotation=60, ha="left", va="bottom",
                         rotation_mode="anchor", fontsize=8)  # fmt: skip
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    axes.grid(visible=False)
    axes.set(xlabel="", ylabel="")
    return figure


def confusion_figure(counts: pd.DataFrame, title: str) -> Figure:
    """One method's confusion matrix: numbers of units, shaded by the share of the true label."""
    n = len(counts)
    total = counts.sum(axis=1).to_numpy(float)[:, None]
    shares = np.divide(counts.to_numpy(float), total, out=np.zeros(counts.shape), where=total > 0)
    names = [clean(str(label), 18, most=36) for label in counts.index]
    room = 0.08 * max(len(line) for name in names for line in name.split("\n"))  # inches
    figure = Figure(figsize=(room + 0.6 + 0.42 * n, 0.8 * room + 0.9 + 0.4 * n), layout="constrained")
    axes = figure.subplots()
    marks = counts.map(lambda v: str(v) if v else "")
    sns.heatmap(
        shares, ax=axes, cmap="Blues", vmin=0, vmax=1.15, cbar=False, annot=marks.to_numpy(), fmt="", square=True,
        linewidths=0.8, linecolor="#dddddd", annot_kws={"fontsize": 9}, xticklabels=names, yticklabels=names,
    )  # fmt: skip
    axes.set_xticklabels(names, rotation=45, ha="right", rotation_mode="anchor", fontsize=8.5)
    axes.set_yticklabels(names, rotation=0, fontsize=8.5)
    axes.set_xlabel("predicted", fontsize=9)
    axes.set_ylabel("true", fontsize=9)
    axes.set_title(clean(title, 38), x=0.0, fontsize=10)
    return figure


def draw(comparison: Comparison, folder: Path, simulated: bool = False) -> list[Picture]:
    """Draw every figure and save each as SVG and PNG.

    Parameters
    ----------
    comparison : Comparison
    folder : Path
        Where the files go, usually ``figures/`` beside the page; made if absent.
    simulated : bool
        Writes that the images are simulated into every figure and caption.

    Returns
    -------
    list of Picture
        Of kinds ``accuracy``, ``outcomes``, one ``confusion`` per method, and ``dose`` where there is a dose series.
    """
    pictures: list[Picture] = []

    def add(kind: str, stem: str, title: str, caption: str, make: Callable[[], Figure]) -> None:
        with style():
            figure = make()
            if simulated:
                figure.text(1, 0, SIMULATED, fontsize=9, color=WRONG, ha="right", va="top", fontweight="bold")
            svg, png = save(figure, folder, stem)
        pictures.append(Picture(kind, title, f"{SIMULATED}. {caption}" if simulated else caption, svg, png))

    roles = set(comparison.roles.values())
    others = "".join(said for role, said in (("other", "Triangles: other read-outs. "), ("fusion", "Stars: fusion. "),
                                             ("embedding", "Hollow triangles: profiles of a network's embeddings. "))
                     if role in roles)
    add("accuracy", "accuracy", "Accuracy of every method",
        f"Share of {_listed(comparison)} given the right label, with Wilson's 95 % interval. Diamonds: "
        f"networks (hollow: frozen); circles: {comparison.program}; square: cell count; plus signs: other baselines; "
        "crosses: labels permuted. "
        f"{others}Dashed: always guessing the most common label.", lambda: accuracy_figure(comparison))  # fmt: skip
    row = "compound at one concentration" if comparison.unit == "treatment" else "control well"
    add("outcomes", f"{comparison.unit}s", f"Right and wrong, {comparison.unit} by {comparison.unit}",
        f"Pale blue: right. Orange with a cross: wrong. A row is a {row}.",
        lambda: heat_figure(comparison))  # fmt: skip
    for method in comparison.methods:
        counts, title = comparison.confusions[method], comparison.titles[method]
        add("confusion", f"confusion-{safe_name(method)}", title,
            f"{comparison.unit.capitalize()}s by true and predicted label: {title}.",
            lambda counts=counts, title=title: confusion_figure(counts, title))  # type: ignore[misc]  # fmt: skip
    if comparison.doses is not None:
        add("dose", "dose", "Score against concentration",
            "Score against concentration, a panel per compound (or cell line). Small marks: wells; lines: fitted Hill "
            "curves; ticks at the foot: EC50 with its 95 % interval, where there is one. Grey: labels permuted.",
            lambda: dose_figure(comparison))  # fmt: skip
    return pictures


def _listed(comparison: Comparison) -> str:
    units = [f"{u}s" for u in REPORTED if u in set(comparison.accuracy["unit"])]
    return units[0] if len(units) == 1 else f"{', '.join(units[:-1])} and {units[-1]}"
