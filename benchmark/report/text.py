"""The comparison as plain text for the terminal."""

from __future__ import annotations

import math

import pandas as pd

from benchmark.evaluation.comparison import Comparison
from benchmark.evaluation.metrics import REPORTED
from benchmark.report.dose import dose_rows
from benchmark.report.seeds import shown_seed, spread_lines
from benchmark.report.words import interval, p_value, percent, points


def _plain(text: str) -> str:
    """One line without control characters: a compound or method name must not drive the terminal."""
    return "".join(c if c.isprintable() else " " for c in text.replace("\u00a0", " "))


def cell_text(row: pd.Series) -> str:
    """``50/55 90.9 % [80.4–96.1]``."""
    return f"{row['correct']}/{row['n']} {percent(row['accuracy'])} [{interval(row['low'], row['high'])}]"


def _aligned(rows: list[list[str]]) -> list[str]:
    """Rows as columns of equal width, the first row underlined."""
    rows = [[_plain(cell) for cell in row] for row in rows]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows]
    return [lines[0], "  ".join("─" * w for w in widths), *lines[1:]]


def accuracy_text(comparison: Comparison) -> str:
    """Accuracies (methods × treatment, well, field) and pairwise tests as monospaced text.

    Returns
    -------
    str
        Several lines: correct/n, percent and Wilson's 95 % interval; a dash where a method does not
        predict the unit; then a row for every pair of methods; then dose response, if any; then the notes.
    """
    table = comparison.accuracy
    several = table["seed"].nunique() > 1
    units = [u for u in REPORTED if u in set(table["unit"])]
    rows = [["method", *(["seed"] if several else []), *units]]
    for method in comparison.methods:
        mine = table[table["method"] == method]
        for _, of_seed in mine.groupby("seed", sort=True):
            by_unit = {str(row["unit"]): cell_text(row) for _, row in of_seed.iterrows()}
            name = method + (" (permuted labels)" if method in comparison.controls else "")
            shown = shown_seed(comparison, of_seed.iloc[0])
            rows.append([name, *([shown] if several else []), *(by_unit.get(u, "–") for u in units)])
    chance = table.loc[table["unit"] == comparison.unit, "chance"].iloc[0]
    lines = [*_aligned(rows), f"chance (most common label): {percent(chance)} of {comparison.unit}s; "
             "intervals: Wilson 95 %"]  # fmt: skip
    seeing = [m for m in comparison.methods if m in comparison.transductive]
    if seeing:
        lines.append(f"transductive (saw held-out wells, never their labels): {', '.join(seeing)}")
    if len(comparison.pairs):
        rows = [[f"pair ({comparison.unit}s)", "difference", "95 % by compound", "only 1st", "only 2nd", "McNemar p",
                 "Holm p"]]  # fmt: skip
        for _, pair in comparison.pairs.iterrows():
            rows.append([
                f"{pair['method_a']} – {pair['method_b']}",
                f"{points(pair['difference'])} points",
                "–" if math.isnan(pair["cluster_low"])
                else f"[{points(pair['cluster_low'])} to {points(pair['cluster_high'])}]",
                str(pair["b"]), str(pair["c"]), p_value(pair["p"]), p_value(pair["p_holm"]),
            ])  # fmt: skip
        lines += ["", *_aligned(rows)]
    if spread := spread_lines(comparison):
        lines += ["", *_aligned(spread)]
    if comparison.doses is not None:
        heading = ["dose response", *(["seed"] if several else []), "curve", "Z′", "V", "EC50 [95 %]", "Spearman"]
        rows = [heading]
        for row in dose_rows(comparison):
            name = row["method"] + (" (permuted labels)" if row["control"] else "")
            rows.append([name, *([str(row["seed"])] if several else []), row["curve"], row["z_prime"], row["v_factor"],
                         row["ec50"], row["spearman"]])  # fmt: skip
        lines += ["", *_aligned(rows)]
    return "\n".join(_plain(line) for line in [*lines, *comparison.notes]) + "\n"
