"""What CellProfiler measures of a study's assay, and the illumination functions that its pixels are divided by.

Each is made once a study and key; finished shards are not run again.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from benchmark.base.account import Loss
from benchmark.base.errors import Fault, MorphobenchError
from benchmark.base.files import PROJECT, digest, usable
from benchmark.base.tables import FIELD_KEY, PLATE, WELL_KEY
from benchmark.methods.context import Pipeline
from benchmark.workflow.session import Session
from benchmark.workflow.study import Study

if TYPE_CHECKING:
    from benchmark.assays.fieldtable import Assay
    from benchmark.cellprofiler.find import CellProfiler
    from benchmark.cellprofiler.inputs import Roles
    from benchmark.cellprofiler.measure import Measured
    from benchmark.cellprofiler.settings import CellProfilerSettings
    from benchmark.images.illumination import Illumination
    from benchmark.profiles.settings import ProfileSettings
    from benchmark.quality.fields import Sound

#: What the stage of a pipeline is called.
STAGES: Mapping[Pipeline, str] = {"cellprofiler": "CellProfiler", "whole_field": "CellProfiler, whole fields"}


def pipelines_used(study: Study, assay: Assay, networks_alone: bool = False) -> tuple[Pipeline, ...]:
    """Pipelines that a study's methods, its grid or its quality control take anything from; none without images.

    Of the grid only what applies to the assay counts.

    Parameters
    ----------
    networks_alone : bool
        Only what its networks cannot do without: nuclei to centre crops on, and counts where fields are left out for
        them.
    """
    if not assay.channels:
        return ()
    methods = [m for m in study.methods if m.arm == "cnn" or not networks_alone]
    used = {pipeline for method in methods for pipeline in method.pipelines}
    if study.quality.flagged == "leave_out" and study.quality.cell_count:
        used.add("cellprofiler")
    if study.grid is not None and not networks_alone:
        from benchmark.workflow.grid import applicable, tables_of

        used |= {pipeline_of(profile) for _, _, profile in tables_of(study.grid, applicable(assay, study.grid))}
    return tuple(pipeline for pipeline in STAGES if pipeline in used)


def pipeline_of(profile: ProfileSettings) -> Pipeline:
    """The pipeline that a profile takes its features from."""
    return "whole_field" if profile.source == "whole_field" else "cellprofiler"


def measure_all(session: Session, whole: Sound) -> dict[Pipeline, Measured]:
    """What each pipeline of the study measures of the assay; none where it has no images.

    Fields that quality control leaves out are measured too, so that a change of its settings measures nothing anew.
    """
    return {pipeline: _measure(session, whole, pipeline, program_of(settings_of(session.study, pipeline)))
            for pipeline in pipelines_used(session.study, whole.assay)}


def measure_for_networks(session: Session, whole: Sound) -> tuple[dict[Pipeline, Measured], str]:
    """The same by what has been measured already: networks run where there is no CellProfiler.

    Only what they cannot do without is measured here.

    Returns
    -------
    dict
    str
        A sentence for the user where fields may still turn out not to be measurable; else empty.
    """
    needed = pipelines_used(session.study, whole.assay, networks_alone=True)
    measured: dict[Pipeline, Measured] = {}
    unknown = False
    for pipeline in pipelines_used(session.study, whole.assay):
        if pipeline in needed:
            measured[pipeline] = _measure(session, whole, pipeline, program_of(settings_of(session.study, pipeline)))
            continue
        already = measured_already(session, whole, pipeline)
        if already is None:
            unknown = True
        else:
            measured[pipeline] = already
    words = ("CellProfiler has not measured this study yet, so the networks run on all its fields; should it fail "
             "on some, `make report` leaves them out of both arms and runs the networks again.")
    return measured, words if unknown else ""


def measured_notes(measured: Mapping[Pipeline, Measured]) -> list[Fault]:
    """What the pipelines of a study left out, in words."""
    return [Fault(f"{', '.join(names)} left out: these objects do not pair off with the cells one to one",
                  STAGES[pipeline], "Relate them to the cells in the pipeline, or leave them out of its exports.")
            for pipeline, of in measured.items() if (names := of.record.get("objects_left_out"))]


def measured_already(session: Session, whole: Sound, pipeline: Pipeline) -> Measured | None:
    """What earlier calls measured by one of the study's pipelines; None unless all its shards are there.

    Nothing is run, and CellProfiler need not be installed: then the versions that the records name are tried.

    Raises
    ------
    FaultsError
        All was measured, and more fields failed than ``failed_fields`` allows.
    """
    from benchmark.cellprofiler.find import OWN
    from benchmark.cellprofiler.measure import is_measured, make_plan, measured_by

    settings = settings_of(session.study, pipeline)
    folder = session.folder / "measured"
    there = [c for c in measured_by(folder) if (c.origin == OWN) == (settings.backend == OWN)]
    if not there or not _illumination_is_there(session, whole, settings):
        return None
    with suppress(MorphobenchError):  # none here, or it does not run: then the records know which it was
        there = [program_of(settings)]
    for program in there:
        try:
            plan = make_plan(whole.assay, whole.hashes, at_its_path(session.study, settings), program,
                             _loaded_illumination(session, whole, pipeline))
        except MorphobenchError:  # nothing was measured by a pipeline that does not fit; who runs it is told
            return None
        if is_measured(plan, folder):
            return _measure(session, whole, pipeline, program)
    return None


def illumination_of(session: Session, whole: Sound, user: str = "") -> Illumination | None:
    """The illumination functions of the study's plates and channels; None where it asks for none.

    They are averaged over all fields that can be read: what quality control leaves out must not change what is
    measured.
    """
    settings = session.study.illumination
    if settings.method == "none" or not whole.assay.channels:
        return None
    from benchmark.images.illumination import build_illumination, illumination_key

    with session.log.stage("illumination", illumination_key(whole.assay_hash, settings), user) as facts:
        illumination = build_illumination(whole.assay, whole.assay_hash, settings, session.folder / "illumination",
                                          session.run_tasks)
        facts["detail"] = f"{whole.assay.fields['Metadata_Plate'].nunique()} plates x {len(whole.assay.channels)}"
    return illumination


def _illumination_is_there(session: Session, whole: Sound, settings: CellProfilerSettings) -> bool:
    """Whether the functions that CellProfiler divides by need not be made first."""
    from benchmark.images.illumination import INDEX, illumination_key

    study = session.study.illumination
    if study.method == "none" or settings.illumination != "study":
        return True
    return (session.folder / "illumination" / illumination_key(whole.assay_hash, study) / INDEX).exists()


def _loaded_illumination(session: Session, whole: Sound, pipeline: Pipeline) -> Illumination | None:
    """The functions that CellProfiler divides by; None where its pipeline corrects by itself, or nothing does."""
    by_study = settings_of(session.study, pipeline).illumination == "study"
    return illumination_of(session, whole, pipeline) if by_study else None


def settings_of(study: Study, pipeline: Pipeline) -> CellProfilerSettings:
    """The block of a study's settings that is about a pipeline."""
    return study.whole_field if pipeline == "whole_field" else study.cellprofiler


def program_of(settings: CellProfilerSettings) -> CellProfiler:
    """The program that measures.

    Raises
    ------
    MorphobenchError
        It is not installed.
    """
    from benchmark.cellprofiler.find import OWN, find_cellprofiler

    if settings.backend != OWN:
        return find_cellprofiler()
    from benchmark.cellprofiler.cp_measure.cpshard import backend

    return backend()


def at_its_path(study: Study, settings: CellProfilerSettings) -> CellProfilerSettings:
    """The settings with the path of the pipeline's file."""
    return settings.model_copy(update={"pipeline": str(pipeline_path(settings.pipeline, study.base))})


def _measure(session: Session, whole: Sound, pipeline: Pipeline, program: CellProfiler) -> Measured:
    """Run the shards that are missing; with all of them there, nothing is run."""
    from benchmark.cellprofiler.measure import measure

    settings = settings_of(session.study, pipeline)
    illumination = _loaded_illumination(session, whole, pipeline)
    key = digest([whole.assay_hash, settings.model_dump(mode="json"), program.version,
                  illumination.key if illumination else ""])
    with session.log.stage(STAGES[pipeline], key, pipeline) as facts:
        measured = measure(whole.assay, whole.hashes, at_its_path(session.study, settings), program,
                           session.folder / "measured", session.run_tasks, illumination)
        record = measured.record
        facts["detail"] = (f"{record['fields']} fields, {record['cells']} cells, {record['shards']} shards "
                           f"({record['shards_run']} run now), "
                           f"{len(measured.failed)} fields failed, "
                           f"{record['shard_cpu_seconds']:.0f} CPU seconds")
    return measured


def pipeline_path(name: str, base: Path) -> Path:
    """A pipeline's file: beside the study's file if it is there, else in the project (as shipped ones are)."""
    beside = usable(base / name, name)
    shipped = PROJECT / name
    return shipped if shipped.is_file() and not beside.is_file() else beside


def object_roles_of(study: Study) -> Roles:
    """Which of the pipeline's objects are nuclei, and which are cells."""
    from benchmark.cellprofiler.inputs import object_roles
    from benchmark.cellprofiler.pipeline_file import read_pipeline

    settings = study.cellprofiler
    return object_roles(read_pipeline(pipeline_path(settings.pipeline, study.base)), settings.nuclei, settings.cells)


def counts_if_any(study: Study, measured: Measured) -> pd.DataFrame | None:
    """Number of cells of each field that was measured, `FIELD_KEY` and ``cells``; None where none are counted."""
    roles, images = object_roles_of(study), measured.images()
    for name in (roles.cells, roles.nuclei):
        if name and f"Count_{name}" in images:
            return images[[*FIELD_KEY, f"Count_{name}"]].rename(columns={f"Count_{name}": "cells"})
    return None


def measured_losses(study: Study, assay: Assay, measured: Mapping[Pipeline, Measured]) -> list[Loss]:
    """Fields and wells that measuring lost, with counts: fields that failed, and fields and wells without a cell.

    Parameters
    ----------
    assay : Assay
        That was measured: what failed is still among its fields.
    measured : mapping
        What each pipeline measured; empty where there are no images.
    """
    n, losses = len(assay.fields), []
    for pipeline, of in measured.items():
        failed = of.failed
        if len(failed):
            why = f"could not be measured, for example since: {failed['reason'].iloc[0]}"
            losses.append(Loss("fields", len(failed), n, why, STAGES[pipeline], remedy="The page lists each."))
    counts = counts_if_any(study, measured["cellprofiler"]) if "cellprofiler" in measured else None
    if counts is None or not len(counts):
        return losses
    empty = int((counts["cells"] == 0).sum())
    if empty:
        losses.append(Loss("fields", empty, len(counts), "no cell was found in them", STAGES["cellprofiler"],
                           remedy="Look at some of them; dim or blurred ones may need other thresholds."))
        wells = counts.groupby(WELL_KEY)["cells"].sum()
        if (bare := int((wells == 0).sum())):
            losses.append(Loss("wells", bare, len(wells), "no cell was found in them", STAGES["cellprofiler"]))
        plates = counts.groupby(PLATE)["cells"].agg(["sum", "size"])
        losses += [Loss("fields", int(size), int(size), "no cell was found on the whole plate", f"plate {plate}",
                        remedy="Compare its images with those of another plate.")
                   for plate, size in plates.loc[plates["sum"] == 0, "size"].items()]
    return losses


def field_counts(study: Study, measured: Measured) -> pd.DataFrame:
    """The same, where they are needed.

    Raises
    ------
    MorphobenchError
        The pipeline makes no objects.
    """
    counts = counts_if_any(study, measured)
    if counts is not None:
        return counts
    raise MorphobenchError("the pipeline counts no cells", measured.record["pipeline"],
                           "Name its objects in cellprofiler.cells or cellprofiler.nuclei, or leave cell counts out.")
