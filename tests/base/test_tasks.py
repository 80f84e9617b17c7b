"""Logs say when a step began and how long it took."""

from __future__ import annotations

import re

import pytest

from benchmark.base import tasks
from benchmark.base.tasks import duration, run_serially, step


def test_a_log_has_the_start_and_the_end_of_what_took_long(monkeypatch, capsys):
    clock = iter([0.0, 100.0, 100.5, 108.0])
    monkeypatch.setattr(tasks.time, "perf_counter", lambda: next(clock))
    with step("CellProfiler", 3, 9):
        assert list(run_serially(str, [1, 2], "shards")) == ["1", "2"]
    lines = capsys.readouterr().err.splitlines()
    assert all(re.match(r"\d\d:\d\d:\d\d ", line) for line in lines)
    assert [line[9:] for line in lines] == ["step 3 of 9: CellProfiler", "shards: 2 to do",
                                            "step 3 of 9: CellProfiler, done in 1 min 48 s"]


def test_nothing_is_written_of_nothing(capsys):
    assert list(run_serially(str, [], "shards")) == [] and capsys.readouterr().err == ""


@pytest.mark.parametrize(("seconds", "words"), [(1.6, "2 s"), (108, "1 min 48 s"), (7500, "2 h 5 min")])
def test_durations_are_in_words(seconds, words):
    assert duration(seconds) == words
