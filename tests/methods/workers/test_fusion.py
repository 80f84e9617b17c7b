"""Fusion: nothing of a fold's test wells is fitted on, whole folds are never redone, and it knows what parts know."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from drawn_study import (
    LDA,
    drawn_profiles,
    predictions,
    profile,
    profile_study,
    run_arm,
    run_dependents,
    snapshot,
    with_folds,
    with_study,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmark.base.errors import FaultsError, LeakError, MorphobenchError
from benchmark.base.files import read_json
from benchmark.evaluation.metrics import summarise
from benchmark.folds.fold import Fold
from benchmark.folds.make import make_split
from benchmark.methods.classifiers.calibration import FLOOR
from benchmark.methods.classifiers.settings import ClassifierSettings
from benchmark.methods.context import FinishedRun
from benchmark.methods.workers import fusion, tabular
from benchmark.methods.workers.fusion import FeatureBlock, FusionFold, Predictions, run_fusion_fold, stacking_rows
from benchmark.methods.workers.innerfolds import inner_path, inside
from benchmark.methods.workers.runs import read_run
from benchmark.methods.workers.source import PLAIN, ProfileSource
from benchmark.workflow.context import StudyContext, predictions_by_well
from benchmark.workflow.reporting import make_report
from benchmark.workflow.study import load_study

A, B = profile("a", "Cells_A*"), profile("b", "Cells_B*")
STACKED = {"name": "stacked", "kind": "fusion", "parts": ["a", "b"], "how": "stacked"}
JOINED = {"name": "joined", "kind": "fusion", "parts": ["a", "b"], "how": "concatenated", "classifier": LDA}


def run_all(opened: StudyContext) -> dict[str, FinishedRun]:
    runs = run_arm(opened, "classical")
    return {run.method.name: run for run in [*runs, *run_dependents(opened, runs)]}


def accuracy(run: FinishedRun, opened: StudyContext) -> float:
    return float(summarise(read_run(run.folder, opened.split, (1,)), ("treatment",))["accuracy"].item())


@pytest.mark.slow
def test_a_fusion_knows_what_its_parts_know_together(tmp_path, monkeypatch):
    # Parts may be named before they come, and the report says how a fusion fares against each.
    opened = profile_study(tmp_path, monkeypatch, drawn_profiles(), STACKED, A, JOINED, B)
    runs = run_all(opened)
    scores = {name: accuracy(run, opened) for name, run in runs.items()}
    assert max(scores["a"], scores["b"]) < 0.85 <= min(scores["stacked"], scores["joined"])
    record = runs["stacked"].record
    assert (record["role"], record["control"], record["transductive"]) == ("fusion", False, [])
    assert record["features"] == {"used": [6, 6]} and record["method"]["parts"] == ["a", "b"]
    assert "3 inner folds" in record["summary"]
    assert set(record["weights_of_parts"]) == {"a", "b"} and record["seconds"] > 0
    assert runs["joined"].record["features"]["used"] == [10, 10]
    made = make_report(opened, [runs[m.name] for m in opened.study.methods], reports=tmp_path / "reports")
    page = made.page.read_text()
    assert "stacked, against its parts: " in page and "right by a (" in page and "right by b (" in page


@pytest.mark.parametrize("method", [pytest.param(STACKED, marks=pytest.mark.slow), JOINED])
def test_test_wells_teach_a_fusion_nothing(tmp_path, monkeypatch, method):
    """Other features and another label of the held-out compound: what is fitted in its fold stays, to the last bit."""
    table = drawn_profiles()
    lied = table.copy()
    held = lied["compound"] == "x-0"
    lied.loc[held, [c for c in lied if c.startswith("Cells_")]] += 50.0
    lied.loc[held, "moa"] = "y"
    fitted: list[dict[str, tuple]] = []
    real = fusion.fit

    def watched(task, train):
        chosen = real(task, train)
        found = (chosen.model.coef_, chosen.model.intercept_) if method["how"] == "concatenated" else (
            np.array(list(chosen.weights.values())),)
        fitted[-1][task.fold.name] = (*found, train.filter(regex=":").to_numpy())
        return chosen

    monkeypatch.setattr(fusion, "fit", watched)
    said = []
    for name, data in (("honest", table), ("lied", lied)):
        fitted.append({})
        opened = with_folds(profile_study(tmp_path / name, monkeypatch, data, A, B, method), 4)
        said.append(predictions(run_all(opened)[method["name"]], opened).filter(like="p_").to_numpy())
    honest, other = (of["x-0"] for of in fitted)
    assert all(np.array_equal(u, v) for u, v in zip(honest, other, strict=True))
    assert not np.array_equal(*said)  # the test wells look otherwise, and are judged so
    assert not np.array_equal(fitted[0]["y-0"][0], fitted[1]["y-0"][0])  # where they are trained on they count


def test_parts_are_fitted_without_the_wells_that_they_predict_inside(tmp_path, monkeypatch):
    seen = []
    real = tabular.run_tabular_fold

    def watched(task):
        if "inner3" in str(task.out):
            seen.append(task)
        return real(task)

    monkeypatch.setattr(tabular, "run_tabular_fold", watched)
    opened = with_folds(profile_study(tmp_path, monkeypatch, drawn_profiles(), A, B, STACKED), 2)
    run_all(opened)
    compound = {(r.Metadata_Plate, r.Metadata_Well): r.Metadata_Compound for r in opened.assay.wells.itertuples()}
    folds = {f.name: f for f in opened.split.folds}
    assert len(seen) == len(folds) * 3 * 2
    for task in seen:
        outer = folds[task.fold.name.split(",")[0]]
        assert not ({*task.fold.train, *task.fold.test} & set(outer.test)) and not task.fold.response
        assert not {compound[w] for w in task.fold.train} & {compound[w] for w in task.fold.test}


@settings(max_examples=30, deadline=None)
@given(compounds=st.lists(st.integers(1, 3), min_size=3, max_size=8), folds=st.integers(2, 5), seed=st.integers(0, 99))
def test_inner_folds_part_the_training_wells_by_compound(compounds, folds, seed):
    rows = [("P", f"{i}-{j}", f"c{i}", "xy"[i % 2]) for i, n in enumerate(compounds) for j in range(n)]
    wells = pd.DataFrame(rows, columns=["Metadata_Plate", "Metadata_Well", "Metadata_Compound", "Metadata_Label"])
    wells = wells.assign(Metadata_CellLine="")
    keys = [tuple(r) for r in wells[["Metadata_Plate", "Metadata_Well"]].itertuples(index=False)]
    held = wells["Metadata_Compound"] == "c0"
    fold = Fold("c0", tuple(k for k, h in zip(keys, held, strict=True) if h),
                tuple(k for k, h in zip(keys, held, strict=True) if not h))
    try:
        made = inside(wells, fold, folds, seed)
    except MorphobenchError:  # no label has two wells
        assert max(wells.loc[~held, "Metadata_Label"].value_counts()) < 2
        return
    assert sorted(w for inner in made for w in inner.test) == sorted(fold.train)
    of = dict(zip(keys, wells["Metadata_Compound"], strict=True))
    for inner in made:
        assert sorted((*inner.test, *inner.train)) == sorted(fold.train)
        assert not {of[w] for w in inner.test} & {of[w] for w in inner.train}


def test_a_fusion_that_was_stopped_goes_on_and_a_second_run_does_nothing(tmp_path, monkeypatch):
    calm = with_folds(profile_study(tmp_path / "calm", monkeypatch, drawn_profiles(), A, B, STACKED), 2)
    unbroken = read_run(run_all(calm)["stacked"].folder, calm.split, (1,))
    opened = with_folds(profile_study(tmp_path / "killed", monkeypatch, drawn_profiles(), A, B, STACKED), 2)
    runs = run_arm(opened, "classical")
    real, done = tabular.run_tabular_fold, []

    def stopped(task):
        if len(done) == 8:
            raise KeyboardInterrupt
        done.append(real(task))

    with monkeypatch.context() as patch:
        patch.setattr(tabular, "run_tabular_fold", stopped)
        with pytest.raises(KeyboardInterrupt):
            run_dependents(opened, runs)
    before = {p: t for p, t in snapshot(opened.folder).items() if "/inner3/" in p}
    assert len(before) == 2 * 8  # predictions and facts
    resumed = run_dependents(opened, runs)[0]
    after = snapshot(opened.folder)
    assert {p: after[p] for p in before} == before
    pd.testing.assert_frame_equal(read_run(resumed.folder, opened.split, (1,)), unbroken)
    run_dependents(opened, run_arm(opened, "classical"))
    assert snapshot(opened.folder) == after
    # another fusion of the same parts fits nothing inside again
    monkeypatch.setattr(tabular, "run_tabular_fold", None)
    other = opened.study.methods[-1].model_copy(update={"name": "other"})
    more = with_study(opened, methods=(*opened.study.methods, other))
    assert [r.method.name for r in run_dependents(more, runs)] == ["stacked", "other"]


@pytest.mark.slow
def test_permuted_labels_score_near_chance(tmp_path, monkeypatch):
    permuted = {"labels": "permuted"}
    opened = profile_study(tmp_path, monkeypatch, drawn_profiles(), A | permuted, B | permuted,
                           STACKED | permuted, JOINED | permuted)
    runs = run_all(opened)
    for name in ("stacked", "joined"):
        assert runs[name].record["control"] and accuracy(runs[name], opened) <= 0.5


def test_parts_that_learnt_other_labels_are_refused(tmp_path, monkeypatch):
    opened = with_folds(profile_study(tmp_path, monkeypatch, drawn_profiles(), A, B, STACKED), 1)
    runs = run_all(opened)
    fold = opened.split.folds[0]
    inner = inner_path(runs["a"].folder, 3, fold, 1, 0)
    table = pd.read_parquet(inner)
    table.assign(Metadata_Label=table["Metadata_Label"].iloc[::-1].to_numpy()).to_parquet(inner)
    runs["stacked"].folder.fold_path(fold, 1).unlink()
    with pytest.raises(MorphobenchError, match="has other labels than the fusion"):
        run_dependents(opened, [runs["a"], runs["b"]])
    table.iloc[1:].to_parquet(inner)
    with pytest.raises(LeakError, match="are not the fold's training wells"):
        run_dependents(opened, [runs["a"], runs["b"]])
    assert not runs["stacked"].folder.fold_path(fold, 1).exists()


def wells_of(n: int) -> pd.DataFrame:
    return pd.DataFrame({"Metadata_Plate": "P", "Metadata_Well": [f"A{i}" for i in range(n)], "Metadata_Label": "x"})


def test_a_label_that_a_part_does_not_know_has_the_floor():
    wells = wells_of(2)
    keys = (("P", "A0"), ("P", "A1"))
    fold = Fold("f", (), keys)
    table = wells.assign(p_x=[1.0, 0.25], p_y=[0.0, 0.75])
    rows = stacking_rows({"a": [table.iloc[:1], table.iloc[1:]]}, wells, keys, "training wells", fold)
    assert np.allclose(rows[["a: x", "a: y"]], np.log([[1, FLOOR], [0.25, 0.75]]))
    with pytest.raises(LeakError, match="in two inner folds"):
        stacking_rows({"a": [table, table.iloc[1:]]}, wells, keys, "training wells", fold)
    with pytest.raises(LeakError, match="not the fold's test wells"):
        stacking_rows({"a": [table]}, wells, keys[:1], "test wells", fold)


def test_wells_that_a_part_lacks_get_its_training_mean(make_tiny, tmp_path):
    assay, _, whole_hash = make_tiny(labels=2, compounds=3, plates=2)
    fold = make_split(assay, whole_hash, "leave-one-compound-out").folds[0]
    rng = np.random.default_rng(0)
    tables = {}
    for name, gone in (("a", [0, 5]), ("b", [0, 7])):  # well 0, of the test compound, has nothing at all
        table = assay.wells.assign(**{f"Cells_{i}": rng.normal(size=len(assay.wells)) for i in range(3)})
        tables[name] = table.drop(index=gone)
        tables[name].to_parquet(tmp_path / f"{name}.parquet")
    blocks = tuple(FeatureBlock(n, ProfileSource(tmp_path / f"{n}.parquet", PLAIN), False)
                   for n in "ab")
    task = FusionFold(blocks, assay.wells, "f", fold, 1, ClassifierSettings.model_validate(LDA), None,
                      tuple(assay.labels), tmp_path / "out.parquet", lambda table, unit: table)
    ready, facts = fusion._concatenated(task, assay.wells)
    assert facts["wells_given_the_training_mean"] == {"a": 1, "b": 1}
    assert len(ready.absent) == 1 and len(ready.table) == len(assay.wells) - 1
    key = tuple(assay.wells.loc[5, ["Metadata_Plate", "Metadata_Well"]])
    row = ready.table[(ready.table["Metadata_Plate"] == key[0]) & (ready.table["Metadata_Well"] == key[1])]
    trained = tables["a"][[w in set(fold.train) for w in zip(tables["a"]["Metadata_Plate"],
                                                             tables["a"]["Metadata_Well"], strict=True)]]
    assert np.allclose(row[[f"a: Cells_{i}" for i in range(3)]], trained[[f"Cells_{i}" for i in range(3)]].mean())
    run_fusion_fold(task)
    out = pd.read_parquet(task.out).set_index("Metadata_Plate")
    bare = out.loc[assay.wells.loc[0, "Metadata_Plate"]]
    assert np.allclose(bare[["p_label-0", "p_label-1"]].astype(float), [0.4, 0.6])


CNN = {"name": "cnn", "kind": "cnn_finetuned"}
FROZEN = {"name": "frozen", "kind": "cnn_frozen"}


@pytest.mark.parametrize(("methods", "words"), [
    ([A, STACKED], "stacked.parts: the study has no method 'b'"),
    ([A, {"name": "b", "kind": "cell_count"}, STACKED], "b is of kind cell_count"),
    ([A, {"name": "b", "kind": "profile", "decision": "nearest"}, STACKED], "b has decision: nearest"),
    ([A, STACKED | {"parts": ["a"]}], "two or more are fused"),
    ([A, STACKED | {"parts": ["a", "a"]}], "'a' is given twice"),
    ([A, B | {"labels": "permuted"}, STACKED], "b has labels: permuted"),
    ([A, B, STACKED | {"labels": "permuted"}], "a has labels: true, and stacked has labels: permuted"),
    ([A, CNN, JOINED | {"parts": ["a", "cnn"]}], "cnn writes no embeddings of wells to join"),
    ([A, {"name": "b", "kind": "profile", "profile": {"unit": "field"}}, JOINED], "b has profiles of fields"),
    ([A, B, JOINED | {"inner_folds": 4}], "inner_folds is for how: stacked"),
    ([A, B, STACKED | {"classifier": LDA}], "classifier is for how: concatenated"),
    ([A, STACKED | {"parts": ["a", "stacked"]}], "stacked is of kind fusion"),
    ([FROZEN, {"name": "e", "kind": "embedding", "of": "frozen"}], "e.of: frozen writes no embeddings of wells"),
    ([A, {"name": "e", "kind": "embedding", "of": "a"}], "e.of: a is of kind profile"),
    ([CNN | {"embeddings": ["well"]}, {"name": "e", "kind": "embedding", "of": "cnn", "labels": "permuted"}],
     "e.of: cnn has labels: true"),
    ([CNN | {"embeddings": ["well"], "network": {"backbone": "mil"}}], "noisy_and pools the scores"),
    ([CNN | {"embeddings": ["cell"]}], "embeddings"),
])
def test_what_does_not_go_together_is_refused_when_a_study_is_read(tmp_path, methods, words):
    import yaml

    path = Path(tmp_path / "study.yaml")
    path.write_text(yaml.safe_dump({"name": "s", "assay": {"kind": "demo"}, "methods": methods}))
    with pytest.raises(FaultsError) as caught:
        load_study(str(path))
    assert words in str(caught.value), str(caught.value)


def test_a_dose_series_is_fused_and_hangs_on_nothing_but_its_own_predictions(tmp_path):
    """Where controls are scored the wells between them get what the fold's own parts say of them."""
    wells = pd.DataFrame({"Metadata_Plate": "P", "Metadata_Well": [f"A{i}" for i in range(12)],
                          "Metadata_Compound": ["c", "d"] * 6, "Metadata_Concentration": 1.0, "Metadata_CellLine": "",
                          "Metadata_Label": ["in", "in", "out", "out"] * 2 + ["", "", "in", "out"]})
    keys = [("P", w) for w in wells["Metadata_Well"]]
    fold = Fold("d", tuple(keys[10:]), tuple(keys[:8]), tuple(keys[8:10]))
    inner = tuple(Fold(f"d, inner {i}", tuple(keys[i:8:2]), tuple(keys[1 - i:8:2])) for i in (0, 1))
    rng = np.random.default_rng(0)

    def say(path: Path, which: tuple) -> Path:
        p = rng.uniform(0.1, 0.9, len(which))
        rows = wells.set_index(["Metadata_Plate", "Metadata_Well"]).loc[list(which)].reset_index()
        rows.assign(unit="well", method="m", fold="d", seed=1, p_in=p, p_out=1 - p).to_parquet(path)
        path.with_suffix(".json").write_text('{"seconds": 2.0}')
        return path

    parts = []
    for name in "ab":
        outer = say(tmp_path / f"{name}.parquet", fold.test)
        say(tmp_path / f"{name}-response.parquet", fold.response)
        parts.append(Predictions(name, outer, tuple(say(tmp_path / f"{name}{i}.parquet", f.test)
                                                    for i, f in enumerate(inner))))
    task = FusionFold(tuple(parts), wells, "f", fold, 1, ClassifierSettings(), None, ("in", "out"),
                      tmp_path / "out.parquet", predictions_by_well, inner)
    run_fusion_fold(task)
    said = pd.read_parquet(tmp_path / "out-response.parquet")
    assert set(said["Metadata_Well"]) == {"A8", "A9"} and set(said["Metadata_Label"]) == {""}
    facts = read_json(tmp_path / "out.json")
    assert facts["inner_seconds"] == 8.0 and facts["seconds"] >= 8 and set(facts["weights_of_parts"]) == {"a", "b"}
    before = pd.read_parquet(task.out)
    say(tmp_path / "a-response.parquet", fold.response)
    run_fusion_fold(task)
    pd.testing.assert_frame_equal(pd.read_parquet(task.out), before)
    assert read_json(tmp_path / "out.json")["weights_of_parts"] == facts["weights_of_parts"]
    assert not pd.read_parquet(tmp_path / "out-response.parquet")["p_in"].equals(said["p_in"])
