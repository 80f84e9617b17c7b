"""Intervals against published values; scores against counts done by hand."""

import numpy as np
import pandas as pd
import pytest

from benchmark.evaluation.metrics import cluster_bootstrap, confusion, scores, summarise, wilson


@pytest.mark.parametrize(("correct", "n", "low", "high"), [
    (81, 263, 0.2553, 0.3662),
    (15, 148, 0.0624, 0.1605),
    (0, 20, 0.0000, 0.1611),
    (1, 29, 0.0061, 0.1718),
])  # fmt: skip
def test_wilson_gives_newcombes_published_intervals(correct, n, low, high):
    # Newcombe 1998, Statistics in Medicine 17:857, table I, method 3.
    assert wilson(correct, n) == pytest.approx((low, high), abs=5e-5)


def test_wilson_of_nothing_knows_nothing():
    assert wilson(0, 0) == (0.0, 1.0)


def reduced(true, predicted, compounds=None):
    true, predicted = list(true), list(predicted)
    return pd.DataFrame({
        "Metadata_Compound": compounds or [f"c{i}" for i in range(len(true))], "Metadata_Label": true,
        "predicted": predicted, "correct": [t == p for t, p in zip(true, predicted, strict=True)], "tied": False,
    })  # fmt: skip


def test_scores_of_a_hand_counted_table():
    result = scores(reduced("AAAAAABBBC", "AAAAABBBCB"))
    assert (result["n"], result["correct"], result["n_labels"]) == (10, 7, 3)
    assert result["accuracy"] == pytest.approx(0.7)
    assert result["chance"] == pytest.approx(0.6)
    assert result["balanced_accuracy"] == pytest.approx((5 / 6 + 2 / 3 + 0) / 3)


def test_a_label_predicted_in_vain_does_not_lower_balanced_accuracy_further():
    assert scores(reduced("AABB", "AABC"))["balanced_accuracy"] == pytest.approx(0.75)


def test_confusion_has_true_rows_and_sorted_labels():
    table = confusion(reduced("BBA", "BAA"), ["C", "B", "A"])
    assert table.index.tolist() == table.columns.tolist() == ["A", "B", "C"]
    assert table.loc["B", "A"] == 1 and table.loc["A", "B"] == 0
    assert table.to_numpy().sum() == 3


def test_bootstrap_is_wider_when_units_cling_together():
    values = np.repeat([1, 0] * 10, 5)
    clustered = cluster_bootstrap(values, np.repeat(np.arange(20), 5))
    alone = cluster_bootstrap(values, np.arange(100))
    assert clustered[1] - clustered[0] > 1.7 * (alone[1] - alone[0])
    # 20 compounds, half of them right: sd of the mean is 0.5/sqrt(20), and 1.96 of it either way.
    assert clustered == pytest.approx((0.5 - 0.219, 0.5 + 0.219), abs=0.035)


def test_bootstrap_repeats_and_ignores_order():
    values, clusters = np.array([1, 0, 1, 1, 0, 1, 0]), np.array(list("aabbcde"), dtype=object)
    assert cluster_bootstrap(values, clusters) == cluster_bootstrap(values[::-1], clusters[::-1])


@pytest.mark.parametrize(("n", "told"), [(1, False), (4, False), (5, True)])
def test_few_clusters_are_not_resampled(n, told):
    interval = cluster_bootstrap(np.tile([0, 1], n), np.repeat(np.arange(n), 2))
    assert np.isfinite(interval).all() == told and np.isnan(interval).all() != told


def test_summarise_leaves_out_what_is_finer_than_predicted():
    table = pd.DataFrame({
        "Metadata_Plate": "P", "Metadata_Well": ["A1", "A2", "A3"], "Metadata_Compound": ["x", "x", "y"],
        "Metadata_Concentration": 1.0, "Metadata_Label": ["A", "A", "B"], "unit": "well", "method": "m", "fold": 0,
        "seed": 3, "p_A": [0.9, 0.6, 0.7], "p_B": [0.1, 0.4, 0.3],
    })  # fmt: skip
    result = summarise(table)
    assert result[["unit", "n", "correct", "seed"]].to_numpy().tolist() == [["treatment", 2, 1, 3], ["well", 3, 2, 3]]
