"""Bad input as a table: a case draws an input, goes to a door of the suite, and states what is said there."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from contextlib import chdir
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import yaml
from typer.testing import CliRunner

from benchmark.base.errors import FaultsError, MorphobenchError
from benchmark.cli import app

#: A line of a list of faults, as the terminal shows it.
LISTED = re.compile(r"^\s*- ", re.MULTILINE)
WELLS = 8
HEADER = "Plate,Well,Drug,Dose,MoA,File"
ROWS = [f"P1,A{i + 1:02d},drug {i},1,{'xy'[i % 2]},f{i}.tif" for i in range(WELLS)]
STUDY: dict[str, Any] = {
    "name": "mine", "methods": [{"name": "position", "kind": "baseline", "feature": "position"}],
    "assay": {
        "kind": "table", "csv": "plan.csv", "channels": {"DNA": {"file": "{File}"}},
        "columns": {"plate": "Plate", "well": "Well", "compound": "Drug", "concentration": "Dose", "label": "MoA"},
    },
}


@dataclass(frozen=True)
class Case:
    """One bad input.

    Attributes
    ----------
    name : str
        What is bad.
    draw : callable
        Draws it into a folder; what it gives is for the door (a path, a list of arguments).
    says : str
        Regular expression of the message: what is wrong, where, and the remedy.
    """

    name: str
    draw: Callable[[Path], Any]
    says: str


def each(cases: Iterable[Case]) -> list[Any]:
    """Cases for `pytest.mark.parametrize`, by their names."""
    return [pytest.param(c, id=c.name) for c in cases]


def files_in(folder: Path) -> set[str]:
    """Everything below a folder."""
    return {str(p.relative_to(folder)) for p in folder.rglob("*")}


def command(folder: Path, *arguments: str) -> tuple[int, str]:
    """Exit status and output of a command run in a folder; an exception that is no message is raised."""
    with chdir(folder):
        result = CliRunner().invoke(app, list(arguments))
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert "Traceback" not in result.output
    return result.exit_code, result.output


def command_refuses(folder: Path, says: str, *arguments: str) -> None:
    """A command ends with another status than 0, says one thing for one cause, and leaves nothing behind."""
    before = files_in(folder)
    status, output = command(folder, *arguments)
    assert status in (1, 2), output
    said_once(says, output, len(LISTED.findall(output)))
    assert files_in(folder) == before


def reader_refuses(folder: Path, says: str, read: Callable[[], Any]) -> None:
    """The same of a function that a command calls."""
    before = files_in(folder)
    with pytest.raises(MorphobenchError) as caught:
        read()
    said_once(says, str(caught.value), len(caught.value.faults) if isinstance(caught.value, FaultsError) else 0)
    assert files_in(folder) == before


def said_once(says: str, text: str, listed: int) -> None:
    """A message says what it should, in one fault and few lines."""
    assert re.search(says, text, re.DOTALL), text
    assert listed <= 1, text
    assert len(text.strip().splitlines()) <= 4, text


def write_study(folder: Path, rows: Iterable[str] | None = None, header: str = HEADER, **assay: Any) -> Path:
    """A sound study of `WELLS` wells with an image of 8×8 pixels each, but for what is given."""
    rng = np.random.default_rng(0)
    for i in range(WELLS):
        tifffile.imwrite(folder / f"f{i}.tif", rng.integers(0, 999, (8, 8), dtype=np.uint16))
    (folder / "plan.csv").write_text("\n".join([header, *(ROWS if rows is None else rows)]) + "\n", encoding="utf-8")
    path = folder / "mine.yaml"
    path.write_text(yaml.safe_dump({**STUDY, "assay": {**STUDY["assay"], **assay}}), encoding="utf-8")
    return path
