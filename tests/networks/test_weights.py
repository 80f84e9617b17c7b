"""Weights are really loaded, or it is an error; never silently random, never code from a file."""

from __future__ import annotations

import hashlib
import http.server
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save, save_file
from skimage import data
from skimage.transform import resize

from benchmark.errors import MorphobenchError
from benchmark.networks.predict import run_model
from benchmark.networks.settings import NetworkSettings
from benchmark.networks.source import ArrayCrops
from benchmark.networks.weights import load_backbone, weights_identity

SMALL = "test_efficientnet"  # timm's own tiny network, for tests


def test_the_embedded_weights_know_what_a_cat_is():
    """ImageNet classes 281-285 are domestic cats, 967 is espresso: the mapping of tensors is right."""
    backbone = load_backbone(NetworkSettings(), 3, 1000)
    pictures = [resize(p[..., :3], (224, 224), anti_aliasing=True) for p in (data.cat(), data.coffee())]
    pixels = np.stack([(p * 255).astype(np.uint8).transpose(2, 0, 1) for p in pictures])
    best = run_model(backbone, ArrayCrops(pixels), np.arange(2), torch.device("cpu")).argmax(axis=1)
    assert best[0] in range(281, 286)
    assert best[1] in (967, 504)  # espresso, coffee mug
    assert weights_identity(NetworkSettings()).startswith("57934424")


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_a_file_and_its_folder_load_the_same_tensors(tmp_path, suffix):
    state = {k: v + 0.01 if v.is_floating_point() else v for k, v in timm.create_model(SMALL).state_dict().items()}
    path = tmp_path / f"{SMALL}{suffix}"
    save_file(state, path) if suffix == ".safetensors" else torch.save(state, path)
    by_file, by_folder = (
        load_backbone(NetworkSettings(backbone=SMALL, weights=str(w)), 3, 5) for w in (path, tmp_path)
    )
    assert torch.equal(by_file.model.state_dict()["conv_stem.weight"], state["conv_stem.weight"])
    assert by_file.sha256 == by_folder.sha256
    assert by_file.sha256 != load_backbone(NetworkSettings(backbone=SMALL, weights="none"), 3, 5).sha256
    assert path.name in by_file.source


def test_files_that_do_not_fit_are_refused_with_the_list(tmp_path):
    state = timm.create_model(SMALL).state_dict()
    missing = {k: v for k, v in state.items() if not k.startswith("conv_stem")}
    wrong = {**state, "conv_stem.weight": state["conv_stem.weight"][:4]}
    extra = {**state, "nonsense.weight": torch.zeros(1)}
    for name, broken, text in (("a", missing, "missing"), ("b", wrong, "other shape"), ("c", extra, "nonsense")):
        save_file({k: v.contiguous() for k, v in broken.items()}, tmp_path / f"{name}.safetensors")
        with pytest.raises(MorphobenchError, match=text):
            load_backbone(NetworkSettings(backbone=SMALL, weights=str(tmp_path / f"{name}.safetensors")), 3, 5)


class Evil:
    """Would write a file when unpickled."""

    def __init__(self, target: str) -> None:
        self.target = target

    def __reduce__(self):
        return (os.mkdir, (self.target,))


def test_code_in_a_weights_file_does_not_run(tmp_path):
    path = tmp_path / "evil.pth"
    torch.save({"x": Evil(str(tmp_path / "owned"))}, path)
    with pytest.raises(MorphobenchError, match="not loaded"):
        load_backbone(NetworkSettings(backbone=SMALL, weights=str(path)), 3, 5)
    assert not (tmp_path / "owned").exists()


def test_junk_and_absent_weights_are_named(tmp_path):
    (tmp_path / "junk.safetensors").write_bytes(b"not weights")
    for weights, text in ((str(tmp_path / "junk.safetensors"), "no readable weights"), (str(tmp_path), "holds no"),
                          (str(tmp_path / "absent.pth"), "neither a file nor a folder")):
        with pytest.raises(MorphobenchError, match=text):
            load_backbone(NetworkSettings(backbone=SMALL, weights=weights), 3, 5)
    with pytest.raises(MorphobenchError, match="no backbone"):
        load_backbone(NetworkSettings(backbone="resnet5000"), 3, 5)


@pytest.mark.parametrize("name", ["resnet50", "inception_v3", "inception_resnet_v2"])
def test_the_papers_networks_run_and_keep_their_own_normalisation(name):
    backbone = load_backbone(NetworkSettings(backbone=name, weights="none"), 3, 6)
    out = run_model(backbone, ArrayCrops(np.zeros((2, 3, 96, 96), np.uint8)), np.arange(2), torch.device("cpu"))
    assert out.shape == (2, 6) and np.isfinite(out).all()
    assert backbone.mean[0] == pytest.approx(0.485 if name == "resnet50" else 0.5)


class Hub(http.server.BaseHTTPRequestHandler):
    """A model hub on 127.0.0.1 that has one file."""

    body = b""
    asked: list[str] = []  # noqa: RUF012

    def _headers(self) -> bool:
        self.asked.append(self.path)
        known = self.path.endswith("/model.safetensors")
        self.send_response(200 if known else 404)
        self.send_header("ETag", f'"{hashlib.sha256(self.body).hexdigest()}"')
        self.send_header("X-Repo-Commit", "0" * 40)
        self.send_header("Content-Length", str(len(self.body) if known else 0))
        self.end_headers()
        return known

    def do_HEAD(self) -> None:
        self._headers()

    def do_GET(self) -> None:
        if self._headers():
            self.wfile.write(self.body)

    def log_message(self, *args: object) -> None:
        """Quiet."""


CHILD = """
import json, sys, time
time.sleep = lambda seconds: None  # the hub's client waits between tries, for most of a minute in all
from benchmark.errors import MorphobenchError
from benchmark.networks.settings import NetworkSettings
from benchmark.networks.weights import load_backbone
try:
    b, two = (load_backbone(NetworkSettings(backbone=sys.argv[1]), c, 1000) for c in (3, 2))
    first, green = b.model.conv_stem.weight, two.model.conv_stem.weight
    print(json.dumps({"first": first.flatten()[0].item(), "source": b.source,
                      "adapted": bool((green[:, 1] == first[:, 1]).all())}))
except MorphobenchError as error:
    print(json.dumps({"error": str(error)}))
"""


def load_from_hub(url: str, cache: Path) -> dict[str, object]:
    """What a fresh process says when timm downloads from a hub at ``url``."""
    environment = {**os.environ, "HF_ENDPOINT": url, "HF_HOME": str(cache), "NO_PROXY": "*", "HF_HUB_DISABLE_XET": "1",
                   "TORCH_HOME": str(cache)}
    environment.pop("HF_HUB_OFFLINE", None)
    done = subprocess.run([sys.executable, "-c", CHILD, f"{SMALL}.r160_in1k"], env=environment, capture_output=True,
                          text=True, timeout=240, check=True)
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
def test_timm_downloads_from_a_hub_and_a_dead_hub_is_a_clear_error(tmp_path):
    state = {k: v.contiguous() for k, v in timm.create_model(SMALL).state_dict().items()}
    Hub.body = save(state)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}"
    try:
        got = load_from_hub(url, tmp_path / "a")
    finally:
        server.shutdown()
        server.server_close()
    assert got.get("first") == pytest.approx(state["conv_stem.weight"].flatten()[0].item()), (got, Hub.asked)
    assert got["source"] == f"timm {SMALL}.r160_in1k" and got["adapted"]
    dead = load_from_hub(url, tmp_path / "b")
    assert "could not be downloaded" in str(dead["error"]) and "safetensors" in str(dead["error"])
