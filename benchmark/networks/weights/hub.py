"""timm's pretrained weights from their hub, and proof that they came whole.

huggingface_hub keeps them in its cache (``HF_HOME``), resumes interrupted transfers, and with ``HF_HUB_OFFLINE`` uses
nothing but its cache. It checks a file's size but not its content, and timm loads some files without checking that they
hold the whole network; so both are checked here.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import timm
import torch
from huggingface_hub import constants, hf_hub_url, try_to_load_from_cache
from torch import Tensor, nn

from benchmark.base.errors import MorphobenchError
from benchmark.base.files import sha256_file
from benchmark.networks.weights.channels import COLOURS
from benchmark.networks.weights.location import EMBEDDED
from benchmark.networks.weights.timm_models import create

SAFE, PLAIN = "model.safetensors", "pytorch_model.bin"


def downloaded_state(name: str) -> dict[str, Tensor]:
    """The pretrained tensors of a timm network, for three colours, with the classifier they were trained with.

    Raises
    ------
    MorphobenchError
        timm knows no weights of that name, they cannot be had, or the file in the cache is damaged; it says how to get
        them by hand.
    """
    start = _seeded(name, pretrained=False)
    known = timm.get_pretrained_cfg(name)
    if known is None or not known.has_weights:
        raise MorphobenchError(f"timm has no pretrained weights of {name!r}", "network.weights",
                               "Give a file of your own, or `none` to train from random weights on purpose.")
    try:
        model = _seeded(name, pretrained=True)
    except Exception as error:  # of the hub's client, the HTTP library under it, timm, or a file format: all mean this
        _check_cached(known)
        raise MorphobenchError(f"the weights of {name} could not be downloaded ({_why(error)})", "network.weights",
                               by_hand(name)) from error
    _check_cached(known)
    random = unloaded(start, model)
    if random:
        raise MorphobenchError(f"the downloaded file lacks {len(random)} tensors of {name}, among them "
                               f"{', '.join(random[:3])}", "network.weights", by_hand(name))
    return model.state_dict()


def _seeded(name: str, pretrained: bool) -> nn.Module:
    """The network, from the same random start each time, without touching the caller's random numbers."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return create(name, COLOURS, pretrained=pretrained)


def unloaded(start: nn.Module, model: nn.Module) -> list[str]:
    """Names of the weights of ``model`` that are those of its random ``start`` still: nothing was loaded into them.

    Weights that start alike everywhere (zeros, ones) tell nothing and are passed over.
    """
    before = dict(start.named_parameters())
    return [name for name, now in model.named_parameters()
            if now.ndim > 1 and before[name].std() > 0 and torch.equal(before[name], now)]


def by_hand(name: str) -> str:
    """How to bring the weights of a timm network to a machine without a network."""
    known = timm.get_pretrained_cfg(name)
    addresses = []
    if known and known.hf_hub_id:
        addresses.append(hf_hub_url(known.hf_hub_id, known.hf_hub_filename or SAFE))
    if known and isinstance(known.url, str) and known.url:
        addresses.append(known.url)
    suffix = Path(addresses[0]).suffix if addresses else ".safetensors"
    where = f"fetch {' or '.join(addresses)} elsewhere" if addresses else "save its state dict as safetensors"
    return (f"By hand: {where}, put it here as {name}{suffix}, and set network.weights to that file or its folder. "
            f"The backbone {EMBEDDED} needs no download.")


def _why(error: Exception) -> str:
    """The first line of what went wrong, or that downloads are switched off."""
    if constants.HF_HUB_OFFLINE:
        return f"HF_HUB_OFFLINE is set, and they are not in {constants.HF_HUB_CACHE}"
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _check_cached(known: Any) -> None:
    """A cached file that was downloaded by its SHA-256 must have it."""
    if not known.hf_hub_id:
        return
    for filename in (known.hf_hub_filename, SAFE, PLAIN):
        cached = try_to_load_from_cache(known.hf_hub_id, filename) if filename else None
        if not isinstance(cached, str):
            continue
        blob = Path(cached).resolve()  # the cache names a large file by the SHA-256 that the hub gave for it
        if re.fullmatch(r"[0-9a-f]{64}", blob.name) and sha256_file(blob) != blob.name:
            raise MorphobenchError("does not have the SHA-256 that the hub gave for it: it was damaged on its way or "
                                   "since", str(blob), "Delete it and run again.")
