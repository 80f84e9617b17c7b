"""What can be known before a study runs: everything it needs, looked at in seconds, all faults at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from benchmark.assays.faults import gathering
from benchmark.assays.fieldtable import Assay
from benchmark.assays.places import several
from benchmark.base.devices import refuse_unknown_device
from benchmark.base.errors import Fault, FaultsError, LeakError
from benchmark.base.tables import CONTROL, PLATE, WELL
from benchmark.base.wells import well_places
from benchmark.folds.make import make_split
from benchmark.methods.base import Method
from benchmark.methods.context import Pipeline
from benchmark.workflow.measured import at_its_path, pipelines_used, program_of, settings_of
from benchmark.workflow.study import Study

#: The two arms of a comparison.
ARMS = ("classical", "cnn")


def refuse_device(device: str, study: Study) -> None:
    """MorphobenchError where a study's networks cannot run on a device; looked at before anything is read."""
    refuse_unknown_device(device)
    if device == "auto" or not any(m.arm == "cnn" for m in study.methods):
        return
    if device == "cpu":
        return  # there is always one; PyTorch need not be loaded to know
    from benchmark.networks.device import resolve_device

    resolve_device(device)


def refuse_before(study: Study, assay: Assay, only: Sequence[str] = ARMS, runs: Path | None = None) -> None:
    """Refuse a study that cannot run on an assay as its table says; see `faults_before`.

    Parameters
    ----------
    runs : Path, optional
        Folder of the study's runs, where the program that measures must be there unless all was measured already.

    Raises
    ------
    LeakError
        A method would use labels of test wells.
    FaultsError
        Everything else that is wrong.
    """
    refuse_test_labels(study, assay)
    faults = faults_before(study, assay, only)
    if runs is not None and not any((runs / "measured").glob("[!.]*")):
        for pipeline in pipelines_used(study, assay, "classical" not in only):
            with gathering(faults):
                program_of(settings_of(study, pipeline))
    if faults:
        raise FaultsError(list(dict.fromkeys(faults)), f"The study {study.name} cannot run; {len(faults)} fault(s):")


def faults_before(study: Study, assay: Assay, only: Sequence[str] = ARMS, partial: bool = False) -> list[Fault]:
    """What a study needs and does not have, of all that can be known from its file and its table of fields.

    Parameters
    ----------
    only : sequence of str
        Arms that are to run: ``classical``, ``cnn``.
    partial : bool
        The assay is what is left of a table with faults: labels and folds that it lacks say nothing.
    """
    faults: list[Fault] = []
    gone = {m.name for m in study.methods if m.arm in set(ARMS) - set(only)}
    methods = [m for m in study.methods if m.name not in gone and not gone & set(m.builds_on)]
    for method in methods:
        faults += _of_method(method, assay)
    if any(m.needs_positions for m in methods):
        with gathering(faults):
            well_places(assay.wells[WELL])
    for pipeline in pipelines_used(study, assay, "classical" not in only):
        with gathering(faults):
            _fits(study, assay, pipeline)
    if partial:
        return list(dict.fromkeys(faults))
    if len(assay.labels) == 1:
        faults.append(Fault(f"all scored wells have the label {assay.labels[0]!r}: there is nothing to tell apart",
                            "assay", "Check which column `columns.label` names; two labels or more are needed."))
    with gathering(faults):
        split = make_split(assay, "", study.split)
        if study.explain is not None and "cnn" in only:
            from benchmark.workflow.explaining import explained_fold

            explained_fold(study, split)
    return list(dict.fromkeys(faults))  # methods share files and pipelines: one fault for each cause


def with_assumptions(study: Study, assay: Assay) -> Assay:
    """The assay with a note of what its wells' names do not say, where a method looks at where they lie."""
    if not any(m.needs_positions for m in study.methods):
        return assay
    assumed = well_places(assay.wells[WELL]).assumed
    return replace(assay, left_out=(*assay.left_out, Fault(assumed, "assumed"))) if assumed else assay


def _of_method(method: Method, assay: Assay) -> Iterator[Fault]:
    """What a method needs of an assay and does not have."""
    where = f"method {method.name}"
    if method.needs_images and not assay.channels:
        yield Fault("needs images, and this assay comes as profiles without any", where,
                    "Take it out, or use a study with images.")
    if getattr(method, "decision", "") == "nearest" and assay.scoring == "controls":
        yield Fault("controls are scored here, well by well, and the nearest treatment decides on treatments",
                    f"{where}, decision: nearest", "Set decision to classifier.")
    yield from _controls(method, assay, where)
    network = getattr(method, "network", None)
    if network is not None:
        faults: list[Fault] = []
        with gathering(faults):
            from benchmark.networks.training.start import start_of
            from benchmark.networks.weights.location import refuse_missing_weights

            training = getattr(method, "training", None)
            refuse_missing_weights(network if training is None else start_of(network, training))
        yield from faults


def _controls(method: Method, assay: Assay, where: str) -> Iterator[Fault]:
    """Negative controls that a method refers to and that are not there."""
    # Profiles are made of all plates, crops and embeddings only of those with wells to predict.
    seen = set((assay.fields if method.arm == "classical" else assay.predicted)[PLATE])
    profile = getattr(method, "profile", None)
    # A well says nothing of the spread between wells; its cells say something of that between cells.
    by_well = getattr(profile, "normalise", "") == "controls" and getattr(profile, "level", "wells") == "wells"
    fewest = 2 if by_well else 1
    without, plates = [plate for plate in plates_without_controls(assay, fewest) if plate in seen], len(seen)
    missing = (method.needs_controls == "each plate" and without) or len(without) == plates
    if method.needs_controls and missing and assay.scoring == "treatments":
        names = several(without, ", ")
        have = "none" if fewest == 1 else "fewer than two wells of them"
        depth = ", by the bit depth (bit_depth)" if assay.channels and method.arm == "cnn" else ""
        yield Fault(f"refers to negative controls, and {len(without)} of {plates} plates have {have} ({names})",
                    f"{where}, {method.uses_controls}",
                    f"Scale by the whole plate (plate){depth} or on the training wells (training); name the controls "
                    "in assay.negative_controls; or leave the plates out.")


def plates_without_controls(assay: Assay, fewest: int = 1) -> list[str]:
    """Plates with fewer negative-control wells than ``fewest``, in order."""
    wells = assay.wells
    counts = wells.loc[wells[CONTROL] == "negative", PLATE].value_counts()
    return [plate for plate in dict.fromkeys(wells[PLATE]) if counts.get(plate, 0) < fewest]


def _fits(study: Study, assay: Assay, pipeline: Pipeline) -> None:
    """Refuse a pipeline that does not fit the study: its images, its settings, what it divides by.

    Raises
    ------
    MorphobenchError
        Says which of them.
    """
    from benchmark.cellprofiler.illumination import function_channels, with_loaded_functions
    from benchmark.cellprofiler.inputs import object_roles
    from benchmark.cellprofiler.measure import effective_pipeline
    from benchmark.cellprofiler.shards import image_channels

    settings = at_its_path(study, settings_of(study, pipeline))
    text = effective_pipeline(settings)
    if study.illumination.method == "none" or settings.illumination == "pipeline":
        image_channels(text, settings.images, assay.channels)
    else:
        function_channels(with_loaded_functions(text), settings.images, assay.channels)
    if pipeline == "cellprofiler":
        object_roles(text, settings.nuclei, settings.cells)


def refuse_test_labels(study: Study, assay: Assay) -> None:
    """Where controls are what is scored, nothing may look at which test wells are negative controls.

    Raises
    ------
    LeakError
        A method would scale or normalise by the plate's negative controls, or quality control would leave out fields.
    """
    if assay.scoring == "treatments":
        return
    if study.quality.flagged == "leave_out":
        raise LeakError("a field is spared by comparison with the other fields of its treatment, and in this assay the "
                        "treatment is the label: which test wells are scored would depend on their labels",
                        "quality.flagged: leave_out", "Set it to keep (fields are listed and used) or off.")
    for method in study.methods:
        if method.uses_controls:
            raise LeakError("scales by the plate's negative controls, which this assay scores: it would use the labels "
                            "of test wells", f"method {method.name}, {method.uses_controls}",
                            "Scale by the whole plate (plate), or on the training wells (profile.normalise: training).")
