"""The YAML of a study file: read strictly, with the line of every value, and texts as they are written.

YAML 1.1 keeps the last of two equal keys and reads ``NO`` as false, ``0012`` as 10 and ``1:30`` as 90. In a study such
words are names of compounds, plates and columns. So a key that stands twice is an error, numbers are decimal numbers,
and `Document.as_text` gives back what was written where a text is wanted.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from benchmark.base.errors import Fault, FaultsError, MorphobenchError

#: A study file has a few kilobytes; a file of many megabytes is something else.
MOST_BYTES = 2**20
#: Values after aliases (``*name``) are followed: a few lines of YAML can stand for millions.
MOST_VALUES = 100_000
_LONGEST_NUMBER = 60
EXAMPLE = "See benchmark/studies/demo.yaml."
_STR = "tag:yaml.org,2002:str"
_MERGE = "tag:yaml.org,2002:merge"
#: YAML's name of a kind → what is said of a text that is none; by its tag (``!!int``) any text may claim to be one.
_KINDS = {"int": "is no whole number", "float": "is no number", "bool": "is neither true nor false",
          "timestamp": "is no date", "binary": "is no base64"}
#: YAML's words → what is to be done about it.
_REMEDIES = (
    ("'\\t'", "Indent with blanks: YAML allows no tabs there."),
    ("mapping values are not allowed", "Put a text that holds a colon in quotes, and begin each key on a line of its "
                                       "own, indented as its neighbours are."),
    ("unknown escape character", "In double quotes a backslash has a meaning of its own: use single quotes, or / in "
                                 "paths."),
    ("a number has", "Write numbers as one writes them; put a name of many digits in quotes."),
    *((words, "Correct it, or take away the !! word before it.") for words in _KINDS.values()),
    ("special characters are not allowed", "Remove the invisible character."),
    ("cannot start any token", "Put a text that begins with this character in quotes."),
    ("undefined alias", "Put a text that begins with * in quotes."),
    ("expected a single document", "A file holds one study: remove the line ---."),
    ("could not determine a constructor", "A study holds texts, numbers, lists and keys only: put a text that begins "
                                          "with ! in quotes."),
)
_OTHER = "Check its brackets, quotes and indentation."

Location = tuple[int | str, ...]


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, without numbers in base 8 and 60 and without dates."""

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        """What a node says; PyYAML leaves to Python what of a text with a tag cannot be read."""
        try:
            return super().construct_object(node, deep)
        except (ValueError, KeyError, AttributeError, OverflowError) as error:
            text = str(node.value)
            kind = _KINDS.get(node.tag.rpartition(":")[2], "cannot be read")
            what = f"a number has {len(text)} characters" if len(text) > _LONGEST_NUMBER else f"{text!r} {kind}"
            raise yaml.MarkedYAMLError(problem=what, problem_mark=node.start_mark) from error


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in found if tag.rpartition(":")[2] in ("bool", "null", "merge")]
    for first, found in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver("tag:yaml.org,2002:int", re.compile(r"[-+]?(?:0|[1-9][0-9_]*|0x[0-9a-fA-F_]+)\Z"),
                              list("-+0123456789"))
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?[0-9][0-9_]*\.[0-9_]*(?:[eE][-+][0-9]+)?\Z|\.[0-9][0-9_]*(?:[eE][-+][0-9]+)?\Z"
               r"|[-+]?\.(?:inf|Inf|INF)\Z|\.(?:nan|NaN|NAN)\Z"),
    list("-+0123456789."))


class Document:
    """The YAML of one file.

    Attributes
    ----------
    path : Path
        Of the file.
    """

    def __init__(self, path: Path, root: yaml.Node | None) -> None:
        self.path = path
        self._root = root

    def value(self) -> Any:
        """What the file says, as dictionaries with texts as keys, lists, texts, numbers, truth values and None.

        Raises
        ------
        MorphobenchError
            A value cannot be read.
        """
        loader = _Loader("")
        try:
            for node in _nodes(self._root):
                if isinstance(node, yaml.MappingNode):
                    for key, _ in node.value:
                        if key.tag != _MERGE:
                            key.tag = _STR  # all keys of a study are texts
            return None if self._root is None else loader.construct_document(self._root)
        except yaml.YAMLError as error:
            raise _not_yaml(error, self.path) from error
        except RecursionError as error:
            raise MorphobenchError("has blocks within blocks without end", str(self.path), EXAMPLE) from error

    def line(self, location: Location) -> int:
        """Line (from 1) of a value's key; where there is no such value, that of the block that should hold it."""
        return self._walk(location)[1]

    def as_text(self, location: Location) -> bool:
        """Take a plain value as the text that is written there; False where it is none, or is a text already."""
        node, _ = self._walk(location)
        if not isinstance(node, yaml.ScalarNode) or node.style or node.tag in (_STR, "tag:yaml.org,2002:null"):
            return False
        node.tag = _STR
        return True

    def _walk(self, location: Location) -> tuple[yaml.Node | None, int]:
        """The node at a location and its line; what pydantic puts into one and no file holds (kinds) is passed by."""
        node, line = self._root, 1
        for step in location:
            if isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
                node = node.value[step]
                line = node.start_mark.line + 1
            elif isinstance(node, yaml.MappingNode):
                # Backwards: of keys that were merged (<<) the block's own come last, and win.
                found = next((pair for pair in reversed(node.value) if _text(pair[0]) == step), None)
                if found is not None:
                    line, node = found[0].start_mark.line + 1, found[1]
        return node, line


def read_document(path: Path) -> Document:
    """Read a study file.

    Raises
    ------
    MorphobenchError
        It is no text in UTF-8, is far too large, or is not YAML; the line is named where there is one.
    FaultsError
        A key stands twice in a block; every such key is named with both lines.
    """
    text = _text_of(path)
    loader = None
    try:
        loader = _Loader(text)
        root = loader.get_single_node()
    except yaml.YAMLError as error:
        raise _not_yaml(error, path) from error
    except RecursionError as error:
        raise MorphobenchError("has blocks within blocks without end", str(path), EXAMPLE) from error
    except (ValueError, OverflowError) as error:  # PyYAML on an escape beyond Unicode
        raise MorphobenchError(f"is not valid YAML ({error})", str(path), _OTHER) from error
    finally:
        if loader is not None:
            loader.dispose()
    _refuse_expansion(root, path)
    _refuse_half_characters(root, path)
    faults = list(_doubled(root))
    if faults:
        raise FaultsError(faults, f"The study {path} has {len(faults)} fault(s):")
    return Document(path, root)


def _text_of(path: Path) -> str:
    try:
        size = path.stat().st_size
        if size > MOST_BYTES:
            raise MorphobenchError(f"has {size / 2**20:.0f} MB and is no study: those have a few kB", str(path),
                                   EXAMPLE)
        data = path.read_bytes()
    except OSError as error:
        raise MorphobenchError(f"cannot be read ({error.strerror})", str(path), "Check its name and its permissions."
                               ) from error
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise MorphobenchError("is in UTF-16", str(path), "Save it again in UTF-8.")
    if b"\0" in data:
        line = data.count(b"\n", 0, data.index(b"\0")) + 1
        raise MorphobenchError("is no text file: it holds a NUL character", f"{path}, line {line}",
                               "Save it as plain text in UTF-8.")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise MorphobenchError(f"is not in UTF-8: the byte 0x{data[error.start]:02X} is none of its characters",
                               f"{path}, line {line}", "Save it again in UTF-8.") from error


def _not_yaml(error: yaml.YAMLError, path: Path) -> MorphobenchError:
    mark = getattr(error, "problem_mark", None)
    where, what = str(path), str(getattr(error, "problem", None) or getattr(error, "reason", None) or error)
    if mark is not None:
        where += f", line {mark.line + 1}"
    elif isinstance(error, yaml.reader.ReaderError):
        line = path.read_bytes().decode("utf-8-sig")[:error.position].count("\n") + 1
        what, where = f"the character U+{error.character:04X} is not allowed", f"{path}, line {line}"
        return MorphobenchError(f"is not valid YAML ({what})", where, "Remove it; it may be invisible.")
    if "found character '\\t'" in what:
        what = "a tab stands there"
    remedy = next((words for part, words in _REMEDIES if part in str(error)), _OTHER)
    return MorphobenchError(f"is not valid YAML ({what})", where, remedy)


def _nodes(root: yaml.Node | None) -> Iterator[yaml.Node]:
    """Every node once, keys included, in the order of the file."""
    seen: set[int] = set()
    rest = [] if root is None else [root]
    while rest:
        node = rest.pop()
        if id(node) not in seen:
            seen.add(id(node))
            yield node
            rest += reversed(_children(node))


def _children(node: yaml.Node) -> list[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        return [part for pair in node.value for part in pair]
    return list(node.value) if isinstance(node, yaml.SequenceNode) else []


def _refuse_expansion(root: yaml.Node | None, path: Path) -> None:
    """MorphobenchError where a value holds itself, or aliases stand for more values than any study has."""
    sizes: dict[int, int] = {}
    within: set[int] = set()

    def size(node: yaml.Node) -> int:
        if id(node) in within:
            raise MorphobenchError("a block holds itself by an alias (*)", f"{path}, line {node.start_mark.line + 1}",
                                   "Write out what is meant.")
        if id(node) not in sizes:
            within.add(id(node))
            sizes[id(node)] = 1 + sum(map(size, _children(node)))
            within.discard(id(node))
        return sizes[id(node)]

    try:
        n = 0 if root is None else size(root)
    except RecursionError as error:
        raise MorphobenchError("has blocks within blocks without end", str(path), EXAMPLE) from error
    if n > MOST_VALUES:
        raise MorphobenchError(f"stands for more than {MOST_VALUES} values by its aliases (*)", str(path),
                               "Write out what is meant.")


def _refuse_half_characters(root: yaml.Node | None, path: Path) -> None:
    """MorphobenchError where an escape wrote a lone surrogate, which no file and no terminal can hold."""
    for node in _nodes(root):
        if isinstance(node, yaml.ScalarNode) and re.search("[\ud800-\udfff]", node.value):
            raise MorphobenchError(f"a text holds half a character ({node.value[:40]!a})",
                                   f"{path}, line {node.start_mark.line + 1}",
                                   "Write the character itself in the place of its escape.")


def _text(key: yaml.Node) -> str | None:
    return str(key.value) if isinstance(key, yaml.ScalarNode) else None


def _doubled(root: yaml.Node | None) -> Iterator[Fault]:
    """Keys that stand twice in a block, and keys that are no texts."""
    for node in _nodes(root):
        if not isinstance(node, yaml.MappingNode):
            continue
        lines: dict[str, list[int]] = {}
        for key, _ in node.value:
            if (name := _text(key)) is None:
                yield Fault("a key is a list or a block", f"line {key.start_mark.line + 1}", "Keys are words.")
            else:
                lines.setdefault(name, []).append(key.start_mark.line + 1)
        for name, places in lines.items():
            if len(places) > 1:
                yield Fault(f"the key stands {_times(len(places))}, in lines {_listed(places)}", name,
                            "Leave one of them, or put what belongs together under one.")


def _times(n: int) -> str:
    return "twice" if n == 2 else f"{n} times"


def _listed(numbers: Sequence[int]) -> str:
    return f"{', '.join(map(str, numbers[:-1]))} and {numbers[-1]}"
