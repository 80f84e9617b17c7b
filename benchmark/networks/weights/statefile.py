"""Reading a weights file without ever running code from it."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError  # the name of what torch raises; nothing is unpickled here

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from benchmark.base.errors import MorphobenchError
from benchmark.base.machine import blaming_machine, trouble_of

#: Types of numbers that a network's tensors have; whole numbers are counters.
DTYPES = frozenset({torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.int32, torch.int64, torch.bool})


def read_state(path: Path) -> dict[str, Tensor]:
    """Read a state dict: safetensors, or PyTorch's format with weights only.

    Raises
    ------
    MachineError
        Its disk fails, or it may not be read.
    MorphobenchError
        The file cannot be read, is of another kind, or holds anything but tensors.
    """
    with blaming_machine(path):
        _refuse_other_kinds(path)
    try:
        if path.suffix == ".safetensors":
            return _plain(load_file(path), path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        raise MorphobenchError("holds more than tensors, so it is not loaded", str(path),
                               "Save the plain state dict, or better safetensors.") from error
    except (SafetensorError, RuntimeError, OSError, EOFError, ValueError, KeyError) as error:
        if trouble := trouble_of(error, path):
            raise trouble from error
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise MorphobenchError(f"is no readable weights file ({first[:90]})", str(path),
                               "It may be cut off or damaged: fetch it again.") from error
    for wrapped in ("state_dict", "model"):
        if isinstance(state, Mapping) and isinstance(state.get(wrapped), Mapping):
            state = state[wrapped]
    if not isinstance(state, Mapping) or not all(isinstance(v, Tensor) for v in state.values()):
        raise MorphobenchError("is not a state dict of tensors", str(path), "Save model.state_dict().")
    return _plain({str(k).removeprefix("module."): v for k, v in state.items()}, path)


def _refuse_other_kinds(path: Path) -> None:
    """Refuse texts, which stand where a download failed, and compressed archives, which may unpack to anything."""
    with path.open("rb") as handle:
        start = handle.read(512)
    if start.startswith(b"version https://git-lfs"):
        raise MorphobenchError("is a pointer of Git LFS and not the weights", str(path), "Run `git lfs pull` there.")
    if not start or (start.isascii() and start.decode("ascii").replace("\n", "").replace("\r", "").replace(
            "\t", "").isprintable()):
        raise MorphobenchError("is empty" if not start else "is a text, not a weights file", str(path),
                               "Fetch it again, and look whether the download failed.")
    if start.startswith(b"PK"):
        try:
            with zipfile.ZipFile(path) as archive:
                packed = any(member.compress_type != zipfile.ZIP_STORED for member in archive.infolist())
        except (zipfile.BadZipFile, ValueError, NotImplementedError):
            return  # PyTorch says what is wrong
        if packed:  # PyTorch stores tensors as they are
            raise MorphobenchError("is a compressed archive, not a weights file", str(path),
                                   "Unpack it, and give the file in it.")


def _plain(state: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    """The same tensors; refused where one is none that weights are made of (sparse, quantised, complex, without data).

    PyTorch would convert some of them with a warning at most: complex numbers lose their imaginary part.
    """
    for name, tensor in state.items():
        odd = ("without data" if tensor.is_meta else "quantised" if tensor.is_quantized
               else f"stored as {tensor.layout}" if tensor.layout != torch.strided
               else f"of {tensor.dtype}" if tensor.dtype not in DTYPES else "")
        if odd:
            raise MorphobenchError(f"holds a tensor that is {odd.replace('torch.', '')} ({name})", str(path),
                                   "Save the weights as float32 or float16.")
    return state
