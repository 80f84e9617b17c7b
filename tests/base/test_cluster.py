"""Worker processes: started once for a run, joined where a scheduler runs, and quiet when they are stopped."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from benchmark.base.cluster import Cluster
from benchmark.base.errors import MorphobenchError


def process(_: int) -> int:
    time.sleep(0.05)
    return os.getpid()


def refuse(number: int) -> int:
    if number == 3:
        raise MorphobenchError("is three", f"task {number}")
    return number


def die(number: int) -> int:
    if number == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def test_workers_stay_for_all_calls_and_survive_no_failure():
    with Cluster(2) as run_tasks:
        first = set(run_tasks(process, range(6), "first"))
        assert set(run_tasks(process, range(6), "second")) <= first and os.getpid() not in first and len(first) == 2
        assert list(run_tasks(process, [0], "one")) == [os.getpid()]
        with pytest.raises(MorphobenchError, match="task 3: is three"):
            list(run_tasks(refuse, range(6), "third"))
        assert sorted(run_tasks(refuse, range(3), "after a failure")) == [0, 1, 2]
        with pytest.raises(MorphobenchError, match=r"worker process was killed.*fewer processes"):
            list(run_tasks(die, range(2), "killed"))
    with pytest.raises(TypeError, match="not sent to workers"):
        Cluster(2).__reduce__()


def test_a_running_scheduler_is_joined_and_left_running():
    from distributed import Client, LocalCluster

    with LocalCluster(n_workers=1, threads_per_worker=1, processes=True, dashboard_address=None,
                      host="127.0.0.1") as there:
        with Cluster(2, address=there.scheduler_address) as run_tasks:
            joined = set(run_tasks(process, range(3), "joined"))
        with Client(there) as client:
            assert set(client.run(os.getpid).values()) == joined


def test_an_address_without_a_scheduler_is_named(monkeypatch):
    monkeypatch.setattr("benchmark.base.cluster.ANSWERS", 1)
    with pytest.raises(MorphobenchError, match=r"tcp://127.0.0.1:9: no Dask scheduler answers"), \
            Cluster(2, address="tcp://127.0.0.1:9") as run_tasks:
        list(run_tasks(process, range(2), "nowhere"))


SCRIPT = """
import sys, time
from benchmark.base.cluster import Cluster, leave

if __name__ == "__main__":
    try:
        with Cluster(2) as run_tasks:
            for _ in run_tasks(time.sleep, [60, 60], "sleeping"):
                pass
    except KeyboardInterrupt:
        print("stopped", flush=True)
        leave(130)
"""


def _in_group(group: int) -> list[psutil.Process]:
    """Living processes of a group, after a moment in which what was killed may go."""
    for _ in range(50):
        living = [p for p in psutil.process_iter(["status"]) if p.info["status"] != psutil.STATUS_ZOMBIE
                  and _group_of(p) == group]
        if not living:
            break
        time.sleep(0.1)
    return living


def _group_of(process: psutil.Process) -> int:
    try:
        return os.getpgid(process.pid)
    except ProcessLookupError:
        return -1


@pytest.mark.parametrize("after", [0.3, 0.8, 1.2, 4.0])  # while the workers are started, and while they run
def test_ctrl_c_prints_no_tracebacks_and_leaves_no_process(tmp_path, after):
    (tmp_path / "script.py").write_text(SCRIPT)
    here = {**os.environ, "PYTHONPATH": str(Path.cwd())}
    with subprocess.Popen([sys.executable, str(tmp_path / "script.py")], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          text=True, env=here, start_new_session=True,
                          preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)) as child:
        time.sleep(after + 0.5)  # Python's own start
        os.killpg(child.pid, signal.SIGINT)  # as a terminal does: the whole group gets it
        out, err = child.communicate(timeout=180)
        assert not _in_group(child.pid)
    assert out == "stopped\n" and "Traceback" not in err and child.returncode == 130


def test_a_script_without_a_main_guard_is_told_of_it(tmp_path):
    (tmp_path / "script.py").write_text("import time\nfrom benchmark.base.cluster import Cluster\n"
                                        "list(Cluster(2)(time.sleep, [0, 0], 'x'))\n")
    done = subprocess.run([sys.executable, str(tmp_path / "script.py")], capture_output=True, text=True, timeout=180,
                          env={**os.environ, "PYTHONPATH": str(Path.cwd())}, check=False)
    assert done.returncode == 1 and "MorphobenchError: the worker processes could not be started" in done.stderr
    assert '`if __name__ == "__main__":`' in done.stderr
