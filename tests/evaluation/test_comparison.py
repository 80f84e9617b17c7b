"""Runs side by side: what is refused, and what stands in the tables."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from benchmark.base.errors import LeakError, MorphobenchError
from benchmark.evaluation.comparison import Run, compare

LABELS = ["A", "B"]


def predictions(right, unit="well", seeds=(0,)):
    """Four compounds (two a label) at two concentrations, a well each; ``right`` says which are right."""
    rows = []
    for seed in seeds:
        for i, ok in enumerate(right):
            label = LABELS[i // 4]
            p = {label: 0.8, LABELS[1 - i // 4]: 0.2} if ok else {label: 0.3, LABELS[1 - i // 4]: 0.7}
            rows.append({
                "Metadata_Plate": "P", "Metadata_Well": f"A{i}", "Metadata_Compound": f"c{i // 2}",
                "Metadata_Concentration": float(1 + i % 2), "Metadata_Label": label, "unit": unit, "method": "any",
                "fold": i // 2, "seed": seed, "p_A": p["A"], "p_B": p["B"],
            } | ({"Metadata_Site": 1} if unit == "field" else {}))  # fmt: skip
    return pd.DataFrame(rows)


def a_run(name, right=(1,) * 8, **more):
    unit, seeds = more.pop("unit", "well"), more.pop("seeds", (0,))
    record = {"assay_hash": "a", "split_hash": "s"} | more
    return Run(name, name.upper(), record, predictions(right, unit, seeds))


def test_tables_hold_what_the_runs_say():
    result = compare([
        a_run("permuted", [1, 0] * 4, control=True),
        a_run("one"),
        a_run("two", [0, 1, 1, 1, 1, 1, 1, 0], unit="field", transductive=["plate"]),
    ])
    assert result.methods == ("one", "two", "permuted")  # controls last
    assert result.controls == {"permuted"} and result.transductive == {"two"}
    got = {(r.method, r.unit): (r.correct, r.n) for r in result.accuracy.itertuples()}
    assert got == {
        ("one", "treatment"): (8, 8), ("two", "treatment"): (6, 8), ("permuted", "treatment"): (4, 8),
        ("one", "well"): (8, 8), ("two", "well"): (6, 8), ("permuted", "well"): (4, 8), ("two", "field"): (6, 8),
    }  # fmt: skip
    assert len(result.pairs) == 1 and set(result.pairs.iloc[0][["method_a", "method_b"]]) == {"one", "two"}
    assert result.confusions["two"].to_numpy().tolist() == [[3, 1], [1, 3]]
    assert result.outcomes["two"].tolist() == [False, True, True, True, True, True, True, False]
    assert result.outcomes["Metadata_Label"].is_monotonic_increasing
    assert result.folds["compounds"].tolist() == [["c0"], ["c1"], ["c2"], ["c3"]]
    assert result.score("one", "field") is None and result.score("two", "field")["n"] == 8
    assert result.pair("two", "one")["b"] == 2
    assert "No accuracy of fields for ONE" in " ".join(result.notes)
    # four compounds are too few to resample
    assert result.accuracy["cluster_low"].isna().all() and "fewer than 5 compounds" in " ".join(result.notes)
    assert result.unit == "treatment" and result.doses is None


def test_several_seeds_are_listed_and_said():
    result = compare([a_run("one", seeds=(1, 2)), a_run("two", [0] * 8, seeds=(2, 3))])
    assert sorted(result.accuracy.loc[result.accuracy["unit"] == "treatment", "seed"]) == [1, 2, 2, 3]
    assert result.pairs["seed"].tolist() == [2]
    assert result.seeds == {"one": 1, "two": 2}
    assert "first seed that both have (here: 2)" in result.notes[0]


def test_other_folds_are_a_leak_and_other_assays_an_error():
    with pytest.raises(LeakError, match="not the same folds"):
        compare([a_run("one"), a_run("two", split_hash="t")])
    with pytest.raises(MorphobenchError, match="not the same images"):
        compare([a_run("one"), a_run("two", assay_hash="b")])
    with pytest.raises(MorphobenchError, match="no split_hash"):
        compare([a_run("one"), a_run("two", split_hash="")])


def test_other_units_are_refused_even_of_a_control():
    short = a_run("two", control=True)
    with pytest.raises(MorphobenchError, match="do not predict the same treatments"):
        compare([a_run("one"), replace(short, predictions=short.predictions.iloc[1:])])


def test_a_control_may_have_other_labels_but_a_method_may_not():
    run = a_run("two")
    other = run.predictions.assign(Metadata_Label=run.predictions["Metadata_Label"].to_numpy()[::-1])
    with pytest.raises(MorphobenchError, match="true label"):
        compare([a_run("one"), replace(run, predictions=other)])
    control = replace(run, predictions=other, record=run.record | {"control": True})
    assert compare([a_run("one"), control]).score("two")["correct"] == 0


def test_nothing_doubled_or_malformed_passes():
    with pytest.raises(MorphobenchError, match="no finished run"):
        compare([])
    with pytest.raises(MorphobenchError, match="several runs named one"):
        compare([a_run("one"), a_run("one")])
    broken = a_run("one")
    with pytest.raises(MorphobenchError, match="predictions of one"):
        compare([replace(broken, predictions=broken.predictions.assign(p_A=np.nan))])


@pytest.mark.parametrize(("name", "record", "role"), [
    ("cnn_finetuned", {}, "other"), ("mine", {"role": "classical"}, "classical"), ("mine", {"role": "odd"}, "other"),
    ("cellprofiler", {"role": "classical", "control": True}, "control"),
])  # fmt: skip
def test_a_role_is_read_from_the_record_and_not_from_the_name(name, record, role):
    assert Run(name, "", record, pd.DataFrame()).role == role
