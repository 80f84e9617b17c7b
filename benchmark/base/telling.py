"""How notes and losses are said in a terminal and a log: a line each, warnings first, many alike not one by one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from benchmark.base.account import Loss, warnings_of
from benchmark.base.errors import Fault

#: So many notes of one kind are said in a log; the page has them all.
SAID = 3


def one_line(text: str) -> str:
    """The text without line breaks and control characters: a name in a table must not drive the terminal."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def marked_warnings(losses: Iterable[Loss], notes: Iterable[Fault] = ()) -> list[str]:
    """``WARNING: …``, a line for each note that warns and for each loss that is more than
    `benchmark.base.account.WARNED` and not asked for."""
    texts = [*(str(note) for note in notes if note.warns), *warnings_of(losses)]
    return [one_line(f"WARNING: {text}") for text in dict.fromkeys(texts)]


def told(notes: Sequence[Fault], losses: Sequence[Loss]) -> list[str]:
    """What was left out, merged or assumed, a line each: warnings, then other losses, then notes.

    Of notes that say the same of several places (fields, wells) the first `SAID` are there, and how many more there
    are. A loss that is no warning is left to a note where that gives the same number and reason.
    """
    words = [str(note) for note in notes]
    lines = marked_warnings(losses, notes)
    lines += [one_line(str(loss)) for loss in losses if not loss.warns and not _is_said(loss, words)]
    by_kind: dict[str, list[Fault]] = {}
    for note in (note for note in notes if not note.warns):
        by_kind.setdefault(kind_of(note), []).append(note)
    for kind, alike in by_kind.items():
        shown = alike if len(alike) <= SAID + 1 else alike[:SAID]
        lines += [one_line(f"Note: {note}") for note in shown]
        if len(alike) > len(shown):
            lines.append(one_line(f"Note: {kind}: {len(alike) - len(shown)} more like these {SAID}"))
    return list(dict.fromkeys(lines))


def kind_of(note: Fault) -> str:
    """What notes of several places have in common: the words before the first colon; a note of no place is alone."""
    return note.what.split(": ", 1)[0] if note.where else str(note)


def _is_said(loss: Loss, notes: Sequence[str]) -> bool:
    return any(loss.why in note and str(loss.lost) in note.split() for note in notes)
