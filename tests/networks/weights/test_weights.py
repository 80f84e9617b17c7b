"""Weights are really loaded, or it is an error; never silently random, never code from a file."""

from __future__ import annotations

import hashlib
import http.server
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import torchvision
from safetensors.torch import save, save_file
from skimage import data
from skimage.transform import resize

from benchmark.base.errors import MorphobenchError
from benchmark.networks.feed.source import ArrayCrops
from benchmark.networks.predict import run_model
from benchmark.networks.settings import NetworkSettings
from benchmark.networks.weights.hub import unloaded
from benchmark.networks.weights.location import weights_identity
from benchmark.networks.weights.weights import load_backbone

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


@pytest.mark.parametrize(("name", "channels"), [(SMALL, 3), ("test_vit", 3), ("test_resnet", 6)])
def test_a_file_gives_the_tensors_that_timm_loads_from_it(tmp_path, name, channels):
    """By timm's own way of loading a local file, for numbers of channels among which both share colours alike."""
    torch.manual_seed(0)
    path = tmp_path / f"{name}.safetensors"
    save_file({k: v.contiguous() for k, v in grown(timm.create_model(name)).state_dict().items()}, path)
    ours = load_backbone(NetworkSettings(backbone=name, weights=str(path)), channels, 0).model.state_dict()
    theirs = timm.create_model(name, pretrained=True, in_chans=channels, num_classes=0,
                               pretrained_cfg_overlay={"file": str(path)}).state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.allclose(ours[k], theirs[k], rtol=1e-6, atol=1e-7) for k in ours)


def refusal(tmp_path: Path, state: dict[str, torch.Tensor], backbone: str = SMALL) -> str:
    """The message about a file with these tensors."""
    path = tmp_path / "file.safetensors"
    save_file({k: v.contiguous() for k, v in state.items()}, path)
    with pytest.raises(MorphobenchError) as error:
        load_backbone(NetworkSettings(backbone=backbone, weights=str(path)), 3, 5)
    assert "file.safetensors" in str(error.value)
    return str(error.value)


def test_files_that_do_not_fit_are_refused_with_the_list(tmp_path):
    state = timm.create_model(SMALL).state_dict()
    backbone = [k for k in state if "num_batches" not in k and not k.startswith("classifier.")]
    text = refusal(tmp_path, {k: v for k, v in state.items() if k not in backbone[:4]})
    assert f"does not fit {SMALL}" in text and f"{len(backbone) - 4} of the backbone's {len(backbone)} fit" in text
    assert f"missing 4 ({', '.join(backbone[:3])}, …)" in text and "unknown" not in text
    wrong = {"conv_stem.weight": state["conv_stem.weight"][:4], "nonsense.weight": torch.zeros(1)}
    text = refusal(tmp_path, state | wrong)
    assert "unknown 1 (nonsense.weight)" in text and "missing" not in text
    assert "other shape 1 (conv_stem.weight: file (4, 3, 3, 3), model (24, 3, 3, 3))" in text
    text = refusal(tmp_path, {**state, "bn1.weight": torch.full_like(state["bn1.weight"], torch.nan)})
    assert "not finite 1 (bn1.weight)" in text


def test_a_file_that_holds_nothing_or_little_of_the_network_is_refused(tmp_path):
    """Other names, as another library has them, are no weights at all; nor is a classifier alone."""
    state = timm.create_model(SMALL).state_dict()
    text = refusal(tmp_path, {f"encoder.{k}": v for k, v in state.items()})
    assert f"holds nothing of {SMALL}" in text and "unknown" in text and "(encoder." in text and "missing" in text
    assert "holds nothing" in refusal(tmp_path, {k: v for k, v in state.items() if k.startswith("classifier.")})
    assert "holds little" in refusal(tmp_path, dict(list(state.items())[:9]))
    assert "holds little of inception_resnet_v2" in refusal(tmp_path, state, "inception_resnet_v2") \
        or "holds nothing of inception_resnet_v2" in refusal(tmp_path, state, "inception_resnet_v2")


def grown(model: torch.nn.Module) -> torch.nn.Module:
    """With running statistics and weights unlike any start, so that each tensor counts."""
    generator = torch.Generator().manual_seed(7)
    for name, value in model.state_dict().items():
        if name.endswith("running_mean"):
            value.copy_(0.1 * torch.randn(value.shape, generator=generator))
        elif name.endswith("running_var"):
            value.copy_(0.5 + torch.rand(value.shape, generator=generator))
    return model.eval()


@pytest.mark.parametrize(("name", "file"), [("resnet50", "resnet50-0676ba61.pth"),
                                            ("inception_v3", "inception_v3_google-0cc3c7bd.pth")])
def test_files_of_torchvision_give_what_torchvision_gives(tmp_path, name, file):
    """By the names torchvision saves them under, its auxiliary classifier included, with its own normalisation."""
    torch.manual_seed(0)
    build = getattr(torchvision.models, name)
    more = {"init_weights": False, "aux_logits": True, "transform_input": True} if name == "inception_v3" else {}
    theirs = grown(build(weights=None, **more))
    torch.save(theirs.state_dict(), tmp_path / file)
    ours = load_backbone(NetworkSettings(backbone=name, weights=str(tmp_path)), 3, 1000)
    assert file in ours.source
    pixels = np.random.default_rng(0).integers(0, 256, (2, 3, 80, 80), np.uint8)
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    with torch.no_grad():
        wanted = theirs((torch.from_numpy(pixels) / 255 - mean) / std).numpy()
    got = run_model(ours, ArrayCrops(pixels), np.arange(2), torch.device("cpu"))
    np.testing.assert_allclose(got, wanted, atol=1e-4 * np.abs(wanted).max())
    (tmp_path / file.replace("-", "-1")).write_bytes(b"")
    with pytest.raises(MorphobenchError, match="several weights"):
        load_backbone(NetworkSettings(backbone=name, weights=str(tmp_path)), 3, 5)


def test_a_network_whose_names_torchvision_and_timm_do_not_share_is_refused(tmp_path):
    state = torchvision.models.mobilenet_v3_small(weights=None).state_dict()
    text = refusal(tmp_path, state, "mobilenetv3_small_100")
    assert "holds nothing" in text and "(classifier.0.bias" not in text and "features." in text


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
    (tmp_path / "junk.safetensors").write_bytes(b"\0\1not weights")
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
    """A model hub on 127.0.0.1 that has one file; the first transfer of it breaks off half way."""

    body, sent = b"", b""
    asked: list[str] = []  # noqa: RUF012
    ranges: list[str] = []  # noqa: RUF012
    cut = False

    def _headers(self, part: bytes | None = None, start: int = 0) -> bool:
        self.asked.append(f"{self.command} {self.path}")
        known = self.path.endswith("/model.safetensors")
        self.send_response((206 if start else 200) if known else 404)
        self.send_header("ETag", f'"{hashlib.sha256(self.body).hexdigest()}"')
        self.send_header("X-Repo-Commit", "0" * 40)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(self.body) - 1}/{len(self.body)}")
        self.send_header("Content-Length", str(len(self.body) - start if known else 0))
        self.end_headers()
        return known

    def do_HEAD(self) -> None:
        self._headers()

    def do_GET(self) -> None:
        wanted = self.headers.get("Range", "")
        start = int(wanted.removeprefix("bytes=").split("-")[0]) if wanted else 0
        if start:
            self.ranges.append(wanted)
        if self._headers(start=start):
            half, type(self).cut = self.cut, False
            self.wfile.write(self.sent[start : len(self.sent) // 2 if half else None])
            if half:
                self.close_connection = True

    def log_message(self, *args: object) -> None:
        """Quiet."""


CHILD = """
import json, sys, time
time.sleep = lambda seconds: None  # the hub's client waits between tries, for most of a minute in all
import huggingface_hub.constants
huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE = 4096  # what a break costs: 10 MB, more than this whole file
from benchmark.base.errors import MorphobenchError
from benchmark.networks.settings import NetworkSettings
from benchmark.networks.weights.weights import load_backbone
try:
    b, two = (load_backbone(NetworkSettings(backbone=sys.argv[1]), c, 7) for c in (3, 2))
    first, green = b.model.conv_stem.weight, two.model.conv_stem.weight
    print(json.dumps({"first": first.flatten()[0].item(), "source": b.source, "sha256": b.sha256,
                      "adapted": bool((green[:, 1] == first[:, 1]).all())}))
except MorphobenchError as error:
    print(json.dumps({"error": str(error)}))
"""


def load_from_hub(url: str, cache: Path, **more: str) -> dict[str, object]:
    """What a fresh process says when timm downloads from a hub at ``url``."""
    environment = {**os.environ, "HF_ENDPOINT": url, "HF_HOME": str(cache), "NO_PROXY": "*", "HF_HUB_DISABLE_XET": "1",
                   "TORCH_HOME": str(cache)}
    environment.pop("HF_HUB_OFFLINE", None)
    done = subprocess.run([sys.executable, "-c", CHILD, f"{SMALL}.r160_in1k"], env=environment | more,
                          capture_output=True, text=True, timeout=240, check=True)
    return json.loads(done.stdout.splitlines()[-1])


@contextmanager
def hub(body: bytes, sent: bytes | None = None, cut: bool = False) -> Iterator[str]:
    """A hub whose file is ``body``, of which ``sent`` comes."""
    Hub.body, Hub.sent, Hub.cut = body, body if sent is None else sent, cut
    Hub.asked.clear()
    Hub.ranges.clear()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def small_state() -> dict[str, torch.Tensor]:
    return {k: v.contiguous() for k, v in timm.create_model(SMALL).state_dict().items()}


@pytest.mark.slow
def test_timm_downloads_from_a_hub_goes_on_where_it_broke_off_and_needs_no_network_again(tmp_path):
    state = small_state()
    with hub(save(state), cut=True) as url:
        got = load_from_hub(url, tmp_path / "a")
        assert got.get("first") == pytest.approx(state["conv_stem.weight"].flatten()[0].item()), (got, Hub.asked)
        assert Hub.ranges, Hub.asked
    assert got["source"] == f"timm {SMALL}.r160_in1k" and got["adapted"]
    assert load_from_hub(url, tmp_path / "a", HF_HUB_OFFLINE="1") == got
    dead, offline = load_from_hub(url, tmp_path / "b"), load_from_hub(url, tmp_path / "b", HF_HUB_OFFLINE="1")
    for answer in (dead, offline):
        assert "could not be downloaded" in str(answer["error"])
        assert f"{url}/timm/{SMALL}.r160_in1k/resolve/main/model.safetensors" in str(answer["error"])
        assert f"{SMALL}.r160_in1k.safetensors" in str(answer["error"])
    assert "HF_HUB_OFFLINE is set" in str(offline["error"]) and "HF_HUB_OFFLINE" not in str(dead["error"])


@pytest.mark.slow
def test_a_download_that_was_damaged_on_its_way_is_not_used(tmp_path):
    """One bit of a weight: the size is right, and the hub's client asks for no more."""
    body = save(small_state())
    with hub(body, body[:-5] + bytes([body[-5] ^ 8]) + body[-4:]) as url:
        for _ in range(2):  # nor is it later, out of the cache
            assert "does not have the SHA-256" in str(load_from_hub(url, tmp_path)["error"])


@pytest.mark.slow
def test_a_download_without_the_network_in_it_is_never_silently_random(tmp_path):
    state = small_state()
    with hub(save({f"encoder.{k}": v for k, v in state.items()})) as url:
        assert "error" in load_from_hub(url, tmp_path)


def test_weights_that_are_still_their_random_start_are_found():
    start, loaded = (seeded_start(SMALL) for _ in range(2))
    assert len(unloaded(start, loaded)) == len([p for p in start.parameters() if p.ndim > 1])
    with torch.no_grad():
        for parameter in loaded.parameters():
            parameter.add_(0.1)
    assert unloaded(start, loaded) == []
    with torch.no_grad():
        loaded.conv_stem.weight.copy_(start.conv_stem.weight)
    assert unloaded(start, loaded) == ["conv_stem.weight"]


def seeded_start(name: str) -> torch.nn.Module:
    torch.manual_seed(0)
    return timm.create_model(name)


def test_a_network_without_pretrained_weights_says_so():
    with pytest.raises(MorphobenchError, match="no pretrained weights"):
        load_backbone(NetworkSettings(backbone="efficientnet_b6"), 3, 2)
