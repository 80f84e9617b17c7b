"""`morphobench assay check` and `crops verify`: every fault at once."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from benchmark.assays.faults import gathering
from benchmark.assays.fetching.lock import lock_faults
from benchmark.assays.fieldtable import Assay
from benchmark.base.cluster import Cluster, available_cores
from benchmark.base.errors import Fault, MorphobenchError
from benchmark.base.tables import COMPOUND, path_column
from benchmark.base.telling import told
from benchmark.folds.make import make_split
from benchmark.profiles.wells import feature_columns
from benchmark.quality.check import file_hashes, image_faults
from benchmark.workflow.accounting import notes_of_folds
from benchmark.workflow.before import faults_before, refuse_test_labels, with_assumptions
from benchmark.workflow.session import RUNS, open_session
from benchmark.workflow.study import Study, load_study


def check_assay(name: str) -> tuple[list[Fault], str]:
    """Look at a study's tables or profiles, at every pixel of its images, and at the lock file of fetched ones.

    Returns
    -------
    list of Fault
        All of them, those of the tables first.
    str
        What was left out, merged or assumed, a line each, warnings first; then what was looked at, in a sentence.
    """
    study = load_study(name)
    place = open_session(study, Cluster(available_cores())).place
    assay, faults = study.assay.faults(place)
    if assay is None:
        return faults, (f"{study.name}: {len(faults)} fault(s) in what describes the assay; nothing more can be looked "
                        "at before they are mended.")
    if not faults:
        with gathering([]):  # wells that cannot be placed are a fault of the study, below
            assay = with_assumptions(study, assay)
    # Where the table has faults, its sound rows are looked at all the same: all faults come at once.
    faults = [*faults, *_of_study(study, assay, bool(faults)), *image_faults(assay), *_changed_since_fetched(assay)]
    found = f"{len(faults)} fault(s)" if faults else "no fault found"
    notes = [*assay.left_out, *_of_folds(study, assay)]
    return faults, "\n".join([*told(notes, assay.losses), f"{study.name}: {_size(assay)}; {found}."])


def _of_folds(study: Study, assay: Assay) -> list[Fault]:
    """What the study's folds do not score; nothing where there are none, which is a fault of its own."""
    with suppress(MorphobenchError):
        return notes_of_folds(make_split(assay, "", study.split), assay)
    return []


def _of_study(study: Study, assay: Assay, partial: bool) -> list[Fault]:
    """What the study needs and the assay, as far as it is sound, does not have; ``partial``: its table has faults."""
    faults: list[Fault] = []
    with gathering(faults):
        refuse_test_labels(study, assay)
        faults += faults_before(study, assay, partial=partial)
    return faults


def _changed_since_fetched(assay: Assay) -> list[Fault]:
    """Images (those that are there) that are not what the lock file of their collection says; every byte is read."""
    faults: list[Fault] = []
    if assay.lock is not None:
        with gathering(faults):
            paths = assay.fields[[path_column(c) for c in assay.channels]]
            there = [all((assay.root / path).is_file() for path in row) for row in paths.itertuples(index=False)]
            hashes = file_hashes(replace(assay, fields=assay.fields[there]))
            faults += lock_faults(assay.lock, assay.root, hashes)
    return faults


def _size(assay: Assay) -> str:
    """What an assay holds, in numbers."""
    what = f"channels {', '.join(assay.channels)}"
    fields = f"{len(assay.fields)} fields, "
    if assay.features is not None:
        fields, what = "", f"{len(feature_columns(assay.features))} features in {len(assay.features)} rows"
    return (f"{fields}{len(assay.wells)} wells, {assay.treated[COMPOUND].nunique()} compounds, {len(assay.labels)} "
            f"labels, {what}")


def check_crops(what: str) -> tuple[list[Fault], str]:
    """Verify one crop cache, or all of a study's.

    Parameters
    ----------
    what : str
        Path of an ``.h5`` file, or a study.

    Returns
    -------
    list of Fault
        Damaged crops and files.
    str
        What was looked at, in a sentence.

    Raises
    ------
    MorphobenchError
        There is no such file or study, or the study has no crop cache yet.
    """
    from benchmark.crops.verify import verify_crops

    if what.endswith(".h5"):
        files = [Path(what)]
    else:
        folder = RUNS / load_study(what).name / "crops"
        files = sorted(folder.glob("[!.]*.h5"))
        if not files:
            raise MorphobenchError("holds no crop cache", str(folder), "Run `make cnn` first.")
    faults = [fault for file in files for fault in verify_crops(file)]
    state = f"{len(faults)} fault(s)" if faults else "no fault found"
    return faults, f"{len(files)} crop cache(s), {', '.join(f.name for f in files)}: {state}."
