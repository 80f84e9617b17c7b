"""The classical arm on a network's embeddings of wells."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from benchmark.base.settings import Settings
from benchmark.methods.base import NEAREST_WORDS, Arm, Method, Role, classifier_words
from benchmark.methods.classifiers.settings import ClassifierSettings
from benchmark.methods.registry import METHODS, kinds_that
from benchmark.profiles.settings import Correction, Normalise, ProfileSettings, Scaling, Selection
from benchmark.profiles.words import CORRECTIONS

if TYPE_CHECKING:
    from benchmark.methods.context import Context, FinishedRun, Plan


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


@METHODS.register
class EmbeddingMethod(Method):
    """The classical arm on a network's embeddings of wells; each fold takes those of the same fold's network.

    Parameters
    ----------
    of : str
        Name of a method of this study with a network and ``embeddings: [well]``.
    decision : str
        ``nearest`` is NSC or NSCB, as the split has it; see `benchmark.methods.kinds.profile.ProfileMethod`.
    """

    revision: ClassVar[int] = 1
    arm: ClassVar[Arm] = "dependent"
    builds_on_key: ClassVar[str] = "of"

    kind: Literal["embedding"]
    of: str
    profile: EmbeddingProfileSettings = EmbeddingProfileSettings()
    decision: Literal["classifier", "nearest"] = "classifier"
    classifier: ClassifierSettings = ClassifierSettings(candidates=("logistic_regression",))

    @property
    def role(self) -> Role:
        """Always ``embedding``."""
        return "embedding"

    @property
    def builds_on(self) -> tuple[str, ...]:
        """The one method whose embeddings it uses."""
        return (self.of,)

    @property
    def uses_controls(self) -> str:
        """The settings of its profile that use negative controls."""
        return ", ".join(self.profile.whole.uses_controls)

    @property
    def needs_controls(self) -> Literal["", "anywhere", "each plate"]:
        """As its normalisation and correction need them."""
        return self.profile.whole.needs_controls

    def estimated(self) -> list[str]:
        """What its normalisation or correction estimates from test wells."""
        transductive = self.profile.whole.transductive
        return [transductive] if transductive else []

    def words(self, program: str) -> str:
        """Whose embeddings it uses, and how they are normalised and corrected."""
        p = self.profile
        text = f"mean embeddings of each well by the network of {self.of}"
        text += {"controls": f", normalised per plate to its negative controls ({p.method})",
                 "plate": f", normalised per plate to all its wells ({p.method})",
                 "training": ", standardised on the training wells"}[p.normalise]
        text += f", cut at ±{p.clip:g}" if p.clip and (self.decision == "nearest" or p.correction != "none") else ""
        return text + (f", {CORRECTIONS[p.correction]}" if p.correction != "none" else "")

    def decision_words(self, wells_permuted: bool) -> str:
        """How the nearest treatment or the classifier decides."""
        return NEAREST_WORDS if self.decision == "nearest" else classifier_words(self.classifier, wells_permuted)

    def why_not_part(self, part: Method) -> str:
        """It builds only on methods that write embeddings of wells, learnt (if at all) from the same labels."""
        if not part.embeds:
            return f"is of kind {getattr(part, 'kind', '')}; embeddings are of {kinds_that('embeds')}"
        if "well" not in getattr(part, "embeddings", ()):
            return "writes no embeddings of wells: give it embeddings: [well]"
        if part.learnt_embeddings and part.labels != self.labels:
            return f"has labels: {part.labels}, and {self.name} has labels: {self.labels}: give both the same"
        return ""

    def plan(self, context: Context, parts: Sequence[FinishedRun]) -> Plan:
        """One classifier (or nearest-treatment match) per fold on embeddings of the same fold."""
        from benchmark.methods.plans.embedded import embedding_plan

        return embedding_plan(self, context, parts[0])
