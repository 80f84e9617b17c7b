"""The scheduler: Dask runs shards and folds, each in a worker process of one thread."""

from __future__ import annotations

import logging
import os
import re
import signal
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from multiprocessing import resource_tracker
from typing import TYPE_CHECKING, Any, NoReturn

import psutil

from benchmark.base.errors import MorphobenchError
from benchmark.base.tasks import progress_bar, run_serially

if TYPE_CHECKING:
    from distributed import Client

#: Dask's default (trim at 64 KiB) makes a worker give memory back after every tensor and fault it in again:
#: fine-tuning then spent 59 % of its CPU time in the kernel. One arena with high thresholds keeps it.
MALLOC = {"MALLOC_ARENA_MAX": "1", "MALLOC_TRIM_THRESHOLD_": str(2**30), "MALLOC_MMAP_THRESHOLD_": str(2**30)}
#: What reports broken connections and killed workers, which a stop brings about by the dozen.
LOGGERS = ("distributed", "distributed.nanny", "distributed.worker", "distributed.scheduler", "distributed.core",
           "distributed.comm", "distributed.client", "tornado.application", "asyncio")
#: Seconds within which a running scheduler must answer.
ANSWERS = 15


_ADDRESS = re.compile(r"(?P<protocol>tcp|tls|ucx|ws|wss)://(?P<host>[\w.-]+|\[[\da-fA-F:.]+\]):(?P<port>\d{1,5})")


class Cluster:
    """A `RunTasks` over Dask, started at the first call that has work for more than one process.

    Inside ``with`` the worker processes stay for all calls, so that each loads its libraries once; otherwise they end
    with each call.

    Parameters
    ----------
    jobs : int
        Worker processes.
    threads : int
        Threads that BLAS, OpenMP and PyTorch may use in each worker.
    address : str
        ``tcp://host:port`` of a scheduler that runs already, whose workers share the file system and have threads of
        their own choice; it is left running. Empty: worker processes of this machine.
    """

    def __init__(self, jobs: int, threads: int = 1, address: str = "") -> None:
        self.jobs, self.threads, self.address = jobs, threads, address
        self._stack = ExitStack()
        self._client: Client | None = None
        self._stays = False

    def __enter__(self) -> Cluster:
        self._stays = True
        return self

    def __exit__(self, *_: object) -> None:
        self._stays = False
        self.close()

    def __reduce__(self) -> Any:
        raise TypeError("a cluster belongs to the process that started it, and is not sent to workers")

    def close(self) -> None:
        """End the worker processes, or leave the scheduler that was joined."""
        self._client = None
        with quiet():
            self._stack.close()

    def __call__(self, function: Callable[[Any], Any], tasks: Sequence[Any], label: str) -> Iterator[Any]:
        """Yield ``function(task)`` for each task, in the order in which they finish.

        Raises
        ------
        MorphobenchError
            A worker process was killed, or there is no scheduler at ``address``.
        """
        if len(tasks) <= 1 and not self.address:
            yield from run_serially(function, tasks, label)
            return
        try:
            yield from self._in_workers(function, tasks, label)
        except BaseException:
            self.close()  # what runs of the call is not waited for
            raise
        finally:
            if not self._stays:
                self.close()

    def _in_workers(self, function: Callable[[Any], Any], tasks: Sequence[Any], label: str) -> Iterator[Any]:
        # Imported late: distributed takes a second, and a run with nothing to do should not pay for it.
        from distributed import KilledWorker, as_completed

        client = self._client or self._started()
        with progress_bar(label, len(tasks)) as advance:
            # Retried nowhere: a task that fails once fails again, and says why.
            futures = client.map(function, list(tasks), pure=False, retries=0)
            try:
                for future in as_completed(futures):
                    try:
                        result = future.result()
                    except KilledWorker as error:
                        raise MorphobenchError(
                            "a worker process was killed while it ran, most likely since memory ran out", label,
                            "Finished parts are kept. Run again with fewer processes (JOBS=1).") from error
                    yield result
                    advance()
                    future.release()
            except BaseException:
                with suppress(Exception), quiet():
                    client.cancel(futures, force=True)
                raise

    def _started(self) -> Client:
        """The client of the worker processes, which are started, or of the scheduler, which is joined."""
        import dask
        from distributed import Client, LocalCluster
        from distributed.utils import LoopRunner

        self._stack.enter_context(quiet())
        if self.address:
            try:
                client = Client(self.address, timeout=ANSWERS)
            except (OSError, TimeoutError, ValueError) as error:
                raise MorphobenchError(f"no Dask scheduler answers ({error})", f"--cluster {self.address}",
                                       "Start one with `dask scheduler`, or use --cluster local.") from error
            self._client = self._stack.enter_context(client)
            return self._client
        threads = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
        environment = {**MALLOC, **{k: str(self.threads) for k in threads}}
        runner = LoopRunner()
        with _ctrl_c_held_back():
            runner.start()  # a thread of its own, from which the workers are started
        self._stack.callback(runner.stop)
        with dask.config.set({"distributed.nanny.pre-spawn-environ": environment,
                              "distributed.scheduler.allowed-failures": 0}):
            try:
                cluster = self._stack.enter_context(LocalCluster(
                    n_workers=self.jobs,
                    threads_per_worker=1,
                    processes=True,
                    dashboard_address="127.0.0.1:0",  # any free port: two studies may run at once
                    memory_limit=0,  # the tasks' memory is bounded by their size; Dask would kill on a guess
                    silence_logs=logging.CRITICAL,
                    host="127.0.0.1",
                    loop=runner.loop,
                ))
            except RuntimeError as error:
                raise MorphobenchError(f"the worker processes could not be started ({error})", "",
                                       "In a script of your own, call run below `if __name__ == \"__main__\":`, since "
                                       "Python imports the script in each worker process.") from error
        self._client = self._stack.enter_context(Client(cluster))
        return self._client


def refuse_address(address: str) -> None:
    """Refuse the address of a scheduler at which nothing can answer; looked at before anything is read.

    Raises
    ------
    MorphobenchError
        It is not ``tcp://host:port``, or nothing listens there.
    """
    where, start = f"--cluster {address}", "Start one with `dask scheduler`, or use --cluster local."
    found = _ADDRESS.fullmatch(address)
    if found is None or not 0 < int(found["port"]) < 2**16:
        raise MorphobenchError("is no address of a Dask scheduler", where, "Give tcp://host:port, or local.")
    if found["protocol"] in ("tcp", "tls"):
        try:
            socket.create_connection((found["host"].strip("[]"), int(found["port"])), ANSWERS).close()
        except OSError as error:
            raise MorphobenchError(f"no Dask scheduler answers ({error.strerror or error})", where, start) from error


@contextmanager
def _ctrl_c_held_back() -> Iterator[None]:
    """Threads started here, and the processes started from them, do not get Ctrl-C, which a terminal sends to all.

    The main process gets it and ends them; a worker that is interrupted while it starts prints a traceback.
    """
    resource_tracker.ensure_running()  # started later, by the first worker, it would let Ctrl-C through again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def leave(status: int) -> NoReturn:
    """End this process and all that it started, at once.

    For the command line after Ctrl-C: a cluster that was interrupted while it started cannot be closed, and Python
    would wait for it at exit. What is finished is on disk under its own name by then.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # threads that still start workers would report that these are killed
    while children := psutil.Process().children(recursive=True):  # others may be starting meanwhile
        for child in children:
            with suppress(psutil.Error):
                child.kill()
        psutil.wait_procs(children, timeout=5)
    os._exit(status)


@contextmanager
def quiet() -> Iterator[None]:
    """Without the tracebacks that Dask writes of workers that end while they start or run."""
    before = {name: logging.getLogger(name).level for name in LOGGERS}
    for name in LOGGERS:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for name, level in before.items():
            logging.getLogger(name).setLevel(level)


def available_cores() -> int:
    """Cores this process may use (containers and taskset counted)."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (psutil.cpu_count() or 1)
