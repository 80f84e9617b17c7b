"""Which columns of a profile table are no measurement: numbers of rows, codes of what is in a well, names of files.

A classifier learns from them what no microscope saw: rows are often sorted by label or plate, so that the number of a
row tells it. What a column is, its name may say (``Unnamed: 0``, ``image_id``, ``AcquisitionDate``) or only its
values. Columns named as CellProfiler names measurements (``Cells_Intensity_…``) are what they say.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import pandas as pd

from benchmark.assays.places import several
from benchmark.base.account import Loss
from benchmark.base.errors import Fault, MorphobenchError
from benchmark.base.tables import COMPOUND, CONCENTRATION, LABEL, PLATE, WELL, WELL_KEY

#: Rows that must agree by chance before values count as a code or a running number: small tables hold coincidences.
COINCIDENCES = 8
#: Why columns go that have no name.
UNNAMED = "they have no name, or that of an index"
#: So many columns are named in a note.
NAMED = 5
#: CellProfiler's measurements of objects, by the names of its modules.
_MEASURED = re.compile(r"(?:.+?_)?(?:AreaShape|Colocalization|Correlation|Granularity|Intensity|Neighbors|"
                       r"RadialDistribution|Texture|Zernike|ObjectSkeleton)_.+")
#: The same with the name of the objects.
_OF_OBJECTS = re.compile(r"([A-Za-z]\w*?)_(?:AreaShape|Intensity|Texture|Granularity|Correlation|RadialDistribution|"
                         r"Neighbors|ObjectSkeleton)_")
_UNNAMED = re.compile(r"\s*|Unnamed: \d+(?:_level_\d+)?|(?:__)?index_level_\d+(?:__)?|level_\d+|index", re.IGNORECASE)
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
#: Last words of names that say metadata.
_LAST = re.compile(r"ids?|uu?id|guid|ur[li]|(?:file|path|folder)(?:path|name)?|directory|date|(?:date|run)?time"
                   r"|timestamp|barcode|md5")
#: Whole names of metadata.
_WHOLE = re.compile(r"(?:row|col|column|well|plate|site|field|compound|drug|label|image|object|cell)s?"
                    r"|(?:row|well)names?|fov|batch|replicate|dose|conc|concentration|treatment|class|target|moa")
#: Two last words that are the number of a thing.
_THINGS = re.compile(r"image|object|cell|nucleus|track|parent|site|field|fov|well|plate|row|col|column|compound|label"
                     r"|batch|sample")
_NUMBERS = re.compile(r"number|no|nr|num|index|idx|label|code|row|col|column")


def aside_by_name(columns: Sequence[str], prefixes: Sequence[str]) -> dict[str, list[str]]:
    """Columns that are no measurement by their names, by why they are none.

    Parameters
    ----------
    columns : sequence of str
        What would be features.
    prefixes : sequence of str
        ``assay.prefixes``; a column that is named there in full is a feature whatever its name.
    """
    found: dict[str, list[str]] = {}
    for column in columns:
        if column not in prefixes and (why := _name_says(column)):
            found.setdefault(why, []).append(column)
    return found


def _name_says(column: str) -> str:
    """Why a column is no measurement by its name; empty where it may be one."""
    if _UNNAMED.fullmatch(column):
        return UNNAMED
    if _MEASURED.fullmatch(column):
        return ""
    words = [w.lower() for w in _WORD.findall(column)]
    numbered = len(words) > 1 and _THINGS.fullmatch(words[-2]) and _NUMBERS.fullmatch(words[-1])
    if words and (_LAST.fullmatch(words[-1]) or _WHOLE.fullmatch("".join(words)) or numbered):
        return "their names say metadata"
    return ""


def aside_by_values(
    values: pd.DataFrame, keys: pd.DataFrame, prefixes: Sequence[str]
) -> dict[str, list[str]]:
    """Columns that are no measurement by their values: constant, or running numbers, by why they are none.

    Running numbers are 0…n-1 or 1…n in any order, over the whole table, within each plate or within each well, or whole
    numbers that only rise or fall over the table (an index of which rows were taken out).

    Parameters
    ----------
    values : DataFrame
        Numbers, one column each.
    keys : DataFrame
        Plate and well of the same rows.
    prefixes : sequence of str
        As in `aside_by_name`.
    """
    found: dict[str, list[str]] = {}
    groups = [np.zeros(len(keys), int), *(keys.groupby(key, sort=False).ngroup().to_numpy()
                                          for key in ([PLATE], WELL_KEY))]
    for column in values.columns:
        if column in prefixes or _MEASURED.fullmatch(column):
            continue
        numbers = values[column].to_numpy(np.float64)
        if len(numbers) > 1 and not np.isnan(numbers).any() and numbers.min() == numbers.max():
            found.setdefault("they hold one value in all rows", []).append(column)
        elif _runs(numbers, groups):
            found.setdefault("they number rows, objects or wells", []).append(column)
    return found


def _runs(numbers: np.ndarray, groups: Sequence[np.ndarray]) -> bool:
    """Whether a column numbers rows, within any of the groupings (codes of each row)."""
    if len(numbers) < COINCIDENCES or not _whole(numbers):
        return False
    steps = np.diff(numbers)
    if (steps > 0).all() or (steps < 0).all():
        return True
    for codes in groups:
        size = np.bincount(codes)
        if len(numbers) - len(size) < COINCIDENCES:  # groups of a row or two run by themselves
            continue
        order = np.lexsort((numbers, codes))
        first = np.cumsum(size) - size
        place = np.arange(len(numbers)) - np.repeat(first, size)
        for start in (0, 1):
            if np.array_equal(numbers[order], place + start):
                return True
    return False


def _whole(numbers: np.ndarray) -> bool:
    return bool(np.isfinite(numbers).all() and (numbers == np.round(numbers)).all())


def aside_by_codes(features: pd.DataFrame, wells: pd.DataFrame, prefixes: Sequence[str]) -> dict[str, list[str]]:
    """Columns that say which plate, well, compound, dose or label a row has: one value for each, another for others.

    Parameters
    ----------
    features : DataFrame
        Plate, well and features, one or many rows a well.
    wells : DataFrame
        Metadata, one row a well.
    prefixes : sequence of str
        As in `aside_by_name`.

    Returns
    -------
    dict
        Why → columns. A code is believed where `COINCIDENCES` rows more than things agree.
    """
    rows = features[WELL_KEY].merge(wells.drop(columns=[c for c in ("Metadata_Site",) if c in wells]), on=WELL_KEY,
                                    how="left")
    position = rows[WELL].astype(str).str.extract(r"^([A-Za-z]{1,2})0*(\d{1,2})$")
    things = {"label": rows[LABEL], "compound": rows[COMPOUND], "dose": rows[CONCENTRATION], "plate": rows[PLATE],
              "well": rows[WELL], "row of the plate": position[0], "column of the plate": position[1]}
    found: dict[str, list[str]] = {}
    columns = [c for c in map(str, features) if not c.startswith("Metadata_") and c not in prefixes
               and not _MEASURED.fullmatch(c)]
    suspects = _repeating(features, columns)
    for thing, names in things.items():
        codes, uniques = pd.factorize(names.where(names.astype(str) != "", None))
        known = codes >= 0
        if len(uniques) < 2 or int(known.sum()) - len(uniques) < COINCIDENCES:
            continue
        for column in suspects:
            if all(column not in named for named in found.values()) and _codes(features[column], codes, known):
                found.setdefault(f"they are codes of the {thing}: one value for each", []).append(column)
    return found


def _repeating(features: pd.DataFrame, columns: Sequence[str]) -> list[str]:
    """Columns that hold a value twice within the first thousand rows; measurements seldom do."""
    first = features[list(columns)].head(1000)
    return [c for c in columns if first[c].nunique(dropna=False) < len(first)]


def _codes(values: pd.Series, codes: np.ndarray, known: np.ndarray) -> bool:
    """Whether a column has one value in all rows of a thing, and another for each other thing."""
    numbers = values.to_numpy(np.float64)[known]
    if not np.isfinite(numbers).all():
        return False
    first = np.full(codes.max() + 1, np.nan)
    first[codes[known]] = numbers
    return bool((first[codes[known]] == numbers).all() and len(np.unique(first)) == len(first))


def tells_every_label(features: pd.DataFrame, wells: pd.DataFrame) -> list[Fault]:
    """A note where a single feature has one value for each label, be it the same for several: it may be a code."""
    rows = features[WELL_KEY].merge(wells[[*WELL_KEY, LABEL]], on=WELL_KEY, how="left")
    labelled = (rows[LABEL].notna() & (rows[LABEL] != "")).to_numpy()
    groups = rows.loc[labelled, LABEL]
    if groups.nunique() < 2 or labelled.sum() - groups.nunique() < COINCIDENCES:
        return []
    columns = _repeating(features, [c for c in map(str, features) if not c.startswith("Metadata_")])
    if not columns:
        return []
    numbers = features.loc[labelled, columns]
    one = numbers.groupby(groups.to_numpy()).nunique(dropna=False).max() == 1
    told = [c for c in columns if one[c] and numbers[c].nunique(dropna=False) > 1]
    return [Fault(f"{len(told)} features have one value in all wells of a label ({named(told)}): they may be codes of "
                  "labels", remedy="Take them out, unless they are measured.")] if told else []


def without_codes(
    features: pd.DataFrame, wells: pd.DataFrame, prefixes: Sequence[str], where: str
) -> tuple[pd.DataFrame, list[Fault], list[Loss]]:
    """The features without codes of what is in a well (`aside_by_codes`), and notes and counts of them.

    Raises
    ------
    MorphobenchError
        Nothing else is left.
    """
    total = sum(not str(c).startswith("Metadata_") for c in features)
    found = aside_by_codes(features, wells, prefixes)
    gone = [c for columns in found.values() for c in columns]
    notes, losses = left_out(found, total, where)
    if len(gone) == total:
        raise MorphobenchError(f"has no feature that is a measurement: {notes[0].what}", where, "Set assay.prefixes.")
    features = features.drop(columns=gone) if gone else features
    return features, [*notes, *tells_every_label(features, wells)], losses


def of_other_objects(columns: Sequence[str], prefixes: Sequence[str], used: int, where: str) -> list[Loss]:
    """CellProfiler's measurements of objects that no prefix names, which are not read, counted.

    Parameters
    ----------
    columns : sequence of str
        Columns that are no metadata.
    prefixes : sequence of str
        What features start with; nothing is missed where there are none.
    used : int
        Features that are read.
    """
    kinds: dict[str, list[str]] = {}
    for column in columns if prefixes else ():
        match = _OF_OBJECTS.match(column)
        if match and not column.startswith((*prefixes, "Image_", "Metadata_")):
            kinds.setdefault(match[1], []).append(column)
    if not kinds:
        return []
    n = sum(map(len, kinds.values()))
    counts = ", ".join(f"{kind}_ ({len(of)})" for kind, of in kinds.items())
    why = f"they measure objects that assay.prefixes does not name: {counts}"
    remedy = f"Set assay.prefixes to [{', '.join([*prefixes, *(f'{kind}_' for kind in kinds)])}] to use them."
    return [Loss("features", n, n + used, why, where, remedy=remedy)]


def left_out(found: dict[str, list[str]], total: int, where: str) -> tuple[list[Fault], list[Loss]]:
    """Notes and counts of columns that were left out by these rules."""
    notes, losses = [], []
    for why, columns in found.items():
        remedy = "" if why == UNNAMED else "To use one as a feature, give its whole name in assay.prefixes."
        notes.append(Fault(f"{len(columns)} of {total} columns of {where} left out: {why} ({named(columns)})",
                           remedy=remedy))
        losses.append(Loss("features", len(columns), total, why, where, asked=True))
    return notes, losses


def named(columns: Sequence[str]) -> str:
    """The first columns by name, and how many more there are."""
    return several([repr(c) for c in columns], ", ", NAMED)
