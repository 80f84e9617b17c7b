"""Notes and losses in a terminal: warnings first and marked, many alike not one by one."""

from __future__ import annotations

from benchmark.base.account import Loss
from benchmark.base.errors import Fault
from benchmark.base.telling import marked_warnings, told

MUCH = Loss("wells", 2, 12, "they have no label")
LITTLE = Loss("fields", 1, 576, "an image is truncated (plate P)")


def test_warnings_come_first_and_are_marked():
    asked = Loss("wells", 6, 12, "taxol: not", asked=True)
    lines = told([Fault("two spellings are one compound")], [LITTLE, asked, MUCH])
    assert lines == [
        "WARNING: 2 of 12 wells left out (16.7 %): they have no label",
        "1 of 576 fields left out (0.174 %): an image is truncated (plate P)",
        "6 of 12 wells left out (50 %): taxol: not",
        "Note: two spellings are one compound"]
    assert told([], []) == []


def test_a_note_that_gives_number_and_reason_stands_for_the_loss():
    small = Loss("wells", 2, 120, "they have no label")
    note = Fault("2 wells of p.csv left out: they have no label (P1 A01, P1 A02)")
    assert told([note], [small]) == [f"Note: {note}"]
    assert len(told([note], [MUCH])) == 2 and len(told([Fault("they have no label")], [small])) == 2


def test_notes_of_many_places_are_not_said_one_by_one():
    notes = [Fault(f"left out: f{i}.tif is truncated", f"plate P, well A{i:02d}, site 1") for i in range(9)]
    notes += [Fault("the well is left without a field", f"P, A{i:02d}") for i in range(4)]
    lines = told(notes, [])
    assert len(lines) == 8 and lines[3] == "Note: left out: 6 more like these 3"
    assert lines[4:] == [f"Note: P, A{i:02d}: the well is left without a field" for i in range(4)]


def test_names_do_not_drive_the_terminal():
    assert told([Fault("a\x1b[31m\nb\u2028c")], []) == ["Note: a [31m b c"]


def test_a_note_that_warns_comes_first_marked_and_once():
    note, grave = Fault("3 cells count as empty", "a.csv"), Fault("one substance has two names", "a.csv", warns=True)
    lines = told([note, grave], [])
    assert lines == ["WARNING: a.csv: one substance has two names", "Note: a.csv: 3 cells count as empty"]
    assert marked_warnings([], [note, grave]) == lines[:1]
