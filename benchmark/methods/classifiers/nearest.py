"""NSC and NSCB: the label of the nearest treatment profile by cosine.

Ljosa et al. 2013 (J Biomol Screen 18:1321): each treatment gets the label of the treatment whose profile is nearest by
cosine among those of other compounds (not-same-compound, NSC); Ando et al. 2017 (bioRxiv 161422) leave out the
compound's batches too (NSCB). Which of the two it is depends on the fold whose training wells are given.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from sklearn.preprocessing import normalize

from benchmark.base.errors import LeakError, MorphobenchError
from benchmark.base.tables import CELL_LINE, COMPOUND, CONCENTRATION, LABEL, TREATMENT_KEY, probability_columns
from benchmark.profiles.averages import treatment_medians
from benchmark.profiles.wells import feature_columns

#: Similarities that differ by less are tied.
TIE = 1e-12


def nearest_treatment(train: pd.DataFrame, test: pd.DataFrame, labels: Sequence[str]) -> pd.DataFrame:
    """Give each test treatment the label of the training treatment with the most similar profile.

    Parameters
    ----------
    train, test : DataFrame
        Training and test wells of a fold: metadata, and the same features, already normalised. No value is missing.
    labels : sequence of str
        All labels that are scored; each gets a column.

    Returns
    -------
    DataFrame
        One row per test treatment, sorted: `TREATMENT_KEY`, its label, ``nearest_compound``, ``nearest_concentration``
        (µM), ``similarity`` (cosine, -1 to 1), ``predicted`` (label), ``true_similarity`` (of the most similar
        training treatment that has the true label; missing where there is none), ``tied`` (another treatment is equally
        similar: the first in the order of `TREATMENT_KEY` is used), and ``p_<label>``: 1 for the predicted label,
        0 for others.

    Raises
    ------
    LeakError
        A compound is in both training and test.
    MorphobenchError
        There is no training well, features differ or are missing, a profile is all zeros, so that it has no
        direction, or a test treatment has wells of several labels.
    """
    shared = sorted(set(train[COMPOUND]) & set(test[COMPOUND]))
    if shared:
        raise LeakError(f"the compound {shared[0]!r} is in both test and training: its nearest profile is its own",
                        "nearest treatment", "Use a split that leaves compounds out.")
    if train.empty:
        raise MorphobenchError("there is no training well", "nearest treatment")
    reference, wanted = treatment_medians(train), treatment_medians(test)
    features = feature_columns(reference)
    if set(features) != set(feature_columns(wanted)):
        raise MorphobenchError("training and test wells have different features", "nearest treatment")
    several = wanted[wanted.duplicated(TREATMENT_KEY)]
    if len(several):
        raise MorphobenchError("a test treatment has wells of several labels", _name(several.iloc[0]),
                               "Compare wells where controls are scored.")
    similarity = _directions(wanted, features) @ _directions(reference, features).T
    best = similarity.max(axis=1, keepdims=True)
    near = similarity >= best - TIE
    first = near.argmax(axis=1)
    alike = reference[LABEL].to_numpy() == wanted[LABEL].to_numpy()[:, None]
    nearest = wanted[[*TREATMENT_KEY, LABEL]].assign(
        nearest_compound=reference[COMPOUND].to_numpy()[first],
        nearest_concentration=reference[CONCENTRATION].to_numpy()[first],
        similarity=similarity[np.arange(len(first)), first],
        predicted=reference[LABEL].to_numpy()[first],
        true_similarity=np.where(alike.any(axis=1), np.where(alike, similarity, -np.inf).max(axis=1), np.nan),
        tied=near.sum(axis=1) > 1,
    )
    columns = probability_columns(labels)
    unknown = sorted(set(nearest["predicted"]) - {c.removeprefix("p_") for c in columns})
    if unknown:
        raise MorphobenchError(f"the training label {unknown[0]!r} is not among those that are scored",
                               "nearest treatment")
    onehot = np.array([[float(c == f"p_{label}") for c in columns] for label in nearest["predicted"]])
    return pd.concat([nearest, pd.DataFrame(onehot.reshape(len(nearest), len(columns)), columns=columns)], axis=1)


def _directions(profiles: pd.DataFrame, features: list[str]) -> np.ndarray:
    """Profiles scaled to length 1."""
    values = profiles[features].to_numpy(np.float64)
    for wrong, what in ((~np.isfinite(values).all(axis=1), "lacks values"),
                        (~values.any(axis=1), "is all zeros: it is similar to nothing")):
        if wrong.any():
            raise MorphobenchError(f"the treatment's profile {what}", _name(profiles[wrong].iloc[0]),
                                   "Select or normalise features in another way, or leave the treatment out.")
    return np.asarray(normalize(values))


def _name(row: pd.Series) -> str:
    line = f", {row[CELL_LINE]}" if row[CELL_LINE] else ""
    return f"treatment {row[COMPOUND]} at {row[CONCENTRATION]:g} µM{line}"
