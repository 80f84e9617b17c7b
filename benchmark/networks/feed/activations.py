"""Activations at the freezing point of a network, computed once for each crop and view and shared by all folds.

Everything below that point is the same in every fold. Nothing is fitted here: no label is seen, and a crop's
activations depend on that crop alone.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from torch import Tensor

from benchmark.base.errors import MorphobenchError
from benchmark.base.files import whole
from benchmark.base.hdf5 import reading, writing
from benchmark.base.machine import blaming_machine, trouble_of
from benchmark.networks.device import autocast
from benchmark.networks.feed.augment import dihedral, scaled
from benchmark.networks.feed.cutting import Cut, cut
from benchmark.networks.feed.held import Held, in_order
from benchmark.networks.feed.source import CropSource, sizes_of
from benchmark.networks.settings import NetworkSettings, TrainingSettings
from benchmark.networks.training.start import views_of
from benchmark.networks.training.step import in_halves, normalised, on_device
from benchmark.networks.weights.weights import Backbone, load_backbone

#: Share of a disk's free space that activations may take.
DISK_SHARE = 0.5
BATCH = 64
AGAIN = "Delete it and run again."


@dataclass(eq=False)
class Activations:
    """Stored activations of N crops in V views.

    A `CropSource` of its own, whose row ``crop * views + view`` is one view of one crop.

    Attributes
    ----------
    path : Path
    key : str
        Hash of what they depend on.
    crops : (int, int, int)
        Channels, height and width of the crops that they are of.
    views : int
        8, see `benchmark.networks.feed.augment.dihedral`; or 1, crops as they are.
    shape : tuple of int
        Of the activations of one view of one crop.
    held : Held or None
        All of them in memory.
    """

    path: Path
    key: str
    crops: tuple[int, int, int]
    views: int
    shape: Any
    held: Held | None = field(default=None, repr=False)
    dtype: np.dtype[Any] = field(default_factory=lambda: np.dtype(np.float32), init=False)
    _open: h5py.File | None = field(default=None, repr=False)

    @property
    def rows(self) -> CropSource:
        """Where rows are read from."""
        return self if self.held is None else self.held

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": None}

    def batch(self, rows: np.ndarray) -> np.ndarray:
        """The rows asked for, in their order: (n, …) float32.

        Raises
        ------
        MorphobenchError
            The file is damaged: each view has a checksum.
        """
        if self._open is None:
            with blaming_machine(self.path):
                self._open = reading(self.path)
        stored = self._open["activations"]
        out = np.empty((len(rows), *self.shape), np.float32)
        try:
            for i in np.argsort(rows, kind="stable").tolist():  # in the order of the file
                stored.read_direct(out, np.s_[int(rows[i])], np.s_[i])
        except OSError as error:
            if trouble := trouble_of(error, self.path):
                raise trouble from error
            raise MorphobenchError(f"holds damaged activations ({error})", str(self.path), AGAIN) from error
        return out


def store_activations(
    path: Path, key: str, source: CropSource, count: int, network: NetworkSettings, settings: TrainingSettings,
    device: torch.device, on_batch: Callable[[], None] = lambda: None,
) -> str:
    """Compute the activations of all crops of a source, once, and write them whole.

    Parameters
    ----------
    count : int
        Crops of the source.
    on_batch : callable
        Called after each `BATCH` crops.

    Returns
    -------
    str
        Why none were written; empty where they were.
    """
    if path.exists():
        return ""
    backbone = on_device(load_backbone(network, source.shape[0], 2), device)
    halves = cut(backbone, settings.learn, source.shape)
    if halves is None:
        return f"{network.summary} cannot be cut where learning begins ({settings.learn})"
    views, bfloat16 = views_of(settings), settings.bfloat16 is True
    one = np.zeros(1, np.int64)
    shape = _below(backbone, halves, scaled(next(in_order(source, one, [1], device))), bfloat16).shape[1:]
    size = 4 * count * views * int(np.prod(shape))
    path.parent.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(path.parent).free
    if size > DISK_SHARE * free:
        return f"{size / 2**30:.1f} GiB of activations are too many for the {free / 2**30:.1f} GiB free on the disk"
    with blaming_machine(path.parent), whole(path) as tmp, writing(tmp) as file:
        stored = file.create_dataset("activations", (count * views, *shape), "f4", chunks=(1, *shape), fletcher32=True)
        file.attrs.update({"key": key, "crops": source.shape, "views": views})
        start = 0
        with closing(in_order(source, np.arange(count), sizes_of(count, BATCH), device)) as read:
            for pixels in read:
                part = scaled(pixels)
                each = [_below(backbone, halves, dihedral(part, view), bfloat16) for view in range(views)]
                stop = start + len(part)
                stored[start * views : stop * views] = torch.stack(each, 1).flatten(0, 1).cpu().numpy()
                on_batch()
                start = stop
    return ""


@torch.inference_mode()
def _below(backbone: Backbone, halves: Cut, pixels: Tensor, bfloat16: bool) -> Tensor:
    backbone.model.eval()

    def run(part: Tensor) -> Tensor:
        inputs = normalised(backbone, part).contiguous(memory_format=torch.channels_last)
        with autocast(part.device, bfloat16):
            return halves.below(inputs).float()

    return in_halves(run, pixels)


def open_activations(path: Path, key: str) -> Activations:
    """Open what `store_activations` wrote.

    Raises
    ------
    MorphobenchError
        The file is missing, not such a file, or of something else.
    """
    try:
        with reading(path) as file:
            stored, attributes = file["activations"], dict(file.attrs)
            if attributes["key"] != key:
                raise MorphobenchError("holds activations of other crops or another network", str(path), AGAIN)
            c, height, width = (int(v) for v in attributes["crops"])
            return Activations(path, key, (c, height, width), int(attributes["views"]), tuple(stored.shape[1:]))
    except (OSError, KeyError, ValueError) as error:
        if trouble := trouble_of(error, path):
            raise trouble from error
        raise MorphobenchError(f"is not a file of activations ({error})", str(path), AGAIN) from error


def above_of(backbone: Backbone, learn: str, shape: tuple[int, int, int]) -> Backbone:
    """The part of a network that takes stored activations, sharing its tensors.

    Raises
    ------
    MorphobenchError
        This network cannot be cut there.
    """
    halves = cut(backbone, learn, shape)
    if halves is None:
        raise MorphobenchError("cannot be cut where learning begins", f"learn: {learn}")
    return halves.above
