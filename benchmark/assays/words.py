"""Words in cells that are no names: those for a missing value, for a well without a compound, for no known label."""

from __future__ import annotations

from benchmark.assays.spelling import visible

#: What programs and people write where there is no value, in small letters: R (NA), pandas (nan, NaT, None, <NA>),
#: SQL (NULL, \N), SAS (.), spreadsheets (#N/A and their errors), and dashes. `unknown` is not among them: it may be a
#: label that somebody gave on purpose; see `UNKNOWN`.
MISSING = frozenset((
    "", "na", "n/a", "n.a.", "n.a", "nan", "-nan", "nat", "none", "null", "nil", "(null)", "<na>", "<null>", "\\n",
    "missing", "n.d.", "not available", "not applicable", ".", "?", "-", "--", "---", "–", "—",
    "#n/a", "#na", "#n/a n/a", "#null!", "#ref!", "#name?", "#value!", "#div/0!", "#num!", "1.#qnan", "-1.#ind",
))
#: Names of wells in which no compound is expected, or only what compounds are dissolved in.
UNTREATED = frozenset((
    "untreated", "no treatment", "no compound", "not treated", "nontreated", "mock", "empty", "empty well", "blank",
    "media", "medium", "media only", "cells only", "no cells", "vehicle", "vehicle control", "solvent", "dmso", "water",
    "h2o", "pbs", "saline", "ethanol", "etoh", "methanol", "control", "ctrl", "negative", "negative control", "neg",
    "negcon", "neg control", "no drug", "nothing",
))
#: Labels that say that nothing is known: their compounds need have nothing in common.
UNKNOWN = frozenset((
    "unknown", "unknown moa", "unannotated", "not annotated", "no annotation", "annotation missing", "undetermined",
    "uncategorized", "unclassified", "unassigned", "other", "others", "misc", "miscellaneous", "various", "tbd",
    "to be determined", "not known", "not determined", "no moa",
))


def is_missing(text: str) -> bool:
    """Whether a cell stands for no value: empty, blank, or one of `MISSING` in any capitals."""
    return visible(text).strip().lower() in MISSING
