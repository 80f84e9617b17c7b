"""How a profile is made, in words."""

from __future__ import annotations

from benchmark.profiles.settings import REFERRING, ProfileSettings

AGGREGATES = {
    "mean": "mean", "median": "median", "median_mad": "median and MAD", "deciles": "deciles",
    "ks": "Kolmogorov-Smirnov statistics against reference cells",
    "svm": "normal vector of a linear SVM against reference cells",
    "gmm": "shares of the components of a Gaussian mixture", "factor_analysis": "mean latent factors",
}


CORRECTIONS = {
    "sphering": "sphered on the negative controls", "tvn": "typical variation normalised (TVN) on the controls",
    "combat": "batches corrected by ComBat", "harmony": "batches corrected by Harmony",
}


def profile_words(p: ProfileSettings, program: str = "CellProfiler", cut: bool = False) -> str:
    """How a profile is made, in a phrase.

    Parameters
    ----------
    program : str
        What measures features here; empty where they were brought along as profiles.
    cut : bool
        Whether values beyond ``p.clip`` are clipped: before a correction, and for the nearest treatment.
    """
    how = {"controls": f"normalised per plate to its negative controls ({p.method})",
           "plate": f"normalised per plate to all its {p.unit}s ({p.method})",
           "training": "standardised on the training wells"}[p.normalise]
    which = f"features {', '.join(p.features)}" if p.features else "features"
    if p.source == "whole_field":
        source = f"{program}'s whole-field {which}, without segmentation,"
    else:
        source = f"{program}'s single-cell {which}" if program else f"the {which} of the profile table"
    text = f"{AGGREGATES[p.aggregate]} of {source} over each {p.unit}"
    if p.aggregate in REFERRING:
        text += {"controls": " (reference: negative controls)", "training": " (reference: training wells)"}[p.reference]
    text += f", {'single cells ' if p.level == 'cells' else ''}{how}"
    text += f", cut at ±{p.clip:g}" if cut and p.clip else ""
    return text + (f", {CORRECTIONS[p.correction]}" if p.correction != "none" else "")
