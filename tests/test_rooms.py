"""The rooms of ``benchmark/`` and the arrows between them, read from the imports of every module.

`ROOMS` is the design: what each room may import directly. A room may also import whatever those rooms may import.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import NamedTuple

import pytest

REPOSITORY = Path(__file__).parents[1]
PACKAGE = "benchmark"

ROOMS: dict[str, tuple[str, ...]] = {
    "base": (),
    "cells": ("base",),
    "assays": ("base", "cells"),
    "images": ("assays",),
    "folds": ("assays",),
    "quality": ("images",),
    "cellprofiler": ("images", "cells", "folds"),
    "profiles": ("cells",),
    "crops": ("images",),
    "networks": ("crops",),
    "methods": ("profiles", "networks", "folds"),
    "explain": ("networks",),
    "evaluation": ("base",),
    "checks": ("methods", "evaluation"),
    "report": ("evaluation", "explain", "checks"),
    "workflow": ("quality", "cellprofiler", "methods", "report"),
    "bench": ("workflow",),
}
# Modules at the top of the package, which stand outside the rooms.
LOOSE: dict[str, tuple[str, ...]] = {
    "__init__": ("workflow",),
    "cli": ("bench", "doctor"),
    "doctor": ("workflow",),
}
DATA_FOLDERS = {"studies"}


class Import(NamedTuple):
    module: str      # who imports, with dots: benchmark.crops.build
    line: int
    target: str      # what is imported, with dots: a module or a package of ours
    at_load: bool    # executed when the module is loaded: not inside a function, not under TYPE_CHECKING


def reachable(table: Mapping[str, tuple[str, ...]]) -> dict[str, set[str]]:
    """What each key may import: itself, its row, and the rows of all in its row."""
    order = TopologicalSorter({room: set(row) for room, row in table.items()}).static_order()
    allowed: dict[str, set[str]] = {}
    for room in order:
        allowed[room] = {room}.union(*(allowed[below] for below in table[room]))
    return allowed


def modules_of(folder: Path) -> dict[str, Path]:
    """Every module under a package's folder, by its dotted name; a package by the name of its folder."""
    modules = {}
    for path in sorted(folder.rglob("*.py")):
        parts = path.relative_to(folder.parent).with_suffix("").parts
        modules[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return modules


def imports_of(name: str, path: Path, modules: Mapping[str, Path]) -> Iterator[Import]:
    """Every import of a module of ours, wherever in the file it stands."""

    def visit(node: ast.AST, at_load: bool) -> Iterator[Import]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import | ast.ImportFrom):
                for target in _targets(child):
                    yield Import(name, child.lineno, target, at_load)
            elif isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
                for part in child.body:
                    yield from visit(ast.Module([part], []), False)
                for part in child.orelse:
                    yield from visit(ast.Module([part], []), at_load)
            else:
                inside = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
                yield from visit(child, at_load and not inside)

    def _targets(node: ast.Import | ast.ImportFrom) -> Iterator[str]:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == root)
            return
        source = node.module or ""
        if node.level:
            package = name if path.name == "__init__.py" else name.rpartition(".")[0]
            base = package.split(".")[: len(package.split(".")) - node.level + 1]
            source = ".".join([*base, *([source] if source else [])])
        if source.split(".")[0] != root:
            return
        for alias in node.names:
            full = f"{source}.{alias.name}"
            if full in modules:
                yield full
            elif full != f"{root}.__version__":  # a constant that every room may record
                yield source

    root = name.split(".")[0]
    yield from visit(ast.parse(path.read_text(encoding="utf-8"), str(path)), True)


def place_of(module: str) -> str:
    """The room of a module, or the module's own name where it lies at the top of the package."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


def faults_of(folder: Path, rooms: Mapping[str, tuple[str, ...]], loose: Mapping[str, tuple[str, ...]]) -> list[str]:
    """Modules outside the rooms, and imports that the table does not allow, each as one line."""
    modules = modules_of(folder)
    allowed = reachable({**rooms, **loose})
    faults = []
    for name, path in modules.items():
        place = place_of(name)
        if place not in allowed:
            what = "a room that the table does not list" if (folder / place).is_dir() else "a module outside the rooms"
            faults.append(f"{name}: {what}")
            continue
        for arrow in imports_of(name, path, modules):
            target = place_of(arrow.target)
            if target not in allowed[place]:
                faults.append(f"{name}:{arrow.line}: {place} may not import {target} ({arrow.target})")
    return list(dict.fromkeys(faults))


def circle_of(folder: Path) -> list[str] | None:
    """Modules that import each other in a circle when they are loaded, or None."""
    modules = modules_of(folder)
    graph = {name: {arrow.target for arrow in imports_of(name, path, modules) if arrow.at_load} - {name}
             for name, path in modules.items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return None


def draw_package(folder: Path, files: Mapping[str, str]) -> Path:
    package = folder / PACKAGE
    for name, text in {"__init__.py": "", **files}.items():
        path = package / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        if path.parent != package:
            (path.parent / "__init__.py").touch()
    return package


def test_rooms_import_only_what_the_table_allows() -> None:
    faults = faults_of(REPOSITORY / PACKAGE, ROOMS, LOOSE)
    assert not faults, "\n" + "\n".join(faults)


def test_no_modules_import_each_other_in_a_circle() -> None:
    circle = circle_of(REPOSITORY / PACKAGE)
    assert circle is None, "\n" + " -> ".join(circle or [])


def test_every_folder_is_a_room_or_data() -> None:
    folders = {path.name for path in (REPOSITORY / PACKAGE).iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert folders - set(ROOMS) - DATA_FOLDERS == set()
    assert not list((REPOSITORY / PACKAGE / "studies").rglob("*.py"))


@pytest.mark.parametrize(("text", "line"), [
    ("from benchmark.high import thing", 1),
    ("import benchmark.high.thing", 1),
    ("from benchmark import high", 1),
    ("from ..high import thing", 1),
    ("from .. import high", 1),
    ("def f():\n    from benchmark.high.thing import x\n    return x", 2),
    ("class A:\n    async def f(self):\n        if self:\n            import benchmark.high", 4),
    ("from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from benchmark.high import thing", 3),
    ("try:\n    import benchmark.high\nexcept ImportError:\n    pass", 2),
])
def test_an_arrow_against_the_table_is_named_wherever_it_stands(tmp_path: Path, text: str, line: int) -> None:
    package = draw_package(tmp_path, {"low/here.py": text, "high/thing.py": "x = 1"})
    faults = faults_of(package, {"low": (), "high": ("low",)}, {"__init__": ()})
    assert [f.rsplit(" (", 1)[0] for f in faults] == [f"benchmark.low.here:{line}: low may not import high"]


def test_the_table_is_read_transitively_and_never_backwards(tmp_path: Path) -> None:
    package = draw_package(tmp_path, {"low/a.py": "", "mid/b.py": "", "high/c.py": "from benchmark.low import a"})
    assert faults_of(package, {"low": (), "mid": ("low",), "high": ("mid",)}, {"__init__": ()}) == []
    assert len(faults_of(package, {"low": (), "mid": (), "high": ("mid",)}, {"__init__": ()})) == 1


def test_a_module_outside_the_rooms_is_named(tmp_path: Path) -> None:
    package = draw_package(tmp_path, {"low/a.py": "", "stray.py": "", "attic/b.py": ""})
    assert faults_of(package, {"low": ()}, {"__init__": ()}) == [
        "benchmark.attic: a room that the table does not list",
        "benchmark.attic.b: a room that the table does not list",
        "benchmark.stray: a module outside the rooms"]


def test_a_circle_is_found_between_modules_but_not_through_functions(tmp_path: Path) -> None:
    package = draw_package(tmp_path, {"low/a.py": "from benchmark.low import b", "low/b.py": "import benchmark.low.a"})
    assert set(circle_of(package) or []) == {"benchmark.low.a", "benchmark.low.b"}
    (package / "low/b.py").write_text("def f():\n    import benchmark.low.a", encoding="utf-8")
    assert circle_of(package) is None


def test_contributing_prints_the_same_table() -> None:
    """The table that people read is the one that is enforced."""
    text = (REPOSITORY / "CONTRIBUTING.md").read_text(encoding="utf-8")
    printed = {room: tuple(re.findall(r"`(\w+)`", row)) for room, row in
               re.findall(r"^\| `(\w+)/` \|[^|]*\|([^|]*)\|$", text, flags=re.MULTILINE)}
    assert printed == ROOMS
