"""What a log says of work: when it starts, and how long what is not short took."""

from __future__ import annotations

import re
from types import SimpleNamespace

import pytest

from benchmark.base import tasks
from benchmark.base.tasks import duration_words, run_serially, step


@pytest.fixture
def clock(monkeypatch):
    """A clock that the test sets; time of day stands still."""
    now = SimpleNamespace(seconds=100.0)
    monkeypatch.setattr(tasks.time, "monotonic", lambda: now.seconds)
    monkeypatch.setattr(tasks.time, "strftime", lambda form: "14:03:22")
    return now


@pytest.mark.parametrize(("seconds", "lines"), [
    (14.0, ["14:03:22 crops, by fields: 2 to do", "14:03:22 crops, by fields: done in 28 s"]),
    (1.0, ["14:03:22 crops, by fields: 2 to do"]),
])
def test_a_batch_is_logged_when_it_starts_and_ends(clock, capsys, seconds, lines):
    def work(number):
        clock.seconds += seconds
        return number

    assert list(run_serially(work, [1, 2], "crops, by fields")) == [1, 2]
    assert capsys.readouterr().err.splitlines() == lines


def test_work_without_a_label_or_tasks_is_not_logged(clock, capsys):
    list(run_serially(str, [1]))
    list(run_serially(str, [], "nothing"))
    assert capsys.readouterr().err == ""


def test_a_step_is_logged_with_its_number(clock, capsys):
    with step("CellProfiler", 3, 9):
        clock.seconds += 108
    with step("page", 9, 9):
        clock.seconds += 2
    assert capsys.readouterr().err.splitlines() == [
        "14:03:22 step 3 of 9: CellProfiler", "14:03:22 step 3 of 9: CellProfiler, done in 1 min 48 s",
        "14:03:22 step 9 of 9: page"]


def test_a_step_that_fails_is_not_called_done(clock, capsys):
    with pytest.raises(RuntimeError), step("networks", 1, 1):
        clock.seconds += 60
        raise RuntimeError
    assert "done" not in capsys.readouterr().err


def test_the_time_of_day_is_written(capsys):
    with step("page", 1, 1):
        pass
    assert re.fullmatch(r"\d\d:\d\d:\d\d step 1 of 1: page\n", capsys.readouterr().err)


@pytest.mark.parametrize(("seconds", "words"), [(28.4, "28 s"), (59.6, "1 min 0 s"), (7500, "2 h 5 min")])
def test_durations_are_in_words(seconds, words):
    assert duration_words(seconds) == words
