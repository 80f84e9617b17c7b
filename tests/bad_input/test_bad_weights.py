"""Bad weights files: never run, never loaded in part, and said with what to do."""

from __future__ import annotations

import json
import os
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from bad_input import Case, each, reader_refuses
from safetensors.torch import save_file

from benchmark.networks.settings import NetworkSettings
from benchmark.networks.weights.weights import load_backbone

SMALL = "test_efficientnet.r160_in1k"
STATE = timm.create_model(SMALL).state_dict()
FIRST = "bn1.weight"


class Evil:
    """Would make a folder when unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = str(target)

    def __reduce__(self):
        return os.mkdir, (self.target,)


def weights(write: Callable[[Path], Any], name: str = "w.pth"):
    """Draws a weights file."""
    def draw(folder: Path) -> Path:
        write(folder / name)
        return folder / name
    return draw


def saved(value: Any):
    return weights(lambda path: torch.save(value, path))


def with_first(change: Callable[[torch.Tensor], torch.Tensor]):
    """The network's own weights with one tensor changed."""
    return saved({**STATE, FIRST: change(STATE[FIRST])})


def raw(content: bytes, name: str = "w.pth"):
    return weights(lambda path: path.write_bytes(content), name)


def safetensors(header: bytes | dict[str, Any], data: bytes = b"0000"):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return raw(struct.pack("<Q", len(text)) + text + data, "w.safetensors")


def cut_off(keep: int):
    def write(path: Path) -> None:
        torch.save(STATE, path)
        path.write_bytes(path.read_bytes()[:keep])
    return weights(write)


AGAIN = "It may be cut off or damaged: fetch it again"
DOWNLOAD = "Fetch it again, and look whether the download failed"
PLAIN = "Save the plain state dict, or better safetensors"
CASES = [
    Case("empty", raw(b""), rf"w\.pth: is empty\. {DOWNLOAD}"),
    Case("empty safetensors", raw(b"", "w.safetensors"), rf"w\.safetensors: is empty\. {DOWNLOAD}"),
    Case("text", raw(b"hello"), rf"w\.pth: is a text, not a weights file\. {DOWNLOAD}"),
    Case("cut off early", cut_off(100), f"is no readable weights file.*{AGAIN}"),
    Case("cut off late", cut_off(20_000), f"is no readable weights file.*{AGAIN}"),
    Case("a pointer of Git LFS", raw(b"version https://git-lfs.github.com/spec/v1\nsize 1\n", "w.safetensors"),
         "is a pointer of Git LFS and not the weights. Run `git lfs pull`"),
    Case("another zip", weights(lambda path: zipfile.ZipFile(path, "w").writestr("a", "b")), f"no readable.*{AGAIN}"),
    Case("code", weights(lambda path: torch.save({"x": Evil(path.parent / "owned")}, path)),
         f"holds more than tensors, so it is not loaded. {PLAIN}"),
    Case("code in a bare pickle", weights(lambda path: path.write_bytes(pickle.dumps(Evil(path.parent / "owned")))),
         f"holds more than tensors, so it is not loaded. {PLAIN}"),
    Case("a pickle that asks for a terabyte", raw(b"\x80\x02c__builtin__\nbytearray\n(I1000000000000\ntR."),
         "holds more than tensors"),
    Case("NumPy objects", weights(lambda path: np.array([{}], object).dump(path)), "holds more than tensors"),
    Case("a whole model", weights(lambda path: torch.save(timm.create_model(SMALL), path)),
         f"more than tensors.*{PLAIN}"),
    Case("a list", saved([1, 2]), r"is not a state dict of tensors. Save model\.state_dict"),
    Case("numbers", saved({"a": 3}), r"is not a state dict of tensors. Save model\.state_dict"),
    Case("no tensor", saved({}), "holds nothing of test_efficientnet: 0 tensors.*network.backbone"),
    Case("tensors of another network", saved({"a": torch.zeros(1)}), "holds nothing of .*unknown 1 .*network.backbone"),
    Case("a header of 2^62 bytes", raw(struct.pack("<Q", 2**62) + b"{}", "w.safetensors"), f"no readable.*{AGAIN}"),
    Case("a header that is no JSON", safetensors(b"{nope"), f"no readable weights file.*{AGAIN}"),
    Case("a tensor of 2^40 numbers in 4 bytes", safetensors({"a": {"dtype": "F32", "shape": [2**40],
                                                                  "data_offsets": [0, 4]}}), f"no readable.*{AGAIN}"),
    Case("a tensor of -1 numbers", safetensors({"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}),
         f"no readable.*{AGAIN}"),
    Case("NaN", with_first(lambda t: t * torch.nan), rf"not finite 1 \({FIRST}\)"),
    Case("infinity", with_first(lambda t: t + torch.inf), rf"not finite 1 \({FIRST}\)"),
    Case("complex numbers", with_first(lambda t: t.to(torch.complex64)), rf"of complex64 \({FIRST}\).*as float32"),
    Case("8-bit floats", with_first(lambda t: t.to(torch.float8_e4m3fn)), rf"of float8_e4m3fn \({FIRST}\).*as float32"),
    Case("8-bit whole numbers", saved({k: v.to(torch.int8) for k, v in STATE.items()}), "of int8 .*as float32"),
    Case("a sparse tensor", with_first(torch.Tensor.to_sparse), rf"stored as sparse_coo \({FIRST}\).*as float32"),
    Case("a quantised tensor", with_first(lambda t: torch.quantize_per_tensor(t, 0.1, 0, torch.qint8)),
         rf"that is quantised \({FIRST}\).*as float32"),
    Case("a tensor without data", with_first(lambda t: t.to("meta")), rf"that is without data \({FIRST}\)"),
    Case("one channel for three", saved({**STATE, "conv_stem.weight": STATE["conv_stem.weight"].sum(1, keepdim=True)}),
         r"other shape 1 \(conv_stem\.weight: file \(24, 1, 3, 3\), model \(24, 3, 3, 3\)"),
    Case("an empty folder", weights(Path.mkdir, "folder"), "holds no weights of test_efficientnet.*Name the file"),
    Case("missing", weights(lambda path: None), "is neither a file nor a folder. Give a weights file"),
    Case("a name too long", weights(lambda path: None, "a" * 300 + ".pth"), "no path that can be used.*too long"),
]


@pytest.mark.filterwarnings("ignore")  # PyTorch's, about what is deprecated in these files
@pytest.mark.parametrize("case", each(CASES))
def test_bad_weights_are_refused(tmp_path, case):
    path = case.draw(tmp_path)
    reader_refuses(tmp_path, case.says, lambda: load_backbone(NetworkSettings(backbone=SMALL, weights=str(path)), 3, 5))
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize("draw", [
    saved(STATE), saved({k: v.half() for k, v in STATE.items()}),
    weights(lambda path: save_file(STATE, path), "w.safetensors"),
    weights(lambda path: torch.save({"state_dict": {f"module.{k}": v for k, v in STATE.items()}}, path)),
], ids=["plain", "half", "safetensors", "wrapped"])
def test_sound_weights_are_loaded(tmp_path, draw):
    loaded = load_backbone(NetworkSettings(backbone=SMALL, weights=str(draw(tmp_path))), 3, 5).model.state_dict()
    assert torch.allclose(loaded["conv_stem.weight"].contiguous(), STATE["conv_stem.weight"], atol=1e-3)
