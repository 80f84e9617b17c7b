"""Named sets of training settings, and the settings that a study gets from them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmark.networks.architectures.registry import architecture_of
from benchmark.networks.settings import Preset, TrainingSettings

#: What both versions of the code of Kensert et al. 2019 do: SGD, all layers, one rate, no validation. Class weights are
#: balanced in every preset.
KENSERT: Mapping[str, Any] = {
    "optimizer": "sgd", "momentum": 0.9, "schedule": "constant", "warmup": 0.0, "weight_decay": 0.0,
    "augmentation": "kensert2019", "learn": "full", "recalibrate": False,
}
#: Settings of each preset that differ from `TrainingSettings`' own.
PRESETS: Mapping[Preset, Mapping[str, Any]] = {
    "modern": {},
    "kensert-2018-07": {**KENSERT, "batch": 32},
    "kensert-2018-08": {**KENSERT, "batch": 8, "epochs": 10, "learning_rate": 1e-4},
}
#: What a preset says of one network of timm; architectures of our own say it themselves.
BY_TIMM_NETWORK: Mapping[Preset, Mapping[str, Mapping[str, Any]]] = {
    "kensert-2018-07": {
        "resnet50": {"epochs": 5, "learning_rate": 5e-4},
        "inception_v3": {"epochs": 7, "learning_rate": 5e-4},
        "inception_resnet_v2": {"epochs": 5, "learning_rate": 1e-3},
    },
}


def resolved(settings: TrainingSettings, backbone: str) -> TrainingSettings:
    """Settings completed from their preset; what is given is kept.

    Settings that were resolved before come back unchanged.

    Parameters
    ----------
    backbone : str
        As in the study; tags of weights (``resnet50.tv_in1k``) do not matter.

    Raises
    ------
    ValueError
        The preset has no settings for this backbone, or settings contradict each other.
    """
    given = settings.model_dump(exclude_unset=True)
    partial = {"augmentation": "views"} if settings.partial and settings.preset == "modern" else {}
    values = {**PRESETS[settings.preset], **_of_backbone(settings.preset, backbone, given), **partial, **given}
    # Everything is given from here on.
    whole = TrainingSettings.model_validate({**TrainingSettings(**values).model_dump()})
    _check(whole)
    return whole


def _of_backbone(preset: Preset, backbone: str, given: Mapping[str, Any]) -> Mapping[str, Any]:
    """What a preset says of a backbone."""
    by_timm = BY_TIMM_NETWORK.get(preset, {})
    name = backbone.split(".")[0]
    known = architecture_of(backbone).presets.get(preset, by_timm.get(name))
    if by_timm and known is None and not {"epochs", "learning_rate"} <= given.keys():
        raise ValueError(f"the preset {preset} has settings for {', '.join(by_timm)} and not for {backbone}: give "
                         "epochs and learning_rate")
    return known or {}


def _check(s: TrainingSettings) -> None:
    """Refuse settings that contradict each other."""
    if s.epochs % s.snapshots:
        raise ValueError(f"{s.epochs} epochs are not {s.snapshots} cycles of equal length: change epochs or snapshots")
    if s.snapshots > 1 and (s.schedule != "cosine" or s.average != "none"):
        raise ValueError("snapshots need schedule: cosine and average: none")
    if s.early_stopping and (s.snapshots > 1 or s.average != "none"):
        raise ValueError("early_stopping needs average: none and snapshots: 1")
    if s.folds == "shared":
        _check_shared(s)
    if s.mc_dropout and not s.dropout:
        raise ValueError("mc_dropout needs dropout")
    if s.learn in ("scratch", "frozen") and s.layer_decay < 1:
        raise ValueError(f"layer_decay is for pretrained layers that are trained, and learn: {s.learn} has none")


def _check_shared(s: TrainingSettings) -> None:
    """Refuse settings that folds which share a training cannot have."""
    if s.partial:
        raise ValueError(f"folds: shared is for trainings of all layers; of learn: {s.learn} the frozen "
                         "layers are shared already, exactly")
    if s.schedule != "cosine" or s.snapshots > 1 or s.average == "swa":
        raise ValueError("folds: shared needs schedule: cosine, snapshots: 1 and average: none or ema, since the fall "
                         "of the rate is each fold's own")
    if s.early_stopping:
        raise ValueError("folds: shared needs early_stopping: 0")
