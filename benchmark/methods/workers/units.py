"""What a fine-tuned network is trained on and predicts: crops, or bags of the crops of a field or a well."""

from __future__ import annotations

import numpy as np
import pandas as pd

from benchmark.base.tables import FIELD_COLUMNS, WELL_COLUMNS, WELL_KEY
from benchmark.crops.reader import Crops
from benchmark.folds.fold import WellKey, rows_of
from benchmark.networks.feed.bags import Bags
from benchmark.networks.feed.feeding import Source
from benchmark.networks.settings import Bag

#: Stands for the crop's number where a well has no crop at all.
NO_CROP = -1


def bags_of(crops: Crops, fields: pd.DataFrame, bag: Bag) -> tuple[np.ndarray, ...]:
    """Numbers of the crops of each field (or well) that has any, in the order of the field table.

    No bag mixes wells, and so none mixes the sides of a fold.
    """
    group = fields.groupby(WELL_KEY, sort=False).ngroup().to_numpy()[crops.field] if bag == "well" else crops.field
    order = np.argsort(group, kind="stable")
    return tuple(np.split(order, np.flatnonzero(np.diff(group[order])) + 1)) if len(order) else ()


def field_of(crops: Crops, source: Source) -> np.ndarray:
    """Row of the field of each unit of a source; of bags that of the first crop."""
    if isinstance(source, Bags):
        return crops.field[[members[0] for members in source.members]]
    return crops.field


def units_of_wells(crops: Crops, source: Source, fields: pd.DataFrame, wells: tuple[WellKey, ...]) -> np.ndarray:
    """Numbers of the units of a source that lie in ``wells``, rising."""
    return np.flatnonzero(rows_of(fields, wells).to_numpy()[field_of(crops, source)])


def unit_keys(crops: Crops, source: Source, fields: pd.DataFrame, rows: np.ndarray, bag: Bag) -> pd.DataFrame:
    """``Metadata_`` columns of units, a row each: of fields with the crop's number, of fields, or of wells."""
    found = fields.loc[field_of(crops, source)[rows], WELL_COLUMNS if bag == "well" else FIELD_COLUMNS]
    return found.assign(crop=crops.crop[rows].astype(int)) if bag == "crop" else found


def empty_keys(fields: pd.DataFrame, wells: tuple[WellKey, ...], seen: pd.DataFrame, bag: Bag) -> pd.DataFrame:
    """The same of those ``wells`` that have no crop, a row each; ``seen`` are the keys of what there is."""
    first = fields.loc[rows_of(fields, wells), WELL_COLUMNS if bag == "well" else FIELD_COLUMNS]
    first = first.drop_duplicates(WELL_KEY)
    empty = first[~rows_of(first, tuple(seen[WELL_KEY].itertuples(index=False, name=None)))]
    return empty.assign(crop=NO_CROP) if bag == "crop" else empty
