"""Features of the classical methods: made once a study and key, and found again by every method that asks for the same.

Tables of profiles hold all wells, negative controls among them, since normalisation and corrections are fitted on
those; which rows are trained on and tested is the fold's matter.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from benchmark.base.errors import MorphobenchError
from benchmark.base.files import digest, write_parquet
from benchmark.base.tables import CONTROL, FIELD_COLUMNS, FIELD_KEY, WELL_COLUMNS, WELL_KEY
from benchmark.cells.table import SingleCells
from benchmark.folds.fold import rows_of
from benchmark.methods.base import BaselineMethod, CellCountMethod, ProfileMethod
from benchmark.methods.workers.foldtable import Source, normalised
from benchmark.methods.workers.runs import REVISION
from benchmark.profiles.aggregate import make_well_profiles
from benchmark.profiles.baselines import batch_profiles, intensity_profiles, position_profiles
from benchmark.profiles.settings import REFERRING, ProfileSettings
from benchmark.profiles.wells import COUNT, cell_counts, feature_columns, without_cells
from benchmark.workflow.measured import block_of, field_counts, kept_fields, measure_assay, need_images, object_roles_of
from benchmark.workflow.opened import Opened

if TYPE_CHECKING:
    from benchmark.cellprofiler.measure import Measured

#: Settings of a table that goes through no selection and no correction.
PLAIN = ProfileSettings(normalise="training")


@dataclass(frozen=True)
class Features:
    """A method's features, on disk.

    Attributes
    ----------
    source : Source
        Where a fold finds its table.
    absent : Path
        Parquet: the predicted units that lack features.
    unit : str
        What a row is.
    inputs : dict
        Hashes of what the features came from; they enter the run's key.
    facts : dict
        More of the same, for the run's record.
    selected : bool
        Whether features go through selection and correction in a fold.
    """

    source: Source
    absent: Path
    unit: str
    inputs: dict[str, Any]
    facts: dict[str, Any]
    selected: bool


def classical_features(opened: Opened, method: CellCountMethod | BaselineMethod | ProfileMethod) -> Features:
    """Features of a classical method.

    Raises
    ------
    MorphobenchError
        The method does not suit the assay: fields, cells or images are wanted where there are none.
    """
    if isinstance(method, ProfileMethod):
        return profile_features(opened, method.profile, f"method {method.name}")
    if isinstance(method, BaselineMethod):
        return _baseline_features(opened, method)
    return _count_features(opened, method)


def profile_features(opened: Opened, profile: ProfileSettings, where: str) -> Features:
    """Profiles of all wells (or fields); ``where`` is how messages name what asks for them."""
    if opened.assay.features is not None and (profile.unit != "well" or profile.source == "whole_field"):
        raise MorphobenchError("profiles without images have no fields", where,
                               "Set its unit to well and its source to cells.")
    inputs, facts, cells = _cells(opened, profile)
    if profile.aggregate in REFERRING and not profile.fold_wise:  # made once, by a draw of reference cells
        inputs = inputs | {"seed": opened.study.seeds[0]}
    # The correction is a fold's matter: profiles with and without it are one and the same table.
    settings = profile.model_dump(mode="json", exclude={"correction", "select", "correlation", "clip"})
    key = digest([REVISION["profile"], inputs, opened.assay_hash, settings])
    columns = FIELD_COLUMNS if profile.unit == "field" else WELL_COLUMNS
    wells = opened.assay.fields[columns].drop_duplicates(FIELD_KEY if profile.unit == "field" else WELL_KEY)
    single = cells()

    def build() -> pd.DataFrame:
        if profile.fold_wise:  # a fold makes its own: here only which wells have cells
            return _with_cells(wells, single)
        reference = wells[wells[CONTROL] == "negative"]
        return normalised(make_well_profiles(single, wells, profile, reference, opened.study.seeds[0]), profile)

    table, absent = feature_files(opened, f"profiles-{key}", profile.unit, build, controls=True)
    left_out = opened.dropped
    place = _cells_on_disk(opened, inputs) if profile.fold_wise else None
    return Features(Source(table, profile, place, left_out if place is not None else None), absent, profile.unit,
                    inputs, facts, True)


def _cells(
    opened: Opened, profile: ProfileSettings
) -> tuple[dict[str, Any], dict[str, Any], Callable[[], SingleCells]]:
    """What profiles come from: hashes, facts, and the cells (or fields) themselves, without those left out."""
    if opened.assay.features is not None:
        features = opened.assay.features
        return {"profiles": opened.assay.features_hash}, {}, lambda: SingleCells.of_frame(features)
    measured = measure_assay(opened, block_of(profile))
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
        return found.without(opened.dropped) if len(opened.dropped) else found

    return inputs, facts, cells


def measured_inputs(measured: Measured) -> tuple[dict[str, Any], dict[str, Any]]:
    """Hashes of what a run takes from CellProfiler, and facts of the same for its record."""
    facts = {"cellprofiler": measured.record["cellprofiler"], "pipeline": measured.record["pipeline_as_run"]}
    # The digest covers all that the cells hang on: version, pipeline, which plane is which image, illumination.
    return {"cellprofiler": facts["cellprofiler"]["version"], "measurements": measured.record["shards_digest"]}, facts


def _with_cells(wells: pd.DataFrame, cells: SingleCells) -> pd.DataFrame:
    have = set(cells.counts[WELL_KEY].itertuples(index=False, name=None))
    rows = [w in have for w in wells[WELL_KEY].itertuples(index=False, name=None)]
    return wells[rows].sort_values(WELL_KEY).reset_index(drop=True)


def _cells_on_disk(opened: Opened, inputs: dict[str, Any]) -> Path:
    """Where workers find the cells: the folder of what was measured, or a file of a profile table's rows."""
    if opened.assay.features is None:
        return measure_assay(opened).cells_folder
    path = opened.folder / "cells" / f"{digest(inputs)}.parquet"
    if not path.exists():
        write_parquet(path, opened.assay.features)
    return path


def _baseline_features(opened: Opened, method: BaselineMethod) -> Features:
    """Mean intensities, position or batch of every well."""
    wells = opened.assay.wells
    key = digest([REVISION["baseline"], opened.assay_hash, method.feature])

    def build() -> pd.DataFrame:
        if method.feature == "intensity":
            from benchmark.images.means import mean_intensities

            need_images(opened, f"the method {method.name}")
            return intensity_profiles(wells, mean_intensities(opened.assay, opened.run_tasks))
        return position_profiles(wells) if method.feature == "position" else batch_profiles(wells)

    table, absent = feature_files(opened, f"{method.feature}-{key}", "well", build)
    return Features(Source(table, PLAIN), absent, "well", {}, {}, False)


def _count_features(opened: Opened, method: CellCountMethod) -> Features:
    """Cell counts of every well or field."""
    if opened.assay.features is not None:
        if method.unit != "well":
            raise MorphobenchError("profiles without images have no fields", f"method {method.name}",
                                   "Set its unit to well.")
        table = opened.assay.features
        inputs: dict[str, Any] = {"profiles": opened.assay.features_hash}
        facts: dict[str, Any] = {}
        images = lambda: _rows_a_well(table, method.name)  # noqa: E731
    else:
        measured = measure_assay(opened)
        inputs, facts = measured_inputs(measured)
        roles = object_roles_of(opened)
        inputs = inputs | {"counted": [roles.cells, roles.nuclei]}
        images = lambda: kept_fields(field_counts(opened, measured), opened).rename(  # noqa: E731
            columns={"cells": COUNT})
    key = digest([REVISION["cell_count"], inputs, opened.assay_hash, {"cell_count": method.unit}])
    table_path, absent = feature_files(opened, f"profiles-{key}", method.unit,
                                       lambda: cell_counts(images(), opened.assay.fields, method.unit))
    return Features(Source(table_path, PLAIN), absent, method.unit, inputs, facts, False)


def _rows_a_well(table: pd.DataFrame, method: str) -> pd.DataFrame:
    """Cells counted as rows of a single-cell table."""
    counts = table.groupby(WELL_KEY, as_index=False).size().rename(columns={"size": COUNT})
    if (counts[COUNT] == 1).all():
        raise MorphobenchError("the profiles have one row a well: cells cannot be counted from them",
                               f"method {method}", "Take the method out of the study.")
    return counts


def feature_files(
    opened: Opened, name: str, unit: str, build: Callable[[], pd.DataFrame], controls: bool = False
) -> tuple[Path, Path]:
    """Write a feature table and the list of predicted units that lack features, once.

    Parameters
    ----------
    controls : bool
        Keep rows that no fold tests (negative controls); else predicted units only.
    """
    features = opened.folder / "features" / f"{name}.parquet"
    absent = opened.folder / "features" / f"{name}-absent.parquet"
    kind, key = name.split("-", 1)
    opened.note(f"{kind} features", key)
    if not (features.exists() and absent.exists()):
        with opened.stage(f"{kind} features", key) as facts:
            table = build()
            # Of the assay and not of its folds: a scheme may test fewer wells than it trains on.
            wanted = tuple(opened.assay.predicted[WELL_KEY].drop_duplicates().itertuples(index=False, name=None))
            lacking = without_cells(table, opened.assay.predicted, unit)
            write_parquet(absent, lacking[rows_of(lacking, wanted)] if len(lacking) else lacking)
            if not controls:
                table = table[rows_of(table, wanted)].reset_index(drop=True)
            write_parquet(features, table)
            facts["detail"] = f"{len(table)} {unit}s x {len(feature_columns(table))} features"
    return features, absent
