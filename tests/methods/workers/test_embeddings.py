"""Embeddings on disk: the network's own, of all wells with crops, and the classical arm on them fold by fold."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from drawn_study import LDA, TINY, image_study, predictions, run_arm, run_dependents, snapshot, with_folds

from benchmark.base.errors import MorphobenchError
from benchmark.base.tables import CONTROL, WELL_COLUMNS, WELL_KEY
from benchmark.evaluation.reproducibility import reproducibility
from benchmark.folds.fold import rows_of
from benchmark.methods.classifiers.nearest import nearest_treatment
from benchmark.methods.context import FinishedRun
from benchmark.methods.kinds.finetuned import FinetunedMethod
from benchmark.methods.kinds.frozen import FrozenMethod
from benchmark.methods.plans import fusing
from benchmark.methods.workers import finetuned
from benchmark.methods.workers.embeddings import read_wells
from benchmark.methods.workers.finetuned import checkpoint_of, predict_wells, train_fold
from benchmark.methods.workers.runs import open_run
from benchmark.networks.embed import headless
from benchmark.networks.predict import run_model
from benchmark.profiles.averages import treatment_medians, well_means
from benchmark.profiles.wells import feature_columns
from benchmark.workflow.context import StudyContext

CROPS = {"size": 48, "intensity": "bit_depth"}
CNN = {"name": "cnn", "kind": "cnn_finetuned", "network": TINY, "crops": CROPS,
       "training": {"epochs": 1, "batch": 4}, "embeddings": ["treatment", "crop", "well"]}
FROZEN = {"name": "frozen", "kind": "cnn_frozen", "network": TINY, "crops": CROPS, "classifier": LDA,
          "embeddings": ["well"]}
SPHERED = {"name": "sphered", "kind": "embedding", "of": "cnn", "decision": "nearest",
           "profile": {"correction": "sphering", "normalise": "controls"}}
PLAIN = {"name": "plain", "kind": "embedding", "of": "frozen", "classifier": LDA}
STACKED = {"name": "stacked", "kind": "fusion", "parts": ["cnn", "frozen"], "inner_folds": 2}
JOINED = {"name": "joined", "kind": "fusion", "parts": ["frozen", "cnn"], "how": "concatenated", "classifier": LDA}


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[StudyContext, dict[str, FinishedRun]]:
    """A study with networks, embeddings and fusions of them, run once; its folder is the working folder meanwhile."""
    with pytest.MonkeyPatch.context() as patch:
        opened = with_folds(image_study(tmp_path_factory.mktemp("ran"), patch, CNN, FROZEN, SPHERED, PLAIN, STACKED,
                                        JOINED), 2)
        runs = run_arm(opened, "cnn")
        yield opened, {run.method.name: run for run in [*runs, *run_dependents(opened, runs)]}


def read(ran, name: str, unit: str, fold: int = 0) -> pd.DataFrame:
    opened, runs = ran
    run = runs[name]
    return pd.read_parquet(run.method.embedding_path(run.folder, opened.split.folds[fold], 1, unit))


@pytest.mark.slow
def test_embeddings_are_what_the_fold_s_network_s_classifier_takes(ran, tmp_path):
    opened, runs = ran
    fold = opened.split.folds[0]
    task = runs["cnn"].method.plan(opened, ()).task(runs["cnn"].folder, fold, 1)
    found = train_fold(task, checkpoint_of(task))
    table, _ = predict_wells(task, found, fold.test)
    labels = [c for c in table if c.startswith("p_")]
    assert np.array_equal(table[labels], predictions(runs["cnn"], opened)[labels])  # the same network once more
    crops = read(ran, "cnn", "crop")
    features = feature_columns(crops)
    own = run_model(headless(found.trained.backbone), found.source, np.arange(len(found.crops)), torch.device("cpu"))
    assert np.array_equal(crops.loc[crops[CONTROL] == "", features], own)
    wells = read(ran, "cnn", "well")
    one = crops[(crops["Metadata_Plate"] == "P0") & (crops["Metadata_Well"] == "A01")]
    assert len(one) == 2 and set(one["Metadata_Crop"]) == {0}
    mean = wells[(wells["Metadata_Plate"] == "P0") & (wells["Metadata_Well"] == "A01")]
    assert np.allclose(mean[features], one[features].mean(), atol=1e-6)
    other = read(ran, "cnn", "well", fold=1)
    assert wells[WELL_KEY].equals(other[WELL_KEY]) and not np.allclose(wells[features], other[features])


@pytest.mark.slow
def test_all_wells_are_embedded_and_controls_with_them(ran):
    opened, _ = ran
    for name in ("cnn", "frozen"):
        wells = read(ran, name, "well")
        assert len(wells) == len(opened.assay.wells) and (wells[CONTROL] == "negative").sum() == 4
        assert wells.set_index(WELL_KEY)["Metadata_Label"].to_dict() == (
            opened.assay.wells.set_index(WELL_KEY)["Metadata_Label"].to_dict())
    treatments = read(ran, "cnn", "treatment")
    assert len(treatments) == 5 and (treatments[CONTROL] == "negative").sum() == 1
    features = feature_columns(treatments)
    wells = read(ran, "cnn", "well")
    assert np.allclose(treatments.loc[treatments["Metadata_Compound"] == "cpd-00", features],
                       wells.loc[wells["Metadata_Compound"] == "cpd-00", features].median(), atol=1e-6)
    fields = pd.read_parquet(next((opened.folder / "features").glob("network-*[0-9a-f].parquet")))
    frozen = read(ran, "frozen", "well")
    pd.testing.assert_frame_equal(frozen[frozen[CONTROL] == ""].reset_index(drop=True), well_means(fields))


def test_the_classical_arm_takes_embeddings_as_they_are(ran):
    opened, runs = ran
    found = predictions(runs["sphered"], opened)
    assert set(found["unit"]) == {"treatment"} and set(found["Metadata_Compound"]) == {opened.split.folds[0].name}
    record = runs["sphered"].record
    assert record["role"] == "embedding" and record["correction"]["controls"] == 4
    assert any("sphered on all plates' negative controls" in said for said in record["transductive"])
    assert "embeddings of each well by the network of cnn" in record["summary"]
    assert set(predictions(runs["plain"], opened)["unit"]) == {"well"}
    # NSC, and what copairs makes of replicates, on the files as they lie there
    fold, wells = opened.split.folds[0], read(ran, "frozen", "well")
    nearest = nearest_treatment(*(wells[rows_of(wells, w)] for w in (fold.train, fold.test)), opened.assay.labels)
    assert len(nearest) == 1
    said = reproducibility(wells, 1)
    assert said["against"] == "the plate's negative controls" and said["treatments"] == said["map_treatments"] == 4
    assert reproducibility(read(ran, "cnn", "treatment"), 1)["label_treatments"] == 4


def test_networks_are_fused_by_what_each_fold_s_own_one_says(ran):
    opened, runs = ran
    assert runs["joined"].record["features"]["used"][0] == sum(len(feature_columns(read(ran, n, "well")))
                                                    for n in ("cnn", "frozen"))
    inner = sorted(p.name for p in (runs["cnn"].folder.path / "inner2").iterdir())
    assert len(inner) == 2 * 2 * 2 and not [n for n in inner if "embeddings" in n or "checkpoint" in n]
    first = opened.split.folds[0]
    held = set(first.test)
    for i in (1, 2):
        name = runs["cnn"].folder.fold_path(first, 1).stem
        table = pd.read_parquet(runs["cnn"].folder.path / "inner2" / f"{name}-{i}.parquet")
        assert not held & set(table[WELL_KEY].itertuples(index=False, name=None))


def test_a_fold_reads_nothing_of_another_fold_s_network(ran, monkeypatch):
    opened, runs = ran
    before = {n: predictions(runs[n], opened) for n in ("sphered", "joined")}
    fold, other = opened.split.folds
    path = runs["cnn"].method.embedding_path(runs["cnn"].folder, other, 1, "well")
    table, kept = pd.read_parquet(path), path.read_bytes()
    table.assign(**{c: -3 * table[c] + i for i, c in enumerate(feature_columns(table))}).to_parquet(path)
    monkeypatch.chdir(opened.study.base)
    monkeypatch.setattr("benchmark.base.cluster.Cluster.__call__", lambda _, f, tasks, label: map(f, tasks))
    for name in before:
        for one in (fold, other):
            runs[name].folder.fold_path(one, 1).unlink()
    again = {run.method.name: run for run in run_dependents(opened, [runs["cnn"], runs["frozen"]])}
    path.write_bytes(kept)
    for name, table in before.items():
        pd.testing.assert_frame_equal(predictions(again[name], opened), table)


def test_a_second_run_writes_nothing(ran, monkeypatch):
    opened, _ = ran
    monkeypatch.chdir(opened.study.base)
    before = snapshot(Path("runs"))
    run_dependents(opened, run_arm(opened, "cnn"))
    assert snapshot(Path("runs")) == before


def test_embeddings_that_nobody_asks_for_change_no_key(ran, tmp_path):
    opened, _ = ran
    plain = {k: v for k, v in CNN.items() if k != "embeddings"}
    bare = FinetunedMethod.model_validate(plain)
    assert "embeddings" not in bare.model_dump(mode="json")
    frozen, asked = (FrozenMethod.model_validate(FROZEN | {"embeddings": e}) for e in ([], ["well"]))
    keys = {open_run(tmp_path, m, opened.split, {}).path.name for m in (frozen, asked)}
    assert len(keys) == 1  # a frozen network's folds need not run again
    keys = {open_run(tmp_path, m, opened.split, {}).path.name for m in (bare, FinetunedMethod.model_validate(CNN))}
    assert len(keys) == 2  # a network that is not kept must be trained again to be asked


def test_a_treatment_is_the_median_of_its_wells_and_a_well_the_mean_of_its_fields():
    rows = [("P", w, s, "c", float(v)) for w, s, v in (("A1", 1, 0), ("A1", 2, 2), ("A2", 1, 5), ("A3", 1, 30))]
    fields = pd.DataFrame(rows, columns=["Metadata_Plate", "Metadata_Well", "Metadata_Site", "Metadata_Compound",
                                         "Network_00000"])
    fields = fields.assign(Metadata_Batch="1", Metadata_Replicate="1", Metadata_Concentration=1.0, Metadata_Label="x",
                           Metadata_Control="", Metadata_CellLine="")
    wells = well_means(fields)
    assert wells["Network_00000"].tolist() == [1.0, 5.0, 30.0]
    assert treatment_medians(wells)["Network_00000"].tolist() == [5.0]


def test_networks_that_are_learnt_in_part_are_embedded_from_pixels(tmp_path, monkeypatch):
    """Their folds read stored activations, of which there are none of controls."""
    head = CNN | {"network": {}, "training": CNN["training"] | {"learn": "head"}, "embeddings": ["crop", "well"]}
    opened = with_folds(image_study(tmp_path, monkeypatch, head), 1)
    run = run_arm(opened, "cnn")[0]
    assert list((opened.folder / "activations").glob("*.h5"))
    fold = opened.split.folds[0]
    task = run.method.plan(opened, ()).task(run.folder, fold, 1)
    found = train_fold(task, checkpoint_of(task))
    crops = pd.read_parquet(run.method.embedding_path(run.folder, fold, 1, "crop"))
    assert (crops[CONTROL] == "negative").sum() == 8
    held = crops[rows_of(crops, fold.test)]
    last = found.trained.backbone.model.get_classifier()
    with torch.no_grad():
        p = last(torch.tensor(held[feature_columns(held)].to_numpy())).softmax(1).numpy()
    table = predictions(run, opened)
    assert np.allclose(p, table[[c for c in table if c.startswith("p_")]], atol=1e-4)


def test_inner_folds_share_no_training_with_the_study_s_folds(tmp_path, monkeypatch):
    """A training that folds share has seen compounds that inner folds hold out."""
    shared = CNN | {"training": {"epochs": 2, "batch": 4, "folds": "shared"}}
    opened = with_folds(image_study(tmp_path, monkeypatch, shared, FROZEN, STACKED), 1)
    method, fusion = opened.study.methods[0], opened.study.methods[-1]
    run = FinishedRun(method, open_run(opened.folder, method, opened.split, {}), {})
    tasks = []
    monkeypatch.setattr(finetuned, "run_finetuned_fold", lambda task: tasks.append(task))
    assert fusing._fit_inside(opened, fusion, run, [(opened.split.folds[0], 1)]) == len(tasks) == 2
    for task in tasks:
        assert task.trunk is None and task.method.training.folds == "exact" and not task.method.embeddings
        assert task.out.parent == run.folder.path / "inner2" and not set(task.fold.train) & set(task.fold.test)


def test_embeddings_that_are_no_finite_numbers_are_refused(tmp_path):
    table = pd.DataFrame({**dict.fromkeys(WELL_COLUMNS, "x"), "Metadata_Well": ["A01", "A02"], "e0": [1.0, np.nan]})
    table.to_parquet(tmp_path / "e.parquet")
    with pytest.raises(MorphobenchError, match=r"1 of 2 embeddings are not finite numbers, those of plate x, well A02"):
        read_wells(tmp_path / "e.parquet")
