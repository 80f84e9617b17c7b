"""What differs on a GPU: names, memory, precision, copies ahead of use, replayed steps. No other module asks."""

from __future__ import annotations

import gc
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import psutil
import torch
from torch import Tensor

from benchmark.base.devices import refuse_unknown_device
from benchmark.base.errors import MorphobenchError


def resolve_device(device: str) -> torch.device:
    """``auto`` is a CUDA GPU if there is one, else the CPU; else ``cpu``, ``cuda`` or ``cuda:1``.

    Raises
    ------
    MorphobenchError
        It is none of these, or there is no such GPU.
    """
    refuse_unknown_device(device)
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    chosen = torch.device(device)
    if chosen.type == "cuda" and not torch.cuda.is_available():
        raise MorphobenchError("PyTorch finds no CUDA GPU here", f"device {device}", "Use DEVICE=cpu, or auto.")
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        raise MorphobenchError(f"there are {torch.cuda.device_count()} GPUs here, counted from 0", f"device {device}",
                               "Use DEVICE=cuda, or a smaller number.")
    return chosen


def device_name(device: torch.device) -> str:
    """What a record calls the device: the GPU's product name, or ``cpu``."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


@contextmanager
def gpu_peak(device: torch.device, facts: dict[str, Any]) -> Iterator[None]:
    """Put the most GPU memory (MiB) that the block held into ``facts``, without folds before it in this process."""
    if device.type != "cuda":
        yield
        return
    torch.cuda.init()  # PyTorch refuses to reset what has not begun
    torch.cuda.reset_peak_memory_stats(device)
    yield
    facts["peak_gpu_mib"] = round(torch.cuda.max_memory_allocated(device) / 2**20)


def free_memory(device: torch.device) -> int:
    """Bytes that may still be asked for on a device; on a CPU of main memory."""
    if device.type != "cuda":
        return psutil.virtual_memory().available
    # What PyTorch holds in reserve and does not use is free to us as well.
    unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return torch.cuda.mem_get_info(device)[0] + unused


def give_back_memory(device: torch.device) -> None:
    """After a failed allocation: free what is no longer referenced."""
    gc.collect()  # an exception's frames refer to each other
    if device.type == "cuda":
        torch.cuda.empty_cache()


def autocast(device: torch.device, bfloat16: bool) -> AbstractContextManager[Any]:
    """Mixed precision in bfloat16: always on CUDA, on a CPU where it is asked for."""
    # Casts are not kept over steps: within a captured graph (`Graphed`) a kept one would be stale on replay.
    return torch.autocast(device.type, torch.bfloat16, enabled=bfloat16 or device.type == "cuda",
                          cache_enabled=not _capturing(device))


def _capturing(device: torch.device) -> bool:
    return device.type == "cuda" and torch.cuda.is_current_stream_capturing()


def moved(values: Tensor, device: torch.device) -> Tensor:
    """``values`` on ``device``; to a GPU from pinned memory, so that the CPU does not wait for the copy."""
    if device.type == "cuda" and values.device.type == "cpu":
        return values.pin_memory().to(device, non_blocking=True)
    return values.to(device)


def copied_ahead(
    pixels: Tensor, parts: Sequence[Tensor], device: torch.device
) -> Generator[Tensor, None, None]:
    """Batches of crops from pinned memory; the next one is copied by its own stream while this one is computed on.

    Parameters
    ----------
    pixels : Tensor
        (N, C, S, S) in pinned memory.
    parts : sequence of Tensor
        Row numbers of each batch, on the CPU.
    """
    side = torch.cuda.Stream(device)

    def copy(rows: Tensor) -> Tensor:
        with torch.cuda.stream(side):
            out = torch.empty((len(rows), *pixels.shape[1:]), dtype=pixels.dtype, device=device)
            for into, row in zip(out, rows.tolist(), strict=True):
                into.copy_(pixels[row], non_blocking=True)
        return out

    pending = copy(parts[0]) if parts else None
    for following in [*parts[1:], None]:
        now = torch.cuda.current_stream(device)
        now.wait_stream(side)
        ready = pending
        assert ready is not None
        ready.record_stream(now)  # its memory is not reused before the work on it is done
        pending = None if following is None else copy(following)
        yield ready


def optimiser_options(device: torch.device, graphs: bool, rate: float) -> dict[str, Any]:
    """How an optimiser is made on a device: one kernel for all parameters on CUDA, its rate a tensor for graphs."""
    if device.type != "cuda":
        return {"lr": rate}
    return {"lr": torch.tensor(rate, device=device) if graphs else rate, "fused": True}


def set_rate(group: dict[str, Any], rate: float) -> None:
    """Set the learning rate of an optimiser's group, in place where it is a tensor that a captured graph reads."""
    if isinstance(group["lr"], Tensor):
        group["lr"].fill_(rate)
    else:
        group["lr"] = rate


class Graphed:
    """A function of tensors, replayed as a CUDA graph: no time is lost in starting its kernels one by one.

    The first calls of each batch size run as they are (PyTorch and its libraries set themselves up in them), the next
    is captured. The function must do the same at every call but for the values of its inputs.

    Parameters
    ----------
    function : callable
        Of tensors with the batch in front (or None, always the same ones), giving one tensor.
    """

    WARM_UP = 3

    def __init__(self, function: Callable[..., Tensor], device: torch.device) -> None:
        self._function, self._device = function, device
        self._calls: dict[int, int] = {}
        self._graphs: dict[int, tuple[Any, list[Tensor | None], Tensor]] = {}

    def __call__(self, *inputs: Tensor | None) -> Tensor:
        assert inputs[0] is not None
        size = len(inputs[0])
        self._calls[size] = self._calls.get(size, 0) + 1
        if self._calls[size] <= self.WARM_UP:
            return self._warm(inputs)
        if size not in self._graphs:
            self._graphs[size] = self._captured(inputs)
        graph, held, out = self._graphs[size]
        for into, value in zip(held, inputs, strict=True):
            if into is not None and value is not None:
                into.copy_(value)
        graph.replay()
        return out

    def _warm(self, inputs: tuple[Tensor | None, ...]) -> Tensor:
        """A plain call on a stream of its own, as capturing asks for."""
        side, now = torch.cuda.Stream(self._device), torch.cuda.current_stream(self._device)
        side.wait_stream(now)
        with torch.cuda.stream(side):
            out = self._function(*inputs)
        now.wait_stream(side)
        out.record_stream(now)
        for tensor in inputs:
            if tensor is not None:
                tensor.record_stream(side)
        return out

    def _captured(self, inputs: tuple[Tensor | None, ...]) -> tuple[Any, list[Tensor | None], Tensor]:
        held = [None if value is None else value.clone() for value in inputs]
        graph = torch.cuda.CUDAGraph()
        # Capturing runs nothing: the caller replays. Only this thread is watched: another may be reading crops.
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            out = self._function(*held)
        return graph, held, out
