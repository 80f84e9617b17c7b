"""Crop caches of a study, made once a study and key."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from benchmark.base.account import Loss
from benchmark.base.errors import MorphobenchError
from benchmark.base.files import digest
from benchmark.base.tables import FIELD_KEY
from benchmark.base.tasks import said
from benchmark.workflow.context import StudyContext
from benchmark.workflow.measured import illumination_of, object_roles_of

if TYPE_CHECKING:
    from benchmark.crops.cells import CellCentres
    from benchmark.crops.settings import CropSettings


def crops_of(context: StudyContext, settings: CropSettings, where: str, controls: bool = False) -> tuple[Path, str]:
    """A crop cache and its key, which names it; built where it is not there.

    Parameters
    ----------
    where : str
        How messages name what asks for it.
    controls : bool
        The cache of negative controls that no fold tests, see `benchmark.crops.build.build_crops`.

    Raises
    ------
    MorphobenchError
        The assay has no images, or the crops cannot be cut from them.
    """
    from benchmark.crops.build import build_crops, crop_key, crop_source

    if not context.assay.channels:
        raise MorphobenchError(f"{where} needs images, and this assay comes as profiles without any",
                               f"study {context.study.name}", "Take it out, or use a study with images.")
    illumination = (illumination_of(context.session, context.fields.whole, context.user)
                    if settings.uses_illumination else None)
    cells = cell_centres(context) if settings.kind == "cells" else None
    key = crop_key(context.assay_hash, settings, crop_source(illumination, cells), controls)
    path = context.folder / "crops" / f"{key}.h5"
    with context.stage("crops", key) as facts:
        build_crops(path, context.assay, context.assay_hash, settings, illumination=illumination, cells=cells,
                    controls=controls, run_tasks=context.run_tasks)
        facts["detail"] = settings.summary + (", negative controls" if controls else "")
    return path, key


def cell_centres(context: StudyContext) -> CellCentres:
    """Where CellProfiler segmented nuclei, for cell crops.

    Raises
    ------
    MorphobenchError
        The pipeline measures no nuclei.
    """
    from benchmark.cellprofiler.ingest import OBJECT_NUMBER
    from benchmark.crops.cells import CellCentres

    measured = context.measured["cellprofiler"]
    roles = object_roles_of(context.study)
    columns = [f"Metadata_{roles.nuclei}_Location_Center_{axis}" for axis in "XY"]
    table = measured.cells([*FIELD_KEY, OBJECT_NUMBER, *columns])
    if not set(columns) <= set(table.columns):
        raise MorphobenchError("the pipeline measures no nuclei, on which cell crops are centred",
                               measured.record["pipeline"],
                               "Name its objects in cellprofiler.nuclei, or cut tiles (crops.kind).")
    kept = context.fields.kept(table)
    table = kept.dropna().rename(columns=dict(zip(columns, ("x", "y"), strict=True)))
    if len(table) < len(kept):
        said(str(Loss("cells", len(kept) - len(table), len(kept), "CellProfiler gives no centre of their nucleus, so "
                     "that no crop can be cut")))
    return CellCentres(table.reset_index(drop=True), lambda field: measured.mask_path(field, roles.cells),
                       digest([measured.record["shards_digest"], roles.nuclei, roles.cells]))
