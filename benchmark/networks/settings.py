"""Settings of a network and of its training."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from benchmark.settings import Settings

Normalisation = Literal["weights", "none"]
Pooling = Literal["noisy_and", "attention", "mean"]
#: Backbones that are ours and not timm's.
MCNN, MIL = "mcnn", "mil"
Augmentation = Literal["standard", "kensert2019", "none"]


class NetworkSettings(Settings):
    """Which network, and where its ImageNet weights come from.

    Parameters
    ----------
    backbone : str
        A timm model name. ``tf_efficientnet_lite0`` needs no download. Short names of the paper's networks,
        ``resnet50``, ``inception_v3``, ``inception_resnet_v2``, mean timm's ``resnet50.tv_in1k``,
        ``inception_v3.tf_in1k``, ``inception_resnet_v2.tf_in1k``. Or one of ours: ``mcnn``, the multi-scale CNN of
        Godinez et al. 2017 (`benchmark.networks.mcnn`), and ``mil``, multiple-instance learning
        (`benchmark.networks.mil`).
    weights : str
        ``auto``: the weights inside the installed package for ``tf_efficientnet_lite0``, else timm's download.
        ``none``: random, on purpose (never chosen silently). Otherwise a file (``.safetensors``, or a state
        dict ``.pth``/``.pt``/``.bin`` read with weights only) or a folder that holds one named after the backbone.
        For ``mil`` they are the weights of ``instances``. ``mcnn`` is trained from scratch and takes none.
    normalisation : str
        ``weights``: crops in 0…1 less the mean and over the standard deviation that the weights were trained with.
        ``none``: the network is given the raw values 0…255 (16-bit crops scaled to that range), as the code of
        Kensert et al. 2019 gives them to Keras (`model_utils_bbbc021.py`, where the scaling is commented out). No
        usual ImageNet weights were trained on such inputs: values are some 60 times larger than those that timm's
        ResNet50 knows, 128 times for the Inceptions and the embedded network. While fine-tuning, batch normalisation
        takes that scale out again after the first layer, and its running statistics follow; with frozen weights it
        does not, and the features are of little use.
    instances : str
        For ``mil``: the timm network (or short name) whose feature map's positions are the instances.
    pooling : str
        For ``mil``: how instances become one prediction, see `benchmark.networks.pooling`.
    """

    backbone: str = "tf_efficientnet_lite0"
    weights: str = "auto"
    normalisation: Normalisation = "weights"
    instances: str = "tf_efficientnet_lite0"
    pooling: Pooling = "noisy_and"

    @model_validator(mode="after")
    def _sane(self) -> NetworkSettings:
        if self.backbone != MIL and self.model_fields_set & {"instances", "pooling"}:
            raise ValueError(f"instances and pooling are for backbone: {MIL}; leave them out")
        if self.backbone == MCNN and self.weights not in ("auto", "none"):
            raise ValueError(f"{MCNN} is trained from scratch, no weights of it are known here; leave weights out")
        if self.instances in (MCNN, MIL):
            raise ValueError(f"instances is a network of timm, and {self.instances} is none")
        return self

    @model_serializer(mode="wrap")
    def _only_what_is_used(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # So records hold no idle settings, and keys of runs made before there was `mil` stay theirs.
        values: dict[str, Any] = handler(self)
        idle = () if self.backbone == MIL else ("instances", "pooling")
        return {k: v for k, v in values.items() if k not in idle}

    @property
    def scratch(self) -> bool:
        """Whether all layers start from random numbers."""
        return self.backbone == MCNN or self.weights == "none"

    @property
    def timm_name(self) -> str:
        """The timm network that is used, by its name as the study gives it."""
        return self.instances if self.backbone == MIL else self.backbone

    @property
    def summary(self) -> str:
        """The network in a few words, for records."""
        if self.backbone == MCNN:
            return "the multi-scale CNN of Godinez et al. 2017"
        if self.backbone == MIL:
            pooling = {"noisy_and": "noisy-AND", "attention": "gated attention", "mean": "mean"}[self.pooling]
            return f"{self.instances}, {pooling} pooling over the positions of its feature map,"
        return self.backbone


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
