"""Which classifiers are compared on the training wells."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from benchmark.base.settings import Settings

ClassifierName = Literal["logistic_regression", "linear_svm", "rbf_svm", "lda", "knn", "random_forest",
                         "gradient_boosting"]


class ClassifierSettings(Settings):
    """Which classifiers are compared on the training wells.

    Parameters
    ----------
    candidates : list of str
        Each with its own small grid of settings; see `benchmark.methods.classifiers.classifier`.
    inner_folds : int
        Folds of the inner cross-validation, grouped by compound.
    calibrate : str
        ``temperature``: probabilities are calibrated by one temperature, fitted on the out-of-fold predictions of
        the inner folds (Guo et al. 2017). ``none``: as the classifier gives them.
    """

    candidates: tuple[ClassifierName, ...] = ("logistic_regression", "random_forest")
    inner_folds: int = Field(4, ge=2)
    calibrate: Literal["none", "temperature"] = "none"
