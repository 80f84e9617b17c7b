"""Settings of the contestants, as a study file gives them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from benchmark.crops.settings import CropSettings
from benchmark.networks.settings import NetworkSettings, TrainingSettings
from benchmark.profiles.settings import ProfileSettings
from benchmark.settings import Settings

ClassifierName = Literal["logistic_regression", "random_forest"]


class ClassifierSettings(Settings):
    """Which classifiers compete inside the training wells.

    Parameters
    ----------
    candidates : list of str
        Each with its own small grid of settings; see `benchmark.methods.classifier`.
    inner_folds : int
        Folds of the choice, grouped by compound.
    """

    candidates: tuple[ClassifierName, ...] = ("logistic_regression", "random_forest")
    inner_folds: int = Field(4, ge=2)


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


class ProfileMethod(_Method):
    """CellProfiler profiles and a classifier."""

    kind: Literal["profile"]
    profile: ProfileSettings = ProfileSettings()
    classifier: ClassifierSettings = ClassifierSettings()


class FrozenMethod(_Method):
    """Features of the pretrained network, nothing of it learnt, and the same classifier."""

    kind: Literal["cnn_frozen"]
    network: NetworkSettings = NetworkSettings()
    crops: CropSettings = CropSettings(size=224)
    channels: Literal["together", "separately"] = "separately"
    classifier: ClassifierSettings = ClassifierSettings(candidates=("logistic_regression",))


class FinetunedMethod(_Method):
    """The pretrained network fine-tuned on a fold's training crops."""

    kind: Literal["cnn_finetuned"]
    network: NetworkSettings = NetworkSettings()
    crops: CropSettings = CropSettings()
    training: TrainingSettings = TrainingSettings()


MethodSettings = Annotated[
    CellCountMethod | ProfileMethod | FrozenMethod | FinetunedMethod, Field(discriminator="kind")
]
CLASSICAL = (CellCountMethod, ProfileMethod)
CNN = (FrozenMethod, FinetunedMethod)


def transductive(method: MethodSettings, corrected: str | None = None) -> list[str]:
    """What a method estimates from test wells without their labels, in words; empty where nothing is.

    ``corrected`` says what an illumination correction of its pixels estimated.
    """
    blocks = [getattr(method, "profile", None), getattr(method, "crops", None)]
    return [text for text in (corrected, *(b.transductive for b in blocks if b is not None)) if text]


def uses_controls(method: MethodSettings) -> str:
    """The setting by which a method looks at which wells are negative controls; empty where none does."""
    if isinstance(method, ProfileMethod) and method.profile.normalise == "controls":
        return "profile.normalise: controls"
    if isinstance(method, CNN) and method.crops.uses_controls:
        return f"crops: {method.crops.summary}"
    return ""


def summary(method: MethodSettings, wells_permuted: bool = False, imaged: bool = True) -> str:
    """What a method does, in a sentence for the report.

    Parameters
    ----------
    wells_permuted : bool
        Permuted labels are permuted over the wells of each compound (controls are scored), not over compounds.
    imaged : bool
        Features are measured on images here, not brought along as profiles.
    """
    if isinstance(method, CellCountMethod):
        what = "mean number of cells a field" if imaged else "number of rows of the profile table"
        text = f"log(1 + {what}) of each {method.unit}"
    elif isinstance(method, ProfileMethod):
        p = method.profile
        how = {"controls": f"normalised per plate to its negative controls ({p.method})",
               "plate": f"normalised per plate to all its {p.unit}s ({p.method})",
               "training": "standardised on the training wells"}[p.normalise]
        which = f"features {', '.join(p.features)}" if p.features else "features"
        source = f"CellProfiler's single-cell {which}" if imaged else f"the {which} of the profile table"
        text = f"{p.aggregate} of {source} over each {p.unit}, {how}"
    elif isinstance(method, FrozenMethod):
        text = (f"pooled features of {method.network.backbone} as pretrained, channels {method.channels}, "
                f"crops {method.crops.summary}, averaged over each field")
    else:
        t = method.training
        views = "" if t.augmentation == "standard" else f", augmentation {t.augmentation}"
        text = (f"{method.network.backbone} fine-tuned in all layers on the training wells' crops "
                f"({method.crops.summary}; {t.epochs} epochs, batch {t.batch}, peak rate {t.learning_rate:g}{views})")
    if isinstance(method, CNN) and method.network.normalisation == "none":
        text += "; values 0 to 255 as they are, without ImageNet scaling"
    if not isinstance(method, FinetunedMethod):
        text += "; classifier chosen by cross-validation inside the training wells, grouped by compound"
        text += " (by well where there is one compound)" if wells_permuted else ""
    over = "between the wells of each compound" if wells_permuted else "between compounds"
    return text + (f"; labels permuted {over}" if method.labels == "permuted" else "")
