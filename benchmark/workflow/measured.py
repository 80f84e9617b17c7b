"""What methods start from: CellProfiler's cells, illumination functions, crops, and tables of features.

Each is made once a study and key, and found again by every method that asks for the same.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import pandas as pd

from benchmark.base.errors import MorphobenchError
from benchmark.base.files import PROJECT, digest
from benchmark.base.tables import FIELD_KEY
from benchmark.cellprofiler.find import OWN, CellProfiler, find_cellprofiler
from benchmark.profiles.settings import ProfileSettings
from benchmark.workflow.opened import Opened

if TYPE_CHECKING:
    from benchmark.cellprofiler.inputs import Roles
    from benchmark.cellprofiler.measure import Measured
    from benchmark.cellprofiler.settings import CellProfilerSettings
    from benchmark.images.illumination import Illumination

#: Blocks of a study's settings that name a pipeline, and what their stage is called.
Block = Literal["cellprofiler", "whole_field"]
STAGES: dict[Block, str] = {"cellprofiler": "CellProfiler", "whole_field": "CellProfiler, whole fields"}


def illumination_of(opened: Opened) -> Illumination | None:
    """The illumination functions of the study's plates and channels; None where it asks for none."""
    settings = opened.study.illumination
    if settings.method == "none" or not opened.assay.channels:
        return None
    from benchmark.images.illumination import build_illumination, illumination_key

    # Over all fields that can be read: what quality control leaves out must not change what is measured.
    with opened.stage("illumination", illumination_key(opened.whole_hash, settings)) as facts:
        found = build_illumination(opened.whole, opened.whole_hash, settings, opened.folder / "illumination",
                                   opened.run_tasks)
        facts["detail"] = f"{opened.assay.fields['Metadata_Plate'].nunique()} plates x {len(opened.assay.channels)}"
    return found


def _illumination_is_there(opened: Opened, block: Block) -> bool:
    """Whether the functions that CellProfiler divides by need not be made first."""
    from benchmark.images.illumination import INDEX, illumination_key

    settings = opened.study.illumination
    if settings.method == "none" or getattr(opened.study, block).illumination != "study":
        return True
    return (opened.folder / "illumination" / illumination_key(opened.whole_hash, settings) / INDEX).exists()


def cellprofiler_illumination(opened: Opened, block: Block = "cellprofiler") -> Illumination | None:
    """The functions that CellProfiler divides by; None where its pipeline corrects by itself, or nothing does."""
    return illumination_of(opened) if getattr(opened.study, block).illumination == "study" else None


def pixels_seen(opened: Opened, source: Literal["cells", "whole_field"]) -> str | None:
    """What the study's illumination correction estimated of pixels that CellProfiler measures; None where nothing."""
    block = opened.study.whole_field if source == "whole_field" else opened.study.cellprofiler
    used = block.illumination == "study" and opened.assay.channels
    return opened.study.illumination.transductive if used else None


def block_of(profile: ProfileSettings) -> Block:
    """The pipeline that a profile takes its features from."""
    return "whole_field" if profile.source == "whole_field" else "cellprofiler"


def measure_assay(opened: Opened, block: Block = "cellprofiler") -> Measured:
    """What CellProfiler measures of the assay by one of the study's pipelines; finished shards are not run again.

    Fields that quality control leaves out are measured too, so that a change of its settings measures nothing anew.
    Once for an opened study: what was measured stays in ``opened.measured``.

    Raises
    ------
    MorphobenchError
        The assay has no images.
    """
    need_images(opened, "CellProfiler")
    place = _place(opened, block)
    if place not in opened.measured:
        opened.measured[place] = _measure(opened, block, _installed(getattr(opened.study, block)))
    return opened.measured[place]


def measured_already(opened: Opened, block: Block) -> Measured | None:
    """What earlier calls measured by one of the study's pipelines; None unless all its shards are there.

    Nothing is run, and CellProfiler need not be installed: then the versions that the records name are tried.

    Raises
    ------
    FaultsError
        All was measured, and more fields failed than ``failed_fields`` allows.
    """
    from benchmark.cellprofiler.measure import is_measured, make_plan, measured_by

    place = _place(opened, block)
    settings = getattr(opened.study, block)
    folder = opened.folder / "measured"
    if place in opened.measured:
        return opened.measured[place]
    there = [c for c in measured_by(folder) if (c.origin == OWN) == (settings.backend == OWN)]
    if not there or not _illumination_is_there(opened, block):
        return None
    with suppress(MorphobenchError):  # none here, or it does not run: then the records know which it was
        there = [_installed(settings)]
    for found in there:
        try:
            plan = make_plan(opened.whole, opened.hashes, _at_its_path(opened, settings), found,
                             cellprofiler_illumination(opened, block))
        except MorphobenchError:  # nothing was measured by a pipeline that does not fit; who runs it is told
            return None
        if is_measured(plan, folder):
            return opened.measured.setdefault(place, _measure(opened, block, found))
    return None


def _place(opened: Opened, block: Block) -> str:
    """Where `measure_assay` keeps what it measured, while the program runs."""
    study = opened.study
    return digest([block, opened.whole_hash, getattr(study, block).model_dump(mode="json"),
                   study.illumination.model_dump(mode="json")])


def _installed(settings: CellProfilerSettings) -> CellProfiler:
    """The program that measures; an error where there is none."""
    if settings.backend != OWN:
        return find_cellprofiler()
    from benchmark.cellprofiler.cp_measure.cpshard import backend

    return backend()


def _at_its_path(opened: Opened, settings: CellProfilerSettings) -> CellProfilerSettings:
    return settings.model_copy(update={"pipeline": str(pipeline_path(settings.pipeline, opened.base))})


def _measure(opened: Opened, block: Block, found: CellProfiler) -> Measured:
    """Run the shards that are missing; with all of them there, nothing is run."""
    from benchmark.cellprofiler.measure import measure

    settings = getattr(opened.study, block)
    illumination = cellprofiler_illumination(opened, block)
    key = digest([opened.whole_hash, settings.model_dump(mode="json"), found.version,
                  illumination.key if illumination else ""])
    with opened.stage(STAGES[block], key) as facts:
        measured = measure(opened.whole, opened.hashes, _at_its_path(opened, settings), found,
                           opened.folder / "measured", opened.run_tasks, illumination)
        record = measured.record
        facts["detail"] = (f"{record['fields']} fields, {record['cells']} cells, {record['shards']} shards "
                           f"({record['shards_run']} run now), "
                           f"{len(measured.failed)} fields failed, "
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


def kept_fields(table: pd.DataFrame, opened: Opened) -> pd.DataFrame:
    """Rows of a table of fields or cells whose fields have not been left out."""
    if not len(opened.dropped):
        return table
    gone = pd.MultiIndex.from_frame(opened.dropped[FIELD_KEY])
    return table[~pd.MultiIndex.from_frame(table[FIELD_KEY]).isin(gone)]


def object_roles_of(opened: Opened) -> Roles:
    """Which of the pipeline's objects are nuclei, and which are cells."""
    from benchmark.cellprofiler.inputs import object_roles
    from benchmark.cellprofiler.pipeline import read_pipeline

    settings = opened.study.cellprofiler
    return object_roles(read_pipeline(pipeline_path(settings.pipeline, opened.base)), settings.nuclei, settings.cells)


def counts_if_any(opened: Opened, measured: Measured) -> pd.DataFrame | None:
    """Number of cells of each field that was measured, `FIELD_KEY` and ``cells``; None where the pipeline counts none.
    """
    roles, images = object_roles_of(opened), measured.images()
    for name in (roles.cells, roles.nuclei):
        if name and f"Count_{name}" in images:
            return images[[*FIELD_KEY, f"Count_{name}"]].rename(columns={f"Count_{name}": "cells"})
    return None


def field_counts(opened: Opened, measured: Measured) -> pd.DataFrame:
    """The same, where they are needed.

    Raises
    ------
    MorphobenchError
        The pipeline finds no objects.
    """
    counts = counts_if_any(opened, measured)
    if counts is not None:
        return counts
    raise MorphobenchError("the pipeline counts no cells", measured.record["pipeline"],
                           "Name its objects in cellprofiler.cells or cellprofiler.nuclei, or leave cell counts out.")
