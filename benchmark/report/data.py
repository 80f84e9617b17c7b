"""What was done to the data, on the page: what was read, left out and used, and what became of the features."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmark.base.account import Loss, warnings_of

#: So many notes of one kind are shown; the others open on a click.
SHOWN = 3
#: Order of the table.
ORDER = ("rows", "wells", "fields", "cells", "features", "compounds", "treatments", "plates", "cell lines")
#: Steps of a selection as headings, in their usual order; any other step is named as the study names it.
STEPS = {"missing": "missing values", "no spread on a plate": "no value on a whole plate",
         "variance": "no variance", "correlation": "correlated", "blocklist": "blocklist",
         "reproducibility": "not reproducible", "correction": "no spread for the correction"}


def count(n: float) -> str:
    """``12 345`` with narrow spaces; a number below 10 000 as it is."""
    return f"{n:,}".replace(",", "\u202f") if n >= 10_000 else str(n)


def span(low_high: Sequence[int]) -> str:
    """``39``, or ``39–341`` where folds differ; a dash where it was not noted."""
    if not low_high:
        return "–"
    low, high = low_high
    return count(low) if low == high else f"{count(low)}–{count(high)}"


def _share(loss: Loss) -> str:
    percent = 100 * loss.share
    return "below 0.1 %" if 0 < percent < 0.1 else f"{percent:.1f} %" if percent < 10 else f"{percent:.0f} %"


def _loss_rows(losses: Sequence[Loss], used: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A row a loss, then what is used in the end, kind by kind; `first` marks where a kind begins."""
    kinds = dict.fromkeys([*ORDER, *(loss.things for loss in losses), *(of["things"] for of in used)])
    rows: list[dict[str, Any]] = []
    for kind in kinds:
        mine = [loss for loss in losses if loss.things == kind and not _of_selection(loss)]
        found: list[dict[str, Any]] = [{
            "where": loss.where, "read": count(loss.total), "lost": count(loss.lost), "share": _share(loss),
            "left": count(loss.total - loss.lost), "why": loss.why, "asked": loss.asked, "warns": loss.warns,
            "remedy": loss.remedy, "total": False,
        } for loss in mine]
        found += [{"where": "", "read": "" if mine else count(of["n"]), "lost": "" if mine else "0", "share": "",
                   "left": count(of["n"]), "why": of["words"], "asked": False, "warns": False, "remedy": "",
                   "total": True} for of in used if of["things"] == kind]
        rows += [row | {"things": kind, "first": i == 0} for i, row in enumerate(found)]
    return rows


def _of_selection(loss: Loss) -> bool:
    """Whether the table of features has it already."""
    return loss.things == "features" and bool(loss.where)


def _feature_table(features: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The table of features: steps that any method takes, and a row a method."""
    named = dict.fromkeys(step for of in features for step in of["ranges"].get("steps", {}))
    steps = [step for step in STEPS if step in named] + [step for step in named if step not in STEPS]
    rows = []
    for of in features:
        ranges = of["ranges"]
        taken = ranges.get("steps", {})
        rows.append({"title": of["title"], "measured": span(ranges.get("measured", ())),
                     "steps": [span(taken[step]) if step in taken else "–" for step in steps],
                     "used": span(ranges.get("used", ())), "imputed": span(ranges.get("imputed", ())),
                     "empty": span(ranges.get("rows_without_values", ())),
                     "differs": any(low < high for low, high in [ranges.get("used", (0, 0)), *taken.values()])})
    return {"steps": [STEPS.get(step, step) for step in steps], "rows": rows,
            "differ": any(row["differs"] for row in rows), "unknown": any(row["measured"] == "–" for row in rows)}


def data_section(data: Mapping[str, Any]) -> dict[str, Any]:
    """What `data.html` shows.

    Parameters
    ----------
    data : mapping
        ``used``: what is used in the end, ``things``, ``n`` and ``words`` each; ``losses``: `Loss` each; ``notes``:
        lists of sentences, those of one kind together; ``warnings``: sentences for the top of the page besides those
        of losses; ``features``: ``title`` and ``ranges`` of each method and, with
        ``grid``, of each table of the grid (``measured, used, imputed, rows_without_values``, and ``steps`` by name:
        the least and the most over folds).

    Returns
    -------
    dict
        ``warnings``, sentences for the top of the page; ``losses``, rows of cells; ``features``; ``notes``, with
        ``shown`` and ``more`` of each kind; ``grid_features``, of the tables of the grid, which may be many.
    """
    features: Sequence[Mapping[str, Any]] = data.get("features", ())
    losses: Sequence[Loss] = data.get("losses", ())
    return {
        "warnings": [*data.get("warnings", ()), *warnings_of(losses)],
        "losses": _loss_rows(losses, data.get("used", ())),
        "features": _feature_table([of for of in features if not of.get("grid")]),
        "grid_features": _feature_table([of for of in features if of.get("grid")]),
        "notes": [{"shown": list(kind[:SHOWN]), "more": list(kind[SHOWN:])} for kind in data.get("notes", ())],
    }
