"""A pretrained network fine-tuned on a fold's training crops."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import ValidationInfo, field_validator, model_validator

from benchmark.methods.base import Method, Role
from benchmark.methods.network import NetworkMethod
from benchmark.methods.registry import METHODS
from benchmark.networks.settings import TrainingSettings
from benchmark.networks.training.presets import resolved

if TYPE_CHECKING:
    from benchmark.folds.fold import Fold
    from benchmark.methods.context import Context, FinishedRun, Plan
    from benchmark.methods.workers.fusion import FeatureBlock


@METHODS.register
class FinetunedMethod(NetworkMethod):
    """The pretrained network fine-tuned on a fold's training crops.

    ``training`` holds every setting as it is used: what the study does not give comes from the preset.
    """

    revision: ClassVar[int] = 3
    on_device: ClassVar[bool] = True
    learnt_embeddings: ClassVar[bool] = True
    explainable: ClassVar[bool] = True

    kind: Literal["cnn_finetuned"]
    training: TrainingSettings = TrainingSettings()

    @field_validator("training")
    @classmethod
    def _resolved(cls, value: TrainingSettings, info: ValidationInfo) -> TrainingSettings:
        network = info.data.get("network")  # absent where it is itself at fault, and said to be
        return value if network is None else resolved(value, network.backbone)

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

    @property
    def role(self) -> Role:
        """Always ``finetuned``."""
        return "finetuned"

    def words(self, program: str) -> str:
        """How the network is trained and predicts."""
        return training_words(self) + self.scaling_words()

    def plan(self, context: Context, parts: Sequence[FinishedRun]) -> Plan:
        """One training of the network per fold and seed, or trainings that folds share."""
        from benchmark.methods.plans.finetuning import finetuned_plan

        return finetuned_plan(self, context)

    def why_not_fused(self, how: str) -> str:
        """Its features can be joined only where it writes embeddings of wells."""
        if how == "concatenated" and "well" not in self.embeddings:
            return "writes no embeddings of wells to join: give it embeddings: [well], or fuse with how: stacked"
        return ""

    def inside_training_wells(self) -> Method:
        """Trained on its own: a training that folds of the study share has seen what inner folds hold out."""
        training = self.training.model_copy(update={"folds": "exact"})
        return self.model_copy(update={"embeddings": (), "training": training})

    def feature_blocks(self, context: Context, run: FinishedRun) -> Callable[[Fold, int], FeatureBlock]:
        """The embeddings of wells by the network of the same fold and seed."""
        from benchmark.methods.workers.fusion import FeatureBlock
        from benchmark.methods.workers.source import PLAIN, ProfileSource

        return lambda fold, seed: FeatureBlock(
            self.name, ProfileSource(self.embedding_path(run.folder, fold, seed, "well"), PLAIN, embedded=True), False)

    def refuse_explanation(self, ways: Collection[str]) -> None:
        """Refuse averaged snapshots, bags of crops, and maps that do not suit the network."""
        if self.training.snapshots > 1:
            raise ValueError(f"explain.method: {self.name} averages the predictions of several networks "
                             f"(training.snapshots: {self.training.snapshots}), and maps would explain one of them")
        if self.network.bagged:
            raise ValueError(f"explain.method: {self.name} decides on bags of crops (network.bag: {self.network.bag}), "
                             "and maps explain single crops")
        if set(ways) <= set(self.network.architecture.unsuited):
            raise ValueError("explain.ways: grad_cam and guided_backpropagation need not suit "
                             f"{self.network.backbone}; take integrated_gradients or occlusion as well")


LEARNT = {
    "full": "fine-tuned in all layers", "scratch": "trained from random weights", "head": "fine-tuned in its head",
    "frozen": "as pretrained under a new classifier layer, which alone is trained",
}


def training_words(method: FinetunedMethod) -> str:
    """How a network is trained and predicted with, in a sentence."""
    t, n = method.training, method.network
    learnt = LEARNT.get(t.learn) or f"fine-tuned from {t.learn.removeprefix('from:')} on"
    rate = "peak rate" if t.schedule == "cosine" else "rate"
    batch = f"{t.batch} bags of up to {n.bag_size} crops" if n.bagged else f"{t.batch}"
    phrases = [method.crops.summary, f"{t.epochs} epochs, batch {batch}, {rate} {t.learning_rate:g}"]
    if t.preset != "modern":
        phrases.append(f"preset {t.preset}")
    phrases += [words for words, there in (
        (f"optimiser {t.optimizer.upper()}", t.optimizer != "adamw"),
        (f"augmentation {t.augmentation}", t.augmentation != "standard"),
        ("folds share trainings", t.folds == "shared"),
        (f"layer decay {t.layer_decay:g}", t.layer_decay < 1),
        (t.mix, t.mix != "none"),
        (f"weights averaged ({t.average.upper()})", t.average != "none"),
        ("stopped early by held-out training compounds", t.early_stopping > 0),
        (f"{t.snapshots} snapshots averaged", t.snapshots > 1),
        ("8 views averaged", t.tta),
        (f"{t.mc_dropout} passes with dropout averaged", t.mc_dropout > 0),
    ) if there]
    if n.scratch:
        learnt = LEARNT["scratch"]
    return f"{n.summary} {learnt} on the training wells' crops ({'; '.join(phrases)})"
