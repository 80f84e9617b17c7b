"""The scheduler: Dask runs shards and folds, each in a worker process of one thread."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psutil

from benchmark.tasks import progress_bar, run_serially


@dataclass(frozen=True)
class Cluster:
    """A `RunTasks` over a Dask ``LocalCluster``, started at first use and closed at the end of each batch.

    Parameters
    ----------
    jobs : int
        Worker processes.
    threads : int
        Threads that BLAS, OpenMP and PyTorch may use in each worker.
    """

    jobs: int
    threads: int = 1

    def __call__(self, function: Callable[[Any], Any], tasks: Sequence[Any], label: str) -> Iterator[Any]:
        if len(tasks) <= 1:
            yield from run_serially(function, tasks, label)
            return
        # Imported late: distributed takes a second, and a run with nothing to do should not pay for it.
        from distributed import Client, LocalCluster, as_completed

        environment = {k: str(self.threads) for k in
                       ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "MORPHOBENCH_THREADS")}
        with (
            _environment(environment),
            LocalCluster(
                n_workers=min(self.jobs, len(tasks)),
                threads_per_worker=1,
                processes=True,
                dashboard_address="127.0.0.1:0",  # any free port: two studies may run at once
                memory_limit=0,  # the tasks' memory is bounded by their size; Dask would kill on a guess
                silence_logs=logging.ERROR,
                host="127.0.0.1",
            ) as cluster,
            Client(cluster) as client,
            progress_bar(label, len(tasks)) as advance,
        ):
            # Retried nowhere: a task that fails once fails again, and says why.
            futures = client.map(function, list(tasks), pure=False, retries=0)
            for future in as_completed(futures):
                yield future.result()
                advance()
                future.release()


@contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    """Set variables for the worker processes that start meanwhile, then put the old ones back."""
    old = {k: os.environ.get(k) for k in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for key, value in old.items():
            if value is None:
                os.environ.pop(key, None)
            else:
                os.environ[key] = value


def available_cores() -> int:
    """Cores this process may use (containers and taskset counted)."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (psutil.cpu_count() or 1)
