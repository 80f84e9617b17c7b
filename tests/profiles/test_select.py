"""Feature selection: pycytominer's rules, replicate agreement, training rows alone, never nothing."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycytominer import feature_select
from pycytominer.operations import correlation_threshold

from benchmark.base.errors import MorphobenchError
from benchmark.profiles.select import ProfileSelector, blocklist, irreproducible, redundant

OPERATIONS = {"missing": "drop_na_columns", "variance": "variance_threshold", "correlation": "correlation_threshold",
              "blocklist": "blocklist"}


def profiles(seed=0, rows=40, features=30):
    """Random features in correlated families, some missing, flat or tiny."""
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(rows, 8)) @ rng.normal(size=(8, features)) + 0.3 * rng.normal(size=(rows, features))
    table = pd.DataFrame(values, columns=[f"f{i}" for i in range(features)])
    table["f1"] = table["f0"] + 0.01 * rng.normal(size=rows)
    table["flat"], table["tiny"] = 3.0, 1e-4 * rng.normal(size=rows)
    table["gap"] = np.where(np.arange(rows) < 3, np.nan, rng.normal(size=rows))
    table["rarer"] = np.where(np.arange(rows) < 2, np.nan, rng.normal(size=rows))
    return table


def treated(seed=0, treatments=12, replicates=3):
    """Wells of treatments: ``signal`` is the treatment's, ``noise`` is the well's."""
    rng = np.random.default_rng(seed)
    effect = np.repeat(rng.normal(size=treatments), replicates)
    n = len(effect)
    return pd.DataFrame({
        "Metadata_Plate": [f"P{i % replicates}" for i in range(n)], "Metadata_Well": [f"A{i:02d}" for i in range(n)],
        "Metadata_Compound": [f"c{i // replicates}" for i in range(n)], "Metadata_Concentration": 1.0,
        "Metadata_CellLine": "", "Metadata_Label": "x",
        "signal": effect + 0.3 * rng.normal(size=n), "noise": rng.normal(size=n)})


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000), threshold=st.sampled_from([0.3, 0.6, 0.8, 0.9, 0.95]), gaps=st.booleans())
def test_correlated_features_go_as_in_pycytominer(seed, threshold, gaps):
    table = profiles(seed).drop(columns=["flat"] if gaps else ["flat", "gap"])
    theirs = correlation_threshold(table, features=list(table.columns), threshold=threshold)
    assert set(redundant(table, threshold)) == set(theirs)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10_000),
       steps=st.permutations(list(OPERATIONS)).flatmap(lambda p: st.sampled_from([p[:1], p[:2], p[:3], p])))
def test_steps_in_any_order_are_those_of_pycytominer(seed, steps):
    table = profiles(seed)
    table["Nuclei_Correlation_Manders_AGP_DNA"] = np.random.default_rng(seed).normal(size=len(table))
    steps = [s for s in steps if s != "correlation" or "variance" in steps[:steps.index(s)]]  # r of a constant is none
    kept = feature_select(table, features=list(table.columns), operation=[OPERATIONS[s] for s in steps], na_cutoff=0.05,
                          corr_threshold=0.8)
    assert ProfileSelector(steps, 0.8).fit(table).columns_ == list(kept.columns)


def test_each_steps_drops_are_counted():
    found = ProfileSelector(correlation=0.9).fit(profiles())
    assert found.dropped_["missing"] == 1 and found.dropped_["variance"] == 2 and found.dropped_["correlation"] >= 1
    assert len(found.columns_) == 34 - sum(found.dropped_.values())


def test_the_blocklist_is_pycytominers_own():
    assert "Nuclei_Correlation_Manders_AGP_DNA" in blocklist() and len(blocklist()) > 30


def test_features_whose_replicates_do_not_agree_go():
    table = treated()
    assert ProfileSelector(("reproducibility",)).fit(table).columns_ == ["signal"]


def test_agreement_is_the_intraclass_correlation_of_shrout_and_fleiss():
    # Shrout & Fleiss 1979, table 2: six targets, four judges; ICC(1,1) = .17 with F(5, 18) = 1.79, below 2.77
    scores = np.array([[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]], float)
    table = treated(treatments=6, replicates=4)
    table["noise"] = scores.ravel()
    metadata = table[[c for c in table if c.startswith("Metadata_")]]
    assert irreproducible(table[["noise"]], metadata) == ["noise"]
    # the judges' means taken away: ICC(3,1) = .71, far above chance
    table["signal"] = (scores - scores.mean(axis=0)).ravel()
    assert irreproducible(table[["signal"]], metadata) == []


def test_chance_keeps_about_a_twentieth():
    rng = np.random.default_rng(1)
    table = treated(treatments=20)
    noise = pd.DataFrame(rng.normal(size=(len(table), 1000)), columns=[f"n{i}" for i in range(1000)])
    gone = irreproducible(noise, table[[c for c in table if c.startswith("Metadata_")]])
    assert 0.92 < len(gone) / 1000 < 0.98


def test_fields_of_a_well_are_no_replicates():
    table = treated(replicates=2)
    rng = np.random.default_rng(2)
    # six fields a well that are all alike: as rows they agree perfectly, as wells not at all
    fields = table.loc[table.index.repeat(6)].reset_index(drop=True)
    fields["noise"] = np.repeat(rng.normal(size=len(table)), 6)
    metadata = [c for c in table if c.startswith("Metadata_")]
    assert irreproducible(fields[["noise"]], fields[metadata]) == ["noise"]


def test_without_replicates_nothing_goes_and_without_metadata_it_is_said():
    table = treated(replicates=1)
    assert ProfileSelector(("reproducibility",)).fit(table).columns_ == ["signal", "noise"]
    with pytest.raises(MorphobenchError, match="Metadata_Compound"):
        ProfileSelector(("reproducibility",)).fit(table.drop(columns="Metadata_Compound"))


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 1000))
def test_labels_do_not_matter(seed):
    table = treated(seed)
    shuffled = table.assign(Metadata_Label=np.random.default_rng(seed).permutation(list("ab") * 18))
    steps = ("missing", "variance", "correlation", "reproducibility")
    assert ProfileSelector(steps).fit(table).columns_ == ProfileSelector(steps).fit(shuffled).columns_


@settings(max_examples=10, deadline=None)
@given(scale=st.floats(-1e6, 1e6, allow_nan=False))
def test_other_rows_are_filled_and_change_nothing(scale):
    train = treated()
    fitted = ProfileSelector(("missing", "variance")).fit(train)
    other = train.iloc[:4].assign(signal=scale, noise=[np.nan, np.inf, 1.0, 2.0])
    found = fitted.transform(other)
    assert (found["signal"] == scale).all()
    assert found["noise"].tolist() == [train["noise"].median()] * 2 + [1.0, 2.0]
    assert found.index.tolist() == other.index.tolist()
    assert list(found.columns) == list(train.columns)  # metadata come along


def test_at_least_one_feature_stays():
    flat = pd.DataFrame({"a": [1.0, 1.0, 1.0], "b": [2.0, 2.0, 2.0]})
    assert ProfileSelector().fit(flat).columns_ == ["a", "b"]
    assert ProfileSelector().fit(flat[["a"]]).columns_ == ["a"]
    gaps = pd.DataFrame({"a": [1.0, np.nan, 2.0], "b": [2.0, 2.0, np.nan]})
    assert ProfileSelector().fit(gaps).columns_ == ["a"]
    assert not ProfileSelector().fit(gaps).transform(gaps).isna().to_numpy().any()
    noise = treated()[["Metadata_Plate", "Metadata_Well", "Metadata_Compound", "Metadata_Concentration",
                       "Metadata_CellLine", "noise"]].assign(other=lambda t: -t["noise"])
    assert ProfileSelector(("reproducibility",)).fit(noise).columns_ == ["noise", "other"]


def test_a_table_without_the_features_is_refused():
    with pytest.raises(MorphobenchError, match="signal"):
        ProfileSelector(()).fit(treated()).transform(treated().drop(columns="signal"))
