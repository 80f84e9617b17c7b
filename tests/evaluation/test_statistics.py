"""Tests between methods against published or enumerable values."""

import numpy as np
import pandas as pd
import pytest
from statsmodels.stats.contingency_tables import mcnemar

from benchmark.base.errors import MorphobenchError
from benchmark.evaluation.statistics import mcnemar_exact, pairwise, swap_test


def test_mcnemar_gives_the_published_p():
    # Fagerland, Lydersen & Laake 2013, BMC Med Res Methodol 13:91, airway hyper-responsiveness: 1 and 7.
    assert mcnemar_exact(1, 7) == pytest.approx(0.0703125)
    assert mcnemar_exact(7, 1) == mcnemar_exact(1, 7)


@pytest.mark.parametrize(("b", "c"), [(0, 5), (0, 6), (1, 9), (4, 4), (12, 30)])
def test_mcnemar_agrees_with_statsmodels(b, c):
    assert mcnemar_exact(b, c) == pytest.approx(mcnemar([[9, b], [c, 9]], exact=True).pvalue)


def test_methods_that_never_disagree_do_not_differ():
    assert mcnemar_exact(0, 0) == 1.0


def test_swap_test_counts_a_compound_once():
    # 6 compounds, 3 treatments each, one method always better: 2 of 64 sign patterns are as extreme.
    assert swap_test(np.ones(18), np.repeat(np.arange(6), 3)) == pytest.approx(2 / 64)
    # The same 18 differences in a single compound are one observation, which shows nothing.
    assert swap_test(np.ones(18), np.zeros(18)) == 1.0
    assert swap_test(np.zeros(5), np.arange(5)) == 1.0


def treatments(right, seed=0, labels=None):
    n = len(right)
    return pd.DataFrame({
        "Metadata_Compound": [f"c{i // 2}" for i in range(n)],
        "Metadata_Concentration": [float(i % 2) for i in range(n)], "Metadata_CellLine": "",
        "Metadata_Label": labels or ["A"] * n, "seed": seed, "correct": np.array(right, bool),
    })  # fmt: skip


def test_pairwise_counts_and_holm():
    a = [1] * 10
    b = [1] * 4 + [0] * 6
    c = [1] * 5 + [0] * 5
    pairs = pairwise({"a": treatments(a), "b": treatments(b), "c": treatments(c)}).set_index(["method_a", "method_b"])
    ab, ac, bc = (pairs.loc[key] for key in [("a", "b"), ("a", "c"), ("b", "c")])
    assert (ab["b"], ab["c"], ab["n"], ab["correct_a"], ab["correct_b"]) == (6, 0, 10, 10, 4)
    assert ab["difference"] == pytest.approx(0.6) and bc["difference"] == pytest.approx(-0.1)
    assert (ab["p"], ac["p"], bc["p"]) == pytest.approx((2 / 64, 2 / 32, 1.0))
    assert (ab["p_holm"], ac["p_holm"], bc["p_holm"]) == pytest.approx((6 / 64, 4 / 32, 1.0))
    assert ab["cluster_low"] <= 0.6 <= ab["cluster_high"]


def test_pairs_join_on_the_treatment_not_on_the_row():
    a, b = treatments([1, 0, 1, 0]), treatments([1, 0, 1, 0]).iloc[::-1]
    pair = pairwise({"a": a, "b": b}).iloc[0]
    assert (pair["b"], pair["c"]) == (0, 0)


def test_first_common_seed_is_compared():
    a = pd.concat([treatments([0, 0], 0), treatments([1, 1], 1), treatments([0, 0], 2)])
    b = pd.concat([treatments([1, 0], 1), treatments([0, 0], 2)])
    pair = pairwise({"a": a, "b": b}).iloc[0]
    assert (pair["seed"], pair["correct_a"], pair["correct_b"]) == (1, 2, 1)
    with pytest.raises(MorphobenchError, match="no seed in common"):
        pairwise({"a": treatments([1], 0), "b": treatments([1], 1)})


def test_other_treatments_or_labels_are_refused_by_name():
    with pytest.raises(MorphobenchError, match=r"do not predict the same treatments.*c1"):
        pairwise({"a": treatments([1, 1, 1]), "b": treatments([1, 1])})
    with pytest.raises(MorphobenchError, match="true label of 1 treatments"):
        pairwise({"a": treatments([1, 1]), "b": treatments([1, 1], labels=["A", "B"])})


def test_wells_are_compared_where_there_are_too_few_treatments():
    def wells(right):
        return treatments(right).assign(Metadata_Plate="P", Metadata_Well=[f"A{i}" for i in range(len(right))],
                                        Metadata_Concentration=0.0)

    pair = pairwise({"a": wells([1, 1, 1, 1]), "b": wells([0, 1, 0, 1])}, "well").iloc[0]
    assert (pair["n"], pair["b"], pair["c"]) == (4, 2, 0)
    assert np.isnan(pair["cluster_low"])  # two compounds


def test_one_method_has_no_pairs():
    pairs = pairwise({"a": treatments([1, 1])})
    assert pairs.empty and "p_holm" in pairs
