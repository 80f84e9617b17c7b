"""Settings of the profiles."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from benchmark.base.settings import Settings

Aggregate = Literal["mean", "median", "median_mad", "deciles", "ks", "svm", "gmm", "factor_analysis"]
#: Profiles that compare a well's cells with reference cells, or are fitted on reference cells.
REFERRING = ("ks", "svm", "gmm", "factor_analysis")
Normalise = Literal["controls", "plate", "training"]
Scaling = Literal["standardize", "mad_robustize", "ljosa"]
Selection = Literal["missing", "variance", "correlation", "blocklist", "reproducibility"]
Correction = Literal["none", "sphering", "tvn", "combat", "harmony"]


class ProfileSettings(Settings):
    """From single cells to profiles.

    Parameters
    ----------
    source : str
        ``cells``: CellProfiler's single cells (or the profile table's rows). ``whole_field``: the measurements of
        whole fields, without segmentation, of the study's ``whole_field`` pipeline; ``mean`` or ``median`` only.
    unit : str
        ``well`` (the field's standard) or ``field``.
    aggregate : str
        How the cells of a unit become its profile: ``mean``, ``median``, ``median_mad``, ``deciles``; or one of
        Ljosa et al. 2013: ``ks`` (Kolmogorov-Smirnov statistic of each feature against reference cells), ``svm``
        (normal vector of a linear SVM against reference cells), ``gmm`` (shares of the components of a Gaussian
        mixture), ``factor_analysis`` (mean of latent factors). See `benchmark.profiles.aggregate`.
    reference : str
        Reference cells of those four. ``controls``: negative controls (``ks`` and ``svm``: of the same plate).
        ``training``: a sample of all cells of a fold's training wells.
    components : int
        Latent factors, or components of the mixture; 0 means the published number (50 factors, 25 components).
    normalise : str
        ``controls``: per plate, to the plate's negative controls. ``plate``: per plate, to all its units.
        Both use the test wells' plates, without labels, so they are reported as transductive.
        ``training``: not by plate; features are only standardised on the training wells of a fold.
    method : str
        For ``controls`` and ``plate``: ``standardize`` (mean and standard deviation), ``mad_robustize`` (median and
        MAD), ``ljosa`` (1st percentile to 0, 99th to 1).
    level : str
        ``wells``: profiles are normalised. ``cells``: single cells are, before they are aggregated (as Ljosa et al.).
    features : tuple of str
        Patterns with ``*`` and ``?`` of the features to use; all if empty. A single read-out, such as
        the ratio of an intensity in nucleus and cytoplasm, can be compared as a method of its own this way.
    select : tuple of str
        Steps of feature selection, in this order, fitted on a fold's training wells.
    correlation : float
        Of two features that correlate more than this over the training wells, one is dropped.
    clip : float or None
        Normalised values beyond ± this many units are clipped before a correction and before the search for the
        nearest treatment: one well with few cells must not dominate a feature. In units of a plate's controls much of
        a strong phenotype lies beyond 20; the share that was clipped is in the record. ``null``: no clipping.
    correction : str
        Batch correction, fitted on negative controls (``sphering``, ``tvn``), on training wells and controls
        (``combat``), or on all wells without labels (``harmony``: transductive).
    """

    source: Literal["cells", "whole_field"] = "cells"
    unit: Literal["well", "field"] = "well"
    aggregate: Aggregate = "median"
    reference: Literal["controls", "training"] = "controls"
    components: int = Field(0, ge=0, le=500)
    normalise: Normalise = "controls"
    method: Scaling = "mad_robustize"
    level: Literal["wells", "cells"] = "wells"
    features: tuple[str, ...] = ()
    select: tuple[Selection, ...] = ("missing", "variance", "correlation")
    correlation: float = Field(0.95, gt=0, le=1)
    clip: float | None = Field(20.0, gt=0)
    correction: Correction = "none"

    @model_validator(mode="after")
    def _sound(self) -> ProfileSettings:
        if self.source == "whole_field" and (self.aggregate not in ("mean", "median") or self.level == "cells"):
            raise ValueError("whole_field has no cells: aggregate is mean or median, and level is wells")
        if self.unit == "field" and self.aggregate in REFERRING:
            raise ValueError(f"{self.aggregate} profiles are of wells: a field has too few cells")
        return self

    @property
    def fold_wise(self) -> bool:
        """Whether the profiles depend on which wells are training wells, and are made anew in each fold."""
        return self.aggregate in REFERRING and self.reference == "training"

    @property
    def uses_controls(self) -> tuple[str, ...]:
        """Settings that use which wells are negative controls."""
        names = []
        if self.normalise == "controls":
            names.append("profile.normalise: controls")
        if self.aggregate in REFERRING and self.reference == "controls":
            names.append("profile.reference: controls")
        if self.correction in ("sphering", "tvn", "combat"):
            names.append(f"profile.correction: {self.correction}")
        return tuple(names)

    @property
    def needs_controls(self) -> Literal["", "anywhere", "each plate"]:
        """Where there must be negative controls."""
        by_plate = self.aggregate in ("ks", "svm") and self.reference == "controls"
        if self.normalise == "controls" or by_plate:
            return "each plate"
        return "anywhere" if self.uses_controls else ""

    @property
    def transductive(self) -> str | None:
        """What is estimated from test wells (or their plates) without their labels, in words; None where nothing is."""
        what = {"cells": "single cells", "wells": "profiles"}[self.level]
        phrases = []
        if self.normalise == "controls":
            phrases.append(f"{what} normalised per plate to the plate's negative controls")
        if self.normalise == "plate":
            phrases.append(f"{what} normalised per plate to all its wells")
        if self.aggregate in ("ks", "svm") and self.reference == "controls":
            phrases.append("cells set against the plate's negative controls")
        if self.aggregate in ("gmm", "factor_analysis") and self.reference == "controls":
            phrases.append("factors or components fitted on all plates' negative controls, test plates among them")
        if self.correction == "sphering":
            phrases.append("sphered on all plates' negative controls, test plates among them")
        if self.correction == "tvn":
            phrases.append("batches aligned by their negative controls (TVN)")
        if self.correction == "combat":
            phrases.append("batches corrected on training wells and on negative controls of the same batches, those of "
                           "test plates among them (ComBat)")
        if self.correction == "harmony":
            phrases.append("batches aligned over all wells, the test wells among them (Harmony)")
        return "; ".join(phrases) or None
