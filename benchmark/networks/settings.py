"""Settings of a network and of its training."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator, model_validator

from benchmark.base.settings import Settings
from benchmark.networks.architectures import registry

Normalisation = Literal["weights", "none"]
Pooling = Literal["noisy_and", "attention", "mean"]
Bag = Literal["crop", "field", "well"]
Augmentation = Literal["standard", "views", "kensert2019", "none"]
Preset = Literal["modern", "kensert-2018-07", "kensert-2018-08"]


class NetworkSettings(Settings):
    """Which network, and where its ImageNet weights come from.

    Parameters
    ----------
    backbone : str
        A timm model name. ``tf_efficientnet_lite0`` needs no download. Short names of the paper's networks,
        ``resnet50``, ``inception_v3``, ``inception_resnet_v2``, mean timm's ``resnet50.tv_in1k``,
        ``inception_v3.tf_in1k``, ``inception_resnet_v2.tf_in1k``. Or one of ours: ``mcnn``, the multi-scale CNN of
        Godinez et al. 2017 (`benchmark.networks.architectures.mcnn`), and ``mil``, multiple-instance learning
        (`benchmark.networks.architectures.mil`).
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
        For ``mil``: how instances become one prediction, see `benchmark.networks.architectures.pooling`.
    bag : str
        For ``mil``: what has one label and one prediction. ``crop``: a crop, whose instances are the positions of its
        feature map. ``field``, ``well``: all crops (tiles or cells) of a field, or of a well; each is an instance.
    bag_size : int
        For bags of crops: how many crops of a bag a training step sees, drawn again in each epoch. In prediction all
        are used, this many at once. See `benchmark.networks.feed.bags`.
    """

    backbone: str = "tf_efficientnet_lite0"
    weights: str = "auto"
    normalisation: Normalisation = "weights"
    instances: str = "tf_efficientnet_lite0"
    pooling: Pooling = "noisy_and"
    bag: Bag = "crop"
    bag_size: int = Field(8, ge=1)

    @model_validator(mode="after")
    def _sane(self) -> NetworkSettings:
        architecture = self.architecture
        foreign = sorted((self.model_fields_set & set(self._optional())) - set(architecture.settings))
        if foreign:
            raise ValueError(f"{', '.join(foreign)}: for backbone: {' or '.join(registry.names(foreign[0]))} alone; "
                             "leave out")
        if (self.model_fields_set & set(self._idle)) - {"bag"}:
            raise ValueError("bag_size is for bag: field and bag: well; leave it out")
        if architecture.timm_name(self) is None and self.weights not in ("auto", "none"):
            raise ValueError(f"{self.backbone} is trained from scratch, and no weights of it are known here; leave "
                             "weights out")
        fault = architecture.faults(self)
        if fault:
            raise ValueError(fault)
        return self

    @classmethod
    def _optional(cls) -> tuple[str, ...]:
        """Settings that some architectures alone have."""
        return tuple(name for name in cls.model_fields if name not in ("backbone", "weights", "normalisation"))

    @property
    def _idle(self) -> tuple[str, ...]:
        bags = ("bag", "bag_size") if self.bag == "crop" else ()
        return tuple(name for name in self._optional() if name not in self.architecture.settings or name in bags)

    @property
    def architecture(self) -> registry.Architecture:
        """What is known about the backbone beside its name."""
        return registry.architecture_of(self.backbone)

    @property
    def bagged(self) -> bool:
        """Whether what has a label is a bag of crops, and not a crop."""
        return self.bag != "crop"

    @property
    def scratch(self) -> bool:
        """Whether all layers start from random numbers."""
        return self.timm_name is None or self.weights == "none"

    @property
    def timm_name(self) -> str | None:
        """The timm network that is used, by its name as the study gives it; None where there is none."""
        return self.architecture.timm_name(self)

    @property
    def summary(self) -> str:
        """The network in a few words, for records."""
        return self.architecture.summary(self)


class TrainingSettings(Settings):
    """How a network is fine-tuned.

    Parameters
    ----------
    preset : str
        Where settings that are not given come from: ``modern`` (the defaults here), or a version of the code of Kensert
        et al. 2019; see `benchmark.networks.training.presets`.
    epochs : int
        Passes over the training crops.
    batch : int
        Crops per step; with bags (`NetworkSettings.bag`) bags per step.
    optimizer : str
        ``adamw`` (Loshchilov & Hutter 2019), or ``sgd`` with ``momentum``.
    learning_rate : float
        Peak rate.
    schedule : str
        ``cosine``: linear rise over ``warmup`` (share of all steps), then cosine decay to zero. ``constant``: no
        decay; ``warmup`` as before.
    head_rate : float
        Factor on the rate for the new classifier layer, which starts from random weights.
    layer_decay : float
        Factor on the rate from each layer (timm's groups) to the one before it; 1 gives all the same.
    weight_decay : float
        Of all but biases and normalisation.
    label_smoothing : float
        Share of the target that is spread over all classes.
    learn : str
        What is trained: ``scratch`` (everything, from random weights), ``frozen`` (the new classifier alone),
        ``head`` (all that follows the last stage), ``from:STAGE`` (from that stage on), ``full``. See
        `benchmark.networks.training.learn`.
    folds : str
        ``exact``: each fold is trained by itself. ``shared``: folds start from trainings that several of them share,
        none of which has seen a compound that they hold out, and each continues for a short while on what else it may
        see. See `benchmark.networks.training.shared`.
    augmentation : str
        ``standard``: one of the 8 views of the square, and ``gain`` and ``offset``. ``views``: one of the 8 views
        alone; the default where only a part is learnt, since what lies below is then computed once for all folds
        (`benchmark.networks.feed.activations`). ``kensert2019``: that paper's whole augmentation, see
        `benchmark.networks.feed.augment.one_by_one`. ``none``: crops as they are.
    gain : float
        Each channel of each crop is multiplied by a factor drawn from 1 ± gain …
    offset : float
        … and shifted by a value drawn from ± offset of full scale.
    mix : str
        ``mixup`` (Zhang et al. 2018): a crop and its label are blended with another's. ``cutmix`` (Yun et al. 2019): a
        box of it is another's. Shares are drawn from Beta(``mix_alpha``, ``mix_alpha``), for each crop its own.
    dropout : float
        Share of the features before the classifier that a training step leaves out.
    average : str
        What is predicted with. ``none``: the last weights. ``ema``: their moving average, over ``ema_decay`` or, early
        on, fewer steps. ``swa``: the mean of the weights at the ends of epochs from ``average_from`` (share of all
        epochs) on, the rate being held from there (Izmailov et al. 2018). Batch normalisation is recalibrated then.
    recalibrate : bool
        After training, the statistics that batch normalisation uses for prediction are recomputed over training
        crops without augmentation. Otherwise they are a moving average over augmented ones, which after few steps
        still contains ImageNet's. With 660 fields of BBBC021, by held-out compounds, two splits and two seeds, 6
        epochs: accuracy 0.80 rather than 0.75 (better in all four); with 3 epochs no clear difference.
    early_stopping : int
        Epochs without a smaller loss on held-out training compounds after which training ends, and the best epoch is
        kept; 0 is off. These compounds are then not trained on.
    snapshots : int
        The schedule is repeated this many times, and predictions of the networks at the ends of these cycles are
        averaged (Huang et al. 2017; Cortés-Ciriano & Bender 2019, J Chem Inf Model 59:1269).
    tta : bool
        Predictions are averaged over the 8 views of the square.
    mc_dropout : int
        Predictions are averaged over this many passes with dropout (Gal & Ghahramani 2016); 0 is off.
    bfloat16 : bool or "auto"
        Mixed precision on a CPU; ``auto`` chooses what is faster for this network, measured at the start. A GPU always
        uses it.
    compile : bool
        The network goes through ``torch.compile``.
    graphs : bool
        On a GPU training steps are replayed as CUDA graphs.
    """

    preset: Preset = "modern"
    epochs: int = Field(6, ge=1)
    batch: int = Field(32, ge=2)
    optimizer: Literal["adamw", "sgd"] = "adamw"
    learning_rate: float = Field(5e-4, gt=0)
    momentum: float = Field(0.9, ge=0, lt=1)
    schedule: Literal["cosine", "constant"] = "cosine"
    head_rate: float = Field(1.0, gt=0)
    layer_decay: float = Field(1.0, gt=0, le=1)
    weight_decay: float = Field(0.01, ge=0)
    warmup: float = Field(0.2, ge=0, le=0.9)
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    learn: str = Field("full", pattern=r"^(scratch|frozen|head|full|from:[A-Za-z0-9_.]+)$")
    folds: Literal["exact", "shared"] = "exact"
    augmentation: Augmentation = "standard"
    gain: float = Field(0.25, ge=0, lt=1)
    offset: float = Field(0.03, ge=0, lt=1)
    mix: Literal["none", "mixup", "cutmix"] = "none"
    mix_alpha: float = Field(0.2, gt=0)
    dropout: float = Field(0.0, ge=0, lt=1)
    average: Literal["none", "ema", "swa"] = "none"
    average_from: float = Field(0.75, gt=0, lt=1)
    ema_decay: float = Field(0.999, gt=0, lt=1)
    recalibrate: bool = True
    early_stopping: int = Field(0, ge=0)
    snapshots: int = Field(1, ge=1)
    tta: bool = False
    mc_dropout: int = Field(0, ge=0)
    bfloat16: bool | Literal["auto"] = False
    compile: bool = False
    graphs: bool = False

    @field_validator("mc_dropout")
    @classmethod
    def _passes(cls, value: int) -> int:
        if value == 1:
            raise ValueError("one pass with dropout is noise: give 2 or more, or 0")
        return value

    @property
    def _idle(self) -> tuple[str, ...]:
        return ("folds",) if self.folds == "exact" else ()

    @property
    def partial(self) -> bool:
        """Whether a part of the network keeps its pretrained weights."""
        return self.learn not in ("full", "scratch")
