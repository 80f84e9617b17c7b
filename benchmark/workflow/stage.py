"""The record of each stage that ran: what it did and how long it took."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmark.base.files import write_json


@contextmanager
def stage(folder: Path, name: str, key: str) -> Iterator[dict[str, Any]]:
    """Time a stage, once. What it cost when it really ran is kept: a rerun that finds it done changes nothing.

    The block may set ``detail`` (a few words for the report). Seconds of a run that was cut off are lost; those of
    the run that finishes count.
    """
    path = folder / "stages" / stage_file(name, key)
    facts: dict[str, Any] = {}
    start = time.perf_counter()
    yield facts
    if not path.exists():
        record = {"stage": name, "key": key, "seconds": round(time.perf_counter() - start, 2),
                  "detail": "", "finished": datetime.now(UTC).isoformat(timespec="seconds"), **facts}
        write_json(path, record)


def stage_file(name: str, key: str) -> str:
    """File name of a stage's record."""
    return f"{name.replace(' ', '-')}-{key}.json"
