"""Seeing why: maps over crops, shares of attribution by region, maximised filters, and the sanity check."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from scipy.ndimage import gaussian_filter

from benchmark.explain.record import Explanation
from benchmark.explain.regions import REGIONS
from benchmark.report.drawing import SIMULATED, Picture, clean, save, style
from benchmark.report.gallery import composite, display_limits

TITLES = {
    "grad_cam": "Grad-CAM",
    "guided_backpropagation": "guided\nbackpropagation",
    "integrated_gradients": "integrated\ngradients",
    "occlusion": "occlusion",
}
#: For the class: orange. Against it: blue. Distinguishable with every common colour blindness.
FOR, AGAINST = np.array([1.0, 0.55, 0.0]), np.array([0.15, 0.55, 1.0])
WRONG = AREA = "#c2540a"
#: Most channels that are shown one by one; more are shown as one colour picture.
MOST_GREY = 5
#: Part of a picture's side by which maps are smoothed for the eye.
SMOOTHED = 1 / 96
CITATIONS = (
    "Selvaraju RR et al. (2017). Grad-CAM: visual explanations from deep networks via gradient-based localization. "
    "ICCV 2017:618–626.",
    "Springenberg JT et al. (2015). Striving for simplicity: the all convolutional net. ICLR workshop; arXiv:1412.6806 "
    "(guided backpropagation).",
    "Sundararajan M, Taly A, Yan Q (2017). Axiomatic attribution for deep networks. ICML 2017:3319–3328 (integrated "
    "gradients).",
    "Zeiler MD, Fergus R (2014). Visualizing and understanding convolutional networks. ECCV 2014:818–833 (occlusion).",
    "Erhan D et al. (2009). Visualizing higher-layer features of a deep network. Université de Montréal, report 1341.",
    "Adebayo J et al. (2018). Sanity checks for saliency maps. NeurIPS 2018:9505–9515.",
)  # fmt: skip


def overlay(grey: np.ndarray, values: np.ndarray) -> np.ndarray:
    """A map in colour over a grey picture, so that cells stay visible under it.

    Parameters
    ----------
    grey : ndarray, shape (H, W)
        In 0…1.
    values : ndarray, shape (H, W)
        Attributions with sign; full colour at the 99.5th percentile of their size. Smoothed a little for the eye.

    Returns
    -------
    ndarray of float, shape (H, W, 3)
        Orange: for the class; blue: against it.
    """
    smooth = gaussian_filter(values.astype(float), max(values.shape) * SMOOTHED)
    top = np.percentile(np.abs(smooth), 99.5) or np.abs(smooth).max()
    strength = np.clip(np.abs(smooth) / top, 0, 1) if top > 0 else np.zeros_like(smooth)
    colour = np.where((smooth > 0)[..., None], FOR, AGAINST)
    alpha = 0.75 * strength[..., None]
    return (1 - alpha) * (0.85 * grey[..., None]) + alpha * colour * (0.6 + 0.4 * grey[..., None])


def maps_figure(explanation: Explanation) -> Figure:
    """One row per crop: its channels in grey (one colour picture where there are many), then each method's map."""
    limits = display_limits(list(explanation.pixels))
    shown = _scaled(explanation.pixels, limits)
    apart = len(explanation.channels) <= MOST_GREY
    heads = [clean(c, most=16) for c in explanation.channels] if apart else ["channels in colour"]
    methods = list(explanation.maps)
    n, columns, names, side = len(explanation.rows), len(heads) + len(methods), 2.3, 1.25
    figure = Figure(figsize=(names + side * columns, 0.55 + side * n))
    panels = figure.subplots(n, columns, squeeze=False)
    figure.subplots_adjust(left=names / (names + side * columns), right=1, bottom=0,
                           top=1 - 0.5 / (0.55 + side * n), wspace=0.04, hspace=0.04)
    for i, row in enumerate(panels):
        pictures = list(shown[i]) if apart else [composite(explanation.pixels[i], explanation.channels, limits)]
        grey = shown[i].mean(axis=0)
        pictures += [overlay(grey / max(grey.max(), 1e-6), explanation.maps[m][i]) for m in methods]
        for axes, picture in zip(row, pictures, strict=True):
            axes.imshow(picture, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
            _bare(axes)
        words, right = crop_words(explanation, i)
        row[0].text(-0.06, 0.5, words, transform=row[0].transAxes, ha="right", va="center", fontsize=7.5,
                    color="#222222" if right else WRONG, linespacing=1.25)
    for axes, head in zip(panels[0], [*heads, *(TITLES.get(m, m) for m in methods)], strict=True):
        axes.set_title(head, fontsize=9, loc="center", fontweight="normal")
    return figure


def crop_words(explanation: Explanation, i: int) -> tuple[str, bool]:
    """What a crop is and what the network said of it, a line each; whether that is right."""
    truth, said = int(explanation.truth[i]), int(explanation.predicted[i])
    p = explanation.probability[i]
    lines = [clean(explanation.titles[i], 34, most=66), f"true: {clean(explanation.labels[truth], most=28)}"]
    if truth == said:
        lines.append(f"predicted: the same, p = {p[said]:.2f}")
    else:
        lines += [f"× predicted: {clean(explanation.labels[said], most=24)}",
                  f"p = {p[said]:.2f} (true {p[truth]:.2f})"]
    return "\n".join(lines), truth == said


def filters_figure(explanation: Explanation) -> Figure:
    """One column per filter: what maximises it before and, below, after fine-tuning; channels apart where few."""
    rows = [("pretrained", explanation.pretrained), ("fine-tuned", explanation.tuned)]
    rows = [(name, pictures) for name, pictures in rows if len(pictures)]
    n, side, names = len(explanation.filters), 1.15, 0.95
    figure = Figure(figsize=(names + side * n, 0.3 + side * len(rows)))
    panels = figure.subplots(len(rows), n, squeeze=False)
    figure.subplots_adjust(left=names / (names + side * n), right=1, bottom=0,
                           top=1 - 0.28 / (0.3 + side * len(rows)), wspace=0.05, hspace=0.05)
    for i, (row, (name, pictures)) in enumerate(zip(panels, rows, strict=True)):
        for axes, picture, number in zip(row, pictures, explanation.filters, strict=True):
            limits = np.tile(np.percentile(picture, [1, 99]), (len(picture), 1))  # one range, for comparison
            axes.imshow(composite(picture, explanation.channels, limits), interpolation="nearest")
            _bare(axes)
            if i == 0:
                axes.set_title(f"filter {number}", fontsize=9, loc="center", fontweight="normal")
        row[0].text(-0.08, 0.5, name, transform=row[0].transAxes, ha="right", va="center", fontsize=9)
    return figure


def shares_table(explanation: Explanation) -> pd.DataFrame:
    """Where attribution falls, relative to the area of each region.

    Returns
    -------
    DataFrame
        One row per method and region that occurs: ``method, region, share`` and ``area`` (means over the crops whose
        map is not empty), ``enrichment`` (share / area) and ``crops`` (their number).
    """
    rows = []
    for method, shares in explanation.shares.items():
        valid = np.isfinite(shares).all(axis=1)
        if not valid.any():
            continue
        share, area = shares[valid].mean(axis=0), explanation.areas[valid].mean(axis=0)
        rows += [{"method": method, "region": REGIONS[r], "share": share[r], "area": area[r],
                  "enrichment": share[r] / area[r], "crops": int(valid.sum())}
                 for r in (2, 1, 0, 3) if area[r] > 0]
    return pd.DataFrame(rows, columns=["method", "region", "share", "area", "enrichment", "crops"])


def shares_figure(explanation: Explanation) -> Figure:
    """One panel per region: its share of each method's attribution (bar; points: crops) and its share of the area."""
    table = shares_table(explanation)
    regions = list(dict.fromkeys(table["region"]))
    methods = list(dict.fromkeys(table["method"]))
    figure = Figure(figsize=(2.4 + 2.0 * len(regions), 1.2 + 0.44 * len(methods)), layout="constrained")
    panels = figure.subplots(1, len(regions), squeeze=False, sharex=True, sharey=True)[0]
    blue = sns.color_palette("colorblind").as_hex()[0]
    for axes, region in zip(panels, regions, strict=True):
        rows = table[table["region"] == region].set_index("method")
        for y, method in enumerate(methods):
            row = rows.loc[method]
            axes.barh(y, 100 * row["share"], height=0.62, color=blue, alpha=0.55)
            single = 100 * explanation.shares[method][:, REGIONS.index(region)]
            axes.plot(single, np.full(len(single), y), linestyle="none", marker="o", markersize=3, color="#222222",
                      alpha=0.6)
            axes.text(1.02, y, f"× {row['enrichment']:.2f}", transform=axes.get_yaxis_transform(), va="center",
                      fontsize=8, color="#222222")
            axes.plot([100 * row["area"]] * 2, [y - 0.42, y + 0.42], color=AREA, linewidth=2)
        axes.set_title(region, fontsize=10, loc="left")
        axes.set(xlim=(0, 100), ylim=(len(methods) - 0.45, -0.55))
        axes.set_xlabel("% of attribution", fontsize=9)
        axes.tick_params(labelsize=8)
        axes.grid(visible=False, axis="y")
    panels[0].set_yticks(range(len(methods)), [_named(explanation, m) for m in methods], fontsize=9)
    sns.despine(figure, left=True)
    keys = [Patch(color=blue, alpha=0.55, label="share of attribution (points: crops)"),
            Line2D([], [], color=AREA, linewidth=2, label="share of area")]
    figure.legend(handles=keys, loc="outside lower center", ncols=2, fontsize=8.5, frameon=False)
    return figure


def sanity_figure(explanation: Explanation) -> Figure:
    """Two tables side by side: rank correlation and structural similarity, methods × how much was randomised."""
    table = explanation.sanity
    methods, depths = list(dict.fromkeys(table["method"])), list(dict.fromkeys(table["depth"]))
    figure = Figure(figsize=(6.6, 1.15 + 0.36 * len(methods)), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    for axes, measure, title in zip(panels, ("spearman", "ssim"), ("Spearman", "SSIM"), strict=True):
        values = table.pivot(index="method", columns="depth", values=measure).loc[methods, depths]
        sns.heatmap(values.to_numpy(float), ax=axes, cmap="Greys", vmin=0, vmax=1.8, cbar=False, linewidths=1.2,
                    linecolor="white", annot=True, fmt=".2f", annot_kws={"fontsize": 9, "color": "#111111"})
        for y, x in zip(*np.nonzero(values.isna().to_numpy()), strict=True):
            axes.text(x + 0.5, y + 0.5, "–", ha="center", va="center", fontsize=9, color="#111111")
        axes.set_xticks(np.arange(len(depths)) + 0.5, depths, fontsize=8.5)
        axes.set_title(title, fontsize=10)
        axes.set_xlabel("layers randomised", fontsize=9)
        axes.tick_params(length=0)
    names = [_named(explanation, m) for m in methods]
    panels[0].set_yticks(np.arange(len(methods)) + 0.5, names, fontsize=9, rotation=0)
    panels[0].set_ylabel("")
    return figure


def draw_explanation(explanation: Explanation, folder: Path, stem: str, simulated: bool = False) -> list[Picture]:
    """Draw each available part of an explanation and save each figure as SVG and PNG.

    Parameters
    ----------
    folder, stem : Path, str
        Files are ``<folder>/<stem>-maps.svg`` and so on.
    simulated : bool
        Writes that the images are simulated into every figure and caption.

    Returns
    -------
    list of Picture
        Of the kind ``maps`` and, where they were made, ``shares``, ``filters`` and ``sanity``.
    """
    pictures: list[Picture] = []

    def add(kind: str, title: str, caption: str, make: Callable[[Explanation], Figure]) -> None:
        with style():
            figure = make(explanation)
            if simulated:
                figure.text(1, 0, SIMULATED, fontsize=9, color=WRONG, ha="right", va="top", fontweight="bold")
            svg, png = save(figure, folder, f"{stem}-{kind}")
        pictures.append(Picture(kind, title, f"{SIMULATED}. {caption}" if simulated else caption, svg, png))

    add("maps", "What predictions rest on",
        "One row per crop: its channels, then maps of what the predicted label rests on, over their mean. Orange "
        "speaks for that label, blue against it; each map is scaled separately and smoothed slightly for display. "
        "Text in orange with a cross: predicted wrongly. "
        + _gap_words(explanation) + str(explanation.facts.get("choice", "")),
        maps_figure)  # fmt: skip
    if len(shares_table(explanation)):
        add("shares", "Where attribution falls",
            "Bars: mean share of the absolute attribution that falls on a region; points: crops; orange lines: the "
            "region's share of the area. At the right: share over area; × 1 is what a map without any preference has. "
            "A method that fails the sanity check says little here: its maps follow the picture, bright nuclei first. "
            "Grad-CAM and occlusion are often coarser than a cell, and then come near × 1 whatever the network looks "
            "at.",
            shares_figure)  # fmt: skip
    if len(explanation.filters):
        add("filters", "What filters answer to",
            "Pictures that drive filters of the last feature map as far as possible, from the same noise, in the "
            "channels' colours, each picture stretched over its own range. Filters: those that "
            "contribute most to the predicted labels of the crops shown, labels taking turns.",
            filters_figure)  # fmt: skip
    if len(explanation.sanity):
        add("sanity", "Do maps depend on what was learnt?",
            "How similar maps remain when layers are given random weights, from the classifier down (means over crops, "
            "of absolute attributions). Maps that show what was learnt lose their similarity: low is good. "
            + " ".join(f"{TITLES.get(m, m).capitalize() if m != 'grad_cam' else TITLES[m]}: {_lower(said)}"
                       for m, said in explanation.verdicts.items()).replace("\n", " "),
            sanity_figure)  # fmt: skip
    return pictures


def sanity_rows(explanation: Explanation) -> list[dict[str, Any]]:
    """The sanity check for a page: ``method, depth, spearman, ssim`` as text; ``verdict`` in a method's first row."""
    rows = []
    for method, part in explanation.sanity.groupby("method", sort=False):
        for i, (_, row) in enumerate(part.iterrows()):
            rows.append({
                "method": TITLES.get(str(method), str(method)).replace("\n", " "), "depth": row["depth"],
                "spearman": "–" if pd.isna(row["spearman"]) else f"{row['spearman']:.2f}",
                "ssim": "–" if pd.isna(row["ssim"]) else f"{row['ssim']:.2f}", "crops": int(row["crops"]),
                "verdict": explanation.verdicts[str(method)] if i == 0 else "",
            })  # fmt: skip
    return rows


def explanation_section(explanation: Explanation, title: str) -> dict[str, Any]:
    """Everything the page says of an explained fold beside its figures.

    Parameters
    ----------
    explanation : Explanation
        Whose facts say which fold of which method it is, and how its network compares with the run's
        (`benchmark.methods.explained`).
    title : str
        The method's.
    """
    facts = explanation.facts
    if facts["exactly"]:
        same = "Trained again, it gives exactly the predictions that are scored here, to the last bit."
    else:
        same = ("Trained again on a GPU, whose sums depend on their order, it is not the network that is scored here "
                f"to the last bit: probabilities differ by up to {facts['largest_difference']:.2g}.")
    return {
        "explanation": explanation, "title": title, "fold": facts["fold"], "choice": facts["choice"], "same": same,
        "agree": f"{facts['same_label']} of {facts['test_crops']}", "rows": sanity_rows(explanation),
        "refused": {TITLES.get(m, m.replace("_", " ")).replace("\n", " "): why for m, why in
                    explanation.refused.items()},
        "regions": bool(explanation.shares),
    }  # fmt: skip


def _gap_words(explanation: Explanation) -> str:
    """How complete integrated gradients are, where they were computed."""
    if not len(explanation.gaps):
        return ""
    tolerance = explanation.facts["settings"]["saliency"]["tolerance"]
    whole = int((explanation.gaps <= tolerance).sum())
    return (f"Integrated gradients add up to the score within {100 * tolerance:g} % for {whole} of "
            f"{len(explanation.gaps)} crops (largest gap {100 * float(np.max(explanation.gaps)):.1f} %). ")


def _named(explanation: Explanation, method: str) -> str:
    """A method's name, with a cross and words where it fails the sanity check: its shares are not to be trusted."""
    name = TITLES.get(method, method).replace("\n", " ")
    return f"{name}\n✗ fails the sanity check" if explanation.verdicts.get(method, "").startswith("Fails") else name


def _lower(sentence: str) -> str:
    return sentence[:1].lower() + sentence[1:]


def _scaled(pixels: np.ndarray, limits: np.ndarray) -> np.ndarray:
    """Crops (n, C, S, S) between their display limits, in 0…1."""
    low, high = limits[:, 0, None, None], limits[:, 1, None, None]
    return np.asarray(np.clip((pixels.astype(np.float32) - low) / np.maximum(high - low, 1e-6), 0, 1))


def _bare(axes: Axes) -> None:
    axes.set_xticks([])
    axes.set_yticks([])
    axes.grid(visible=False)
    for spine in axes.spines.values():
        spine.set_visible(False)
