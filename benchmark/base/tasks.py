"""How rooms run work in parallel and show progress, without knowing the scheduler."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any, Protocol

#: The end of what took less than this many seconds is not worth a line.
LONG = 2.0


class RunTasks(Protocol):
    """How rooms ask for work in parallel, without knowing the scheduler."""

    def __call__(self, function: Callable[[Any], Any], tasks: Sequence[Any], label: str) -> Iterator[Any]:
        """Yield ``function(task)`` for each task, in the order in which they finish."""
        ...


def run_serially(function: Callable[[Any], Any], tasks: Sequence[Any], label: str = "") -> Iterator[Any]:
    """`RunTasks` in this process, one after the other (tests, and a GPU that folds share)."""
    with progress_bar(label, len(tasks)) as advance:
        for task in tasks:
            yield function(task)
            advance()


@contextmanager
def progress_bar(label: str, total: int) -> Iterator[Callable[[], None]]:
    """A progress bar on a terminal; elsewhere a line when it starts and one when it ends (logs stay readable)."""
    if not sys.stderr.isatty():
        if label and total:
            with timed_line(label, f"{label}: {total} to do"):
                yield lambda: None
        else:
            yield lambda: None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
               TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(label, total=total)
        yield lambda: bar.advance(task)


@contextmanager
def step(name: str, number: int, total: int) -> Iterator[None]:
    """Say on standard error which step of a study begins, and how long it took."""
    title = f"step {number} of {total}: {name}"
    with timed_line(title, title):
        yield


@contextmanager
def timed_line(name: str, start: str) -> Iterator[None]:
    """Write ``start`` with the time of day to standard error, and at the end how long it took where it was long."""
    began = time.perf_counter()
    said(start)
    yield
    seconds = time.perf_counter() - began
    if seconds >= LONG:
        said(f"{name}, done in {duration(seconds)}")


def duration(seconds: float) -> str:
    """``28 s``, ``1 min 48 s``, ``2 h 5 min``."""
    minutes, rest = divmod(round(seconds), 60)
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def said(line: str) -> None:
    """Write a line with the time of day to standard error."""
    print(f"{datetime.now():%H:%M:%S} {line}", file=sys.stderr, flush=True)
