"""What all figures share: style, palette, names fit for a figure, and reproducible files."""

from __future__ import annotations

import textwrap
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
import seaborn as sns
from matplotlib.figure import Figure

from benchmark.base.files import whole

_BLUE, _ORANGE, _GREEN, _VERMILION, _PURPLE, *_REST = sns.color_palette("colorblind").as_hex()
#: Colour, marker and filling of each role: distinguishable without colour too.
STYLES = {
    "count": ("#767676", "s", "full"),
    "baseline": ("#767676", "P", "full"),
    "classical": (_BLUE, "o", "full"),
    "frozen": (_ORANGE, "D", "none"),
    "finetuned": (_VERMILION, "D", "full"),
    "embedding": (_PURPLE, "v", "none"),
    "fusion": (_PURPLE, "*", "full"),
    "other": (_GREEN, "^", "full"),
    "control": ("#767676", "x", "full"),
}
SIMULATED = "SIMULATED images"


@dataclass(frozen=True)
class Picture:
    """A drawn figure: its files and what it shows."""

    kind: str
    title: str
    caption: str
    svg: Path
    png: Path


def style() -> AbstractContextManager[None]:
    """Settings for one figure. SVG ids come from a fixed salt, so the same numbers give the same file."""
    theme = sns.axes_style("whitegrid") | sns.plotting_context("notebook", font_scale=0.9)
    own = {
        "svg.hashsalt": "morphobench",
        "svg.fonttype": "path",
        "font.family": "DejaVu Sans",
        "text.parse_math": False,  # a compound name with two dollar signs is not a formula
        "axes.edgecolor": "#999999",
        "axes.titlesize": 11,
        "axes.titlelocation": "left",
        "axes.titleweight": "bold",
    }
    return mpl.rc_context(theme | own)


def clean(text: str, width: int = 0, most: int = 60) -> str:
    """A name fit for a figure: one line without control characters, cut at ``most``, wrapped at ``width``."""
    text = " ".join("".join(c if c.isprintable() else " " for c in str(text)).split())
    text = text if len(text) <= most else text[: most - 1] + "…"
    return "\n".join(textwrap.wrap(text, width)) if width else text


def save(figure: Figure, folder: Path, stem: str) -> tuple[Path, Path]:
    """Write a figure as SVG and PNG, each whole or not at all; neither contains a date."""
    paths = folder / f"{stem}.svg", folder / f"{stem}.png"
    with whole(paths[0]) as tmp:
        figure.savefig(tmp, format="svg", metadata={"Date": None}, bbox_inches="tight", pad_inches=0.08)
    with whole(paths[1]) as tmp:
        figure.savefig(tmp, format="png", dpi=150, bbox_inches="tight", pad_inches=0.08)
    return paths
