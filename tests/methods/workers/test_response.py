"""Dose series: predicted by the model of the fold that holds them out, never trained on nor scored."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmark.assays.fieldtable import Assay, make_assay
from benchmark.base.errors import LeakError, MorphobenchError
from benchmark.evaluation.comparison import Run, compare
from benchmark.folds.fold import Split, rows_of
from benchmark.folds.make import make_split
from benchmark.methods.classifiers.labels import permute_wells
from benchmark.methods.classifiers.settings import ClassifierSettings
from benchmark.methods.kinds.cell_count import CellCountMethod
from benchmark.methods.workers.runs import RunFolder, open_run, read_response, read_run, response_path, write_fold
from benchmark.methods.workers.source import ProfileSource
from benchmark.methods.workers.tabular import TabularFold, run_tabular_fold
from benchmark.profiles.settings import ProfileSettings

LOGISTIC = ClassifierSettings(candidates=("logistic_regression",))
DOSES = {"x": (0.01, 0.03, 0.1, 0.3, 1.0), "y": (1.0, 3.0, 10.0, 30.0, 100.0)}
SEEDS = (1, 2)


def plate(tmp_path: Path) -> Assay:
    """Two compounds on a plate without images: 4 rows of 2 negative, 5 dosed and 1 positive well each."""
    rows = []
    for number, (compound, doses) in enumerate(DOSES.items()):
        columns = [(0.0, "negative")] * 2 + [(d, "") for d in doses] + [(doses[-1], "positive")]
        for r in range(4):
            for i, (dose, control) in enumerate(columns, 1):
                well = f"{'ABCDEFGH'[4 * number + r]}{i:02d}"
                rows.append({
                    "Metadata_Batch": "1", "Metadata_Plate": "P", "Metadata_Well": well, "Metadata_Site": 1,
                    "Metadata_Replicate": str(r), "Metadata_Compound": compound,
                    "Metadata_Concentration": dose, "Metadata_Control": control,
                    "Metadata_Label": {"negative": "off", "positive": "on"}.get(control, ""),
                })  # fmt: skip
    return make_assay("plate", tmp_path, pd.DataFrame(rows), (), scoring="controls")


def features(assay: Assay) -> pd.DataFrame:
    """Four features rise with dose relative to the compound's highest (half at a tenth of it), two are noise."""
    wells = assay.wells
    share = wells["Metadata_Concentration"] / wells["Metadata_Compound"].map(lambda c: DOSES[c][-1])
    values = np.random.default_rng(0).normal(size=(len(wells), 6))
    values[:, :4] = (8 * share / (share + 0.1)).to_numpy()[:, None] + 0.5 * values[:, :4]
    return pd.concat([wells, pd.DataFrame(values, columns=[f"Cells_{i}" for i in range(6)])], axis=1)


def run_all(folder: Path, assay: Assay, split: Split, table: pd.DataFrame, absent=None, permuted=False) -> RunFolder:
    run = open_run(folder, CellCountMethod(kind="cell_count", name="m"), split, {})
    paths = [folder / "features.parquet", folder / "absent.parquet"]
    table.to_parquet(paths[0])
    (table.iloc[:0] if absent is None else absent).to_parquet(paths[1])
    treated = assay.treated
    for seed in SEEDS:
        for fold in split.folds:
            labels = permute_wells(treated, seed) if permuted else None
            source = ProfileSource(paths[0], ProfileSettings(normalise="training"))
            run_tabular_fold(TabularFold(source, paths[1], "well", "m", fold, seed, LOGISTIC, "classifier", labels,
                                         tuple(assay.labels), False, run.fold_path(fold, seed)))
    return run


@pytest.fixture
def made(tmp_path):
    assay = plate(tmp_path)
    split = make_split(assay, "hash", "leave-one-compound-out")
    return assay, split, features(assay)


def test_every_dosed_well_is_predicted_once_a_seed_and_has_no_label(made, tmp_path):
    assay, split, table = made
    run = run_all(tmp_path, assay, split, table)
    scored, series = read_run(run, split, SEEDS), read_response(run, split, SEEDS)
    assert len(scored) == 2 * 24 and len(series) == 2 * 40
    assert not series.duplicated(["Metadata_Plate", "Metadata_Well", "seed"]).any()
    assert set(series["Metadata_Label"]) == {""} and set(series["Metadata_Control"]) == {""}
    assert (series["fold"] == series["Metadata_Compound"]).all()  # by the model that never saw the compound
    assert list(series.columns) == list(scored.columns)
    assert run.missing(split, SEEDS) == []
    # and the dose shows: the score is the response that was put in
    found = compare([Run("m", "", {"assay_hash": "a", "split_hash": "s"}, scored, series)], "well")
    table = found.doses.table
    assert found.score("m")["accuracy"] == 1 and (table["status"] == "fitted").all()
    assert (table["spearman"] > 0.8).all() and (table["z_prime"] > 0.5).all()
    assert table.groupby("Metadata_Compound")["ec50"].median().between([0.01, 1.0], [0.3, 30.0]).all()


def test_neither_held_out_labels_nor_the_dose_series_reach_the_model(made, tmp_path):
    """Change what is held out and unlabelled, and the other predictions stay as they are."""
    assay, split, table = made
    fold = split.folds[0]
    honest = run_all(tmp_path / "a", assay, split, table)
    lied = table.copy()
    held = rows_of(lied, fold.test).to_numpy()
    lied.loc[held, "Metadata_Label"] = lied.loc[held, "Metadata_Label"].map({"on": "off", "off": "on"})
    elsewhere = rows_of(lied, split.folds[1].response).to_numpy()
    lied.loc[elsewhere, [c for c in lied if c.startswith("Cells_")]] = 1e3
    other = run_all(tmp_path / "b", assay, split, lied)
    for path in (lambda p: p, response_path):
        p = [pd.read_parquet(path(r.fold_path(fold, 1))).filter(like="p_").to_numpy() for r in (honest, other)]
        assert np.array_equal(*p) and len(p[0])


def test_dosed_wells_without_cells_get_the_training_frequencies(made, tmp_path):
    assay, split, table = made
    gone = (table["Metadata_Compound"] == "x") & (table["Metadata_Concentration"] == 0.1)
    absent = table.loc[gone, [c for c in table if c.startswith("Metadata_")]]
    series = read_response(run_all(tmp_path, assay, split, table[~gone].reset_index(drop=True), absent), split, (1,))
    rows = series[(series["Metadata_Compound"] == "x") & (series["Metadata_Concentration"] == 0.1)]
    # y, which was trained on, has both labels, and each counts once
    assert rows[["p_off", "p_on"]].to_numpy() == pytest.approx(np.full((4, 2), 0.5))
    assert len(series) == 40


def scored_right(table: pd.DataFrame) -> int:
    found = compare([Run("m", "", {"assay_hash": "a", "split_hash": "s", "control": True}, table)], "well")
    return int(found.score("m")["correct"])


def test_a_control_predicts_the_series_too_and_is_scored_on_permuted_labels(made, tmp_path):
    assay, split, table = made
    run = run_all(tmp_path, assay, split, table, permuted=True)
    scored = read_run(run, split, SEEDS)
    for seed, rows in scored.groupby("seed"):
        labels = permute_wells(assay.treated, seed)
        keys = rows[["Metadata_Plate", "Metadata_Well"]].itertuples(index=False, name=None)
        assert rows["Metadata_Label"].tolist() == [labels[k] for k in keys]
    assert set(read_response(run, split, SEEDS)["Metadata_Label"]) == {""}
    # Following the phenotype, one way round or the other, is no better than guessing: chance is 16 of 24.
    assert scored_right(scored) <= 16
    # A study of controls alone has no dose response, rather than a fault.
    series = read_response(run, split, SEEDS)
    only = Run("m", "", {"assay_hash": "a", "split_hash": "s", "control": True}, scored, series)
    assert compare([only], "well").doses is None


def test_a_control_shows_test_wells_that_leak_into_training(made, tmp_path):
    """The very thing that it is there for: labels are permuted, yet a model that saw the test wells has them right."""
    assay, split, table = made
    table = table.assign(**{f"Cells_n{i}": np.random.default_rng(i).normal(size=len(table)) for i in range(60)})
    leaky = replace(split, folds=tuple(replace(f, train=(*f.train, *f.test)) for f in split.folds))
    scored = {}
    for name, folds in (("honest", split), ("leaky", leaky)):
        scored[name] = read_run(run_all(tmp_path / name, assay, folds, table, permuted=True), folds, SEEDS)
    assert scored_right(scored["honest"]) <= 17 and scored_right(scored["leaky"]) >= 22


def test_a_fold_with_its_series_alone_is_not_finished(made, tmp_path, monkeypatch):
    assay, split, table = made
    run = run_all(tmp_path, assay, split, table)
    path = run.fold_path(split.folds[0], 1)
    predictions, series = pd.read_parquet(path), pd.read_parquet(response_path(path))
    path.unlink()
    response_path(path).unlink()
    written = []

    def killed(where, frame):
        written.append(where)
        if where == path:
            raise KeyboardInterrupt
        frame.to_parquet(where)

    monkeypatch.setattr("benchmark.methods.workers.runs.write_parquet", killed)
    with pytest.raises(KeyboardInterrupt):
        write_fold(path, predictions, split.folds[0], {}, series)
    assert written == [response_path(path), path]
    assert run.missing(split, SEEDS) == [(split.folds[0], 1)]


def test_wrong_or_labelled_series_are_refused(made, tmp_path):
    assay, split, table = made
    run = run_all(tmp_path, assay, split, table)
    first, second = split.folds
    path = run.fold_path(first, 1)
    predictions, series = pd.read_parquet(path), pd.read_parquet(response_path(path))
    other = pd.read_parquet(response_path(run.fold_path(second, 1)))
    out = tmp_path / "out.parquet"
    for wrong in (None, series.iloc[1:], other, pd.concat([series, predictions.iloc[:1]])):
        with pytest.raises(LeakError, match="not the fold's dose series"):
            write_fold(out, predictions, first, {}, wrong)
    with pytest.raises(LeakError, match="has labels"):
        write_fold(out, predictions, first, {}, series.assign(Metadata_Label="on"))
    with pytest.raises(MorphobenchError, match="p_<label>"):
        write_fold(out, predictions, first, {}, series.rename(columns={"p_on": "p_zzz"}))
    with pytest.raises(MorphobenchError, match="not finite"):
        write_fold(out, predictions, first, {}, series.assign(p_on=np.nan))
    both = first.__class__(first.name, first.test, (*first.train, first.response[0]), first.response)
    with pytest.raises(LeakError, match="also tested or trained on"):
        write_fold(out, predictions, both, {}, series)
    assert not out.exists() and not response_path(out).exists()


def test_a_lost_broken_or_foreign_series_is_named(made, tmp_path):
    assay, split, table = made
    run = run_all(tmp_path, assay, split, table)
    path = response_path(run.fold_path(split.folds[0], 2))
    path.write_bytes(response_path(run.fold_path(split.folds[1], 2)).read_bytes())
    with pytest.raises(LeakError, match="dose series"):
        read_response(run, split, SEEDS)
    path.write_bytes(b"no parquet")
    with pytest.raises(MorphobenchError, match="cannot be read"):
        read_response(run, split, SEEDS)
    path.unlink()
    with pytest.raises(MorphobenchError, match="is not there"):
        read_response(run, split, SEEDS)


def test_without_a_series_nothing_is_written_beside(make_tiny, tmp_path):
    assay, _, whole_hash = make_tiny()
    split = make_split(assay, whole_hash, "leave-one-compound-out")
    run = open_run(tmp_path, CellCountMethod(kind="cell_count", name="m"), split, {})
    wells = assay.treated.drop_duplicates(["Metadata_Plate", "Metadata_Well"])
    for fold in split.folds:
        part = wells[rows_of(wells, fold.test)].assign(unit="well", method="m", fold=fold.name, seed=1)
        part[["p_label-0", "p_label-1", "p_label-2"]] = 1 / 3
        write_fold(run.fold_path(fold, 1), part, fold, {"seconds": 1})
    assert read_response(run, split, (1,)).empty and len(read_run(run, split, (1,))) == len(wells)
    assert not list(run.path.glob("*-response.parquet"))
