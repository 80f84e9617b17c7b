"""Several methods of the study made into one: their probabilities stacked, or their features side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field, model_validator

from benchmark.methods.base import Arm, Method, Role, classifier_words
from benchmark.methods.classifiers.settings import ClassifierSettings
from benchmark.methods.registry import METHODS, kinds_that

if TYPE_CHECKING:
    from benchmark.methods.context import Context, FinishedRun, Plan


@METHODS.register
class FusionMethod(Method):
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

    revision: ClassVar[int] = 1
    arm: ClassVar[Arm] = "dependent"
    builds_on_key: ClassVar[str] = "parts"

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

    @property
    def role(self) -> Role:
        """Always ``fusion``."""
        return "fusion"

    @property
    def builds_on(self) -> tuple[str, ...]:
        """The fused methods."""
        return self.parts

    def words(self, program: str) -> str:
        """How predictions or features of its parts are combined."""
        names = f"{', '.join(self.parts[:-1])} and {self.parts[-1]}"
        if self.how == "concatenated":
            return f"features of wells by {names} side by side, standardised on the training wells"
        return (f"product of the probabilities of {names}, each to a power fitted on their predictions of training "
                f"wells held out in {self.inner_folds} inner folds by compound")

    def decision_words(self, wells_permuted: bool) -> str:
        """How the classifier on joined features decides; empty for ``stacked``."""
        return "" if self.how == "stacked" else classifier_words(self.classifier, wells_permuted)

    def why_not_part(self, part: Method) -> str:
        """Parts must be of kinds that can be fused and have the same labels."""
        if not part.fusable:
            return f"is of kind {getattr(part, 'kind', '')}; {kinds_that('fusable')} can be fused"
        if part.labels != self.labels:
            return f"has labels: {part.labels}, and {self.name} has labels: {self.labels}: give all the same"
        return part.why_not_fused(self.how)

    def plan(self, context: Context, parts: Sequence[FinishedRun]) -> Plan:
        """One fit per fold on the predictions or features of its parts."""
        from benchmark.methods.plans.fusing import fusion_plan

        return fusion_plan(self, context, parts)
