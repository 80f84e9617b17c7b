"""Features of a pretrained network, nothing of it learnt, and a classifier on them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import model_validator

from benchmark.base.files import digest, read_json, write_json
from benchmark.crops.settings import CropSettings
from benchmark.methods.base import EmbeddingUnit, Role, TabularMethod
from benchmark.methods.classifiers.settings import ClassifierSettings
from benchmark.methods.network import NetworkMethod
from benchmark.methods.registry import METHODS

if TYPE_CHECKING:
    import pandas as pd

    from benchmark.folds.fold import Fold
    from benchmark.methods.context import Context, Features, FinishedRun, Plan
    from benchmark.methods.workers.fusion import FeatureBlock
    from benchmark.methods.workers.runs import RunFolder


@METHODS.register
class FrozenMethod(NetworkMethod, TabularMethod):
    """Features of the pretrained network, averaged over the crops of each field, and a classifier on them.

    Parameters
    ----------
    channels : str
        ``separately``: each channel goes through the network alone. ``together``: channels are the network's colours.
    """

    revision: ClassVar[int] = 3
    # Embeddings of a frozen network are made without a run of its folds.
    unkeyed: ClassVar[frozenset[str]] = frozenset({"title", "embeddings"})

    kind: Literal["cnn_frozen"]
    crops: CropSettings = CropSettings(size=224)
    channels: Literal["together", "separately"] = "separately"
    classifier: ClassifierSettings = ClassifierSettings(candidates=("logistic_regression",))

    @model_validator(mode="after")
    def _pretrained(self) -> FrozenMethod:
        if not self.network.architecture.pretrained:
            raise ValueError(f"{self.network.backbone} has no frozen features: its layers are learnt. Use "
                             "kind: cnn_finetuned, or another backbone")
        return self

    @property
    def role(self) -> Role:
        """Always ``frozen``."""
        return "frozen"

    def words(self, program: str) -> str:
        """Which network's features they are, of which crops and channels."""
        start = "with random weights" if self.network.scratch else "as pretrained"
        return (f"pooled features of {self.network.backbone} {start}, channels {self.channels}, "
                f"crops {self.crops.summary}, averaged over each field{self.scaling_words()}")

    def features(self, context: Context) -> Features:
        """Pooled features of the network, averaged over the crops of each field."""
        from benchmark.methods.context import Features
        from benchmark.methods.workers.source import PLAIN, ProfileSource
        from benchmark.networks.weights.location import weights_identity

        cache, crops = context.crops(self.crops, f"the method {self.name}")
        inputs = {"crops": crops, "weights": weights_identity(self.network)}
        key = digest([self.revision, inputs, self.network.model_dump(mode="json"), self.channels])
        facts = context.folder / "features" / f"network-{key}.json"

        def build() -> pd.DataFrame:
            from benchmark.crops.reader import open_crops
            from benchmark.networks.device import resolve_device
            from benchmark.networks.embed import frozen_features

            table, backbone = frozen_features(open_crops(cache, crops), context.assay, self.network, self.channels,
                                              resolve_device(context.device))
            write_json(facts, {"weights": backbone.source, "weights_sha256": backbone.sha256})
            return table

        table, absent = context.features(f"network-{key}", "field", build)
        return Features(ProfileSource(table, PLAIN), absent, "field", inputs, read_json(facts), False)

    def plan(self, context: Context, parts: Sequence[FinishedRun]) -> Plan:
        """One classifier per fold on `features`; embeddings, where asked for, are written after the folds."""
        plan = super().plan(context, parts)
        if not self.embeddings:
            return plan

        def after(run: RunFolder, missing: Sequence[tuple[Fold, int]]) -> None:
            from benchmark.methods.plans.embedded import write_frozen_embeddings

            write_frozen_embeddings(self, context, run, self.features(context).source.table)

        return replace(plan, after=after)

    def feature_blocks(self, context: Context, run: FinishedRun) -> Callable[[Fold, int], FeatureBlock]:
        """The same features for every fold and seed."""
        from benchmark.methods.workers.fusion import FeatureBlock

        block = FeatureBlock(self.name, replace(self.features(context).source, embedded=True), False)
        return lambda fold, seed: block

    def embedding_path(self, run: RunFolder, fold: Fold, seed: int, unit: EmbeddingUnit) -> Path:
        """One file per unit for all folds and seeds, on neither of which embeddings of a frozen network depend."""
        from benchmark.methods.workers.embeddings import embedding_path, frozen_beside

        return embedding_path(frozen_beside(run), unit)
