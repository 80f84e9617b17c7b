"""Settings of the grid: every profile x normalisation x correction x decision of a list, under the same folds."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from benchmark.base.combinations import SEPARATOR
from benchmark.base.settings import Settings
from benchmark.folds.fold import Fold, Scheme
from benchmark.methods.classifiers.settings import ClassifierName
from benchmark.methods.workers.source import ProfileSource
from benchmark.profiles.settings import Correction, ProfileSettings

Decision = Literal["nearest"] | ClassifierName
#: Normalisation of the grid: how, and by what method.
GridNormalise = Literal[
    "training", "controls/standardize", "controls/mad_robustize", "controls/ljosa", "plate/standardize",
    "plate/mad_robustize",
]


class GridSettings(Settings):
    """What the grid combines.

    Parameters
    ----------
    profiles : dict
        Name to settings of a profile; their normalisation and correction are set by the grid. One profile named
        ``mean`` where there is none.
    normalise : tuple of str
        ``training``, or ``controls`` or ``plate`` with the method after a slash.
    corrections : tuple of str
        See `benchmark.profiles.settings.ProfileSettings`.
    decisions : tuple of str
        ``nearest`` and classifiers, each with its settings chosen inside the training wells.
    schemes : tuple of str
        Schemes of folds. ``nearest`` under the first is NSC, under the second NSCB.
    inner_folds : int
        Folds of the choice of a classifier's settings, grouped by compound.
    """

    profiles: dict[str, ProfileSettings] = Field(default={"mean": ProfileSettings(aggregate="mean")}, min_length=1)
    normalise: tuple[GridNormalise, ...] = Field(("training",), min_length=1)
    corrections: tuple[Correction, ...] = Field(("none",), min_length=1)
    decisions: tuple[Decision, ...] = Field(("nearest", "logistic_regression"), min_length=1)
    schemes: tuple[Scheme, ...] = Field(("leave-one-compound-out",), min_length=1)
    inner_folds: int = Field(3, ge=2)

    @model_validator(mode="after")
    def _wells(self) -> GridSettings:
        odd = sorted(n for n, p in self.profiles.items() if p.unit != "well")
        if odd:
            raise ValueError(f"profiles.{odd[0]}: the grid is of well profiles (unit: well)")
        bad = sorted(n for n in self.profiles if SEPARATOR.strip() in n or not n.strip() or len(n) > 40)
        if bad:
            raise ValueError(f"profiles: {bad[0]!r} is no name (up to 40 characters, no {SEPARATOR.strip()})")
        if "nearest" in self.decisions and "leave-one-cell-line-out" in self.schemes:
            raise ValueError("decisions: the nearest treatment needs schemes that leave compounds out")
        return self

    def tables(self) -> list[tuple[str, str, ProfileSettings]]:
        """Profile name, normalisation and the profile's full settings (no correction), one a feature table."""
        found: list[tuple[str, str, ProfileSettings]] = []
        for (name, profile), how in product(self.profiles.items(), self.normalise):
            normalise, _, method = how.partition("/")
            changes = {"normalise": normalise, "correction": "none"} | ({"method": method} if method else {})
            found.append((name, how, ProfileSettings.model_validate(profile.model_dump() | changes)))
        return found


@dataclass(frozen=True)
class GridFold:
    """What a worker needs: a table of profiles (``name``: profile, normalisation), a fold, and what to try on it.

    ``unit`` is what is compared: treatments, or wells where controls are scored.
    """

    source: ProfileSource
    absent: Path
    name: tuple[str, str]
    corrections: tuple[Correction, ...]
    decisions: tuple[Decision, ...]
    inner_folds: int
    fold: Fold
    seed: int
    labels: tuple[str, ...]
    unit: Literal["treatment", "well"]
    out: Path
