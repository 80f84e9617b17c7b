"""Settings of the contestants, as a study file gives them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from benchmark.crops.settings import CropSettings
from benchmark.networks.presets import resolved
from benchmark.networks.settings import MCNN, MIL, NetworkSettings, TrainingSettings
from benchmark.profiles.settings import ProfileSettings
from benchmark.settings import Settings

ClassifierName = Literal["logistic_regression", "linear_svm", "rbf_svm", "lda", "knn", "random_forest",
                         "gradient_boosting"]


class ClassifierSettings(Settings):
    """Which classifiers compete inside the training wells.

    Parameters
    ----------
    candidates : list of str
        Each with its own small grid of settings; see `benchmark.methods.classifier`.
    inner_folds : int
        Folds of the choice, grouped by compound.
    calibrate : str
        ``temperature``: probabilities are calibrated by one temperature, fitted on the out-of-fold predictions of
        the inner folds (Guo et al. 2017). ``none``: as the classifier gives them.
    """

    candidates: tuple[ClassifierName, ...] = ("logistic_regression", "random_forest")
    inner_folds: int = Field(4, ge=2)
    calibrate: Literal["none", "temperature"] = "none"


class _Method(Settings):
    """What every method has: a name for files and figures, and whether its labels are shuffled.

    ``labels: permuted`` makes it a control: labels are permuted between compounds (where controls are scored,
    between the wells of each compound) before anything is fitted, so it must not score above chance. If it does,
    something leaks.
    """

    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$", max_length=40)
    title: str = ""
    labels: Literal["true", "permuted"] = "true"


class CellCountMethod(_Method):
    """Cell count alone: the baseline that every claim must beat."""

    kind: Literal["cell_count"]
    unit: Literal["well", "field"] = "well"
    classifier: ClassifierSettings = ClassifierSettings()


class BaselineMethod(_Method):
    """What any claim must beat, and what should not be able to tell anything.

    Parameters
    ----------
    feature : str
        ``intensity``: mean of each channel's stored pixel values over a field. ``position``: row and column of the
        well on its plate. ``batch``: which batch the well lies in, and nothing else. Where one of the last two scores
        well the assay is confounded.
    """

    kind: Literal["baseline"]
    feature: Literal["intensity", "position", "batch"]
    unit: Literal["well"] = "well"
    classifier: ClassifierSettings = ClassifierSettings()


class ProfileMethod(_Method):
    """CellProfiler profiles and what decides on them.

    Parameters
    ----------
    decision : str
        ``classifier``: trained on wells (or fields). ``nearest``: the label of the nearest treatment profile by cosine
        among the fold's training treatments: NSC where the split leaves compounds out, NSCB where it leaves out their
        batches too.
    """

    kind: Literal["profile"]
    profile: ProfileSettings = ProfileSettings()
    decision: Literal["classifier", "nearest"] = "classifier"
    classifier: ClassifierSettings = ClassifierSettings()


class FrozenMethod(_Method):
    """Features of the pretrained network, nothing of it learnt, and the same classifier."""

    kind: Literal["cnn_frozen"]
    network: NetworkSettings = NetworkSettings()
    crops: CropSettings = CropSettings(size=224)
    channels: Literal["together", "separately"] = "separately"
    classifier: ClassifierSettings = ClassifierSettings(candidates=("logistic_regression",))

    @model_validator(mode="after")
    def _pretrained(self) -> FrozenMethod:
        if self.network.backbone in (MCNN, MIL):
            raise ValueError(f"{self.network.backbone} has no frozen features: its layers are learnt. Use "
                             "kind: cnn_finetuned, or another backbone")
        return self


class FinetunedMethod(_Method):
    """The pretrained network fine-tuned on a fold's training crops.

    ``training`` holds every setting as it is used: what the study does not give comes from the preset.
    """

    kind: Literal["cnn_finetuned"]
    network: NetworkSettings = NetworkSettings()
    crops: CropSettings = CropSettings()
    training: TrainingSettings = TrainingSettings()

    @model_validator(mode="after")
    def _drops_out(self) -> FinetunedMethod:
        if self.network.backbone in (MCNN, MIL) and (self.training.dropout or self.training.mc_dropout):
            raise ValueError(f"{self.network.backbone} has no dropout before its classifier: leave training.dropout "
                             "and training.mc_dropout out")
        return self

    @model_validator(mode="after")
    def _bags(self) -> FinetunedMethod:
        if not self.network.bagged:
            return self
        if self.training.mix != "none":
            raise ValueError("mix blends crops, and bags have none to be blended with: leave training.mix out, or use "
                             "network.bag: crop")
        if self.training.folds == "shared":
            raise ValueError("folds: shared was tried with crops alone: leave training.folds out, or use network.bag: "
                             "crop")
        if self.network.bag == "field" and self.crops.one_a_field:
            raise ValueError("each field is one crop here, so that a bag would hold no other: cut more by crops.grid "
                             "or crops.kind: cells, or use network.bag: well")
        return self

    @field_validator("training")
    @classmethod
    def _resolved(cls, value: TrainingSettings, info: ValidationInfo) -> TrainingSettings:
        network = info.data.get("network")  # absent where it is itself at fault, and said to be
        return value if network is None else resolved(value, network.backbone)


MethodSettings = Annotated[
    CellCountMethod | BaselineMethod | ProfileMethod | FrozenMethod | FinetunedMethod, Field(discriminator="kind")
]
CLASSICAL = (CellCountMethod, BaselineMethod, ProfileMethod)
CNN = (FrozenMethod, FinetunedMethod)


def transductive(method: MethodSettings, corrected: str | None = None) -> list[str]:
    """What a method estimates from test wells without their labels, in words; empty where nothing is.

    ``corrected`` says what an illumination correction of its pixels estimated.
    """
    blocks = [getattr(method, "profile", None), getattr(method, "crops", None)]
    return [text for text in (corrected, *(b.transductive for b in blocks if b is not None)) if text]


def uses_controls(method: MethodSettings) -> str:
    """The setting by which a method looks at which wells are negative controls; empty where none does."""
    if isinstance(method, ProfileMethod) and method.profile.uses_controls:
        return ", ".join(method.profile.uses_controls)
    if isinstance(method, CNN) and method.crops.uses_controls:
        return f"crops: {method.crops.summary}"
    return ""
