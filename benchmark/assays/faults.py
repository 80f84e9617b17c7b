"""Continuing after a fault, so that all of them are reported at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from benchmark.base.errors import Fault, FaultsError, MorphobenchError


def faults_of(error: MorphobenchError) -> list[Fault]:
    """The faults that an error reports, one or several."""
    return list(error.faults) if isinstance(error, FaultsError) else [error.fault]


@contextmanager
def gathering(faults: list[Fault]) -> Iterator[None]:
    """Add a step's faults to a list instead of stopping at them; the next steps show theirs."""
    try:
        yield
    except MorphobenchError as error:
        faults += faults_of(error)


def refuse(faults: Sequence[Fault], title: str) -> None:
    """Raise an error with the faults that were gathered, if there are any.

    Raises
    ------
    FaultsError
        There are faults; all are listed below the title.
    """
    if faults:
        raise FaultsError(faults, title)
