"""Files that are given as weights and are none: one clear error each, and no code of theirs is run."""

from __future__ import annotations

import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from benchmark.base.errors import MorphobenchError
from benchmark.networks.weights.statefile import read_state


def sound(path: Path) -> bytes:
    tensors = {"a": torch.ones(100)}
    if path.suffix == ".safetensors":
        save_file(tensors, path)
    else:
        torch.save(tensors, path)
    return path.read_bytes()


def zipped(path: Path, how: int) -> None:
    with zipfile.ZipFile(path, "w", how) as archive:
        archive.writestr("archive/data.pkl", bytes(10**7))


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:abc\nsize 123\n"


@pytest.mark.parametrize(("name", "write", "words"), [
    ("empty.pth", lambda p: p.write_bytes(b""), "is empty"),
    ("empty.safetensors", lambda p: p.write_bytes(b""), "is empty"),
    ("text.pth", lambda p: p.write_text("<html>Please log in</html>"), "is a text"),
    ("lfs.safetensors", lambda p: p.write_bytes(LFS), "git lfs pull"),
    ("cut.safetensors", lambda p: p.write_bytes(sound(p)[:-50]), "fetch it again"),
    ("head.safetensors", lambda p: p.write_bytes(sound(p)[:20]), "fetch it again"),
    ("huge.safetensors", lambda p: p.write_bytes(struct.pack("<Q", 2**60) + b"{}"), "fetch it again"),
    ("cut.pth", lambda p: p.write_bytes(sound(p)[:-50]), "fetch it again"),
    ("half.pth", lambda p: p.write_bytes(sound(p)[:300]), "fetch it again"),
    ("pickle.pth", lambda p: p.write_bytes(pickle.dumps({"a": 1})), "weights file|holds more|state dict"),
    ("pickle.safetensors", lambda p: p.write_bytes(pickle.dumps({"a": 1})), "no readable weights"),
    ("bomb.pth", lambda p: zipped(p, zipfile.ZIP_DEFLATED), "is a compressed archive"),
    ("zip.pth", lambda p: zipped(p, zipfile.ZIP_STORED), "no readable weights"),
    ("numbers.pth", lambda p: torch.save({"a": 1}, p), "not a state dict"),
    ("list.pth", lambda p: torch.save([1, 2], p), "not a state dict"),
    ("folder.pth", lambda p: p.mkdir(), "directory"),
])
def test_a_file_that_holds_no_weights_is_named(tmp_path: Path, name: str, write: Callable[[Path], object], words: str):
    write(tmp_path / name)
    with pytest.raises((MorphobenchError, IsADirectoryError), match=words) as caught:
        read_state(tmp_path / name)
    assert name in str(caught.value) and len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("name", ["a.pth", "a.safetensors"])
def test_sound_files_are_read(tmp_path, name):
    sound(tmp_path / name)
    assert torch.equal(read_state(tmp_path / name)["a"], torch.ones(100))
