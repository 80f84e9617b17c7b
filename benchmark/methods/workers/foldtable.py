"""A table of profiles made ready for one fold: features made, selected, scaled and corrected on what may be seen."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from sklearn.preprocessing import StandardScaler

from benchmark.base.tables import BATCH, CONTROL, FIELD_COLUMNS, WELL_COLUMNS
from benchmark.cells.table import SingleCells
from benchmark.folds.fold import Fold, rows_of
from benchmark.methods.workers.embeddings import read_wells
from benchmark.methods.workers.featurefacts import feature_facts
from benchmark.methods.workers.source import ProfileSource
from benchmark.profiles.aggregate import make_well_profiles
from benchmark.profiles.corrections.make import make_correction
from benchmark.profiles.missing import marked_by_plate
from benchmark.profiles.normalise import PlateNormaliser
from benchmark.profiles.select import ProfileSelector
from benchmark.profiles.settings import Correction, ProfileSettings
from benchmark.profiles.transformers import finite_features
from benchmark.profiles.wells import feature_columns


def fold_profiles(source: ProfileSource, fold: Fold, seed: int) -> pd.DataFrame:
    """Profiles of all wells as this fold may make them; from a file where they do not depend on the fold.

    Where ``reference`` is ``training``, the reference cells are those of the fold's training wells alone.
    """
    if source.embedded:
        return normalised(read_wells(source.table), source.profile)
    table = pd.read_parquet(source.table)
    if source.cells is None:
        return table
    cells = (SingleCells.of_frame(pd.read_parquet(source.cells)) if source.cells.is_file()
             else SingleCells.open(source.cells))
    if source.left_out is not None and len(source.left_out):
        cells = cells.without(source.left_out)
    columns = FIELD_COLUMNS if source.profile.unit == "field" else WELL_COLUMNS
    wells = table[columns]
    reference = wells[rows_of(wells, fold.train)]
    made = make_well_profiles(cells, wells, source.profile, reference, seed)
    return normalised(made, source.profile)


def normalised(profiles: pd.DataFrame, settings: ProfileSettings) -> pd.DataFrame:
    """Profiles normalised per plate as the settings say; as they are where only training wells may scale them.

    Where single cells were normalised, their profiles are not normalised again. What has no value on a whole plate is
    marked (`benchmark.profiles.missing.marked_by_plate`).
    """
    if settings.normalise == "training":
        return profiles
    if settings.level == "wells":
        profiles = PlateNormaliser(settings.method, settings.normalise).fit(profiles).transform(profiles)
    return marked_by_plate(profiles)


def selector(settings: ProfileSettings) -> ProfileSelector | None:
    """The unfitted feature selection of a profile; None where it asks for none."""
    own_units = settings.normalise == "training"  # scaled after the selection, on the training wells
    return ProfileSelector(settings.select, settings.correlation, own_units) if settings.select else None


def corrected(
    table: pd.DataFrame, fold: Fold, settings: ProfileSettings, correction: Correction, seed: int
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Features selected, put on one scale and clipped, then corrected.

    Features that were normalised per plate are on one scale already; others are standardised on the training wells.

    Parameters
    ----------
    table : DataFrame
        Profiles of all wells: scored ones and negative controls. No label is looked at.

    Returns
    -------
    table : DataFrame
        Metadata and corrected features, the same rows.
    facts : dict
        What the correction was fitted on; ``clipped``, the share of values that were; and under ``selection`` what
        became of the features (`benchmark.methods.workers.featurefacts.feature_facts`).
    """
    train = rows_of(table, fold.train)
    chosen = selector(settings)
    if chosen is not None:
        chosen.fit(table[train])
    selection = feature_facts(table, chosen)
    if chosen is not None:
        table = chosen.transform(table)
    features = feature_columns(table)
    values = finite_features(table).to_numpy()
    if settings.normalise == "training":
        values = StandardScaler().fit(values[train.to_numpy()]).transform(values)
    inside = np.clip(values, -settings.clip, settings.clip) if settings.clip else values
    clipped = float((inside != values).mean()) if settings.clip else 0.0
    metadata = table[[c for c in table.columns if c not in features]]
    table = pd.concat([metadata, pd.DataFrame(inside, columns=features, index=table.index)], axis=1)
    fitted = make_correction(correction, seed)
    control = table[CONTROL] == "negative"
    # Of a batch without training wells the controls alone say where its treated wells would lie: it is left as it is.
    known = control & table[BATCH].isin(table.loc[train, BATCH])
    rows = {"controls": control, "training and controls": train | known}.get(fitted.fit_on)
    fitted.fit(table if rows is None else table[rows])
    moved = fitted.transform(table)  # first: some facts are of what is transformed
    return moved, dict(fitted.facts_) | {"clipped": round(clipped, 5), "selection": selection}
