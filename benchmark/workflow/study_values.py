"""Values that YAML can hold and no study can use: a bomb of aliases, a list within itself, half a character."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from benchmark.base.errors import MorphobenchError

#: What reading YAML raises on bad text. PyYAML leaves to Python what numbers, dates and nested lists cannot be.
NOT_YAML = (yaml.YAMLError, ValueError, KeyError, AttributeError, RecursionError)
#: Values and levels that a study has at most; the largest here has some 300 on 7 levels.
MOST_VALUES, DEEPEST = 100_000, 50


def refuse_unusable(raw: Any, path: Path) -> None:
    """Refuse a document that is not what it seems when its aliases (``*name``) are followed.

    Raises
    ------
    MorphobenchError
        It has more than `MOST_VALUES` values or `DEEPEST` levels, or text that is no Unicode.
    """
    left = MOST_VALUES
    waiting: list[tuple[Any, int]] = [(raw, 1)]
    while waiting:
        value, level = waiting.pop()
        left -= 1
        if left < 0 or level > DEEPEST:
            much = f"{MOST_VALUES} values" if left < 0 else f"{DEEPEST} levels"
            raise MorphobenchError(f"holds more than {much}, aliases (*name) followed", str(path),
                                   "No study is that large: write it without aliases.")
        if isinstance(value, dict):
            waiting += [(part, level + 1) for item in value.items() for part in item]
        elif isinstance(value, (list, tuple, set)):
            waiting += [(part, level + 1) for part in value]
        elif isinstance(value, str):
            _refuse_half_characters(value, path)


def _refuse_half_characters(text: str, path: Path) -> None:
    """A lone surrogate, which an escape can write and no file can hold."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise MorphobenchError(f"holds text that is no Unicode ({text[:40]!a})", str(path),
                               "Write the character itself in the place of its escape.") from error
