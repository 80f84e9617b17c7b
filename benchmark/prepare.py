"""What methods start from: CellProfiler's cells, illumination functions, crops, and tables of features.

Each is made once a study and key, and found again by every method that asks for the same.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from benchmark.errors import MorphobenchError
from benchmark.files import PROJECT, digest, read_json, write_json, write_parquet
from benchmark.methods.runs import REVISION
from benchmark.methods.settings import CellCountMethod, FinetunedMethod, FrozenMethod, ProfileMethod
from benchmark.opened import Opened
from benchmark.profiles.wells import COUNT, cell_counts, feature_columns, make_profiles, without_cells
from benchmark.splits import rows_of
from benchmark.tables import FIELD_KEY, WELL_KEY

if TYPE_CHECKING:
    from benchmark.cellprofiler.measure import Measured
    from benchmark.crops.cells import CellCentres
    from benchmark.images.illumination import Illumination

#: Object whose centres cell crops are centred on, and the object whose mask cuts a cell out.
CENTRE, MASK = "Nuclei", "Cells"


def illumination_of(opened: Opened) -> Illumination | None:
    """The illumination functions of the study's plates and channels; None where it asks for none."""
    settings = opened.study.illumination
    if settings.method == "none" or not opened.assay.channels:
        return None
    from benchmark.images.illumination import build_illumination

    key = digest([opened.assay_hash, settings.model_dump(mode="json")])
    with opened.stage("illumination", key) as facts:
        found = build_illumination(opened.assay, opened.assay_hash, settings, opened.folder / "illumination",
                                   opened.run_tasks)
        facts["detail"] = f"{opened.assay.fields['Metadata_Plate'].nunique()} plates x {len(opened.assay.channels)}"
    return found


def cellprofiler_illumination(opened: Opened) -> Illumination | None:
    """The functions that CellProfiler divides by; None where its pipeline corrects by itself, or nothing does."""
    return illumination_of(opened) if opened.study.cellprofiler.illumination == "study" else None


def measure_assay(opened: Opened) -> Measured:
    """CellProfiler's single-cell tables of the assay; shards already there are not run again.

    Raises
    ------
    MorphobenchError
        The assay has no images.
    """
    from benchmark.cellprofiler.find import find_cellprofiler
    from benchmark.cellprofiler.measure import measure

    need_images(opened, "CellProfiler")
    settings, found = opened.study.cellprofiler, find_cellprofiler()
    pipeline = pipeline_path(settings.pipeline, opened.base)
    illumination = cellprofiler_illumination(opened)
    key = digest([opened.assay_hash, settings.model_dump(mode="json"), found.version,
                  illumination.key if illumination else ""])
    with opened.stage("CellProfiler", key) as facts:
        measured = measure(opened.assay, opened.hashes, settings.model_copy(update={"pipeline": str(pipeline)}), found,
                           opened.folder / "measured", opened.run_tasks, illumination)
        record = measured.record
        facts["detail"] = (f"{record['fields']} fields, {record['cells']} cells, {record['shards']} shards "
                           f"({record['shards_run']} run now), "
                           f"{record['shard_cpu_seconds']:.0f} CPU seconds")
    return measured


def pipeline_path(name: str, base: Path) -> Path:
    """A pipeline's file: beside the study's file if it is there, else in the project (as shipped ones are)."""
    beside = base / name
    return beside if beside.is_file() else PROJECT / name


def need_images(opened: Opened, what: str) -> None:
    """Refuse what needs pixels where an assay comes as profiles alone."""
    if not opened.assay.channels:
        raise MorphobenchError(f"{what} needs images, and this assay comes as profiles without any",
                               f"study {opened.study.name}", "Take it out, or use a study with images.")


def classical_features(
    opened: Opened, method: CellCountMethod | ProfileMethod
) -> tuple[Path, Path, str, dict[str, Any], dict[str, Any]]:
    """Features of a classical method.

    Returns
    -------
    features, absent : Path
        Parquet files with the features, and with the units that lack them.
    unit : str
        What a row is.
    inputs : dict
        Hashes of what the features came from; they enter the run's key.
    facts : dict
        More of the same, for the run's record.
    """
    profile = method.profile if isinstance(method, ProfileMethod) else None
    unit = profile.unit if profile else method.unit  # type: ignore[union-attr]
    settings = profile.model_dump(mode="json") if profile else {"cell_count": unit}
    cells: Callable[[], pd.DataFrame]
    images: Callable[[], pd.DataFrame]
    if opened.assay.features is not None:
        table = opened.assay.features
        inputs: dict[str, Any] = {"profiles": opened.assay.features_hash}
        facts: dict[str, Any] = {}
        if unit != "well":
            raise MorphobenchError("profiles without images have no fields", f"method {method.name}",
                                   "Set its unit to well.")
        cells, images = (lambda: table), (lambda: _rows_a_well(table, method.name))
    else:
        measured = measure_assay(opened)
        facts = {"cellprofiler": measured.record["cellprofiler"], "pipeline": measured.record["pipeline_as_run"]}
        # The digest covers all that the cells hang on: version, pipeline, which plane is which image, illumination.
        inputs = {"cellprofiler": facts["cellprofiler"]["version"], "measurements": measured.record["shards_digest"]}
        cells, images = measured.cells, measured.images
    key = digest([REVISION[method.kind], inputs, opened.assay_hash, settings])

    def build() -> pd.DataFrame:
        if profile is None:
            return cell_counts(images(), opened.assay, unit)
        return make_profiles(cells(), opened.assay, profile)

    features, absent = _feature_files(opened, f"profiles-{key}", unit, build)
    return features, absent, unit, inputs, facts


def _rows_a_well(table: pd.DataFrame, method: str) -> pd.DataFrame:
    """Cells counted as rows of a single-cell table."""
    counts = table.groupby(WELL_KEY, as_index=False).size().rename(columns={"size": COUNT})
    if (counts[COUNT] == 1).all():
        raise MorphobenchError("the profiles have one row a well: cells cannot be counted from them",
                               f"method {method}", "Take the method out of the study.")
    return counts


def network_features(opened: Opened, method: FrozenMethod) -> tuple[Path, Path, dict[str, Any], dict[str, Any]]:
    """Frozen features, averaged over the crops of a field: files as `classical_features`, inputs and facts."""
    from benchmark.networks.weights import weights_identity

    cache, crops = crops_of(opened, method)
    inputs = {"crops": crops, "weights": weights_identity(method.network)}
    key = digest([REVISION[method.kind], inputs, method.network.model_dump(mode="json"), method.channels])
    facts = opened.folder / "features" / f"network-{key}.json"

    def build() -> pd.DataFrame:
        from benchmark.crops.reader import open_crops
        from benchmark.networks.features import frozen_features
        from benchmark.networks.train import resolve_device

        source = open_crops(cache, crops)
        table, backbone = frozen_features(source, opened.assay, method.network, method.channels,
                                          resolve_device(opened.device))
        write_json(facts, {"weights": backbone.source, "weights_sha256": backbone.sha256})
        return table

    features, absent = _feature_files(opened, f"network-{key}", "field", build)
    return features, absent, inputs, read_json(facts)


def _feature_files(opened: Opened, name: str, unit: str, build: Callable[[], pd.DataFrame]) -> tuple[Path, Path]:
    """Write a feature table (predicted units only) and the list of those that lack features, once."""
    features = opened.folder / "features" / f"{name}.parquet"
    absent = opened.folder / "features" / f"{name}-absent.parquet"
    kind, key = name.split("-", 1)
    opened.note(f"{kind} features", key)
    if not (features.exists() and absent.exists()):
        with opened.stage(f"{kind} features", key) as facts:
            table = build()
            wanted = {w for fold in opened.split.folds for w in (*fold.test, *fold.response)}
            table = table[rows_of(table, tuple(wanted))].reset_index(drop=True)
            write_parquet(absent, without_cells(table, opened.assay, unit))
            write_parquet(features, table)
            facts["detail"] = f"{len(table)} {unit}s x {len(feature_columns(table))} features"
    return features, absent


def crops_of(opened: Opened, method: FrozenMethod | FinetunedMethod) -> tuple[Path, str]:
    """The crop cache of a method and its key, which names it; built where it is not there."""
    from benchmark.crops.build import build_crops, crop_key, crop_source

    need_images(opened, f"the method {method.name}")
    settings = method.crops
    illumination = illumination_of(opened) if settings.uses_illumination else None
    cells = cell_centres(opened) if settings.kind == "cells" else None
    key = crop_key(opened.assay_hash, settings, crop_source(illumination, cells))
    path = opened.folder / "crops" / f"{key}.h5"
    with opened.stage("crops", key) as facts:
        build_crops(path, opened.assay, opened.assay_hash, settings, illumination=illumination, cells=cells,
                    run_tasks=opened.run_tasks)
        facts["detail"] = settings.summary
    return path, key


def cell_centres(opened: Opened) -> CellCentres:
    """Where CellProfiler found nuclei, for cell crops.

    Raises
    ------
    MorphobenchError
        The pipeline measures no nuclei.
    """
    from benchmark.cellprofiler.ingest import OBJECT_NUMBER
    from benchmark.crops.cells import CellCentres

    measured = measure_assay(opened)
    columns = [f"Metadata_{CENTRE}_Location_Center_{axis}" for axis in "XY"]
    table = measured.cells([*FIELD_KEY, OBJECT_NUMBER, *columns])
    if not set(columns) <= set(table.columns):
        raise MorphobenchError(f"the pipeline measures no {CENTRE}, on which cell crops are centred",
                               measured.record["pipeline"], "Call the nuclei Nuclei, or cut tiles (crops.kind).")
    table = table.dropna().rename(columns=dict(zip(columns, ("x", "y"), strict=True)))
    return CellCentres(table.reset_index(drop=True), lambda field: measured.mask_path(field, MASK),
                       measured.record["shards_digest"])
