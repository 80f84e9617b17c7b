"""The state of a training, on disk after each epoch, so that a killed training resumes."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from pickle import UnpicklingError  # the name of what torch raises; nothing is unpickled here
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmark.base.files import digest, whole


@dataclass(frozen=True)
class Checkpoint:
    """A file beside the result of a training.

    Attributes
    ----------
    path : Path
    key : str
        Hash of all that the training depends on: no training resumes from a file with another key.
    """

    path: Path
    key: str

    def narrowed(self, *parts: Any) -> Checkpoint:
        """The same, its key made of more that the training depends on."""
        return replace(self, key=digest([self.key, *parts], 64))

    def save(self, state: dict[str, Any]) -> None:
        """Write tensors, numbers and lists of them, whole or not at all."""
        with whole(self.path) as tmp:
            torch.save({"key": self.key, "state": state}, tmp)

    def load(self, device: torch.device) -> dict[str, Any] | None:
        """What was saved under this key, tensors on ``device``; None where there is nothing, or nothing usable.

        Only tensors and plain values are read: no code of the file is ever run.
        """
        if not self.path.exists():
            return None
        try:
            content = torch.load(self.path, map_location=device, weights_only=True)
        except (UnpicklingError, RuntimeError, OSError, EOFError, ValueError, KeyError):
            return None  # damaged: it can be made again
        if not isinstance(content, dict) or content.get("key") != self.key:
            return None
        return dict(content["state"])

    def remove(self) -> None:
        """Remove the file, and what a killed process left of one."""
        for path in (self.path, *self.path.parent.glob(f".{self.path.name}.*.tmp*")):
            path.unlink(missing_ok=True)


def array_hashes(*arrays: np.ndarray) -> list[str]:
    """SHA-256 of the values of arrays, for the key of a training."""
    return [hashlib.sha256(np.ascontiguousarray(a).tobytes()).hexdigest() for a in arrays]


def on_cpu(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A copy of a state dict, on the CPU."""
    return {name: tensor.detach().cpu().clone() for name, tensor in state.items()}
