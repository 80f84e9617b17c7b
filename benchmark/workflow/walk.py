"""A study from its file to its page: a straight walk, each step a function from what it needs to what it gives."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from benchmark.base.account import Loss
from benchmark.base.cluster import Cluster, refuse_address
from benchmark.base.errors import Fault
from benchmark.base.machine import blaming_machine, refuse_unwritable
from benchmark.base.tasks import step
from benchmark.methods.context import FinishedRun, Pipeline
from benchmark.workflow.accounting import Teller, losses_of, notes_of_folds, untold
from benchmark.workflow.before import refuse_before, refuse_device, with_assumptions
from benchmark.workflow.context import StudyContext
from benchmark.workflow.fields import check_images, folds_of, settle_fields
from benchmark.workflow.found import refuse_without_cells, with_dim_channels
from benchmark.workflow.measured import measure_all, measure_for_networks, measured_losses, measured_notes
from benchmark.workflow.session import REPORTS, RUNS, Session, jobs_of, open_session, threads_of
from benchmark.workflow.study import Study, load_study

if TYPE_CHECKING:
    from benchmark.cellprofiler.measure import Measured
    from benchmark.quality.fields import Sound
    from benchmark.workflow.explaining import Explained
    from benchmark.workflow.grid import Grid
    from benchmark.workflow.reporting import Report

#: The two arms of a comparison: profiles and their baselines; networks.
ARMS: tuple[Literal["classical", "cnn"], ...] = ("classical", "cnn")


@dataclass(frozen=True)
class Result:
    """What a call of `run` gives.

    Attributes
    ----------
    context : StudyContext
        The study with its fields and folds.
    runs : tuple of FinishedRun
        Finished methods, in the study's order.
    grid : Grid or None
        The study's grid, where it has one and the classical arm ran.
    explained : Explained or None
        Its explained fold, where it has one and the networks ran.
    report : Report or None
        The page, where both arms ran.
    notes : tuple of str
        What the user is to be told, a sentence each.
    losses : tuple of Loss
        What was read and is not used, counted.
    """

    context: StudyContext
    runs: tuple[FinishedRun, ...]
    grid: Grid | None
    explained: Explained | None
    report: Report | None
    notes: tuple[str, ...]
    losses: tuple[Loss, ...] = ()


def run(
    study: Study | str,
    only: Sequence[Literal["classical", "cnn"]] = ARMS,
    jobs: int = 0,
    device: str = "auto",
    cluster: str = "local",
    runs: Path = RUNS,
    reports: Path = REPORTS,
) -> Result:
    """Run what is missing of a study. With both arms, compare all its methods and render the page.

    What was finished earlier is used as it is. ``make baseline``, ``make cnn`` and ``make report`` call this with
    ``only=("classical",)``, ``("cnn",)`` and both.

    Parameters
    ----------
    study : Study or str
        As `load_study` gives it, or what that takes: the name of a study that comes with morphobench, or the path of a
        YAML file.
    only : sequence of str
        ``classical`` (CellProfiler and its classifiers), ``cnn`` (networks), or both. Methods that build on others run
        where all those ran.
    jobs : int
        Worker processes; 0 takes one for each core.
    device : str
        Where networks run: ``auto``, ``cpu`` or ``cuda``.
    cluster : str
        ``local`` starts the worker processes here; ``tcp://host:port`` joins a Dask scheduler that runs already, whose
        workers share the file system.
    runs, reports : Path
        Folders of all studies' runs and pages.

    Raises
    ------
    MorphobenchError
        The study or its assay has faults (all are listed), a tool is missing, or a step fails.
    MachineError
        ``runs`` or ``reports`` cannot be written to, a disk is full and the like.
    LeakError
        Test wells would reach training.
    """
    study = load_study(study) if isinstance(study, str) else study
    if "cnn" in only:
        refuse_device(device, study)
    count = jobs_of(jobs)
    if cluster not in ("local", ""):
        refuse_address(cluster)
    for folder in (runs / study.name, *([reports] if set(only) == set(ARMS) else ())):
        refuse_unwritable(folder)
    if cluster != "local":
        runs = runs.resolve()  # its workers may have been started in another folder
    with blaming_machine(runs), Cluster(count, threads_of(count), "" if cluster == "local" else cluster) as run_tasks:
        return _walk(open_session(study, run_tasks, count, device, runs), only, reports)


def _walk(session: Session, only: Sequence[Literal["classical", "cnn"]], reports: Path) -> Result:
    both, study = set(only) == set(ARMS), session.study
    say = Steps(5 + ("classical" in only and study.grid is not None) + ("cnn" in only and study.explain is not None)
                + both)
    tell = Teller()
    context, notes = prepare(session, only, say, tell)
    from benchmark.workflow.run import run_methods

    with say("methods, fold by fold"):
        runs = run_methods(context, [arm for arm in ARMS if arm in only])
    grid, explained, report = None, None, None
    if "cnn" in only and study.explain is not None:
        with say("explanation of one fold"):
            explained, why_not = _explained(context, runs, tolerant=both)
        notes += (why_not,) if why_not else ()
    if "classical" in only and study.grid is not None:
        from benchmark.workflow.grid import run_grid

        with say("grid"):
            grid = run_grid(context)
    if both:
        from benchmark.workflow.reporting import make_report

        with say("page"):
            report = make_report(context, runs, grid, reports, explained)
    losses = losses_of(context, runs, grid)
    tell((), [loss for loss in losses if loss.warns])  # of features, which are known only now
    return Result(context, tuple(runs), grid, explained, report, notes, tuple(losses))


class Steps:
    """Says which step of how many begins."""

    def __init__(self, total: int) -> None:
        self.total, self.number = total, 0

    def __call__(self, name: str) -> AbstractContextManager[None]:
        """A block that is the next step."""
        self.number += 1
        return step(name, self.number, self.total)


def unsaid(name: str) -> AbstractContextManager[None]:
    """A step of which nothing is said."""
    return nullcontext()


def prepare(session: Session, only: Sequence[Literal["classical", "cnn"]] = ARMS,
            say: Callable[[str], AbstractContextManager[None]] = unsaid,
            tell: Callable[[Sequence[Fault], Sequence[Loss]], None] = untold) -> tuple[StudyContext, tuple[str, ...]]:
    """From the study to settled fields and folds.

    Parameters
    ----------
    only : sequence of str
        Without ``classical``, CellProfiler measures only what networks cannot do without; what it measured earlier is
        used.
    say : callable
        Told each step as it begins.
    tell : callable
        Told what was left out, merged or assumed as soon as it is known; the same again with what is new.

    Returns
    -------
    StudyContext
    tuple of str
        What the user is to be told.

    Raises
    ------
    MorphobenchError
        The study does not fit its assay, images are bad, fields cannot be measured, or no cell was found in any.
    """
    with say("assay, as its table says"):
        assay = session.study.assay.load(session.place)
        refuse_before(session.study, assay, only, session.folder)
        assay = with_assumptions(session.study, assay)
        tell(assay.left_out, assay.losses)
    with say("images, checked"):
        whole = check_images(session, assay)
        whole = with_dim_channels(session, whole)
        tell(whole.assay.left_out, whole.assay.losses)
        settle_fields(session, whole, {})  # too many flagged fields are refused before CellProfiler runs
    with say("measurements"):
        measured, unknown = _measured(session, whole, "classical" not in only)
        refuse_without_cells(session, whole, measured, "classical" not in only)
        tell(measured_notes(measured), measured_losses(session.study, whole.assay, measured))
    with say("fields and folds"):
        fields = settle_fields(session, whole, measured)
        tell(fields.used.assay.left_out, fields.used.assay.losses)
        split = folds_of(session, fields.used)
        tell(notes_of_folds(split, fields.used.assay), ())
        if session.study.explain is not None and "cnn" in only:
            from benchmark.workflow.explaining import explained_fold

            explained_fold(session.study, split)  # a fold that there is not is named before hours of work
    return StudyContext(session, fields, measured, split), (unknown,) if unknown else ()


def _measured(session: Session, whole: Sound, networks_alone: bool) -> tuple[dict[Pipeline, Measured], str]:
    return measure_for_networks(session, whole) if networks_alone else (measure_all(session, whole), "")


def _explained(context: StudyContext, runs: list[FinishedRun], tolerant: bool) -> tuple[Explained | None, str]:
    """The fold that the study asks to explain; a page does without it where it cannot be had, and says why."""
    from benchmark.workflow.explaining import explain, explained_or_why_not

    return explained_or_why_not(context, runs) if tolerant else (explain(context, runs), "")

