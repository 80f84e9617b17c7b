"""How rooms run work in parallel and show progress, without knowing the scheduler."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

#: Seconds; the end of what took no longer is not logged.
SHORT = 2.0


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
    """A progress bar on a terminal; on anything else a line at the start and one at the end (logs stay readable)."""
    if not sys.stderr.isatty():
        start = time.monotonic()
        if label and total:
            _log(f"{label}: {total} to do")
        yield lambda: None
        if label and total:
            _log_end(f"{label}: done", start)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
               TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(label, total=total)
        yield lambda: bar.advance(task)


@contextmanager
def step(name: str, number: int, total: int) -> Iterator[None]:
    """Say on stderr that a step starts, and how long it took where that was over `SHORT`; not where it fails."""
    words, start = f"step {number} of {total}: {name}", time.monotonic()
    _log(words)
    yield
    _log_end(f"{words}, done", start)


def duration_words(seconds: float) -> str:
    """A duration in words: ``28 s``, ``1 min 48 s``, ``2 h 5 min``."""
    minutes, rest = divmod(round(seconds), 60)
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _log_end(words: str, start: float) -> None:
    seconds = time.monotonic() - start
    if seconds > SHORT:
        _log(f"{words} in {duration_words(seconds)}")


def _log(words: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {words}", file=sys.stderr, flush=True)
