"""Crop caches of a study, and features of frozen networks on them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from benchmark.base.errors import MorphobenchError
from benchmark.base.files import digest, read_json, write_json
from benchmark.base.tables import FIELD_KEY
from benchmark.cellprofiler.ingest import OBJECT_NUMBER
from benchmark.crops.build import build_crops, crop_key, crop_source
from benchmark.crops.cells import CellCentres
from benchmark.crops.reader import open_crops
from benchmark.methods.base import FinetunedMethod, FrozenMethod
from benchmark.methods.workers.runs import REVISION
from benchmark.networks.device import resolve_device
from benchmark.networks.embed import frozen_features
from benchmark.networks.weights.weights import weights_identity
from benchmark.workflow.measured import illumination_of, kept_fields, measure_assay, need_images, object_roles_of
from benchmark.workflow.opened import Opened
from benchmark.workflow.tables import feature_files


def network_features(opened: Opened, method: FrozenMethod) -> tuple[Path, Path, dict[str, Any], dict[str, Any]]:
    """Frozen features, averaged over the crops of a field: files as `classical_features`, inputs and facts."""

    cache, crops = crops_of(opened, method)
    inputs = {"crops": crops, "weights": weights_identity(method.network)}
    key = digest([REVISION[method.kind], inputs, method.network.model_dump(mode="json"), method.channels])
    facts = opened.folder / "features" / f"network-{key}.json"

    def build() -> pd.DataFrame:

        source = open_crops(cache, crops)
        table, backbone = frozen_features(source, opened.assay, method.network, method.channels,
                                          resolve_device(opened.device))
        write_json(facts, {"weights": backbone.source, "weights_sha256": backbone.sha256})
        return table

    features, absent = feature_files(opened, f"network-{key}", "field", build)
    return features, absent, inputs, read_json(facts)


def crops_of(opened: Opened, method: FrozenMethod | FinetunedMethod, controls: bool = False) -> tuple[Path, str]:
    """The crop cache of a method and its key, which names it; built where it is not there.

    ``controls``: the cache of its negative controls, see `benchmark.crops.build.build_crops`.
    """

    need_images(opened, f"the method {method.name}")
    settings = method.crops
    illumination = illumination_of(opened) if settings.uses_illumination else None
    cells = cell_centres(opened) if settings.kind == "cells" else None
    key = crop_key(opened.assay_hash, settings, crop_source(illumination, cells), controls)
    path = opened.folder / "crops" / f"{key}.h5"
    with opened.stage("crops", key) as facts:
        build_crops(path, opened.assay, opened.assay_hash, settings, illumination=illumination, cells=cells,
                    controls=controls, run_tasks=opened.run_tasks)
        facts["detail"] = settings.summary + (", negative controls" if controls else "")
    return path, key


def cell_centres(opened: Opened) -> CellCentres:
    """Where CellProfiler found nuclei, for cell crops.

    Raises
    ------
    MorphobenchError
        The pipeline measures no nuclei.
    """
    from benchmark.crops.cells import CellCentres

    measured = measure_assay(opened)
    roles = object_roles_of(opened)
    columns = [f"Metadata_{roles.nuclei}_Location_Center_{axis}" for axis in "XY"]
    table = measured.cells([*FIELD_KEY, OBJECT_NUMBER, *columns])
    if not set(columns) <= set(table.columns):
        raise MorphobenchError("the pipeline measures no nuclei, on which cell crops are centred",
                               measured.record["pipeline"],
                               "Name its objects in cellprofiler.nuclei, or cut tiles (crops.kind).")
    table = kept_fields(table, opened).dropna().rename(columns=dict(zip(columns, ("x", "y"), strict=True)))
    return CellCentres(table.reset_index(drop=True), lambda field: measured.mask_path(field, roles.cells),
                       digest([measured.record["shards_digest"], roles.nuclei, roles.cells]))
