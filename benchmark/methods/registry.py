"""Every kind of method, and how methods of a study build on one another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from benchmark.base.registry import Registry
from benchmark.methods.base import Method

if TYPE_CHECKING:
    from benchmark.methods.context import Context

#: Every kind of method.
METHODS: Registry[Method] = Registry("method", "benchmark.methods.kinds")


def parts_of(methods: Sequence[Method], method: Method) -> list[Method]:
    """The methods that a method builds on, in its own order."""
    by_name = {m.name: m for m in methods}
    return [by_name[name] for name in method.builds_on]


def refuse_unfit_parts(methods: Sequence[Method]) -> None:
    """ValueError where a method builds on one that is not there or does not suit it; the key is named."""
    by_name = {m.name: m for m in methods}
    for method in methods:
        key = f"{method.name}.{method.builds_on_key}"
        for name in method.builds_on:
            part = by_name.get(name)
            if part is None:
                raise ValueError(f"{key}: the study has no method {name!r}; it has {', '.join(by_name)}")
            wrong = method.why_not_part(part)
            if wrong:
                raise ValueError(f"{key}: {name} {wrong}")


def all_estimated(methods: Sequence[Method], method: Method, context: Context) -> list[str]:
    """What a method, and those it builds on, estimate from test wells without their labels; each once."""
    parts = [text for part in parts_of(methods, method) for text in all_estimated(methods, part, context)]
    pixels = method.corrected_pixels(context)
    return list(dict.fromkeys([*parts, *([pixels] if pixels else []), *method.estimated()]))


def kinds_that(fact: str) -> str:
    """Names of the kinds of which a class fact (``fusable``, ``embeds``, ``explainable``) holds, for messages."""
    names = [kind for kind, cls in METHODS.kinds().items() if getattr(cls, fact)]
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
