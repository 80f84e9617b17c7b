"""CellProfiler profiles of wells or fields, and what decides on them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar, Literal

from benchmark.methods.base import Arm, Role, TabularMethod
from benchmark.methods.registry import METHODS
from benchmark.methods.versions import PROFILES
from benchmark.profiles.settings import ProfileSettings
from benchmark.profiles.words import profile_words

if TYPE_CHECKING:
    from benchmark.folds.fold import Fold
    from benchmark.methods.context import Context, Features, FinishedRun, Pipeline
    from benchmark.methods.workers.fusion import FeatureBlock


@METHODS.register
class ProfileMethod(TabularMethod):
    """CellProfiler profiles and what decides on them.

    Parameters
    ----------
    decision : str
        ``classifier``: trained on wells (or fields). ``nearest``: the label of the nearest treatment profile by cosine
        among the fold's training treatments: NSC where the split leaves compounds out, NSCB where it leaves out their
        batches too.
    """

    revision: ClassVar[int] = PROFILES
    arm: ClassVar[Arm] = "classical"
    fusable: ClassVar[bool] = True

    kind: Literal["profile"]
    profile: ProfileSettings = ProfileSettings()
    decision: Literal["classifier", "nearest"] = "classifier"

    @property
    def role(self) -> Role:
        """A read-out of a few chosen features is not what "CellProfiler profiles" stands for."""
        return "other" if self.profile.features else "classical"

    @property
    def decides(self) -> Literal["classifier", "nearest"]:
        """As ``decision`` states."""
        return self.decision

    @property
    def pipelines(self) -> frozenset[Pipeline]:
        """The one pipeline that measures its features."""
        return frozenset({"whole_field" if self.profile.source == "whole_field" else "cellprofiler"})

    @property
    def uses_controls(self) -> str:
        """The settings of its profile that use negative controls."""
        return ", ".join(self.profile.uses_controls)

    @property
    def needs_controls(self) -> Literal["", "anywhere", "each plate"]:
        """As its profile needs them."""
        return self.profile.needs_controls

    def words(self, program: str) -> str:
        """How profiles are made from what was measured."""
        cut = self.decision == "nearest" or self.profile.correction != "none"
        return profile_words(self.profile, program, cut)

    def estimated(self) -> list[str]:
        """What its profile estimates from test wells."""
        return [self.profile.transductive] if self.profile.transductive else []

    def corrected_pixels(self, context: Context) -> str | None:
        """As for the pixels that its pipeline measured."""
        (pipeline,) = self.pipelines
        return context.measured_pixels(pipeline)

    def features(self, context: Context) -> Features:
        """Profiles of the assay's wells or fields, with this method's own selection and correction."""
        found = context.profiles(self.profile, f"method {self.name}")
        # Methods share tables of profiles: selection and correction are each method's own.
        return replace(found, source=replace(found.source, profile=self.profile))

    def why_not_fused(self, how: str) -> str:
        """It can be fused only with a classifier, and its features joined only where they are of wells."""
        if self.decision != "classifier":
            return "has decision: nearest, which gives no probabilities of wells"
        if how == "concatenated" and self.profile.unit != "well":
            return (f"has profiles of {self.profile.unit}s, and features are joined by well: set its profile.unit to "
                    "well")
        return ""

    def feature_blocks(self, context: Context, run: FinishedRun) -> Callable[[Fold, int], FeatureBlock]:
        """The same profiles for every fold and seed."""
        from benchmark.methods.workers.fusion import FeatureBlock

        block = FeatureBlock(self.name, self.features(context).source, True)
        return lambda fold, seed: block
