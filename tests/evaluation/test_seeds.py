"""Seeds: what their spread says, and the ensemble that averages them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmark.base.errors import MorphobenchError
from benchmark.base.tables import check_predictions, labels_of, probability_columns
from benchmark.evaluation.aggregate import reduce_to
from benchmark.evaluation.comparison import Run, compare
from benchmark.evaluation.ensembles import ensemble, with_ensembles
from benchmark.evaluation.seeds import mean_over_seeds, paired_spread, spread_table

LABELS = ["A", "B", "C"]


def table(p: np.ndarray, seed: int = 1, unit: str = "well", method: str = "m") -> pd.DataFrame:
    """Six wells of three compounds, a label each; ``p`` is (6, 3)."""
    n = len(p)
    frame = pd.DataFrame({
        "Metadata_Plate": "P", "Metadata_Well": [f"A{i}" for i in range(n)],
        "Metadata_Compound": [f"c{i // 2}" for i in range(n)],
        "Metadata_Concentration": [float(i % 2) for i in range(n)], "Metadata_CellLine": "",
        "Metadata_Label": [LABELS[i // 2 % 3] for i in range(n)], "unit": unit,
        "method": method, "fold": [i // 2 for i in range(n)], "seed": seed,
    } | ({"Metadata_Site": 1} if unit == "field" else {}))  # fmt: skip
    frame[probability_columns(LABELS)] = p
    return frame


def right_at(*positions: int) -> np.ndarray:
    """Probabilities by which just these of the six wells are right."""
    true = np.arange(6) // 2
    taken = np.where(np.isin(np.arange(6), positions), true, (true + 1) % 3)
    return np.where(np.arange(3) == taken[:, None], 0.8, 0.1)


def seeds_of(*chosen: tuple[int, ...], first: int = 1) -> pd.DataFrame:
    return pd.concat([table(right_at(*c), first + i) for i, c in enumerate(chosen)], ignore_index=True)


def reduced(predictions: pd.DataFrame) -> dict[str, pd.DataFrame]:
    return {u: r for u in ("treatment", "well") if (r := reduce_to(predictions, u)) is not None}


def a_run(name: str, predictions: pd.DataFrame, **record) -> Run:
    return Run(name, name.upper(), {"assay_hash": "a", "split_hash": "s"} | record, predictions)


probabilities = st.lists(
    st.lists(st.floats(0.01, 1), min_size=3, max_size=3), min_size=6, max_size=6
).map(lambda rows: np.array(rows) / np.sum(rows, axis=1, keepdims=True))  # fmt: skip


@settings(max_examples=15, deadline=None)
@given(p=probabilities, count=st.integers(2, 5), mixed=st.randoms())
def test_the_ensemble_of_equal_tables_is_the_table(p, count, mixed):
    parts = [table(p, seed) for seed in range(1, count + 1)]
    mixed.shuffle(parts)
    found = mean_over_seeds(pd.concat(parts), "m")
    pd.testing.assert_frame_equal(found, table(p), check_exact=False, rtol=1e-12)


@settings(max_examples=15, deadline=None)
@given(members=st.lists(probabilities, min_size=2, max_size=4), mixed=st.randoms())
def test_the_order_of_seeds_and_rows_does_not_matter_and_probabilities_stay_such(members, mixed):
    whole = pd.concat([table(p, seed) for seed, p in enumerate(members, 1)], ignore_index=True)
    order = list(range(len(whole)))
    mixed.shuffle(order)
    found, other = mean_over_seeds(whole, "e"), mean_over_seeds(whole.iloc[order], "e")
    pd.testing.assert_frame_equal(found, other, check_exact=True)
    check_predictions(found)
    p = found[probability_columns(LABELS)].to_numpy()
    assert p.sum(axis=1) == pytest.approx(1)
    assert p == pytest.approx(np.mean(members, axis=0))
    assert (p <= np.max(members, axis=0) + 1e-12).all() and (p >= np.min(members, axis=0) - 1e-12).all()
    assert found["seed"].unique().tolist() == [1] and found["method"].unique().tolist() == ["e"]


@settings(max_examples=15, deadline=None)
@given(chosen=st.lists(st.sets(st.integers(0, 5)), min_size=1, max_size=5))
def test_spread_is_that_of_the_counts_and_one_seed_has_none(chosen):
    found = spread_table({"m": reduced(seeds_of(*map(tuple, chosen)))})
    if len(chosen) == 1:
        assert found.empty
        return
    row = found[found["unit"] == "well"].iloc[0]
    counts = [len(c) for c in chosen]
    assert (row["seeds"], row["n"]) == (len(chosen), 6)
    assert (row["correct_low"], row["correct_high"]) == (min(counts), max(counts))
    assert row["mean"] == pytest.approx(np.mean(counts) / 6) and row["sd"] == pytest.approx(np.std(counts, ddof=1) / 6)
    assert (row["low"], row["high"]) == pytest.approx((min(counts) / 6, max(counts) / 6))
    assert row["changing"] == len(set.union(*chosen) - set.intersection(*chosen))


several = st.lists(st.sets(st.integers(0, 5)), min_size=2, max_size=4)


@settings(max_examples=15, deadline=None)
@given(a=several, b=several)
def test_differences_are_paired_by_seed_and_turn_with_their_methods(a, b):
    both = {name: reduced(seeds_of(*map(tuple, chosen)))["well"] for name, chosen in (("a", a), ("b", b))}
    pair = paired_spread(both).iloc[0]
    back = paired_spread(dict(reversed(both.items()))).iloc[0]
    common = min(len(a), len(b))
    differences = [(len(x) - len(y)) / 6 for x, y in zip(a, b, strict=False)]
    assert pair["seeds"] == common and pair["n"] == 6
    assert (pair["mean"], pair["low"], pair["high"]) == pytest.approx(
        (np.mean(differences), min(differences), max(differences)))
    assert (back["mean"], back["low"], back["high"]) == pytest.approx((-pair["mean"], -pair["high"], -pair["low"]))
    ranges = [(min(map(len, c[:common])), max(map(len, c[:common]))) for c in (a, b)]
    assert pair["apart"] == back["apart"] == (ranges[0][0] > ranges[1][1] or ranges[1][0] > ranges[0][1])


def test_what_is_the_same_with_every_seed_has_no_spread():
    row = spread_table({"m": reduced(seeds_of((0, 1), (0, 1), (0, 1)))}).iloc[0]
    assert (row["sd"], row["changing"], row["low"]) == (0, 0, row["high"])


def test_labels_of_a_control_differ_from_seed_to_seed_and_units_never():
    one, two = table(right_at(0)), table(right_at(0), 2)
    two["Metadata_Label"] = two["Metadata_Label"].to_numpy()[::-1]
    mixed = reduced(pd.concat([one, two]))
    assert spread_table({"m": mixed}, {"m"})["changing"].isna().all()
    with pytest.raises(MorphobenchError, match="other labels of them"):
        spread_table({"m": mixed})
    with pytest.raises(MorphobenchError, match="has other treatments"):
        spread_table({"m": reduced(pd.concat([one, table(right_at(0), 2).iloc[2:]]))})


def test_an_ensemble_refuses_what_does_not_fit_together():
    one, two = table(right_at(0)), table(right_at(1), 2)
    for other in (two.iloc[1:], two.assign(Metadata_Label="A"), two.assign(fold=7)):
        with pytest.raises(MorphobenchError, match="does not predict the same units with the seeds 1 and 2"):
            mean_over_seeds(pd.concat([one, other]), "e")
    with pytest.raises(MorphobenchError, match="a class that not every seed knows"):
        mean_over_seeds(pd.concat([one, two.drop(columns="p_C")]), "e")
    with pytest.raises(MorphobenchError, match="has one seed"):
        ensemble(a_run("m", one))
    with pytest.raises(MorphobenchError, match="permuted"):
        ensemble(a_run("m", pd.concat([one, two]), control=True))


def test_an_ensemble_stands_beside_its_method_in_the_comparison():
    """Each seed is wrong about another well, and the mean of all three about none."""
    members = []
    for seed in (1, 2, 3):
        p = right_at(*range(6))
        true = seed // 2
        p[seed, [true, (true + 1) % 3, (true + 2) % 3]] = 0.40, 0.45, 0.15
        members.append(table(p, seed))
    net = a_run("net", pd.concat(members), role="finetuned")
    runs = with_ensembles([net, a_run("other", seeds_of((0,), (0,), (0,)))], ["net"])
    assert [run.name for run in runs] == ["net", "net:ensemble", "other"] and runs[1].role == "finetuned"
    result = compare(runs)
    assert result.ensembles == {"net:ensemble": "net"} and result.titles["net:ensemble"] == "NET, ensemble of 3 seeds"
    assert result.score("net")["correct"] == 5 and result.score("net:ensemble")["correct"] == 6
    pair = result.pair("net", "net:ensemble")
    assert (pair["seed"], pair["c"], pair["b"]) == (1, 1, 0)
    assert set(result.spread.table["method"]) == {"net", "other"}
    assert result.spread.of("net", "treatment")["changing"] == 3
    assert result.spread.pair("other", "net")["apart"] and result.spread.pair("net", "net:ensemble") is None


def test_the_dose_series_is_averaged_as_well():
    both = seeds_of((0,), (1,))
    run = replace(a_run("m", both), response=both.assign(Metadata_Label=""))
    found = ensemble(run).response
    assert len(found) == 6 and (found["Metadata_Label"] == "").all()
    assert found[probability_columns(labels_of(found))].to_numpy() == pytest.approx((right_at(0) + right_at(1)) / 2)
