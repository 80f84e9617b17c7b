"""Feature tables of a study: made once a study and key, and shared by every method that asks for the same.

Tables of profiles hold all wells, negative controls among them, since normalisation and corrections are fitted on
those; which rows are trained on and tested is decided by each fold.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from benchmark.base.errors import MorphobenchError
from benchmark.base.files import digest, once, write_parquet
from benchmark.base.tables import CONTROL, FIELD_COLUMNS, FIELD_KEY, WELL_COLUMNS, WELL_KEY
from benchmark.cells.table import SingleCells
from benchmark.folds.fold import rows_of
from benchmark.methods.context import Features, Pipeline
from benchmark.methods.kinds.cell_count import CellCountMethod
from benchmark.methods.versions import PROFILES
from benchmark.methods.workers.source import PLAIN, ProfileSource
from benchmark.profiles.settings import REFERRING, ProfileSettings
from benchmark.profiles.wells import COUNT, cell_counts, feature_columns, without_cells
from benchmark.workflow.context import StudyContext
from benchmark.workflow.measured import field_counts, object_roles_of, pipeline_of

if TYPE_CHECKING:
    from benchmark.cellprofiler.measure import Measured

#: Raised when tables of profiles are written in another way that predicts the same: they are then made anew.
TABLES = 2


def profile_features(context: StudyContext, profile: ProfileSettings, where: str) -> Features:
    """Profiles of all wells (or fields); ``where`` is how messages name what asks for them."""
    if context.assay.features is not None and (profile.unit != "well" or profile.source == "whole_field"):
        raise MorphobenchError("profiles without images have no fields", where,
                               "Set its unit to well and its source to cells.")
    inputs, facts, cells = _cells(context, profile)
    if profile.aggregate in REFERRING and not profile.fold_wise:  # made once, by a draw of reference cells
        inputs = inputs | {"seed": context.seeds[0]}
    # The correction is a fold's matter: profiles with and without it are one and the same table.
    settings = profile.model_dump(mode="json", exclude={"correction", "select", "correlation", "clip"})
    key = digest([PROFILES, TABLES, inputs, context.assay_hash, settings])
    columns = FIELD_COLUMNS if profile.unit == "field" else WELL_COLUMNS
    wells = context.assay.fields[columns].drop_duplicates(FIELD_KEY if profile.unit == "field" else WELL_KEY)
    def build() -> pd.DataFrame:
        from benchmark.methods.workers.foldtable import normalised
        from benchmark.profiles.aggregate import make_well_profiles
        from benchmark.profiles.missing import usable_rows

        reference = wells[wells[CONTROL] == "negative"]
        if profile.fold_wise:  # a fold makes its own: here only which wells have cells, and values of them
            plain = profile.model_copy(update={"aggregate": "mean", "normalise": "training", "level": "wells"})
            return usable_rows(make_well_profiles(cells(), wells, plain, reference, context.seeds[0]))[columns]
        made = usable_rows(make_well_profiles(cells(), wells, profile, reference, context.seeds[0]))
        _refuse_constant(made, profile.unit, where)
        return normalised(made, profile)

    table, absent = feature_files(context, f"profiles-{key}", profile.unit, build, controls=True)
    left_out = context.fields.dropped
    place = _cells_on_disk(context, inputs) if profile.fold_wise else None
    return Features(ProfileSource(table, profile, place, left_out if place is not None else None), absent, profile.unit,
                    inputs, facts, True)


def _refuse_constant(profiles: pd.DataFrame, unit: str, where: str) -> None:
    """MorphobenchError where all profiles are the same, so that whatever is said of one is said of all."""
    values = profiles[feature_columns(profiles)].to_numpy(float)
    known = np.where(np.isfinite(values), values, np.nan)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # features without a single value
        differing = np.nanmin(known, axis=0) < np.nanmax(known, axis=0) if len(known) > 1 else np.zeros(0, bool)
    if not differing.any():
        raise MorphobenchError(f"all {len(values)} {unit}s have the same profile: none of {values.shape[1]} features "
                               "differs between them", where, "Look at the images and at what was measured in them.")


def _cells(
    context: StudyContext, profile: ProfileSettings
) -> tuple[dict[str, Any], dict[str, Any], Callable[[], SingleCells]]:
    """What profiles come from: hashes, facts, and the cells (or fields) themselves, without those left out."""
    if context.assay.features is not None:
        features = context.assay.features
        return {"profiles": context.assay.features_hash}, {}, lambda: SingleCells.of_frame(features)
    measured = measured_of(context, pipeline_of(profile))
    inputs, facts = measured_inputs(measured)

    def cells() -> SingleCells:
        if profile.source == "whole_field":
            images = measured.images()
            features = [str(c) for c in images.columns if str(c).startswith("Image_")]
            if not features:
                raise MorphobenchError("measures nothing of whole fields", measured.record["pipeline"],
                                       "Name another pipeline in whole_field.pipeline.")
            found = SingleCells.of_frame(images[[*FIELD_KEY, *features]])
        else:
            found = measured.single_cells()
        return found.without(context.fields.dropped) if len(context.fields.dropped) else found

    return inputs, facts, cells


def measured_inputs(measured: Measured) -> tuple[dict[str, Any], dict[str, Any]]:
    """Hashes of what a run takes from CellProfiler, and facts of the same for its record."""
    facts = {"cellprofiler": measured.record["cellprofiler"], "pipeline": measured.record["pipeline_as_run"]}
    # The digest covers all that the cells depend on: version, pipeline, which plane is which image, illumination.
    return {"cellprofiler": facts["cellprofiler"]["version"], "measurements": measured.record["shards_digest"]}, facts


def _cells_on_disk(context: StudyContext, inputs: dict[str, Any]) -> Path:
    """Where workers find the cells: the folder of what was measured, or a file of a profile table's rows."""
    if context.assay.features is None:
        measured = measured_of(context, "cellprofiler")
        measured.single_cells()  # brought together by plate, if they are not yet
        return measured.cells_folder
    return once(context.folder / "cells" / f"{digest(inputs)}.parquet", lambda: context.assay.features)


def count_features(context: StudyContext, unit: Literal["well", "field"], where: str) -> Features:
    """log(1 + cells) of every well or field; ``where`` is how messages name what asks for them."""
    images, inputs, facts = _counted(context, unit, where)
    key = digest([CellCountMethod.revision, inputs, context.assay_hash, {"cell_count": unit}])
    table, absent = feature_files(context, f"profiles-{key}", unit,
                                  lambda: cell_counts(images(), context.assay.fields, unit))
    return Features(ProfileSource(table, PLAIN), absent, unit, inputs, facts, False)


def _counted(context: StudyContext, unit: str, where: str
             ) -> tuple[Callable[[], pd.DataFrame], dict[str, Any], dict[str, Any]]:
    """What is counted: the counts, hashes of what they come from, and facts."""
    features = context.assay.features
    if features is not None:
        if unit != "well":
            raise MorphobenchError("profiles without images have no fields", where, "Set its unit to well.")
        return lambda: _rows_a_well(features, where), {"profiles": context.assay.features_hash}, {}
    measured = measured_of(context, "cellprofiler")
    inputs, facts = measured_inputs(measured)
    roles = object_roles_of(context.study)
    return (lambda: context.fields.kept(field_counts(context.study, measured)).rename(columns={"cells": COUNT}),
            inputs | {"counted": [roles.cells, roles.nuclei]}, facts)


def measured_of(context: StudyContext, pipeline: Pipeline) -> Measured:
    """What a pipeline measured.

    Raises
    ------
    MorphobenchError
        The assay has no images.
    """
    if not context.assay.channels:
        raise MorphobenchError("CellProfiler needs images, and this assay comes as profiles without any",
                               f"study {context.study.name}", "Take it out, or use a study with images.")
    return context.measured[pipeline]


def _rows_a_well(table: pd.DataFrame, where: str) -> pd.DataFrame:
    """Cells counted as rows of a single-cell table."""
    counts = table.groupby(WELL_KEY, as_index=False).size().rename(columns={"size": COUNT})
    if (counts[COUNT] == 1).all():
        raise MorphobenchError("the profiles have one row a well: cells cannot be counted from them",
                               where, "Take the method out of the study.")
    return counts


def feature_files(
    context: StudyContext, name: str, unit: str, build: Callable[[], pd.DataFrame], controls: bool = False
) -> tuple[Path, Path]:
    """Write a feature table and the list of predicted units that lack features, once.

    Parameters
    ----------
    controls : bool
        Keep rows that no fold tests (negative controls); else predicted units only.
    """
    features = context.folder / "features" / f"{name}.parquet"
    absent = context.folder / "features" / f"{name}-absent.parquet"
    kind, key = name.split("-", 1)
    context.note(f"{kind} features", key)
    if not (features.exists() and absent.exists()):
        with context.stage(f"{kind} features", key) as facts:
            table = build()
            # Of the assay and not of its folds: a scheme may test fewer wells than it trains on.
            wanted = tuple(context.assay.predicted[WELL_KEY].drop_duplicates().itertuples(index=False, name=None))
            lacking = without_cells(table, context.assay.predicted, unit)
            write_parquet(absent, lacking[rows_of(lacking, wanted)] if len(lacking) else lacking)
            if not controls:
                table = table[rows_of(table, wanted)].reset_index(drop=True)
            write_parquet(features, table)
            facts["detail"] = f"{len(table)} {unit}s x {len(feature_columns(table))} features" + (
                f"; {len(lacking)} to predict have no cells, or lack most features" if len(lacking) else "")
    return features, absent
