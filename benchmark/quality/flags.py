"""Fields whose quality is unusual for their plate, and for their treatment.

A field is compared with its plate by robust deviations: the difference to the plate's median over 1.4826 times the
median absolute deviation (MAD), which is a standard deviation for normal values and is not moved by the bad fields
themselves. A drug may well empty, shrink or brighten its cells, and a rule that looked at the plate alone would then
throw the phenotype away, the clearest ones first, and bias what is compared. So a field must lie apart from the other
fields of its own treatment too, by as many deviations. What all fields of a treatment share is a phenotype, or cannot
be told from one. This second look can only spare a field, never flag one; labels are not looked at.

What it cannot see: a plate that is poor as a whole, and a treatment whose every field is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from benchmark.base.tables import FIELD_KEY, PLATE, TREATMENT_KEY, WELL
from benchmark.quality.measures import column
from benchmark.quality.settings import QualitySettings

#: Fewer fields have no meaningful median or MAD: such plates are compared with all fields of the study.
FEWEST_OF_PLATE = 8
#: Fewer other fields do not represent a treatment: the plate decides alone.
FEWEST_PEERS = 3
#: The MAD of a plate is assumed to be at least this share of the study's usual one: that of a few fields is often tiny.
OF_USUAL = 0.5
#: `Rule.least` is so many deviations of the smallest scale. A number of its own, and not the study's setting: at
#: ``quality.deviations`` of 5, the default, the smallest difference that is flagged is five sixths of ``least``. The
#: rules were tuned on real fields with these two numbers.
LEAST_IS = 6.0
#: A field without cells is flagged however far its plate's counts spread, if its plate and its peers have so many.
SOME_CELLS = 5
CELLS = "cells"
COLUMNS = [*FIELD_KEY, "measure", "value", "plate median", "deviations", "reason"]


@dataclass(frozen=True)
class Rule:
    """One way in which a measure of `benchmark.quality.measures` can be unusual.

    Attributes
    ----------
    measure : str
        Which one.
    side : int
        1: too much; -1: too little.
    scale : str
        Differences are of the value itself, its logarithm to base 2, or its square root (which gives counts
        the same spread at any size).
    least : float
        On that scale, what `LEAST_IS` deviations are at the least, however alike the plate's fields are.
    words : str
        The reason, with ``{channel}``, ``{value}`` and ``{median}``.
    """

    measure: str
    side: Literal[1, -1]
    scale: Literal["value", "log2", "sqrt"]
    least: float
    words: str

    def on_scale(self, values: np.ndarray) -> np.ndarray:
        """Values on the rule's scale; shares of 0 are replaced by a thousandth."""
        if self.scale == "log2":
            return np.log2(np.maximum(values, 1e-3))
        return np.sqrt(values) if self.scale == "sqrt" else values


RULES = (
    Rule("Slope", -1, "value", 0.5, "out of focus (or a haze) in {channel}: slope of the power spectrum {value:.2f}, "
                                    "plate {median:.2f}"),
    Rule("Slope", 1, "value", 0.8, "noise in {channel}: slope of the power spectrum {value:.2f}, plate {median:.2f}"),
    Rule("Saturated", 1, "value", 0.005, "saturated in {channel}: {value:.2%} of the pixels at the maximum, "
                                         "plate {median:.2%}"),
    Rule("Contrast", -1, "log2", 2.0, "nearly empty (or noisy) in {channel}: brightest parts {value:.0f} noise levels "
                                      "above the background, plate {median:.0f}"),
    Rule("Foreground", -1, "log2", 2.0, "nearly empty in {channel}: {value:.2%} of the pixels above the background, "
                                        "plate {median:.2%}"),
    Rule("Bright", 1, "log2", 2.0, "debris in {channel}: brightest parts {value:.0f} grey levels, plate {median:.0f}"),
    Rule("Patch", 1, "log2", 2.0, "debris in {channel}: a bright patch over {value:.2%} of the field, "
                                  "plate {median:.2%}"),
)
CELL_RULE = Rule(CELLS, -1, "sqrt", 3.0, "few cells: {value:.0f}, plate {median:.0f}")


def flag_fields(measures: pd.DataFrame, fields: pd.DataFrame, channels: tuple[str, ...], settings: QualitySettings,
                counts: pd.DataFrame | None = None) -> pd.DataFrame:
    """Fields that differ from their plate and from their treatment.

    Deviations are from the median of the plate, or of all the study's fields where the plate has fewer than
    `FEWEST_OF_PLATE`, over the largest of: 1.4826 MAD of those fields; `OF_USUAL` of the median of that over the
    study's plates; and the rule's ``least`` over `LEAST_IS`. A field is flagged where it is more than
    ``settings.deviations`` on the rule's side, and as far from the median of its peers' own deviations (over the
    peers' 1.4826 MAD, at least 1). Its peers are the fields of its treatment in other wells; where those are fewer
    than `FEWEST_PEERS`, all other fields of its treatment; where those too are, the plate decides alone.

    Cell counts are flagged only where low; none at all is flagged without regard to spread.

    Parameters
    ----------
    measures : DataFrame
        From `benchmark.quality.measures.measure_quality`.
    fields : DataFrame
        The assay's field table, or a part of it: fields to check, and which belongs to which treatment.
    channels : tuple of str
        The assay's.
    counts : DataFrame, optional
        `FIELD_KEY` and ``cells``. Fields that are not in it were not counted, which is not the same as 0, and their
        cells are not looked at; nor are any unless ``settings.cell_count``.

    Returns
    -------
    DataFrame
        `FIELD_KEY`, ``measure`` (its column), ``value`` and ``plate median`` in the measure's own unit,
        ``deviations`` (signed, from the plate), ``reason`` in words; a row for each rule that a field fails, sorted by
        field, the largest deviation first.
    """
    table = fields[[*FIELD_KEY, *TREATMENT_KEY]].merge(measures, on=FIELD_KEY, how="left", validate="one_to_one")
    rows_by_rule = []
    for channel in channels:
        table[column("Saturated", channel)] = _saturated(table, channel)
        rows_by_rule += [_flagged(table, rule, column(rule.measure, channel), channel, settings) for rule in RULES]
    if counts is not None and settings.cell_count:
        known = counts[[*FIELD_KEY, CELLS]].astype({c: fields[c].dtype for c in FIELD_KEY})
        table = table.merge(known, on=FIELD_KEY, how="inner", validate="one_to_one")
        if len(table):
            rows_by_rule.append(_flagged(table, CELL_RULE, CELLS, "", settings))
    flags = pd.DataFrame([row for rows in rows_by_rule for row in rows], columns=COLUMNS)
    order = flags.assign(_size=-flags["deviations"].abs()).sort_values([*FIELD_KEY, "_size", "measure"], kind="stable")
    return order.drop(columns="_size").reset_index(drop=True)


def _saturated(table: pd.DataFrame, channel: str) -> np.ndarray:
    """Share of pixels at the image's maximum, where that is bright: half the plate's usual maximum or more.

    An almost black image of a few grey levels has many pixels at its maximum, and is not saturated.
    """
    maximum = table[column("Maximum", channel)]
    bright = maximum >= maximum.groupby(table[PLATE]).transform("median") / 2
    return np.where(bright, table[column("AtMaximum", channel)], 0.0)


def robust_deviations(values: np.ndarray, plates: np.ndarray, least: float) -> tuple[np.ndarray, np.ndarray]:
    """Deviations of each field from its plate, and the plate's median; see `flag_fields`.

    Parameters
    ----------
    values : ndarray of float, shape (n,)
    plates : ndarray, shape (n,)
        Plate of each.
    least : float
        What `LEAST_IS` deviations are at the least.

    Returns
    -------
    deviations, medians : ndarray of float, shape (n,)
    """
    group = pd.factorize(plates)[0]
    size = np.bincount(group)
    few = (size < FEWEST_OF_PLATE)[group]
    middle = _medians(values, group)
    spread = 1.4826 * _medians(np.abs(values - middle[group]), group)
    usual = float(np.median(spread[size >= FEWEST_OF_PLATE])) if (~few).any() else 0.0
    all_middle = float(np.median(values))
    all_spread = 1.4826 * float(np.median(np.abs(values - all_middle)))
    centre = np.where(few, all_middle, middle[group])
    scale = np.maximum(np.where(few, all_spread, spread[group]), max(OF_USUAL * usual, least / LEAST_IS))
    return (values - centre) / scale, centre


def _medians(values: np.ndarray, group: np.ndarray) -> np.ndarray:
    """Median of each group 0 … n-1."""
    return pd.Series(values).groupby(group).median().to_numpy(float)


def _flagged(table: pd.DataFrame, rule: Rule, name: str, channel: str, settings: QualitySettings
             ) -> list[dict[str, object]]:
    """Rows of one rule for one column."""
    values = table[name].to_numpy(float)
    deviations, middle = robust_deviations(rule.on_scale(values), table[PLATE].to_numpy(), rule.least)
    medians = 2**middle if rule.scale == "log2" else middle**2 if rule.scale == "sqrt" else middle
    suspects = rule.side * deviations > settings.deviations
    none = (values == 0) & (medians >= SOME_CELLS) & (rule.measure == CELLS)
    peers = _Peers(table)
    rows = []
    for i in np.flatnonzero(suspects | none).tolist():
        others = peers.of(i)
        if len(others):
            spared = np.median(values[others]) < SOME_CELLS if none[i] else not _apart(
                rule.side * deviations[i], rule.side * deviations[others], settings.deviations)
            if spared:
                continue
        said = rule.words.format(channel=channel, value=values[i], median=medians[i])
        rows.append({key: table[key].iloc[i] for key in FIELD_KEY} | {
            "measure": name, "value": values[i], "plate median": medians[i], "deviations": deviations[i],
            "reason": f"{said} ({abs(deviations[i]):.1f} deviations)"})
    return rows


def _apart(deviation: float, others: np.ndarray, most: float) -> bool:
    """Whether a field deviates that much more than its peers do, in units of how they differ among themselves."""
    middle = float(np.median(others))
    spread = max(1.0, 1.4826 * float(np.median(np.abs(others - middle))))
    return (deviation - middle) / spread > most


class _Peers:
    """Positions of the fields that a field's treatment is known by."""

    def __init__(self, table: pd.DataFrame) -> None:
        self._treatment = table.groupby(TREATMENT_KEY, sort=False, dropna=False).ngroup().to_numpy()
        self._well = table.groupby([PLATE, WELL], sort=False).ngroup().to_numpy()

    def of(self, i: int) -> np.ndarray:
        """Fields of the same treatment in other wells, else in any; none where they are too few."""
        same = self._treatment == self._treatment[i]
        elsewhere = np.flatnonzero(same & (self._well != self._well[i]))
        if len(elsewhere) >= FEWEST_PEERS:
            return elsewhere
        same[i] = False
        others = np.flatnonzero(same)
        return others if len(others) >= FEWEST_PEERS else others[:0]
