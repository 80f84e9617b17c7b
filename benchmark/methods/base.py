"""What every kind of method has: its settings, what it needs, its words for the report, and how its folds run.

A kind is one module of `benchmark.methods.kinds`: a class of settings derived from `Method` (or from one of the bases
below), registered by ``@METHODS.register``, with a field ``kind`` that names it in the study file.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from benchmark.base.settings import Settings
from benchmark.methods.classifiers.settings import ClassifierSettings

if TYPE_CHECKING:
    from benchmark.crops.settings import CropSettings
    from benchmark.folds.fold import Fold
    from benchmark.methods.classifiers.labels import Permuted
    from benchmark.methods.context import Context, Features, FinishedRun, Pipeline, Plan
    from benchmark.methods.workers.fusion import FeatureBlock
    from benchmark.methods.workers.runs import RunFolder

#: What a method is in a comparison; ``other`` is neither the classical arm nor a network.
Role = Literal["count", "baseline", "classical", "frozen", "finetuned", "embedding", "fusion", "other"]
#: What embeddings are written of.
EmbeddingUnit = Literal["crop", "field", "well", "treatment"]
#: Which command runs a method: ``classical`` by `make baseline`, ``cnn`` by `make cnn`, ``dependent`` by both, once the
#: methods that it builds on have run.
Arm = Literal["classical", "cnn", "dependent"]


class Method(Settings):
    """What every method has: a name for files and figures, and whether its labels are permuted.

    ``labels: permuted`` makes it a permuted-label run: labels are permuted between compounds (where controls are
    scored, between the wells of each compound) before anything is fitted, so that it must not score above chance. If
    it does, something leaks.
    """

    #: Raised when a kind's code changes what it predicts, so that old folds are not taken for new ones.
    revision: ClassVar[int]
    arm: ClassVar[Arm]
    #: Settings that no prediction depends on; they do not enter a run's key.
    unkeyed: ClassVar[frozenset[str]] = frozenset({"title"})
    #: Whether folds run on the GPU where there is one.
    on_device: ClassVar[bool] = False
    #: Whether methods of the kind can be parts of a fusion.
    fusable: ClassVar[bool] = False
    #: Whether methods of the kind write embeddings, which others can build on.
    embeds: ClassVar[bool] = False
    #: Whether these embeddings depend on the labels that the method learnt.
    learnt_embeddings: ClassVar[bool] = False
    #: Whether the kind trains a network whose decisions can be explained.
    explainable: ClassVar[bool] = False

    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$", max_length=40)
    title: str = ""
    labels: Literal["true", "permuted"] = "true"

    @property
    @abstractmethod
    def role(self) -> Role:
        """What the method is in a comparison."""

    @abstractmethod
    def words(self, program: str) -> str:
        """What the method does, in a phrase for the report; ``program`` is as in `summary`."""

    def decision_words(self, wells_permuted: bool) -> str:
        """How the method decides, in a phrase that follows `words`; empty where these say it."""
        return ""

    @abstractmethod
    def plan(self, context: Context, parts: Sequence[FinishedRun]) -> Plan:
        """How its folds run; what they start from is made on the way.

        Parameters
        ----------
        parts : sequence of FinishedRun
            The methods that it builds on, in the order of `builds_on`.

        Raises
        ------
        MorphobenchError
            The method does not suit the assay.
        """

    # What it needs.

    @property
    def pipelines(self) -> frozenset[Pipeline]:
        """Pipelines whose measurements it uses."""
        return frozenset()

    @property
    def crop_settings(self) -> CropSettings | None:
        """How the crops that it sees are cut; None where it sees none."""
        return None

    @property
    def uses_controls(self) -> str:
        """The setting by which it looks at which wells are negative controls; empty where it does not."""
        return ""

    @property
    def needs_controls(self) -> Literal["", "anywhere", "each plate"]:
        """Where there must be negative controls."""
        return "each plate" if self.uses_controls else ""

    @property
    def needs_images(self) -> bool:
        """Whether it cannot run on a table of profiles."""
        return self.crop_settings is not None or "whole_field" in self.pipelines

    @property
    def needs_positions(self) -> bool:
        """Whether it looks at where wells lie on their plate, so that their names must give row and column."""
        return False

    # What of it is transductive.

    def estimated(self) -> list[str]:
        """What it estimates from test wells without their labels, in words."""
        return []

    def corrected_pixels(self, context: Context) -> str | None:
        """What the illumination correction of its pixels was estimated from, in words; None where there is none."""
        return None

    # How methods build on one another.

    @property
    def builds_on(self) -> tuple[str, ...]:
        """Names of the methods that it builds on."""
        return ()

    #: The setting that names these.
    builds_on_key: ClassVar[str] = ""

    def why_not_part(self, part: Method) -> str:
        """Why it cannot build on a method, in words that follow its name; empty where it can."""
        return ""

    def why_not_fused(self, how: str) -> str:
        """Why it cannot be a part of a fusion, in words that follow its name; empty where it can."""
        return ""

    def inside_training_wells(self) -> Method:
        """The same method as it is fitted in folds inside a fold's training wells."""
        return self

    def feature_blocks(self, context: Context, run: FinishedRun) -> Callable[[Fold, int], FeatureBlock]:
        """Its features of wells in a fold with a seed, for a fusion of features; of kinds that are ``fusable``."""
        raise TypeError(f"methods like {self.name} have no features of wells to fuse")

    def embedding_path(self, run: RunFolder, fold: Fold, seed: int, unit: EmbeddingUnit) -> Path:
        """The file with its embeddings that a fold uses; of kinds that have ``embeds``."""
        raise TypeError(f"methods like {self.name} have no embeddings")

    def refuse_explanation(self, ways: Collection[str]) -> None:
        """ValueError where maps made in these ways would say nothing about it; of kinds that are ``explainable``."""

    # What the workflow asks of all kinds alike.

    def summary(self, wells_permuted: bool = False, program: str = "CellProfiler") -> str:
        """What the method does, in a sentence for the report.

        Parameters
        ----------
        wells_permuted : bool
            Permuted labels are permuted over the wells of each compound (controls are scored), not over compounds.
        program : str
            What measures features here; empty where they were brought along as profiles.
        """
        text = self.words(program) + self.decision_words(wells_permuted)
        over = "between the wells of each compound" if wells_permuted else "between compounds"
        return text + (f"; labels permuted {over}" if self.labels == "permuted" else "")

    def permuted(self, context: Context, seed: int) -> Permuted | None:
        """Permuted labels, the same in all folds; None where labels are the true ones."""
        if self.labels == "true":
            return None
        from benchmark.methods.classifiers.labels import permute_labels, permute_wells

        permute = permute_wells if context.assay.scoring == "controls" else permute_labels
        return permute(context.assay.treated, seed)


def keyed(method: Method, context: Context, inputs: dict[str, Any]) -> dict[str, Any]:
    """``inputs`` of a run's key, with how labels were permuted where they were."""
    if method.labels == "true":
        return inputs
    return inputs | {"permuted": "wells of each compound" if context.assay.scoring == "controls" else "typical"}


def classifier_words(classifier: ClassifierSettings, wells_permuted: bool) -> str:
    """How a classifier decides, in a phrase."""
    text = "; classifier chosen by cross-validation inside the training wells, grouped by compound"
    text += " (by well where there is one compound)" if wells_permuted else ""
    return text + (", probabilities calibrated there" if classifier.calibrate == "temperature" else "")


#: How the nearest treatment decides, in a phrase.
NEAREST_WORDS = "; label of the nearest training treatment by cosine"


class TabularMethod(Method):
    """A method that one classifier (or the nearest treatment) decides for, on a table of features."""

    classifier: ClassifierSettings = ClassifierSettings()

    @abstractmethod
    def features(self, context: Context) -> Features:
        """Its features of the assay's wells or fields.

        Raises
        ------
        MorphobenchError
            The method does not suit the assay.
        """

    @property
    def decides(self) -> Literal["classifier", "nearest"]:
        """What decides on the features."""
        return "classifier"

    def decision_words(self, wells_permuted: bool) -> str:
        """How the nearest treatment or the classifier decides."""
        return NEAREST_WORDS if self.decides == "nearest" else classifier_words(self.classifier, wells_permuted)

    def plan(self, context: Context, parts: Sequence[FinishedRun]) -> Plan:
        """One classifier (or nearest-treatment match) per fold on `features`."""
        from benchmark.methods.plans.tabular import tabular_plan

        return tabular_plan(self, context, self.features(context))
