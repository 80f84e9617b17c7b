"""Settings of a network and of its training."""

from __future__ import annotations

from pydantic import Field

from benchmark.settings import Settings


class NetworkSettings(Settings):
    """Which network, and where its ImageNet weights come from.

    Parameters
    ----------
    backbone : str
        A timm model name. ``tf_efficientnet_lite0`` needs no download. Short names of the paper's networks,
        ``resnet50``, ``inception_v3``, ``inception_resnet_v2``, mean timm's ``resnet50.tv_in1k``,
        ``inception_v3.tf_in1k``, ``inception_resnet_v2.tf_in1k``.
    weights : str
        ``auto``: the weights inside the installed package for ``tf_efficientnet_lite0``, else timm's download.
        ``none``: random, on purpose (never chosen silently). Otherwise a file (``.safetensors``, or a state
        dict ``.pth``/``.pt``/``.bin`` read with weights only) or a folder that holds one named after the backbone.
    """

    backbone: str = "tf_efficientnet_lite0"
    weights: str = "auto"


class TrainingSettings(Settings):
    """Fine-tuning of all layers: AdamW, linear warm-up and cosine decay (one cycle).

    Parameters
    ----------
    epochs : int
        Passes over the training crops.
    batch : int
        Crops a step.
    learning_rate : float
        Peak rate, reached after ``warmup`` (share of all steps).
    head_rate : float
        Factor on the rate for the new classifier layer, which starts from random weights.
    weight_decay : float
        AdamW's.
    label_smoothing : float
        Share of the target spread over all classes.
    gain : float
        Each channel of each crop is multiplied by a factor drawn from 1 ± gain …
    offset : float
        … and shifted by a value drawn from ± offset of full scale.
    bfloat16 : bool
        Mixed precision on a CPU. A GPU always uses it.
    """

    epochs: int = Field(6, ge=1)
    batch: int = Field(32, ge=2)
    learning_rate: float = Field(5e-4, gt=0)
    head_rate: float = Field(1.0, gt=0)
    weight_decay: float = Field(0.01, ge=0)
    warmup: float = Field(0.2, ge=0, le=0.9)
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    gain: float = Field(0.25, ge=0, lt=1)
    offset: float = Field(0.03, ge=0, lt=1)
    bfloat16: bool = False
