"""The scheduler: Dask runs shards and folds, each in a worker process of one thread."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import psutil

from benchmark.base.tasks import progress_bar, run_serially

#: Dask's default (trim at 64 KiB) makes a worker give memory back after every tensor and fault it in again:
#: fine-tuning then spent 59 % of its CPU time in the kernel. One arena with high thresholds keeps it.
MALLOC = {"MALLOC_ARENA_MAX": "1", "MALLOC_TRIM_THRESHOLD_": str(2**30), "MALLOC_MMAP_THRESHOLD_": str(2**30)}


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
    address: str = ""

    def __enter__(self) -> Cluster:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def __call__(self, function: Callable[[Any], Any], tasks: Sequence[Any], label: str) -> Iterator[Any]:
        if len(tasks) <= 1:
            yield from run_serially(function, tasks, label)
            return
        # Imported late: distributed takes a second, and a run with nothing to do should not pay for it.
        import dask
        from distributed import Client, LocalCluster, as_completed

        threads = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
        environment = {**MALLOC, **{k: str(self.threads) for k in threads}}
        with (
            dask.config.set({"distributed.nanny.pre-spawn-environ": environment}),
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


def available_cores() -> int:
    """Cores this process may use (containers and taskset counted)."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (psutil.cpu_count() or 1)
