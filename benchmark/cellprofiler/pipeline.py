"""The text of a CellProfiler pipeline (.cppipe): reading it and changing settings of it.

The format is a header, then blocks separated by blank lines: ``ModuleName:[attributes]`` and one line
``    setting text:value`` a setting, in an order that belongs to the module's revision. Only values are
ever changed here; every other byte stays, so the file still opens in CellProfiler's own window.
"""

from __future__ import annotations

import contextlib
import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from benchmark.base.errors import MorphobenchError

N = TypeVar("N", int, float)
_CORRECT = "Correct it in CellProfiler or in cellprofiler.settings."
Value = str | int | float | bool
Overrides = Mapping[str, Mapping[str, Value]]

_HEADER = re.compile(r"(?P<name>\w+):\[(?P<attributes>.*)\]\s*")
_ENABLED = re.compile(r"(?<=[|\[])enabled:True(?=[|\]])")
_INDEXED = re.compile(r"(?P<name>.+?)\[(?P<index>[1-9]\d*)\]")
#: Texts of settings that name images a module reads. CellProfiler's file does not say which settings do.
_READS = re.compile(
    r"Select (the |an? )?(\w+ )?(input )?images?( to measure| to save| name for file prefix)?"
    r"|Select the (input image|illumination function|guiding image|image to .*|images to .*)"
)
_WRITES = re.compile(r"Name the (output|averaged|dilated|corrected|.*outline).*image")
#: Texts of settings that name objects which a module makes.
NAMES_OBJECTS = re.compile(r"Name the .*\bobjects?\b.*")
_NO_IMAGE = {"", "None", "Do not use", "Leave this blank", "Leave this black"}


@dataclass(frozen=True)
class Setting:
    """One setting: its text, its value as CellProfiler reads it, and its line in the file (0-based)."""

    text: str
    value: str
    line: int


@dataclass(frozen=True)
class Module:
    """One module of a pipeline; ``number`` counts all of the file's from 1, ``line`` is its header's (0-based)."""

    name: str
    number: int
    enabled: bool
    settings: tuple[Setting, ...]
    line: int

    def get(self, text: str, default: str = "") -> str:
        """Value of the first setting called ``text``."""
        return next((s.value for s in self.settings if s.text == text), default)

    def all(self, text: str) -> list[str]:
        """Values of all settings called ``text``."""
        return [s.value for s in self.settings if s.text == text]

    def as_number(self, text: str, default: N) -> N:
        """`get` as a number, whole where the default is; MorphobenchError where the value is none."""
        return self._converted(text, self.get(text, str(default)), type(default))

    def as_numbers(self, text: str, kind: type[N]) -> list[N]:
        """`all` as numbers; MorphobenchError where a value is none."""
        return [self._converted(text, value, kind) for value in self.all(text)]

    def as_pair(self, text: str, default: tuple[float, float]) -> tuple[float, float]:
        """`get` of two numbers with a comma between; MorphobenchError where the value is none."""
        parts = self.get(text, ",".join(map(str, default))).split(",")
        if len(parts) != 2:
            raise MorphobenchError(f"{self.get(text)!r} are not two numbers", f"module {self.name}, setting {text!r}",
                                   _CORRECT)
        return self._converted(text, parts[0], float), self._converted(text, parts[1], float)

    def _converted(self, text: str, value: str, kind: type[N]) -> N:
        try:
            return kind(value)
        except ValueError:
            what = f"{value!r} is not a {'whole ' if kind is int else ''}number"
            raise MorphobenchError(what, f"module {self.name}, setting {text!r}", _CORRECT) from None


def unescape(value: str) -> str:
    r"""A setting's value as CellProfiler reads it: escapes count only where the text holds ``\x``."""
    if "\\x" in value:
        with contextlib.suppress(UnicodeDecodeError):
            value = value.encode("utf-8").decode("unicode_escape")
    return value


def escape(value: str) -> str:
    r"""Text of a value that CellProfiler reads back as ``value``; plain unless it holds ``\x``."""
    return value.encode("unicode_escape").decode("ascii") if "\\x" in value else value


def parse(text: str) -> tuple[Module, ...]:
    """Modules of a pipeline, in order.

    Raises
    ------
    MorphobenchError
        The text has no modules, or a line among the modules is neither a module nor a setting.
    """
    modules: list[Module] = []
    settings: list[Setting] = []
    found: re.Match[str] | None = None
    start = 0
    after_blank = in_modules = False

    def close() -> None:
        if found:
            enabled = "|enabled:False|" not in f"|{found['attributes']}|"
            modules.append(Module(found["name"], len(modules) + 1, enabled, tuple(settings), start))

    for number, raw in enumerate(text.split("\n")):
        line = raw.removesuffix("\r")
        if not line.strip():
            after_blank = True
            continue
        header = _HEADER.fullmatch(line)
        if after_blank and header:
            close()
            found, settings, in_modules, start = header, [], True, number
        elif in_modules:
            name, colon, value = line.partition(":")
            if not colon or not line.startswith(" "):
                raise MorphobenchError(f"line {number + 1} is neither a module nor a setting: {line[:60]!r}",
                                       "pipeline", "Save it again from CellProfiler.")
            settings.append(Setting(name.strip(), unescape(value), number))
        after_blank = False
    close()
    if not modules:
        raise MorphobenchError("the pipeline has no modules", "pipeline", "Save it again from CellProfiler.")
    return tuple(modules)


def module_names(text: str) -> list[str]:
    """Names of the enabled modules, in order."""
    return [m.name for m in parse(text) if m.enabled]


def _split(name: str) -> tuple[str, int | None]:
    """``Name[2]`` → (``Name``, 2); ``Name`` → (``Name``, None)."""
    match = _INDEXED.fullmatch(name.strip())
    return (match["name"].strip(), int(match["index"])) if match else (name.strip(), None)


def _unknown(kind: str, name: str, where: str, names: Iterable[str]) -> MorphobenchError:
    """The error for a name that the pipeline does not have: close names first, else all."""
    known = sorted(set(names))
    near = difflib.get_close_matches(name, known, 3, 0.5)
    hint = f"Did you mean {' or '.join(map(repr, near))}?" if near else f"It has: {', '.join(known)}."
    return MorphobenchError(f"the pipeline has no {kind} {name!r}", where, hint)


def _modules_called(modules: Iterable[Module], name: str) -> list[Module]:
    """Every module called ``Name``, or the one that ``Name[i]`` means."""
    modules = list(modules)
    base, index = _split(name)
    found = [m for m in modules if m.name == base]
    if not found:
        raise _unknown("module", base, "cellprofiler.settings", (m.name for m in modules))
    if index is not None and index > len(found):
        raise MorphobenchError(f"the pipeline has {len(found)} module(s) {base}, no {name}", "cellprofiler.settings")
    return found if index is None else [found[index - 1]]


def _setting_called(module: Module, name: str) -> Setting:
    """The setting that ``name`` or ``name[i]`` means; a name that occurs twice needs its index."""
    where = f"cellprofiler.settings.{module.name}"
    base, index = _split(name)
    found = [s for s in module.settings if s.text == base]
    if not found:
        raise _unknown("setting", base, where, (s.text for s in module.settings))
    if index is None and len(found) > 1:
        raise MorphobenchError(f"{base!r} occurs {len(found)} times", where,
                               f"Say which: {base}[1] … {base}[{len(found)}].")
    if (index or 1) > len(found):
        raise MorphobenchError(f"{base!r} occurs {len(found)} time(s), there is no {name}", where)
    return found[(index or 1) - 1]


def value_text(value: Value) -> str:
    """A setting's value as CellProfiler writes it: truth is Yes or No."""
    if isinstance(value, bool):
        return "Yes" if value else "No"
    return str(value)


def with_settings(text: str, overrides: Overrides) -> str:
    """The pipeline with some values changed, everything else untouched to the byte.

    Parameters
    ----------
    text : str
        A pipeline.
    overrides : mapping
        Module → setting → value. ``Name`` means every module of that name and ``Name[2]`` the second;
        the latter wins. A setting text that occurs several times in a module needs ``text[i]``.

    Returns
    -------
    str
        The changed pipeline.

    Raises
    ------
    MorphobenchError
        A module or a setting is unknown (close names are listed), ambiguous, or a value spans lines.
    """
    modules = parse(text)
    lines = text.split("\n")
    for name in sorted(overrides, key=lambda n: _split(n)[1] is not None):
        for module in _modules_called(modules, name):
            for setting_name, value in overrides[name].items():
                setting = _setting_called(module, setting_name)
                new = value_text(value)
                if len(new.splitlines()) > 1 or new != new.strip("\r\n"):
                    raise MorphobenchError("a value may not span lines", f"cellprofiler.settings.{name}.{setting_name}")
                if new == setting.value:
                    continue
                old = lines[setting.line]
                end = "\r" if old.endswith("\r") else ""
                lines[setting.line] = old[: old.index(":") + 1] + escape(new) + end
    return "\n".join(lines)


def with_modules_off(text: str, name: str) -> str:
    """The pipeline with every module called ``name`` switched off, everything else untouched to the byte."""
    lines = text.split("\n")
    for module in parse(text):
        if module.name == name and module.enabled:
            found = list(_ENABLED.finditer(lines[module.line]))
            if not found:
                raise MorphobenchError(f"line {module.line + 1} does not say whether {name} is enabled", "pipeline",
                                       "Save it again from CellProfiler.")
            start, end = found[-1].span()  # the last one: a note before it is free text
            lines[module.line] = lines[module.line][:start] + "enabled:False" + lines[module.line][end:]
    return "\n".join(lines)


def _names(value: str) -> set[str]:
    return {part.strip() for part in value.split(",")} - _NO_IMAGE


def loaded_images(text: str) -> list[str]:
    """Images that the enabled modules read and none of them made: those that LoadData must load, sorted.

    Settings that name images are known by their text, which covers the usual modules; a study can
    always state the images itself.
    """
    read: set[str] = set()
    made: set[str] = set()
    for module in parse(text):
        if not module.enabled or module.name == "LoadData":
            continue
        for setting in module.settings:
            if _WRITES.fullmatch(setting.text):
                made |= _names(setting.value)
            elif _READS.fullmatch(setting.text):
                read |= _names(setting.value)
    return sorted(read - made)


def saved_masks(text: str) -> dict[str, str]:
    """Objects whose label masks are saved as TIFF by field → end of the file name after the DNA image's stem."""
    modules = [m for m in parse(text) if m.enabled]
    objects = {m.get("Name the output image"): m.get("Select the input objects")
               for m in modules if m.name == "ConvertObjectsToImage"}
    found = {}
    for m in modules:
        image = m.get("Select the image to save")
        if m.name == "SaveImages" and image in objects and m.get("Saved file format") == "tiff":
            suffix = m.get("Text to append to the image name") if m.get(
                "Append a suffix to the image file name?") == "Yes" else ""
            found[objects[image]] = f"{suffix}.tiff"
    return found


def object_names(text: str) -> list[str]:
    """Names of the objects that the enabled modules make, in order, those of settings that do not apply among them."""
    return list(dict.fromkeys(s.value for m in parse(text) if m.enabled for s in m.settings
                              if NAMES_OBJECTS.fullmatch(s.text) and s.value not in ("", "None")))


def combining_modules(text: str) -> list[str]:
    """Enabled modules whose result for one field depends on the other fields of the run, in order.

    A run holds only some of a plate's fields, so their results would depend on how the assay was cut into shards.
    """
    return [m.name for m in parse(text) if m.enabled and (
        m.name in ("MakeProjection", "TrackObjects")
        or (m.name == "CorrectIlluminationCalculate" and any(
            s.value.startswith("All") for s in m.settings if s.text.startswith("Calculate function for each image")))
        or (m.name == "RescaleIntensity" and any(
            s.value in ("Minimum of all images", "Maximum of all images") for s in m.settings)))]


def csv_prefix(text: str) -> str:
    """What ExportToSpreadsheet puts before its file names; the pipeline must have that module.

    Raises
    ------
    MorphobenchError
        The pipeline does not start with LoadData, has no ExportToSpreadsheet, or a module of it needs all fields of
        a plate at once.
    """
    modules = [m for m in parse(text) if m.enabled]
    names = [m.name for m in modules]
    if names[:1] != ["LoadData"]:
        raise MorphobenchError(f"the pipeline starts with {names[0] if names else 'nothing'}, not LoadData", "pipeline",
                               "Put LoadData in the place of Images, Metadata, NamesAndTypes and Groups.")
    if "ExportToSpreadsheet" not in names:
        raise MorphobenchError("the pipeline has no ExportToSpreadsheet module", "pipeline", "Add it at the end.")
    if combining := combining_modules(text):
        raise MorphobenchError(f"the pipeline's {', '.join(dict.fromkeys(combining))} needs all fields of a plate at "
                               "once, and fields are measured in parts", "pipeline",
                               "Let it work field by field; illumination of a plate is the study's (`illumination:`).")
    export = modules[names.index("ExportToSpreadsheet")]
    prefix = export.get("Filename prefix") if export.get("Add a prefix to file names?") == "Yes" else ""
    if re.search(r"[/\\]", prefix):
        raise MorphobenchError(f"ExportToSpreadsheet puts {prefix!r} before its file names, which would lead out of "
                               "the folder that it is given", "pipeline", "Use a prefix without slashes.")
    return prefix
