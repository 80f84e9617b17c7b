"""The grid on the page and in the terminal: every profile, correction and decision beside one another."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from benchmark.report.drawing import SIMULATED, Picture, clean, save, style
from benchmark.report.figures import WRONG
from benchmark.report.words import interval, percent, points

#: A loss of accuracy beyond this, when batches are left out too, is commented on.
LEANS = 0.1
GRID_CITATIONS = (
    "Caicedo JC et al. (2017). Data-analysis strategies for image-based cell profiling. Nat Methods 14:849–863. "
    "doi:10.1038/nmeth.4397 (normalisation, selection, batch correction).",
    "Ando DM, McLean CY, Berndl M (2017). Improving phenotypic measurements in high-content imaging screens. bioRxiv "
    "161422 (typical variation normalisation; not-same-compound-and-batch).",
    "Johnson WE, Li C, Rabinovic A (2007). Adjusting batch effects in microarray expression data using empirical Bayes "
    "methods. Biostatistics 8:118–127 (ComBat).",
    "Korsunsky I et al. (2019). Fast, sensitive and accurate integration of single-cell data with Harmony. Nat Methods "
    "16:1289–1296.",
    "Kalinin AA et al. (2025). A versatile information retrieval framework for evaluating profile strength and "
    "similarity. Nat Commun 16:5181 (mean average precision; copairs).",
)
ROW = ["profile", "normalise", "correction"]
#: The field's own terms for the nearest treatment under each scheme.
NEAREST = {"leave-one-compound-out": "NSC", "leave-one-compound-and-batch-out": "NSCB"}
DECISIONS = {
    "logistic_regression": "logistic regression", "linear_svm": "linear SVM", "rbf_svm": "RBF SVM", "lda": "LDA",
    "knn": "k-NN", "random_forest": "random forest", "gradient_boosting": "gradient boosting",
}
#: Facts of a correction that are shown, with their words.
FACTS = {
    "n_controls": "controls", "controls": "controls", "rows": "rows", "features": "features", "rank": "rank",
    "shrinkage": "shrinkage", "regularisation": "regularisation", "components": "axes", "clipped": "share cut",
}


def decision_name(decision: str, scheme: str) -> str:
    """A decision as a heading: ``NSC``, ``NSCB``, ``linear SVM``."""
    return NEAREST.get(scheme, "nearest") if decision == "nearest" else DECISIONS.get(decision, decision)


def grid_tables(table: pd.DataFrame, transductive: Collection[tuple[str, ...]] = ()) -> list[dict[str, Any]]:
    """The grid as one table per scheme, for the page: headings, and rows of table cells with their shade (0 to 1).

    ``transductive``: rows (profile, normalisation, correction) that estimate something from test wells without labels.
    """
    found = []
    for scheme, rows in table.groupby("scheme", sort=False):
        decisions = list(dict.fromkeys(rows["decision"]))
        low, high = float(rows["chance"].max()), 1.0
        lines = []
        for names, of in rows.groupby(ROW, sort=False):
            cells = {row["decision"]: _cell(row, low, high) for _, row in of.iterrows()}
            lines.append({"names": names, "cells": [cells.get(d) for d in decisions],
                          "transductive": tuple(map(str, names)) in transductive})
        found.append({"scheme": scheme, "decisions": [decision_name(d, str(scheme)) for d in decisions], "rows": lines,
                      "n": int(rows["n"].max()), "unit": rows["unit"].iloc[0],
                      "chance": percent(float(rows["chance"].max()))})
    return found


def _cell(row: pd.Series, low: float, high: float) -> dict[str, Any]:
    shade = float(np.clip((row["accuracy"] - low) / (high - low), 0, 1))
    return {"count": f"{row['correct']}/{row['n']}", "percent": percent(row["accuracy"]),
            "interval": interval(row["low"], row["high"]), "shade": round(0.55 * shade, 3)}


def correction_effects(table: pd.DataFrame) -> pd.DataFrame:
    """Each correction against the same profile, normalisation, decision and scheme without it.

    Returns
    -------
    DataFrame
        One row per scheme and correction: ``pairs``, how many ``helped`` and ``hurt``, and the mean, least and greatest
        ``difference`` in accuracy (shares, not points).
    """
    columns = ["scheme", "correction", "pairs", "helped", "hurt", "mean", "least", "greatest"]
    key = ["scheme", "profile", "normalise", "decision"]
    without = table[table["correction"] == "none"].set_index(key)["accuracy"]
    rows = []
    for (scheme, correction), of in table[table["correction"] != "none"].groupby(["scheme", "correction"], sort=False):
        both = of.set_index(key)["accuracy"] - without
        difference = both.dropna()
        if len(difference):
            rows.append([scheme, correction, len(difference), int((difference > 0).sum()),
                         int((difference < 0).sum()), difference.mean(), difference.min(), difference.max()])
    return pd.DataFrame(rows, columns=columns)


def correction_facts(facts: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """What each correction was fitted on, as ranges over folds; one row per scheme, profile table and correction."""
    table = pd.DataFrame(list(facts))
    if table.empty:
        return []
    rows = []
    for names, of in table.groupby(["scheme", *ROW], sort=False):
        parts = [f"{words} {_range(of[key])}" for key, words in FACTS.items()
                 if key in of and pd.to_numeric(of[key], errors="coerce").notna().any()]
        note = next((str(n) for n in of.get("note", pd.Series(dtype=str)).dropna()), "")
        rows.append(dict(zip(["scheme", *ROW], map(str, names), strict=True)) | {"fitted": ", ".join(parts),
                                                                                "note": note})
    return rows


def _range(values: pd.Series) -> str:
    numbers = pd.to_numeric(values, errors="coerce").dropna()
    low, high = numbers.min(), numbers.max()
    return f"{low:.4g}" if low == high else f"{low:.4g}–{high:.4g}"


def grid_sentences(table: pd.DataFrame) -> list[str]:
    """What a reader must know before believing the best combination of the grid."""
    if table.empty:
        return ["None of the combinations that the grid asks for applies to this assay."]
    sentences = []
    for scheme, rows in table.groupby("scheme", sort=False):
        best = rows.iloc[int(rows["accuracy"].to_numpy().argmax())]
        names = ", ".join(dict.fromkeys([*(str(best[c]) for c in ROW), decision_name(best["decision"], str(scheme))]))
        sentences.append(
            f"Under {scheme} the best of {len(rows)} combinations has {best['correct']} of {best['n']} right "
            f"({percent(best['accuracy'])}, 95 % interval {interval(best['low'], best['high'])} %): {names}. The "
            f"median over combinations is {percent(rows['accuracy'].median())}."
        )
    sentences += _without_batches(table)
    sentences.append(
        f"The best of all {len(table)} combinations is selected after the fact, so its accuracy is optimistic: nothing "
        "here was chosen by these figures, and no combination should be quoted as a method's accuracy because it came "
        "out on top. Settings of each classifier were chosen inside the training wells; the combination was not."
    )
    return sentences


def _without_batches(table: pd.DataFrame) -> list[str]:
    """How much the same combinations lose where a compound's batches are left out with it."""
    by_scheme = [table[table["scheme"] == s].set_index([*ROW, "decision"])["accuracy"] for s in NEAREST]
    lost = (by_scheme[0] - by_scheme[1]).dropna()
    if lost.empty:
        return []
    text = (f"Leaving out every well of a compound's batches as well, the same {len(lost)} combinations change by "
            f"{points(-lost.mean())} points on average ({points(-lost.max())} to {points(-lost.min())}; the "
            "denominators differ).")
    if lost.mean() > LEANS:
        text += (" Much of the accuracy under leave-one-compound-out thus rests on what compounds of one batch share, "
                 "or on having more to learn from.")
    return [text]


def grid_text(table: pd.DataFrame, skipped: Sequence[str], unscored: Sequence[str]) -> str:
    """The grid for the terminal: one block per scheme, with rows of profile, normalisation and correction."""
    lines: list[str] = []
    for block in grid_tables(table):
        heading = ["profile", "normalised", "correction", *block["decisions"]]
        rows = [heading, *([*map(str, r["names"]), *(c["count"] if c else "–" for c in r["cells"])]
                           for r in block["rows"])]
        widths = [max(len(row[i]) for row in rows) for i in range(len(heading))]
        lines += ["", f"{block['scheme']} ({block['unit']}s right; always guessing the most common label: "
                      f"{block['chance']})"]
        lines += ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows]
    lines += ["", *(f"not scored: {s}" for s in unscored), *(f"not applicable: {s}" for s in skipped)]
    return "\n".join(lines)


def grid_figure(table: pd.DataFrame) -> Figure:
    """Accuracy of every combination, one panel per scheme; rows: profile, normalisation, correction; columns:
    decisions."""
    schemes = list(dict.fromkeys(table["scheme"]))
    rows = table[ROW].drop_duplicates()
    names = [clean(" · ".join(r), most=60) for r in rows.itertuples(index=False)]
    decisions = list(dict.fromkeys(table["decision"]))
    side = 0.07 * max(map(len, names))
    figure = Figure(figsize=(side + 0.62 * len(decisions) * len(schemes) + 1.2, 1.9 + 0.24 * len(names)),
                    layout="constrained")
    panels = figure.subplots(1, len(schemes), squeeze=False, sharey=True)[0]
    for axes, scheme in zip(panels, schemes, strict=True):
        of = table[table["scheme"] == scheme].set_index([*ROW, "decision"])
        index = [[(*r, d) for d in decisions] for r in rows.itertuples(index=False)]
        accuracy = np.array([[of["accuracy"].get(i, np.nan) for i in line] for line in index], float)
        counts = np.array([[of["correct"].get(i, np.nan) for i in line] for line in index], float)
        marks = np.where(np.isnan(counts), "", np.vectorize(lambda v: f"{v:.0f}")(counts))
        sns.heatmap(100 * accuracy, ax=axes, cmap="cividis", vmin=0, vmax=100, annot=marks, fmt="", cbar=False,
                    linewidths=0.6, linecolor="white", annot_kws={"fontsize": 8}, xticklabels=False,
                    yticklabels=False)
        axes.set_yticks(np.arange(len(names)) + 0.5, names, fontsize=8, rotation=0)
        axes.set_xticks(np.arange(len(decisions)) + 0.5)
        axes.set_xticklabels([decision_name(d, scheme) for d in decisions], rotation=50, ha="left", va="bottom",
                             rotation_mode="anchor", fontsize=8)
        axes.xaxis.tick_top()
        axes.tick_params(length=0)
        axes.grid(visible=False)
        axes.set_xlabel(f"{scheme}\n{int(of['n'].max())} {of['unit'].iloc[0]}s", fontsize=9)
        axes.set_ylabel("")
    return figure


def draw_grid(table: pd.DataFrame, folder: Path, simulated: bool = False) -> Picture:
    """Draw the grid and save it as SVG and PNG."""
    with style():
        figure = grid_figure(table)
        if simulated:
            figure.text(1, 0, SIMULATED, fontsize=9, color=WRONG, ha="right", va="top", fontweight="bold")
        svg, png = save(figure, folder, "grid")
    caption = ("Units right for every profile, normalisation and correction (rows) and decision (columns); brighter "
               "is more.")
    return Picture("grid", "Profiles, corrections and decisions", f"{SIMULATED}. {caption}" if simulated else caption,
                   svg, png)


def grid_section(
    table: pd.DataFrame, skipped: Sequence[str], unscored: Sequence[str], facts: Sequence[Mapping[str, Any]],
    reproducibility: pd.DataFrame, rows: Sequence[Mapping[str, str]] = (), published: Sequence[Any] = (),
) -> dict[str, Any]:
    """Everything the page shows of a grid; see `benchmark.workflow.grid.Grid` for the arguments."""
    seen = {tuple(r[c] for c in ROW) for r in rows if r["transductive"]}
    return {"table": table, "tables": grid_tables(table, seen), "sentences": grid_sentences(table), "rows": list(rows),
            "effects": effect_rows(table), "fitted": correction_facts(facts), "literature": list(published),
            "reproducibility": reproducibility_rows(reproducibility), "skipped": list(skipped),
            "unscored": list(unscored)}


def effect_rows(table: pd.DataFrame) -> list[dict[str, str]]:
    """`correction_effects` in words, for the page."""
    return [{"scheme": r["scheme"], "correction": r["correction"], "pairs": str(r["pairs"]),
             "helped": str(r["helped"]), "hurt": str(r["hurt"]), "mean": points(r["mean"]),
             "range": f"{points(r['least'])} to {points(r['greatest'])}"}
            for _, r in correction_effects(table).iterrows()]


def reproducibility_rows(table: pd.DataFrame) -> list[dict[str, str]]:
    """Reproducibility in words, for the page: one row per table of profiles."""
    rows = []
    for _, r in table.iterrows():
        rows.append({
            "profile": r["profile"], "normalise": r["normalise"],
            "replicating": f"{r['replicating']} of {r['treatments']}",
            "map": _number(r["map_mean"]), "against": r["against"],
            "significant": f"{r['map_significant']} of {r['map_treatments']}",
            "label_map": _number(r["label_map_mean"]),
            "label_significant": f"{r['label_map_significant']} of {r['label_treatments']}",
        })  # fmt: skip
    return rows


def _number(value: Any) -> str:
    return "–" if value is None or pd.isna(value) else f"{value:.2f}"
