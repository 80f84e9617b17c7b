"""Names of devices, looked at without PyTorch, which takes seconds to load."""

from __future__ import annotations

import re

from benchmark.base.errors import MorphobenchError

_KNOWN = re.compile(r"auto|cpu|cuda(:\d{1,2})?")


def refuse_unknown_device(device: str) -> None:
    """MorphobenchError where a device is not one that networks run on; PyTorch knows the names of more."""
    if not _KNOWN.fullmatch(device):
        raise MorphobenchError(f"{device!r} is no device", "DEVICE", "Use auto, cpu or cuda.")
