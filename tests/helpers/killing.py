"""Measuring in processes that can be killed with all they started, as often as a test likes.

Run as a program this is such processes' parent: it imports once, and for each line of its input forks a child, in a
session of its own, that measures and ends. The child says "begun" when shards are about to start.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path


class Measurer:
    """The parent, and tables and settings in ``folder`` that its children read."""

    def __init__(self, folder, assay, settings, cellprofiler, environment):
        folder.mkdir(parents=True)
        assay.fields.to_parquet(folder / "fields.parquet")
        self.task = {"fields": str(folder / "fields.parquet"), "root": str(assay.root), "settings":
                     settings.model_dump(mode="json"), "command": cellprofiler.command, "version": cellprofiler.version}
        here = Path(__file__)
        paths = os.pathsep.join([str(here.parents[2]), str(here.parent)])
        self.parent = subprocess.Popen([sys.executable, str(here)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                       text=True, env={**os.environ, **environment, "PYTHONPATH": paths})

    def start(self, shards):
        """Begin to measure into a folder; the child's process (and group) number."""
        self.parent.stdin.write(json.dumps({**self.task, "shards": str(shards)}) + "\n")
        self.parent.stdin.flush()
        self.pid = int(self._line())
        assert self._line() == "begun"

    def kill(self, seconds):
        """SIGKILL the child's whole process group after some seconds; whether it was still at work."""
        time.sleep(seconds)
        os.killpg(self.pid, signal.SIGKILL)  # the parent has not waited for it: the number is still its own
        return self.end() == -signal.SIGKILL

    def end(self):
        """Wait for the child: 0 where it went to its end."""
        self.parent.stdin.write("\n")
        self.parent.stdin.flush()
        return int(self._line())

    def _line(self):
        line = self.parent.stdout.readline().strip()
        assert line, "the measuring process is gone"
        return line

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.parent.kill()
        self.parent.wait()
        self.parent.stdin.close()
        self.parent.stdout.close()


def measure_task(task):
    """In a child."""
    import pandas as pd
    from small_assay import CHANNELS

    from benchmark.assays.fieldtable import make_assay
    from benchmark.base.tasks import run_serially
    from benchmark.cellprofiler.find import CellProfiler
    from benchmark.cellprofiler.measure import measure
    from benchmark.cellprofiler.settings import CellProfilerSettings
    from benchmark.quality.check import file_hashes

    assay = make_assay("small", Path(task["root"]), pd.read_parquet(task["fields"]), CHANNELS,
                       single_compound_labels="refuse")
    hashes = file_hashes(assay)
    found = CellProfiler(tuple(task["command"]), task["version"], "test")
    print("begun", flush=True)
    measure(assay, hashes, CellProfilerSettings(**task["settings"]), found, Path(task["shards"]), run_serially)


def main():
    import benchmark.cellprofiler.measure  # noqa: F401  once, not in every child

    while line := sys.stdin.readline():
        if (pid := os.fork()) == 0:
            os.setsid()
            try:
                print(os.getpid(), flush=True)
                measure_task(json.loads(line))
                os._exit(0)
            except BaseException as error:
                print(repr(error), file=sys.stderr, flush=True)
                os._exit(1)
        sys.stdin.readline()  # asked to wait for it
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)


if __name__ == "__main__":
    main()
