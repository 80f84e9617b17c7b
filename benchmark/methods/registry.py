"""What a method does, in a sentence for the report."""

from __future__ import annotations

from benchmark.methods.base import (
    CNN,
    BaselineMethod,
    CellCountMethod,
    EmbeddingMethod,
    FinetunedMethod,
    FrozenMethod,
    FusionMethod,
    MethodSettings,
    ProfileMethod,
)
from benchmark.profiles.words import CORRECTIONS, profile_words

BASELINES = {
    "intensity": "mean of each channel's stored pixel values over each well's fields: no cells, no texture",
    "position": "row and column of the well on its plate, and nothing of its image",
    "batch": "which batch a well lies in, and nothing of its image",
}


def summary(method: MethodSettings, wells_permuted: bool = False, imaged: bool = True) -> str:
    """What a method does, in a sentence for the report.

    Parameters
    ----------
    wells_permuted : bool
        Permuted labels are permuted over the wells of each compound (controls are scored), not over compounds.
    imaged : bool
        Features are measured on images here, not brought along as profiles.
    """
    if isinstance(method, CellCountMethod):
        what = "mean number of cells a field" if imaged else "number of rows of the profile table"
        text = f"log(1 + {what}) of each {method.unit}"
    elif isinstance(method, BaselineMethod):
        text = BASELINES[method.feature]
    elif isinstance(method, ProfileMethod):
        cut = method.decision == "nearest" or method.profile.correction != "none"
        text = profile_words(method.profile, imaged, cut)
    elif isinstance(method, FrozenMethod):
        start = "with random weights" if method.network.scratch else "as pretrained"
        text = (f"pooled features of {method.network.backbone} {start}, channels {method.channels}, "
                f"crops {method.crops.summary}, averaged over each field")
    elif isinstance(method, EmbeddingMethod):
        text = f"mean embeddings of each well by the network of {method.of}{_embedded_words(method)}"
    elif isinstance(method, FusionMethod):
        text = fusion_words(method)
    else:
        text = training_words(method)
    if isinstance(method, CNN) and method.network.normalisation == "none":
        text += "; values 0 to 255 as they are, without ImageNet scaling"
    text += _decision(method, wells_permuted)
    over = "between the wells of each compound" if wells_permuted else "between compounds"
    return text + (f"; labels permuted {over}" if method.labels == "permuted" else "")


def _embedded_words(method: EmbeddingMethod) -> str:
    p = method.profile
    said = {"controls": f", normalised per plate to its negative controls ({p.method})",
            "plate": f", normalised per plate to all its wells ({p.method})",
            "training": ", standardised on the training wells"}[p.normalise]
    said += f", cut at ±{p.clip:g}" if p.clip and (method.decision == "nearest" or p.correction != "none") else ""
    return said + (f", {CORRECTIONS[p.correction]}" if p.correction != "none" else "")


def fusion_words(method: FusionMethod) -> str:
    """How methods are made into one, in a phrase."""
    names = f"{', '.join(method.parts[:-1])} and {method.parts[-1]}"
    if method.how == "concatenated":
        return f"features of wells by {names} side by side, standardised on the training wells"
    return (f"product of the probabilities of {names}, each to a power fitted on their predictions of training wells "
            f"held out in {method.inner_folds} inner folds by compound")


def training_words(method: FinetunedMethod) -> str:
    """How a network is trained and predicted with, in a sentence."""
    t = method.training
    how = {"full": "fine-tuned in all layers", "scratch": "trained from random weights",
           "head": "fine-tuned in its head",
           "frozen": "as pretrained under a new classifier layer, which alone is trained"}
    learnt = how.get(t.learn) or f"fine-tuned from {t.learn.removeprefix('from:')} on"
    rate = "peak rate" if t.schedule == "cosine" else "rate"
    n = method.network
    batch = f"{t.batch} bags of up to {n.bag_size} crops" if n.bagged else f"{t.batch}"
    said = [method.crops.summary, f"{t.epochs} epochs, batch {batch}, {rate} {t.learning_rate:g}"]
    if t.preset != "modern":
        said.append(f"preset {t.preset}")
    said += [words for words, there in (
        (f"optimiser {t.optimizer.upper()}", t.optimizer != "adamw"),
        (f"augmentation {t.augmentation}", t.augmentation != "standard"),
        ("folds share trainings", t.folds == "shared"),
        (f"layer decay {t.layer_decay:g}", t.layer_decay < 1),
        (t.mix, t.mix != "none"),
        (f"weights averaged ({t.average.upper()})", t.average != "none"),
        ("stopped early by held-out training compounds", t.early_stopping > 0),
        (f"{t.snapshots} snapshots averaged", t.snapshots > 1),
        ("8 views averaged", t.tta),
        (f"{t.mc_dropout} passes with dropout averaged", t.mc_dropout > 0),
    ) if there]
    if n.scratch:
        learnt = how["scratch"]
    return f"{n.summary} {learnt} on the training wells' crops ({'; '.join(said)})"


def _decision(method: MethodSettings, wells_permuted: bool) -> str:
    if isinstance(method, FinetunedMethod) or (isinstance(method, FusionMethod) and method.how == "stacked"):
        return ""
    if isinstance(method, ProfileMethod | EmbeddingMethod) and method.decision == "nearest":
        return "; label of the nearest training treatment by cosine"
    text = "; classifier chosen by cross-validation inside the training wells, grouped by compound"
    text += " (by well where there is one compound)" if wells_permuted else ""
    calibrated = method.classifier.calibrate == "temperature"
    return text + (", probabilities calibrated there" if calibrated else "")
