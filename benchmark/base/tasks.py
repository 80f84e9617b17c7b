"""How rooms run work in parallel and show progress, without knowing the scheduler."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn


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
    """A progress bar on a terminal; on anything else one line when it starts (logs stay readable)."""
    if not sys.stderr.isatty():
        if label and total:
            print(f"{label}: {total} to do", file=sys.stderr, flush=True)
        yield lambda: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
               TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(label, total=total)
        yield lambda: bar.advance(task)
