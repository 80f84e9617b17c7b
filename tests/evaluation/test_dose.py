"""Z′, V and rank correlation against golden values; which wells enter what."""

from dataclasses import asdict

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr

from benchmark.base.errors import MorphobenchError
from benchmark.evaluation.comparison import Run, compare
from benchmark.evaluation.dose import (
    dose_response,
    dose_table,
    positive_label,
    spearman,
    v_factor,
    well_scores,
    z_prime,
)
from benchmark.evaluation.hill import hill, hill_fit

DOSE = np.array([0] * 4 + [1] * 3 + [2] * 3 + [5] * 4, float)
SCORE = np.array([0.02, 0.05, 0.03, 0.08, 0.2, 0.31, 0.26, 0.71, 0.6, 0.64, 0.93, 0.97, 0.9, 0.99])


def test_factors_are_those_of_cellprofiler():
    # What v_factors and z_factors of CellProfiler 4.2.8 (modules/calculatestatistics.py) return for these numbers.
    assert v_factor(SCORE, DOSE) == pytest.approx(0.75359577, abs=5e-9)
    assert z_prime(SCORE[-4:], SCORE[:4]) == pytest.approx(0.80778899, abs=5e-9)


@given(st.lists(st.tuples(st.sampled_from([0.0, 1.0, 3.0]), st.floats(0, 1)), min_size=6, max_size=20))
@settings(max_examples=40, deadline=None)
def test_v_is_its_formula_done_by_hand(pairs):
    dose, score = (np.array(v) for v in zip(*(*pairs, (0.0, 0.0), (0.0, 0.1), (3.0, 0.8), (3.0, 1.0)), strict=True))
    groups = [score[dose == d] for d in np.unique(dose)]
    spreads = [np.sqrt(np.mean((g - g.mean()) ** 2)) for g in groups if len(g) > 1]
    gap = max(g.mean() for g in groups) - min(g.mean() for g in groups)
    assert v_factor(score, dose) == pytest.approx(1 - 6 * np.mean(spreads) / gap if gap > 0 else -np.inf)


def test_v_of_two_doses_is_z_prime_and_neither_minds_which_way_the_score_goes():
    low, high = SCORE[:4], SCORE[-4:]
    dose = np.repeat([0.0, 5.0], 4)
    assert v_factor(np.concatenate([low, high]), dose) == pytest.approx(z_prime(high, low))
    assert z_prime(1 - high, 1 - low) == pytest.approx(z_prime(high, low)) == pytest.approx(z_prime(low, high))


def test_what_has_no_spread_or_gap_is_no_number():
    assert np.isnan(z_prime(np.array([0.9]), np.array([0.1, 0.2])))
    assert z_prime(np.array([0.5, 0.5]), np.array([0.4, 0.6])) == -np.inf
    assert np.isnan(v_factor(np.array([0.1, 0.9]), np.array([0.0, 1.0])))
    assert v_factor(np.array([0.5, 0.5, 0.5]), np.array([0.0, 0.0, 1.0])) == -np.inf


def test_spearman_is_scipys_and_its_interval_narrows_with_wells():
    rng = np.random.default_rng(0)
    rho, low, high = spearman(DOSE, SCORE)
    assert rho == pytest.approx(spearmanr(DOSE, SCORE).statistic) and low < rho < high
    x = rng.normal(size=400)
    widths = []
    for n in (25, 400):
        value, low, high = spearman(x[:n], x[:n] + np.random.default_rng(1).normal(size=400)[:n])
        widths.append(high - low)
    # Fisher's interval for ranks (Bonett & Wright 2000) at n = 400.
    z, se = np.arctanh(value), np.sqrt((1 + value**2 / 2) / (400 - 3))
    assert (low, high) == pytest.approx(np.tanh([z - 1.96 * se, z + 1.96 * se]), abs=0.02)
    assert widths[0] > 3 * widths[1]
    assert np.isnan(spearman(DOSE, np.ones(len(DOSE)))).all()


def plate(ec50=0.2, compounds=("x", "y"), unit="well", seed=1, method="m", bend=1.0):
    """Predictions and dose series: of each compound 4 wells without dose, 3 doses of 3 wells, 3 positive controls."""
    rows = []
    for compound in compounds:
        series = [(dose, "") for dose in (0.05, 0.2, 1.0) for _ in range(3)]
        wells = [(0.0, "negative")] * 4 + series + [(0.5, "positive")] * 3
        for i, (dose, control) in enumerate(wells):
            p = float(hill(np.array([dose]), 0.05, 0.95, ec50, 1.5)[0]) ** bend + 0.004 * (i % 3)
            for site in (1, 2, 3) if unit == "field" else (1,):
                rows.append({
                    "Metadata_Plate": "P", "Metadata_Well": f"{compound}{i:02d}", "Metadata_Site": site,
                    "Metadata_Compound": compound, "Metadata_Concentration": dose, "Metadata_CellLine": "",
                    "Metadata_Label": {"negative": "off", "positive": "on"}.get(control, ""),
                    "Metadata_Control": control, "unit": unit, "method": method, "fold": compound, "seed": seed,
                    # one field in three is far off: the well's median does not move
                    "p_off": 1 - (p if site < 3 else 0.9), "p_on": p if site < 3 else 0.9,
                })  # fmt: skip
    table = pd.DataFrame(rows)
    return table[table["Metadata_Label"] != ""], table[table["Metadata_Label"] == ""]


def test_each_curve_has_its_own_controls_and_all_its_wells():
    predictions, response = plate()
    wells = well_scores(predictions, response, "on")
    assert len(wells) == 2 * 16
    table = dose_table(wells).set_index("Metadata_Compound")
    mine = wells[wells["Metadata_Compound"] == "x"]
    score = {kind: mine.loc[mine["Metadata_Control"] == kind, "score"].to_numpy() for kind in ("positive", "negative")}
    row = table.loc["x"]
    assert (row["n"], row["n_positive"], row["n_negative"], row["doses"]) == (16, 3, 4, 4)
    assert row["z_prime"] == pytest.approx(z_prime(score["positive"], score["negative"]))
    # the positive control counts as one more dose
    assert row["v_factor"] == pytest.approx(v_factor(mine["score"], mine["Metadata_Concentration"]))
    fit = asdict(hill_fit(mine["Metadata_Concentration"].to_numpy(), mine["score"].to_numpy()))
    assert {name: row[name] for name in fit} == fit
    assert row["ec50"] == pytest.approx(0.2, rel=0.15) and (row["lowest"], row["highest"]) == (0.05, 1.0)


def test_fields_are_reduced_to_wells_by_medians():
    by_field, by_well = (well_scores(*plate(unit=unit), "on") for unit in ("field", "well"))
    assert by_field["score"].to_numpy() == pytest.approx(by_well["score"].to_numpy())


def test_methods_and_seeds_are_kept_apart_and_points_are_means():
    pairs = [plate(method="a", seed=1), plate(method="a", seed=2, ec50=0.4), plate(method="b", ec50=0.1)]
    found = dose_response(*zip(*pairs, strict=True), "on")
    assert len(found.table) == 3 * 2 and found.table["ec50"].nunique() >= 3
    point = found.points.iloc[0]
    same = (found.wells[["method", "seed", "Metadata_Compound", "Metadata_Concentration"]] == point[
        ["method", "seed", "Metadata_Compound", "Metadata_Concentration"]].to_numpy()).all(axis=1)
    assert (point["n"], point["mean"]) == (same.sum(), pytest.approx(found.wells.loc[same, "score"].mean()))


def test_permuted_true_labels_do_not_move_the_controls():
    predictions, response = plate()
    shuffled = predictions.assign(Metadata_Label=predictions["Metadata_Label"].to_numpy()[::-1])
    pd.testing.assert_frame_equal(dose_table(well_scores(predictions, response, "on")),
                                  dose_table(well_scores(shuffled, response, "on")))


def test_cell_lines_are_curves_of_their_own():
    predictions, response = (t.assign(Metadata_CellLine=t["Metadata_Compound"], Metadata_Compound="TNFa")
                             for t in plate())
    table = dose_table(well_scores(predictions, response, "on"))
    assert table["Metadata_CellLine"].tolist() == ["x", "y"] and set(table["Metadata_Compound"]) == {"TNFa"}


def test_the_positive_label_is_that_of_the_positive_controls():
    predictions, response = plate()
    assert positive_label([predictions]) == "on" and positive_label([response]) == ""
    with pytest.raises(MorphobenchError, match="negative controls"):
        positive_label([predictions.assign(Metadata_Label="on")])
    with pytest.raises(MorphobenchError, match="no positive control"):
        dose_response([predictions], [response], "")
    with pytest.raises(MorphobenchError, match="Metadata_Control"):
        well_scores(predictions.drop(columns="Metadata_Control"), response, "on")
    assert dose_response([predictions], [pd.DataFrame()], "on") is None


def test_a_comparison_by_wells_carries_the_doses():
    record = {"assay_hash": "a", "split_hash": "s"}
    runs = [Run(name, "", record | {"control": name == "permuted"}, *plate(ec50=ec50, bend=bend))
            for name, ec50, bend in (("permuted", 5.0, 2.0), ("one", 0.2, 1.0))]
    found = compare(runs, "well")
    assert found.unit == "well" and set(found.accuracy["unit"]) == {"well"}
    assert found.score("one")["correct"] == found.score("one")["n"] == 14
    assert len(found.outcomes) == 14 and found.outcomes["one"].all()
    assert found.doses.positive == "on" and set(found.doses.table["method"]) == {"one", "permuted"}
    assert found.folds[["wells", "dose_wells"]].to_numpy().tolist() == [[7, 9], [7, 9]]
    assert "not independent" in " ".join(found.notes)
