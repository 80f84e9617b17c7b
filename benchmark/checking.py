"""`morphobench assay check` and `crops verify`: every fault at once."""

from __future__ import annotations

from pathlib import Path

from benchmark.assays.fieldtable import Assay
from benchmark.assays.settings import TableAssaySettings
from benchmark.assays.table import table_faults
from benchmark.cluster import Cluster, available_cores
from benchmark.errors import Fault, MorphobenchError
from benchmark.images.check import image_faults
from benchmark.opened import RUNS, load_assay
from benchmark.study import load_study, study_base


def check_assay(name: str) -> tuple[list[Fault], str]:
    """Look at a study's table and at every pixel of its images.

    Returns
    -------
    list of Fault
        All of them, those of the table first.
    str
        What was looked at, in a sentence.
    """
    study = load_study(name)
    assay: Assay | None
    if isinstance(study.assay, TableAssaySettings):
        assay, faults = table_faults(study.assay, study.name, study_base(name))
    else:
        assay, faults = load_assay(study, study_base(name), RUNS / study.name, Cluster(available_cores())), []
    if assay is None:
        return faults, f"{len(faults)} fault(s) in the table; its images cannot be looked at before they are mended."
    # Where the table has faults, its sound rows are looked at all the same: all faults come at once.
    faults = [*faults, *image_faults(assay)]
    treated = assay.treated
    sentence = (
        f"{study.name}: {len(assay.fields)} fields, {len(assay.wells)} wells, {treated['Metadata_Compound'].nunique()} "
        f"compounds, {len(assay.labels)} labels, channels {', '.join(assay.channels)}; "
        + (f"{len(faults)} fault(s)." if faults else "no fault found.")
    )
    return faults, "\n".join([*(f"Left out: {f}" for f in assay.left_out), sentence])


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
