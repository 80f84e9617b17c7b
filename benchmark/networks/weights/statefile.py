"""Reading a weights file without ever running code from it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError  # the name of what torch raises; nothing is unpickled here

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from benchmark.base.errors import MorphobenchError


def read_state(path: Path) -> dict[str, Tensor]:
    """Read a state dict: safetensors, or PyTorch's format with weights only.

    Raises
    ------
    MorphobenchError
        The file cannot be read, or holds anything but tensors.
    """
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        raise MorphobenchError("holds more than tensors, so it is not loaded", str(path),
                               "Save the plain state dict, or better safetensors.") from error
    except (SafetensorError, RuntimeError, OSError, EOFError, ValueError, KeyError) as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise MorphobenchError(f"is no readable weights file ({first})", str(path)) from error
    for wrapped in ("state_dict", "model"):
        if isinstance(state, Mapping) and isinstance(state.get(wrapped), Mapping):
            state = state[wrapped]
    if not isinstance(state, Mapping) or not all(isinstance(v, Tensor) for v in state.values()):
        raise MorphobenchError("is not a state dict of tensors", str(path))
    return {str(k).removeprefix("module."): v for k, v in state.items()}
