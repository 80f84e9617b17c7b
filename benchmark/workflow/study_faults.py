"""What is wrong with a study file, in its own words: the key as it is written, and what is allowed there."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from pydantic import BaseModel, ValidationError

from benchmark.assays.registry import ASSAYS
from benchmark.base.errors import Fault
from benchmark.methods.registry import METHODS

#: One of pydantic's errors, and the JSON schema of the settings.
Error = dict[str, Any]
Schema = dict[str, Any]
Location = tuple[int | str, ...]
#: Pydantic's type of an error → what is wanted, in the words of a study file.
_WANTED = {
    "string_type": "a text is wanted here", "list_type": "a list is wanted here: [a, b]",
    "tuple_type": "a list is wanted here: [a, b]", "dict_type": "a block of keys with values is wanted here",
    "model_type": "a block of keys with values is wanted here", "int_type": "a whole number is wanted here",
    "int_parsing": "a whole number is wanted here", "int_from_float": "a whole number is wanted here",
    "int_parsing_size": "the number is too large", "float_type": "a number is wanted here",
    "float_parsing": "a number is wanted here", "bool_type": "true or false is wanted here",
    "bool_parsing": "true or false is wanted here", "finite_number": "a finite number is wanted here",
}
#: A pattern of the settings → the same in words.
_IN_WORDS = {
    r"^[a-z0-9][a-z0-9-]*$": "lower-case letters, digits and hyphens are wanted here",
    r"^[a-z][a-z0-9_]*$": "lower-case letters, digits and underscores are wanted here, a letter first",
}
_NOTHING = "Give a value, or take the key out; put the word null in quotes where it is a name."


def faults_of(error: ValidationError, schema: Schema, line: Callable[[Location], int]) -> list[Fault]:
    """Every fault of a study file, each cause once, with its line.

    Parameters
    ----------
    schema : dict
        JSON schema of the study, for the keys that are allowed.
    line : callable
        Location → line of the file.
    """
    errors: list[Error] = [dict(e) for e in error.errors()]
    faults = ((_fault(e, schema), line(e["loc"])) for e in errors if not _follows(e, errors))
    placed = [Fault(f.what, f"line {at}, {f.where}" if f.where else "", f.remedy) for f, at in faults]
    return list(dict.fromkeys(placed))


def read_as_other(error: ValidationError) -> list[Location]:
    """Where a text is wanted, or one of some words, and YAML made something else of what is written."""
    return [e["loc"] for e in error.errors() if e["type"] in ("string_type", "literal_error", "enum")
            and not isinstance(e["input"], (str, dict, list, type(None)))]


def truths_as_numbers(raw: Any, value: Any, place: Location = ()) -> Iterator[Location]:
    """Where a file says true or false (yes, no, on, off) and pydantic took it for 1 or 0."""
    if isinstance(raw, bool):
        if not isinstance(value, (bool, str)):
            yield place
    elif isinstance(raw, Mapping):
        for key, part in raw.items():
            own = getattr(value, key, None) if isinstance(value, BaseModel) else (
                value.get(key) if isinstance(value, Mapping) else None)
            if own is not None:
                yield from truths_as_numbers(part, own, (*place, key))
    elif isinstance(raw, list) and isinstance(value, Sequence):
        for i, (part, own) in enumerate(zip(raw, value, strict=False)):
            yield from truths_as_numbers(part, own, (*place, i))


def _fault(error: Error, schema: Schema) -> Fault:
    """One of pydantic's errors in the words of a study file: the key as it is written, and what is allowed."""
    location = [str(p) for p in error["loc"]]
    key = ".".join(_shown(part) for part in _written(location))
    kind, context = error["type"], error.get("ctx", {})
    if kind == "extra_forbidden":
        allowed = _allowed_keys(error["loc"], schema)
        close = get_close_matches(location[-1].strip().lower(), allowed, 1)
        hint = f"Did you mean {close[0]}? " if close else ""
        return Fault("there is no such key", key, f"{hint}Allowed: {', '.join(allowed)}." if allowed else hint)
    if kind == "missing":
        return Fault("is missing", key)
    if kind in ("union_tag_invalid", "union_tag_not_found"):
        expected = context.get("expected_tags", "see the README")
        given = f"{context['tag']!r} is no kind" if "tag" in context else "lacks the key `kind`"
        return Fault(given, f"{key}.kind", f"Allowed: {expected}.")
    if kind == "literal_error":
        return Fault(f"{error['input']!r} is not allowed", key, f"Allowed: {context.get('expected', '')}.")
    given, remedy = repr(error["input"]), ""
    if error["input"] is None:
        given, remedy = "nothing", _NOTHING
    what = _WANTED.get(kind) or _IN_WORDS.get(context.get("pattern", ""), error["msg"].removeprefix("Value error, "))
    if kind == "value_error" and isinstance(error["input"], dict):  # of a whole block: the words name what they mean
        return Fault(what, key)
    return Fault(f"{what} (given: {given if len(given) <= 60 else given[:60] + '…'})", key, remedy)


def _shown(part: str) -> str:
    """A key as messages show it: what cannot be seen on a screen is spelt out."""
    return part if part.isprintable() and part.strip() == part else ascii(part)


def _written(location: list[str]) -> list[str]:
    """A location without what pydantic puts in and no user wrote: the kind that was chosen, and names of types."""
    tag = {"assay": 1, "methods": 2}.get(location[0], 0) if location else 0
    tags = {1: set(ASSAYS.kinds()), 2: set(METHODS.kinds())}
    parts = [p for i, p in enumerate(location) if not (tag and i == tag and p in tags[tag])]
    branch = len(parts) > 2 and parts[1] == "columns"  # assay.columns.<key> is a string or a rule
    return [p for i, p in enumerate(parts) if not (branch and i == 3 and (p in ("str", "[key]") or "[" in p))]


def _follows(error: Error, errors: Sequence[Error]) -> bool:
    """Whether an error only follows from another: a list found too short since items are wrong, a rule no string."""
    loc = error["loc"]
    if error["type"] == "too_short":
        return any(len(e["loc"]) > len(loc) and e["loc"][:len(loc)] == loc for e in errors)
    return error["type"] == "string_type" and loc[-1] == "str" and isinstance(error["input"], dict)


def _allowed_keys(location: tuple[int | str, ...], schema: Schema) -> list[str]:
    """Keys that the block around a location knows, found by walking the settings' own schema."""
    node: dict[str, Any] = schema

    def resolve(part: dict[str, Any]) -> dict[str, Any]:
        while "$ref" in part or "allOf" in part:
            part = schema["$defs"][part["$ref"].split("/")[-1]] if "$ref" in part else part["allOf"][0]
        return part

    for step in location[:-1]:
        node = resolve(node)
        mapping = node.get("discriminator", {}).get("mapping", {})
        if isinstance(step, int):
            node = node.get("items", {})
        elif step in mapping:
            node = {"$ref": mapping[step]}
        elif step in node.get("properties", {}):
            node = node["properties"][step]
        elif isinstance(node.get("additionalProperties"), dict):
            node = node["additionalProperties"]
        else:
            return []
    return sorted(resolve(node).get("properties", {}))
