"""What is wrong with a study file, in its own words: the key as it is written, and what is allowed there."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from reprlib import Repr
from typing import Any

from pydantic import ValidationError

from benchmark.assays.registry import ASSAYS
from benchmark.base.errors import Fault
from benchmark.methods.registry import METHODS

#: One of pydantic's errors, and the JSON schema of the settings.
Error = dict[str, Any]
Schema = dict[str, Any]
#: How values are shown in part: the whole of a list may be much too long.
_SHORT = Repr()


def faults_of(error: ValidationError, schema: Schema) -> list[Fault]:
    """Every fault of a study file, each cause once.

    Parameters
    ----------
    schema : dict
        JSON schema of the study, for the keys that are allowed.
    """
    errors = [dict(e) for e in error.errors()]
    return [_fault(e, schema) for e in errors if not _follows(e, errors)]


def _fault(error: Error, schema: Schema) -> Fault:
    """One of pydantic's errors in the words of a study file: the key as it is written, and what is allowed."""
    location = [str(p) for p in error["loc"]]
    key = ".".join(_written(location))
    kind, context = error["type"], error.get("ctx", {})
    if kind == "extra_forbidden":
        allowed = _allowed_keys(error["loc"], schema)
        close = get_close_matches(location[-1], allowed, 1)
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
    return Fault(f"{error['msg'].removeprefix('Value error, ')} (given: {_shown(error['input'])})", key)


def _shown(value: object) -> str:
    """A value as a message gives it; text in quotes, whatever is in a list only as far as it is shown."""
    return repr(value[:60]) if isinstance(value, str) else repr(_SHORT.repr(value)[:60])


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
