"""Settings of the contestants, as a study file gives them."""

from __future__ import annotations

from typing import Annotated, Literal, get_args

from pydantic import (
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

from benchmark.base.settings import Settings
from benchmark.crops.settings import CropSettings
from benchmark.methods.classifiers.settings import ClassifierSettings
from benchmark.networks.settings import NetworkSettings, TrainingSettings
from benchmark.networks.training.presets import resolved
from benchmark.profiles.settings import Correction, Normalise, ProfileSettings, Scaling, Selection

EmbeddingUnit = Literal["crop", "field", "well", "treatment"]
EMBEDDING_UNITS: tuple[EmbeddingUnit, ...] = get_args(EmbeddingUnit)


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


class _NetworkMethod(_Method):
    """What methods with a network have besides.

    Parameters
    ----------
    embeddings : tuple of str
        Units (``crop``, ``field``, ``well``, ``treatment``) whose embeddings are written beside the predictions: what
        the network makes of crops just before its classifier. See `benchmark.methods.workers.embeddings`.
    """

    embeddings: tuple[EmbeddingUnit, ...] = ()

    @field_validator("embeddings")
    @classmethod
    def _once_each(cls, value: tuple[EmbeddingUnit, ...]) -> tuple[EmbeddingUnit, ...]:
        return tuple(unit for unit in EMBEDDING_UNITS if unit in value)

    @property
    def _idle(self) -> tuple[str, ...]:
        return () if self.embeddings else ("embeddings",)


class FrozenMethod(_NetworkMethod):
    """Features of the pretrained network, nothing of it learnt, and the same classifier."""

    kind: Literal["cnn_frozen"]
    network: NetworkSettings = NetworkSettings()
    crops: CropSettings = CropSettings(size=224)
    channels: Literal["together", "separately"] = "separately"
    classifier: ClassifierSettings = ClassifierSettings(candidates=("logistic_regression",))

    @model_validator(mode="after")
    def _pretrained(self) -> FrozenMethod:
        if not self.network.architecture.pretrained:
            raise ValueError(f"{self.network.backbone} has no frozen features: its layers are learnt. Use "
                             "kind: cnn_finetuned, or another backbone")
        return self


class FinetunedMethod(_NetworkMethod):
    """The pretrained network fine-tuned on a fold's training crops.

    ``training`` holds every setting as it is used: what the study does not give comes from the preset.
    """

    kind: Literal["cnn_finetuned"]
    network: NetworkSettings = NetworkSettings()
    crops: CropSettings = CropSettings()
    training: TrainingSettings = TrainingSettings()

    @model_validator(mode="after")
    def _embeds(self) -> FinetunedMethod:
        why_not = self.network.architecture.why_no_embeddings(self.network)
        if self.embeddings and why_not:
            raise ValueError(why_not)
        return self

    @model_validator(mode="after")
    def _drops_out(self) -> FinetunedMethod:
        if not self.network.architecture.dropout and (self.training.dropout or self.training.mc_dropout):
            raise ValueError(f"{self.network.backbone} has no dropout before its classifier: leave training.dropout "
                             "and training.mc_dropout out")
        return self

    @model_validator(mode="after")
    def _bags(self) -> FinetunedMethod:
        if not self.network.bagged:
            return self
        if self.embeddings:
            raise ValueError("embeddings are of crops, each by itself, and this network was trained on bags of them: "
                             "leave embeddings out, or use network.bag: crop")
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


class EmbeddingProfileSettings(Settings):
    """From embeddings of wells to profiles, as `ProfileSettings` has it for CellProfiler's.

    ``select`` is as for network features elsewhere: nothing but what is constant or missing is dropped.
    """

    normalise: Normalise = "training"
    method: Scaling = "standardize"
    select: tuple[Selection, ...] = ("missing", "variance")
    correlation: float = Field(0.95, gt=0, le=1)
    clip: float | None = Field(20.0, gt=0)
    correction: Correction = "none"

    @property
    def whole(self) -> ProfileSettings:
        """The same for the classical arm."""
        return ProfileSettings(aggregate="mean", **self.model_dump())


class EmbeddingMethod(_Method):
    """The classical arm on a network's embeddings of wells; each fold takes those of the same fold's network.

    Parameters
    ----------
    of : str
        Name of a method of this study with a network and ``embeddings: [well]``.
    decision : str
        As in `ProfileMethod`: ``nearest`` is NSC or NSCB, as the split has it.
    """

    kind: Literal["embedding"]
    of: str
    profile: EmbeddingProfileSettings = EmbeddingProfileSettings()
    decision: Literal["classifier", "nearest"] = "classifier"
    classifier: ClassifierSettings = ClassifierSettings(candidates=("logistic_regression",))


class FusionMethod(_Method):
    """Several methods of the study made into one.

    Parameters
    ----------
    parts : tuple of str
        Names of methods of the kinds ``profile`` (``decision: classifier``), ``cnn_frozen`` and ``cnn_finetuned``.
    how : str
        ``stacked``: the product of the parts' probabilities, each to a power that is fitted on predictions of a fold's
        training wells by parts that did not see them; see `benchmark.methods.classifiers.stacking.Pool`.
        ``concatenated``: a classifier on the parts' features of wells, side by side.
    inner_folds : int
        For ``stacked``: folds inside the training wells, grouped by compound. Each part is fitted so many times more
        in each fold.
    classifier : settings
        For ``concatenated``.
    """

    kind: Literal["fusion"]
    parts: tuple[str, ...]
    how: Literal["stacked", "concatenated"] = "stacked"
    inner_folds: int = Field(3, ge=2)
    classifier: ClassifierSettings = ClassifierSettings(candidates=("logistic_regression",))

    @model_validator(mode="after")
    def _sane(self) -> FusionMethod:
        if len(self.parts) < 2:
            raise ValueError("parts: two or more are fused")
        twice = [p for p in self.parts if self.parts.count(p) > 1]
        if twice:
            raise ValueError(f"parts: {twice[0]!r} is given twice")
        given = self.model_fields_set & set(self._idle)
        if given:
            other = "stacked" if self.how == "concatenated" else "concatenated"
            raise ValueError(f"{given.pop()} is for how: {other}; leave it out")
        return self

    @property
    def _idle(self) -> tuple[str, ...]:
        return ("inner_folds",) if self.how == "concatenated" else ("classifier",)


MethodSettings = Annotated[
    CellCountMethod | BaselineMethod | ProfileMethod | FrozenMethod | FinetunedMethod | EmbeddingMethod | FusionMethod,
    Field(discriminator="kind"),
]
CLASSICAL = (CellCountMethod, BaselineMethod, ProfileMethod)
CNN = (FrozenMethod, FinetunedMethod)
#: Methods that rest on runs of others.
DEPENDENT = (EmbeddingMethod, FusionMethod)


def transductive(method: MethodSettings, corrected: str | None = None) -> list[str]:
    """What a method estimates from test wells without their labels, in words; empty where nothing is.

    ``corrected`` says what an illumination correction of its pixels estimated.
    """
    profile = method.profile.whole if isinstance(method, EmbeddingMethod) else getattr(method, "profile", None)
    blocks = [profile, getattr(method, "crops", None)]
    return [text for text in (corrected, *(b.transductive for b in blocks if b is not None)) if text]


def uses_controls(method: MethodSettings) -> str:
    """The setting by which a method looks at which wells are negative controls; empty where none does."""
    if isinstance(method, ProfileMethod | EmbeddingMethod):
        profile = method.profile.whole if isinstance(method, EmbeddingMethod) else method.profile
        return ", ".join(profile.uses_controls)
    if isinstance(method, CNN) and method.crops.uses_controls:
        return f"crops: {method.crops.summary}"
    return ""
