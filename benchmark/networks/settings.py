"""Settings of a network and of its training."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from benchmark.settings import Settings

Normalisation = Literal["weights", "none"]
Augmentation = Literal["standard", "kensert2019", "none"]


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
    normalisation : str
        ``weights``: crops in 0…1 less the mean and over the standard deviation that the weights were trained with.
        ``none``: the network is given the raw values 0…255 (16-bit crops scaled to that range), as the code of
        Kensert et al. 2019 gives them to Keras (`model_utils_bbbc021.py`, where the scaling is commented out). No
        usual ImageNet weights were trained on such inputs: values are some 60 times larger than those that timm's
        ResNet50 knows, 128 times for the Inceptions and the embedded network. While fine-tuning, batch normalisation
        takes that scale out again after the first layer, and its running statistics follow; with frozen weights it
        does not, and the features are of little use.
    """

    backbone: str = "tf_efficientnet_lite0"
    weights: str = "auto"
    normalisation: Normalisation = "weights"


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
    augmentation : str
        ``standard``: one of the 8 views of the square, and ``gain`` and ``offset``. ``kensert2019``: that paper's
        whole augmentation, see `benchmark.networks.augment.kensert2019`; ``gain`` and ``offset`` are not used.
        ``none``: crops as they are.
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
    augmentation: Augmentation = "standard"
    gain: float = Field(0.25, ge=0, lt=1)
    offset: float = Field(0.03, ge=0, lt=1)
    bfloat16: bool = False
