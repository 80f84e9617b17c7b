"""The command line: the same verbs as make, for a biologist to read."""

from __future__ import annotations

import io
import os
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer
from rich.console import Console
from rich.table import Table

from benchmark import __version__
from benchmark.base.errors import Fault, MorphobenchError
from benchmark.base.files import PROJECT
from benchmark.base.machine import trouble_of

if TYPE_CHECKING:
    from benchmark.workflow.walk import Result

app = typer.Typer(
    help="Does a fine-tuned CNN classify the compounds of your assay better than CellProfiler features, and can you "
    "trust the answer? Both are run on the same held-out compounds and compared on one page.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_show_locals=False,
    rich_markup_mode="rich",
)
assay_app = typer.Typer(help="Fetch an assay, and look at it before anything is run on it.", no_args_is_help=True)
app.add_typer(assay_app, name="assay")
crops_app = typer.Typer(help="Look at the crop caches of a study.", no_args_is_help=True)
app.add_typer(crops_app, name="crops")

StudyName = Annotated[str, typer.Argument(
    help="Name of a study that comes with morphobench (demo, bbbc021-fields), or the path of your own YAML file.",
    metavar="STUDY")]
Jobs = Annotated[int, typer.Option(help="Processes at once; 0 takes one for each core.", envvar="JOBS", min=0)]
Device = Annotated[str, typer.Option(help="Where networks run: auto, cpu or cuda.", envvar="DEVICE")]
ClusterAddress = Annotated[str, typer.Option(
    help="local starts the processes here; tcp://host:port joins a Dask scheduler that runs already.",
    envvar="CLUSTER")]

#: Pins of the CellProfiler that `setup` installs.
REQUIREMENTS = PROJECT / "pipelines" / "cellprofiler-requirements.txt"

#: Exit status after Ctrl-C, as shells have it.
INTERRUPTED = 130
#: Whether errors show where in the code they were found.
_debug: ContextVar[bool] = ContextVar("debug", default=False)
out = Console(soft_wrap=True)
err = Console(stderr=True, soft_wrap=True)


@contextmanager
def _said_clearly() -> Iterator[None]:
    """Bad input, and trouble of the machine, end with a message and exit status 2; a bug keeps its traceback; Ctrl-C
    says what is kept."""
    try:
        yield
    except MorphobenchError as error:
        _end(str(error), error)
    except UnicodeEncodeError as error:
        if sys.getfilesystemencoding() == "utf-8":
            raise
        _end(f"the locale ({error.encoding}) has no letter {error.object[error.start]!a} for names of files. Set "
             "PYTHONUTF8=1, or LC_ALL=C.UTF-8.", error)
    except OSError as error:
        trouble = trouble_of(error)
        if trouble is None:
            raise
        _end(str(trouble), error)
    except KeyboardInterrupt:
        err.print("Stopped. What was finished is kept; run the same command again to resume.")
        raise typer.Exit(INTERRUPTED) from None


def _end(message: str, error: Exception) -> NoReturn:
    """Say what is wrong and end; with ``--debug`` show where it was found as well."""
    err.print(f"morphobench: {message}", style="red", markup=False, highlight=False)
    if _debug.get():
        traceback.print_exception(error)
    raise typer.Exit(2) from None


def _version(wanted: bool) -> None:
    if wanted:
        out.print(f"morphobench {__version__}", highlight=False)
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")]
    = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show with an error where in the code it was found.")] = False,
) -> None:
    """Set what holds for every command."""
    _debug.set(debug)


@app.command()
def report(study: StudyName = "demo", jobs: Jobs = 0, device: Device = "auto", cluster: ClusterAddress = "local"
           ) -> None:
    """Run what is missing of a study, compare all its methods, and render the page.

    CellProfiler and its classifiers, then the networks, then reports/STUDY/index.html. What was finished earlier
    is used as it is.
    """
    with _said_clearly():
        from benchmark.workflow.walk import run

        result = run(study, jobs=jobs, device=device, cluster=cluster)
        _notes(result)
        made = result.report
        if made is not None:
            _headline(result.context.assay.simulated)
            out.print(made.text, markup=False, highlight=False)
            _warnings(result)
            state = "" if made.fresh else " (nothing had changed since it was made)"
            out.print(f"\nReport: {made.page.resolve()}{state}", markup=False, highlight=False)


@app.command()
def baseline(study: StudyName = "demo", jobs: Jobs = 0, cluster: ClusterAddress = "local") -> None:
    """Run CellProfiler on the study's images and classify its profiles, fold by fold."""
    with _said_clearly():
        from benchmark.report.grid import grid_text
        from benchmark.workflow.walk import run

        result = run(study, only=("classical",), jobs=jobs, cluster=cluster)
        _finished(result, "CellProfiler")
        if result.grid is not None:
            out.print(grid_text(result.grid.table, result.grid.skipped, result.grid.unscored), markup=False,
                      highlight=False)
        _warnings(result)


@app.command()
def cnn(study: StudyName = "demo", jobs: Jobs = 0, device: Device = "auto", cluster: ClusterAddress = "local") -> None:
    """Cache the study's crops and run its networks (fine-tuned and frozen), fold by fold."""
    with _said_clearly():
        from benchmark.workflow.walk import run

        result = run(study, only=("cnn",), jobs=jobs, device=device, cluster=cluster)
        _finished(result, "network")
        explained = result.explained
        if explained is not None:
            out.print(f"{explained.title}: fold {explained.explanation.facts['fold']} explained, {explained.folder}",
                      markup=False, highlight=False)
        _warnings(result)


def _notes(result: Result) -> None:
    """What the user is to be told of a call."""
    for note in result.notes:
        out.print(note, markup=False, highlight=False)


def _warnings(result: Result) -> None:
    """What may make figures wrong is said again at the end, beside them."""
    from benchmark.base.telling import marked_warnings

    for line in marked_warnings(result.losses, result.context.assay.left_out):
        out.print(line, style="bold red", markup=False, highlight=False)


def _finished(result: Result, kind: str) -> None:
    """One line a finished method: where it is and how many treatments (or wells, of controls) it got right."""
    from benchmark.evaluation.metrics import summarise
    from benchmark.evaluation.units import counted_unit
    from benchmark.methods.workers.runs import read_run

    _notes(result)
    context = result.context
    _headline(context.assay.simulated)
    if not result.runs:
        out.print(f"The study names no {kind} method: nothing to do.")
    unit = counted_unit(context.assay.scoring)
    for finished in result.runs:
        row = summarise(read_run(finished.folder, context.split, context.seeds), (unit,)).iloc[0]
        out.print(f"{finished.title}: {row['correct']} of {row['n']} {unit}s right "
                  f"({100 * row['accuracy']:.1f} %), {finished.folder.path}", markup=False, highlight=False)


def _headline(simulated: bool) -> None:
    if simulated:
        out.print("SIMULATED assay: drawn by code. These figures say nothing about real compounds.", style="bold")


def _show_faults(faults: Sequence[Fault], sentence: str) -> None:
    """Every fault on a line, then what was looked at; exit status 1 if there is any."""
    for fault in faults:
        out.print(f"- {fault}", markup=False, highlight=False)
    out.print(sentence, markup=False, highlight=False)
    if faults:
        raise typer.Exit(1)


@assay_app.command("check")
def assay_check(study: StudyName) -> None:
    """Print everything that is wrong with a study's table and images, all at once.

    Exit status 1 if there is anything.
    """
    with _said_clearly():
        from benchmark.workflow.checking import check_assay

        _show_faults(*check_assay(study))


@assay_app.command("fetch")
def assay_fetch(
    name: Annotated[str, typer.Argument(help="bbbc021, bbbc014 or bbbc013.", metavar="ASSAY")],
    to: Annotated[Path | None, typer.Option(
        help="Data folder; by default MORPHOBENCH_DATA, else a folder of your user's data directory.")] = None,
    plates: Annotated[str, typer.Option(help="Plates of bbbc021, with commas between; all if not given.")] = "",
    jobs: Annotated[int, typer.Option(help="Downloads at once.", min=1, max=16)] = 4,
    keep_archives: Annotated[bool, typer.Option(help="Keep the archives after unpacking.")] = False,
) -> None:
    """Download a collection of the Broad Bioimage Benchmark Collection, check it, and unpack it.

    Resumes where an earlier call broke off. The first fetch writes lock.json with the size and SHA-256 of every
    file; later uses check against it.
    """
    with _said_clearly():
        from benchmark.assays.fetching.collections import data_folder
        from benchmark.assays.fetching.fetch import fetch_assay

        wanted = tuple(p.strip() for p in plates.split(",") if p.strip())
        lock = fetch_assay(name, to or data_folder(), plates=wanted, jobs=jobs, keep_archives=keep_archives)
        out.print(f"{name} is in {lock.parent.resolve()}; its lock file is {lock.name}.", markup=False, highlight=False)


@crops_app.command("verify")
def crops_verify(
    what: Annotated[str, typer.Argument(help="A study (every crop cache it has), or the path of one .h5 file.",
                                        metavar="STUDY_OR_FILE")],
) -> None:
    """Read every crop of a cache and check it against the hash written with it. Exit status 1 if one differs."""
    with _said_clearly():
        from benchmark.workflow.checking import check_crops

        _show_faults(*check_crops(what))


@app.command()
def setup() -> None:
    """Install CellProfiler in its own environment (.venv-cellprofiler), unless CELLPROFILER names one."""
    with _said_clearly():
        from benchmark.cellprofiler.find import VENV, find_cellprofiler
        from benchmark.cellprofiler.install import install

        if not os.environ.get("CELLPROFILER", "").strip():
            install(VENV, REQUIREMENTS)
        found = find_cellprofiler()
        out.print(f"CellProfiler {found.version} ({found.origin}) is ready.", markup=False, highlight=False)


@app.command()
def doctor() -> None:
    """Say what is installed, found and missing here, and how to mend it."""
    with _said_clearly():
        from benchmark.doctor import examine

        table = Table(show_lines=False)
        for column in ("", "state", "found", "what to do"):
            table.add_column(column, overflow="fold")
        colours = {"ok": "green", "note": "yellow", "missing": "red"}
        findings = examine()
        for f in findings:
            table.add_row(f.subject, f"[{colours[f.state]}]{f.state}[/]", f.found, f.remedy)
        out.print(table)
        if any(f.state == "missing" for f in findings):
            raise typer.Exit(1)


@app.command()
def bench(study: StudyName = "demo") -> None:
    """Print how fast the parts are, each as a ratio to a named rival in the same run."""
    with _said_clearly():
        from benchmark.bench.all import run_bench

        run_bench(study, out)


def start() -> NoReturn:
    """Run the command line; after Ctrl-C end with all that was started, whatever state it is in."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal without a locale: µ is written \\xb5, not refused
            stream.reconfigure(errors="backslashreplace")
    try:
        app()
    except SystemExit as end:
        if end.code == INTERRUPTED:
            from benchmark.base.cluster import leave

            leave(INTERRUPTED)
        raise
    sys.exit(0)


if __name__ == "__main__":
    start()
