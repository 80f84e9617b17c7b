"""The plain-words answer in the situations that matter, and the printed table."""

from dataclasses import replace
from functools import cache

import pandas as pd
import pytest
from fake_runs import dose_runs, run, study_runs, wells

from benchmark.evaluation.comparison import compare
from benchmark.evaluation.ensembles import with_ensembles
from benchmark.report.seeds import seed_section
from benchmark.report.text import accuracy_text
from benchmark.report.words import answer, interval, p_value, percent, points


@cache
def usual():
    """The comparison without anything to warn of; made once, never changed."""
    return compare(study_runs())


def test_numbers_are_written_one_way():
    assert percent(50 / 55) == "90.9\u00a0%"
    assert interval(0.8042, 0.9605) == "80.4–96.0"
    assert interval(-0.12, 0.035) == "−12.0 to 3.5"
    assert points(-0.0001) == "0.0"
    assert [p_value(p) for p in (0.25, 0.0041, 0.0001)] == ["0.25", "0.004", "<\u00a00.001"]
    assert [p_value(p) for p in (1.0, 0.0497, 0.0503)] == ["1.00", "0.050", "0.050"]


def test_cnn_better():
    result = answer(compare(study_runs(cnn=(), classical=tuple(range(0, 54, 4)))))
    assert "had the most treatments right: 55 of 55" in result.text
    assert "did better than CellProfiler (CellProfiler profiles): 55 against 41 of 55" in result.text
    assert "p\u00a0<\u00a00.001" in result.text
    assert "14 treatments right for the CNN alone, 0 for CellProfiler alone" in result.text
    assert "no evidence" not in result.text
    assert result.warnings == ()


def test_cnn_worse_is_said_as_plainly():
    result = answer(compare(study_runs(cnn=tuple(range(0, 54, 4)), classical=())))
    assert "did worse than CellProfiler" in result.text and "41 against 55" in result.text


def test_no_difference():
    result = answer(usual())
    assert "there is no evidence of a difference: 54 against 51 of 55 treatments" in result.text
    assert "p\u00a0=\u00a00.25" in result.text and "not evidence that they are equal" in result.text
    assert "at most 9 of 55" in result.text and "clearly below the best method" in result.text


def test_a_difference_within_one_or_two_compounds_is_called_weak():
    # Six treatments of two compounds: McNemar's p is 0.03, but only two compounds speak for it.
    result = answer(compare(study_runs(cnn=(), classical=(0, 1, 2, 4, 5, 6))))
    assert "did better" in result.text and "The evidence is weak" in result.text


def test_control_above_chance_warns_of_a_leak():
    result = answer(compare(study_runs(control_right=30)))
    assert len(result.warnings) == 1
    assert "Possible leak" in result.warnings[0] and "30 of 55" in result.warnings[0]
    assert "controls had at most" not in result.text


def test_control_above_chance_in_few_compounds_is_no_leak():
    # 18 of 55 right, all of six compounds: above chance only if treatments were independent.
    layout = wells()
    runs = [run(layout, "cellprofiler", ()), run(layout, "permuted", range(18, 55), control=True)]
    comparison = compare(runs)
    row = comparison.score("permuted")
    assert row["low"] > row["chance"] > row["cluster_low"]
    assert answer(comparison).warnings == ()


def test_control_above_chance_by_well_warns_however_few_the_compounds():
    """Labels were permuted well by well, so wells are independent under it: two compounds are enough to tell."""
    runs = dose_runs()
    wells = runs[1].predictions  # the good classical method, told to be a control
    leak = dict(zip(["p_cytoplasmic", "p_nuclear"], wells[["p_cytoplasmic", "p_nuclear"]].to_numpy().T, strict=True))
    leaky = replace(runs[-1], predictions=runs[-1].predictions.assign(**leak))
    result = answer(compare([*runs[:-1], leaky], "well"))
    assert any("Possible leak" in w for w in result.warnings)
    honest = answer(compare(runs, "well"))
    assert not any("Possible leak" in w for w in honest.warnings) and "not clearly above chance" in honest.text


def test_terminal_says_who_saw_held_out_wells():
    runs = dose_runs()
    seeing = replace(runs[1], record={**runs[1].record, "transductive": ["functions averaged"]})
    text = accuracy_text(compare([runs[0], seeing], "well"))
    assert "transductive (saw held-out wells, never their labels): cellprofiler\n" in text
    assert "transductive" not in accuracy_text(compare(runs, "well"))


def test_cell_count_that_does_as_well_warns():
    result = answer(compare(study_runs(count_right=53)))
    assert any("Cell count alone does nearly as well (53 of 55)" in w for w in result.warnings)


def test_missing_arms_are_said():
    runs = study_runs()
    assert "no fine-tuned CNN has run" in answer(compare(runs[:2])).text
    assert "No permuted-label run" in answer(compare(runs[:2])).text
    assert "no CellProfiler method has run" in answer(compare([runs[4]])).text
    assert "Only permuted-label runs" in answer(compare(runs[5:])).text


def test_ties_and_chance():
    layout = wells()
    runs = study_runs(cnn=range(50), classical=range(50), control_right=5, count_right=4, layout=layout)[:5]
    text = answer(compare([runs[1], runs[4]])).text
    assert "CellProfiler profiles and EfficientNet-Lite0, fine-tuned each had" in text
    assert "not clearly better than chance" in text


def with_seeds(classical, cnn):
    """CellProfiler and a fine-tuned CNN; of each the wrong treatments with each seed."""
    layout = wells()
    runs = []
    for name, role, by_seed in (("cellprofiler", "classical", classical), ("cnn_finetuned", "finetuned", cnn)):
        parts = [run(layout, name, wrong, role.upper(), seeds=(seed,), role=role)
                 for seed, wrong in enumerate(by_seed, 1)]
        runs.append(replace(parts[0], predictions=pd.concat([p.predictions for p in parts], ignore_index=True)))
    return runs


def test_a_difference_within_the_spread_over_seeds_is_said_to_be():
    """Seven treatments at the first seed (p = 0.016), and none at the third."""
    comparison = compare(with_seeds([range(8), range(4), range(1)], [range(1), range(3), range(1)]))
    text = answer(comparison).text
    assert "did better than CellProfiler (CLASSICAL): 54 against 47 of 55" in text
    assert ("The difference is no larger than the spread over seeds: with 3 seeds FINETUNED had 52 to 54 of 55 right "
            "and CLASSICAL 47 to 54 (difference at the same seed on average 4.8 points, 0.0 to 12.7)") in text
    assert "its lead over CLASSICAL is no larger than the spread over seeds" in text
    section = seed_section(comparison)
    assert [row["p"] for row in section["doubtful"]] == ["p\u00a0=\u00a00.016"]
    assert [row["changing"] for row in section["spread"] if row["unit"] == "treatment"] == ["7", "2"]


def test_a_difference_beyond_the_spread_over_seeds_is_said_to_be():
    comparison = compare(with_seeds([range(12), range(12), range(12)], [range(1), range(3), range(2)]))
    text = answer(comparison).text
    assert "is larger than the spread over seeds: with 3 seeds FINETUNED had 52 to 54 of 55 right" in text
    assert "and CLASSICAL 43 (difference" in text
    assert "its lead over every other method is larger than the spread over seeds" in text
    assert seed_section(comparison)["doubtful"] == []
    assert "cnn_finetuned      3      52–54/55" in accuracy_text(comparison)


def test_one_seed_says_nothing_of_seeds():
    assert "seed" not in answer(usual()).text and seed_section(usual()) == {}
    assert "spread" not in accuracy_text(usual())


def test_an_ensemble_is_set_against_its_single_seeds_and_never_ties_with_its_method():
    runs = with_ensembles(with_seeds([range(5)] * 3, [range(1), range(3), range(1)]), ["cnn_finetuned"])
    text = answer(compare(runs)).text
    assert "FINETUNED, ensemble of 3 seeds: 54 of 55 right, single seeds 52 to 54 (exact McNemar test" in text
    assert text.startswith("FINETUNED had the most treatments right")
    assert "cnn_finetuned:ensemble  mean" in accuracy_text(compare(runs))


def test_simulated_is_said():
    assert "simulated" in answer(usual(), simulated=True).text


def test_printed_table_has_every_count():
    comparison = usual()
    text = accuracy_text(comparison)
    lines = {line.split("  ")[0]: line for line in text.splitlines()}
    for row in comparison.accuracy.itertuples():
        name = row.method + (" (permuted labels)" if row.control else "")
        bounds = f"[{100 * row.low:.1f}–{100 * row.high:.1f}]"
        assert f"{row.correct}/{row.n} {100 * row.accuracy:.1f} % {bounds}" in lines[name]
    assert lines["cell_count"].rstrip().endswith("–")  # no fields
    assert "cellprofiler – cnn_finetuned" in text and "permuted:cnn – " not in text


@pytest.mark.parametrize("name", ["\x1b[31mred", "two\nlines"])
def test_a_name_cannot_drive_the_terminal(name):
    runs = study_runs()[:2]
    object.__setattr__(runs[0], "name", name)
    text = accuracy_text(compare(runs))
    assert "\x1b" not in text and "two\nlines" not in text


def test_a_fusion_is_set_against_each_of_its_parts():
    layout = wells()
    parts = {"method": {"parts": ["cellprofiler", "cnn_frozen", "gone"]}, "role": "fusion"}
    runs = [*study_runs(cnn=(), classical=tuple(range(0, 54, 4))), run(layout, "fusion", (5,), "Fused", **parts)]
    said = answer(compare(runs)).text
    assert "Fused, against its parts: 54 against 41 of 55 treatments right by CellProfiler profiles (23.6 perc" in said
    assert "interval over compounds" in said and "better than it" in said
    assert "54 against 53 of 55 treatments right by EfficientNet-Lite0, frozen features (1.8" in said
    assert "p\u00a0=\u00a01.00): no evidence of a difference." in said and "gone" not in said
    worse = [*study_runs(cnn=(), classical=()), run(layout, "fusion", tuple(range(0, 54, 4)), "Fused", **parts)]
    said = answer(compare(worse)).text
    assert "(−25.5 percentage points" in said and ": worse than it" in said
    weak = [*study_runs(classical=(0, 1, 2, 4, 5, 6)), run(layout, "fusion", (), "Fused", **parts)]
    assert "better than it, on weak evidence (corrected for all comparisons" in answer(compare(weak)).text
    assert "against its parts" not in answer(usual()).text
