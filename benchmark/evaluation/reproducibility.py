"""Whether replicates of a treatment look alike, and treatments of one label: measures without a classifier."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pandas as pd

from benchmark.base.tables import COMPOUND, CONTROL, LABEL, PLATE, TREATMENT_KEY

#: Draws for a p value of mean average precision, and pairs for the null distribution of replicate correlation.
NULL_SIZE = 10_000
NULL_PAIRS = 10_000
#: Share of treatments found significant that may be false (Benjamini & Hochberg 1995).
FDR = 0.05
#: Share of wells that may lack a feature, one well in any case; as `benchmark.profiles.missing` has it.
MISSING = 0.05
TREATMENT, NEGATIVE = "Metadata_Treatment", "Metadata_Negative"


def reproducibility(table: pd.DataFrame, seed: int) -> dict[str, Any]:
    """Replicate reproducibility of treatments, and consistency of labels, on a table of well profiles.

    Parameters
    ----------
    table : DataFrame
        Metadata and features, one row per well: labelled wells and negative controls. Features are standardised over
        the rows here; those that are constant, or missing in more than a few rows, are dropped. Labels are used only
        for ``label_*``.
    seed : int
        Seed of the null distributions.

    Returns
    -------
    dict
        ``treatments`` (with two or more replicate wells), ``replicating`` of them (see `percent_replicating`),
        ``map_mean`` and ``map_significant`` (mean average precision of finding a treatment's replicates among
        ``against``, and how many treatments are significant at an FDR of 5 %; Kalinin et al. 2025, Nat Commun
        16:5181), ``label_treatments``, ``label_map_mean``, ``label_map_significant`` (of finding the treatments of
        the same label and another compound).
    """
    metadata, values = _standardised(table)
    treated = (metadata[CONTROL] != "negative") & (metadata[LABEL] != "")
    controls = metadata[CONTROL] == "negative"
    replicating, treatments = percent_replicating(metadata[treated], values[treated.to_numpy()], seed)
    on_plates = False
    if controls.any() and PLATE in metadata:  # profiles of treatments have no plate
        on_plates = bool(metadata.loc[treated, PLATE].isin(metadata.loc[controls, PLATE]).all())
    used = treated | controls if on_plates else treated
    replicates = replicate_precision(metadata[used], values[used.to_numpy()], on_plates, seed)
    labels = label_precision(metadata[treated], values[treated.to_numpy()], seed)
    return {
        "treatments": treatments, "replicating": replicating,
        "against": "the plate's negative controls" if on_plates else "wells of other compounds",
        "map_treatments": len(replicates), **_summary("map", replicates),
        "label_treatments": len(labels), **_summary("label_map", labels),
    }  # fmt: skip


def _summary(name: str, precision: pd.DataFrame) -> dict[str, Any]:
    if precision.empty:
        return {f"{name}_mean": None, f"{name}_significant": 0}
    return {f"{name}_mean": round(float(precision["mean_average_precision"].mean()), 4),
            f"{name}_significant": int(precision["below_corrected_p"].sum())}


def _standardised(table: pd.DataFrame) -> tuple[pd.DataFrame, np.ndarray]:
    """Metadata with a column for the treatment, and features as z scores."""
    names = [c for c in table.columns if not c.startswith("Metadata_")]
    values = table[names].to_numpy(float)
    values = _filled(values)
    values = values[:, np.ptp(values, axis=0) > 0] if len(values) else values
    spread = values.std(axis=0)
    values = (values - values.mean(axis=0)) / np.where(spread > 0, spread, 1.0)
    metadata = table[[c for c in table.columns if c.startswith("Metadata_")]].reset_index(drop=True)
    treatment = metadata[TREATMENT_KEY].astype(str).agg(" ".join, axis=1)
    return metadata.assign(**{TREATMENT: treatment.where(metadata[CONTROL] != "negative", "control")}), values


def _filled(values: np.ndarray) -> np.ndarray:
    """Features with the median where a few rows lack a value; those go that more rows lack, or that are infinite.

    As in the feature selection: a median for a whole plate (infinite, since its controls have no spread) would make its
    wells look like controls, and one well that lacks a feature must not cost all others the feature.
    """
    missing = np.isnan(values)
    few = (missing.sum(axis=0) <= max(1.0, MISSING * len(values))) & ~missing.all(axis=0)
    values, missing = (v[:, few & ~np.isinf(values).any(axis=0)] for v in (values, missing))
    return np.where(missing, np.nanmedian(values, axis=0), values) if missing.any() else values


def replicate_precision(metadata: pd.DataFrame, values: np.ndarray, against_controls: bool, seed: int) -> pd.DataFrame:
    """Mean average precision of finding a treatment's replicates by cosine similarity, with permutation p and FDR.

    Parameters
    ----------
    metadata : DataFrame
        One row per profile, with ``Metadata_Treatment``.
    values : ndarray of float64, shape (profiles, features)
    against_controls : bool
        Replicates are to be found among the negative controls of the same plate (phenotypic activity); else among
        wells of other compounds (distinctness).

    Returns
    -------
    DataFrame
        One row per treatment with two or more replicates: ``mean_average_precision, p_value, corrected_p_value,
        below_corrected_p`` (bool), as copairs gives them.
    """
    # A treated well and a negative control differ in this column; other treatments and positive controls do not.
    metadata = metadata.assign(**{NEGATIVE: metadata[CONTROL] == "negative"})
    difference = [NEGATIVE] if against_controls else [COMPOUND]
    same = [PLATE] if against_controls else []
    precision = _average_precision(metadata, values, [TREATMENT], [], same, difference)
    if precision is None:
        return pd.DataFrame()
    return _mean_precision(precision[precision[CONTROL] != "negative"], [TREATMENT], seed)


def label_precision(metadata: pd.DataFrame, values: np.ndarray, seed: int) -> pd.DataFrame:
    """Mean average precision of finding the treatments of the same label and another compound, as above.

    Each treatment is the mean of its wells.
    """
    keys = [TREATMENT, COMPOUND, LABEL]
    means = pd.DataFrame(values).assign(**{k: metadata[k].to_numpy() for k in keys}).groupby(keys).mean()
    precision = _average_precision(means.index.to_frame(index=False), means.to_numpy(), [LABEL], [COMPOUND], [],
                                   [LABEL])
    return pd.DataFrame() if precision is None else _mean_precision(precision, [TREATMENT], seed)


def _average_precision(
    metadata: pd.DataFrame, values: np.ndarray, same: list[str], different: list[str], negative_same: list[str],
    negative_different: list[str],
) -> pd.DataFrame | None:
    """Average precision of every profile; None where there are no pairs to rank."""
    from copairs.map import average_precision
    from copairs.matching import UnpairedException

    if values.shape[1] == 0:
        return None
    try:
        return average_precision(metadata.reset_index(drop=True), values, same, different, negative_same,
                                 negative_different, progress_bar=False)
    except UnpairedException:
        return None


def _mean_precision(precision: pd.DataFrame, by: list[str], seed: int) -> pd.DataFrame:
    from copairs.map import mean_average_precision

    precision = precision[precision["average_precision"].notna() & (precision["n_pos_pairs"] > 0)]
    if precision.empty:
        return pd.DataFrame()
    logging.getLogger("copairs").setLevel(logging.WARNING)
    return mean_average_precision(precision, by, null_size=NULL_SIZE, threshold=FDR, seed=seed, progress_bar=False,
                                  max_workers=1)


def percent_replicating(metadata: pd.DataFrame, values: np.ndarray, seed: int) -> tuple[int, int]:
    """Treatments whose replicates correlate more than wells of different compounds do.

    The median of the pairwise Pearson correlations of a treatment's wells must exceed the 95th percentile of such
    medians over as many wells drawn from different compounds (percent replicating; Way et al. 2022, Cell Systems
    13:911).

    Returns
    -------
    tuple of int
        Treatments that replicate, and treatments with two or more wells.
    """
    groups = [np.asarray(g) for g in metadata.reset_index(drop=True).groupby(TREATMENT).indices.values() if len(g) > 1]
    if not groups or values.shape[1] < 2:
        return 0, len(groups)
    correlation = np.corrcoef(values)
    rng = np.random.default_rng(seed)
    compounds = pd.factorize(metadata[COMPOUND])[0]
    members = [np.flatnonzero(compounds == c) for c in range(compounds.max() + 1)]
    thresholds: dict[int, float] = {}
    right = 0
    for group in groups:
        size = min(len(group), len(members))
        if size < 2:
            return 0, len(groups)
        if size not in thresholds:
            draws = max(1, NULL_PAIRS // (size * (size - 1) // 2))
            null = [_median_pair(correlation, _other_compounds(members, size, rng)) for _ in range(draws)]
            thresholds[size] = float(np.quantile(null, 0.95))
        right += _median_pair(correlation, group) > thresholds[size]
    return int(right), len(groups)


def _other_compounds(members: list[np.ndarray], size: int, rng: np.random.Generator) -> np.ndarray:
    """One well of each of ``size`` different compounds."""
    chosen = rng.choice(len(members), size, replace=False)
    return np.array([rng.choice(members[c]) for c in chosen])


def _median_pair(correlation: np.ndarray, rows: np.ndarray) -> float:
    """Median of the correlations of all pairs of rows."""
    upper = np.triu_indices(len(rows), 1)
    return float(np.median(correlation[np.ix_(rows, rows)][upper]))
