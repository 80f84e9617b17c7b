"""What methods with a network have in common: network, crops, and embeddings."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, get_args

from pydantic import field_validator

from benchmark.crops.settings import CropSettings
from benchmark.methods.base import Arm, EmbeddingUnit, Method
from benchmark.networks.settings import NetworkSettings

if TYPE_CHECKING:
    from benchmark.folds.fold import Fold
    from benchmark.methods.context import Context, Pipeline
    from benchmark.methods.workers.runs import RunFolder

EMBEDDING_UNITS: tuple[EmbeddingUnit, ...] = get_args(EmbeddingUnit)


class NetworkMethod(Method):
    """A method that sees crops through a network.

    Parameters
    ----------
    embeddings : tuple of str
        Units (``crop``, ``field``, ``well``, ``treatment``) whose embeddings are written beside the predictions: what
        the network makes of crops just before its classifier. See `benchmark.methods.workers.embeddings`.
    """

    arm: ClassVar[Arm] = "cnn"
    fusable: ClassVar[bool] = True
    embeds: ClassVar[bool] = True

    network: NetworkSettings = NetworkSettings()
    crops: CropSettings = CropSettings()
    embeddings: tuple[EmbeddingUnit, ...] = ()

    @field_validator("embeddings")
    @classmethod
    def _once_each(cls, value: tuple[EmbeddingUnit, ...]) -> tuple[EmbeddingUnit, ...]:
        return tuple(unit for unit in EMBEDDING_UNITS if unit in value)

    @property
    def _idle(self) -> tuple[str, ...]:
        return () if self.embeddings else ("embeddings",)

    @property
    def crop_settings(self) -> CropSettings:
        """Its ``crops``."""
        return self.crops

    @property
    def pipelines(self) -> frozenset[Pipeline]:
        """The pipeline that segments cells, where crops are centred on cells."""
        return frozenset({"cellprofiler"}) if self.crops.kind == "cells" else frozenset()

    @property
    def uses_controls(self) -> str:
        """The settings of its crops, where these are scaled from negative controls."""
        return f"crops: {self.crops.summary}" if self.crops.uses_controls else ""

    def estimated(self) -> list[str]:
        """What its crops estimate from test wells."""
        return [self.crops.transductive] if self.crops.transductive else []

    def corrected_pixels(self, context: Context) -> str | None:
        """As for its crops, or else for the pixels in which cells were segmented."""
        if self.crops.uses_illumination and context.assay.channels:
            return context.crop_pixels()
        # Cell crops are cut where CellProfiler segmented nuclei in the pixels that it was given.
        return context.measured_pixels("cellprofiler") if self.crops.kind == "cells" else None

    def scaling_words(self) -> str:
        """How values enter the network where that is not as for ImageNet; follows the words of a kind."""
        as_they_are = self.network.normalisation == "none"
        return "; values 0 to 255 as they are, without ImageNet scaling" if as_they_are else ""

    def embedding_path(self, run: RunFolder, fold: Fold, seed: int, unit: EmbeddingUnit) -> Path:
        """The file beside the predictions of the same fold and seed."""
        from benchmark.methods.workers.embeddings import embedding_path

        return embedding_path(run.fold_path(fold, seed), unit)
