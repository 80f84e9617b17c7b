"""A fold of the fine-tuned network: what it is trained on, and that every well it must predict is predicted."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from benchmark.assays.fieldtable import Assay
from benchmark.base.errors import MorphobenchError
from benchmark.crops.build import build_crops, crop_key
from benchmark.evaluation.aggregate import reduce_to
from benchmark.folds.fold import Fold
from benchmark.folds.make import make_split
from benchmark.methods.kinds.finetuned import FinetunedMethod
from benchmark.methods.workers import finetuned
from benchmark.methods.workers.finetuned import FinetunedFold, run_finetuned_fold
from benchmark.networks.feed.source import ArrayCrops
from benchmark.networks.training.train import fine_tune

METHOD = FinetunedMethod.model_validate({
    "kind": "cnn_finetuned", "name": "cnn", "crops": {"size": 48, "scale_from": "plate"},
    "training": {"epochs": 5, "batch": 8, "learning_rate": 1e-3},
})
#: Few and small steps: what is predicted is not good, but differs from crop to crop.
QUICK = METHOD.model_copy(update={"training": METHOD.training.model_copy(
    update={"epochs": 1, "batch": 4, "learning_rate": 1e-5})})


@dataclass
class Held(ArrayCrops):
    """Crops in memory that know their fields, as the cache does."""

    field: np.ndarray
    crop: np.ndarray

    def of_fields(self, fields: np.ndarray) -> np.ndarray:
        return np.flatnonzero(fields[self.field])


@pytest.fixture
def hold(monkeypatch):
    """A function that puts crops of an assay, two a field, in the place of the cache: brighter by field."""

    def put(assay: Assay, empty: tuple[int, ...] = ()) -> Held:
        field = np.repeat([f for f in assay.predicted.index if f not in empty], 2).astype(np.int32)
        rng = np.random.default_rng(0)
        clouds = [cv2.resize(rng.random((8, 8, 3)), (64, 64), interpolation=cv2.INTER_CUBIC) for _ in field]
        pixels = np.clip(np.stack(clouds).transpose(0, 3, 1, 2), 0, 1) * (100 + 5 * field[:, None, None, None])
        crops = Held(pixels.astype(np.uint8), field, np.tile([0, 3], len(field) // 2).astype(np.int32))
        monkeypatch.setattr(finetuned, "open_crops", lambda path, key: crops)
        return crops

    return put


def run(assay: Assay, fold: Fold, out: Path, labels=None, crops=Path("none.h5"), key="", method=QUICK):
    """Run a fold; its predictions and facts."""
    run_finetuned_fold(FinetunedFold(crops, key, assay, method, fold, 1, labels, "cpu", 1, out))
    return pd.read_parquet(out), json.loads(out.with_suffix(".json").read_text())


def probabilities(table: pd.DataFrame) -> np.ndarray:
    return table.filter(like="p_").to_numpy()


def test_a_fold_predicts_every_crop_of_its_test_wells_out_of_the_cache(make_tiny, tmp_path):
    assay, _, whole_hash = make_tiny(size=48, plates=3)
    fold = make_split(assay, whole_hash, "leave-one-compound-out").folds[0]
    build_crops(tmp_path / "c.h5", assay, whole_hash, METHOD.crops)
    table, facts = run(assay, fold, tmp_path / "fold.parquet", crops=tmp_path / "c.h5",
                       key=crop_key(whole_hash, METHOD.crops), method=METHOD)
    assert set(table["unit"]) == {"crop"} and len(table) == 3
    assert set(table["Metadata_Compound"]) == {fold.name}
    assert facts["without_crops"] == 0 and facts["train"] == 24
    # stripes of a label are the same in every compound: five epochs suffice to tell them
    assert (table["p_label-0"] > 1 / 3).mean() >= 2 / 3


def test_labels_and_pixels_of_test_wells_teach_nothing(make_tiny, tmp_path, hold):
    """Change the labels of the held-out wells: the same predictions. Change their pixels: the same training."""
    assay, _, whole_hash = make_tiny(compounds=2)
    fold = make_split(assay, whole_hash, "leave-one-compound-out").folds[0]
    held = assay.fields["Metadata_Compound"] == fold.name
    crops = hold(assay)
    honest, facts = run(assay, fold, tmp_path / "a.parquet")
    lie = assay.fields.assign(Metadata_Label=assay.fields["Metadata_Label"].where(~held, "label-2"))
    lied, _ = run(replace(assay, fields=lie), fold, tmp_path / "b.parquet")
    assert np.array_equal(probabilities(honest), probabilities(lied))
    assert len(np.unique(probabilities(honest), axis=0)) == len(honest)
    crops.pixels[crops.of_fields(held.to_numpy())] = 200
    other, other_facts = run(assay, fold, tmp_path / "c.parquet")
    assert other_facts["losses"] == facts["losses"]
    assert not np.array_equal(probabilities(honest), probabilities(other))


def test_a_well_without_crops_gets_the_frequencies_of_the_training_compounds(make_tiny, tmp_path, hold):
    assay, _, whole_hash = make_tiny(labels=2, compounds=3, sites=2)
    fold = make_split(assay, whole_hash, "leave-one-compound-out").folds[0]
    test = assay.fields.index[assay.fields["Metadata_Compound"] == fold.name]
    hold(assay, empty=(*test[:2], int(test[2])))  # one well has no crop, the other lacks those of one field
    table, facts = run(assay, fold, tmp_path / "a.parquet")
    flat = table[table["crop"] == -1]
    assert facts["without_crops"] == 1 and len(flat) == 1
    assert flat["Metadata_Site"].item() == 1
    assert flat[["p_label-0", "p_label-1"]].to_numpy() == pytest.approx(np.array([[0.4, 0.6]]))
    assert sorted(table.loc[table["crop"] != -1, "crop"]) == [0, 3]


def test_training_wells_without_crops_are_done_without_but_not_all_of_them(make_tiny, tmp_path, hold):
    assay, _, whole_hash = make_tiny(compounds=2)
    fold = make_split(assay, whole_hash, "leave-one-compound-out").folds[0]
    train = assay.fields.index[assay.fields["Metadata_Compound"] != fold.name]
    hold(assay, empty=tuple(train[:3]))
    _, facts = run(assay, fold, tmp_path / "a.parquet")
    assert facts["train"] == 2 * (len(train) - 3) and facts["without_crops"] == 0
    hold(assay, empty=tuple(train))
    with pytest.raises(MorphobenchError, match="no crop is left to train on"):
        run(assay, fold, tmp_path / "b.parquet")
    assert not (tmp_path / "b.parquet").exists()


def dose_assay(assay: Assay) -> Assay:
    """The tiny assay with each compound's first well a negative control, its last a positive one, doses between."""
    fields = assay.fields.copy()
    dose = fields["Metadata_Concentration"]
    low, high = dose == dose.min(), dose == dose.max()
    fields["Metadata_Control"] = np.select([low, high], ["negative", "positive"], "")
    fields["Metadata_Label"] = np.select([low, high], ["out", "in"], "")
    return replace(assay, fields=fields, scoring="controls")


def test_a_dose_series_is_predicted_and_neither_trained_on_nor_scored(make_tiny, tmp_path, hold):
    tiny, _, whole_hash = make_tiny(labels=1, compounds=2, concentrations=4)
    assay = dose_assay(tiny)
    fold = make_split(assay, whole_hash, "leave-one-compound-out").folds[0]
    assert len(fold.response) == 4
    crops = hold(assay)
    table, facts = run(assay, fold, tmp_path / "a.parquet")
    assert facts["train"] == 2 * 4 and len(table) == 2 * 4
    assert set(table["Metadata_Label"]) == {"in", "out"}
    response = pd.read_parquet(tmp_path / "a-response.parquet")
    assert set(map(tuple, response[["Metadata_Plate", "Metadata_Well"]].to_numpy())) == set(fold.response)
    assert len(response) == 2 * 4 and np.allclose(probabilities(response).sum(axis=1), 1)
    assert set(response["Metadata_Label"]) == {""}
    # What the dose series looks like changes what is predicted for it, and nothing of the network.
    series = (assay.fields["Metadata_Label"] == "").to_numpy()
    crops.pixels[crops.of_fields(series)] = 250
    again, _ = run(assay, fold, tmp_path / "b.parquet")
    assert np.array_equal(probabilities(table), probabilities(again))
    assert not np.array_equal(probabilities(response), probabilities(pd.read_parquet(tmp_path / "b-response.parquet")))


def test_permuted_labels_are_what_is_learnt(make_tiny, tmp_path, hold):
    """The control: labels of compounds are swapped, of test wells too, which are scored against the swapped ones."""
    assay, _, whole_hash = make_tiny(labels=2, compounds=2)
    fold = make_split(assay, whole_hash, "leave-one-compound-out").folds[0]
    hold(assay)
    swapped = {"cpd-00": "label-1", "cpd-01": "label-0", "cpd-10": "label-0", "cpd-11": "label-1"}
    table, facts = run(assay, fold, tmp_path / "a.parquet", labels=swapped)
    _, true_facts = run(assay, fold, tmp_path / "b.parquet")
    assert fold.name == "cpd-00" and set(table["Metadata_Label"]) == {"label-1"}
    assert facts["losses"] != true_facts["losses"]


def test_a_fold_that_was_stopped_goes_on_and_leaves_no_checkpoint(make_tiny, tmp_path, hold, monkeypatch):
    assay, _, whole_hash = make_tiny(compounds=2)
    fold = make_split(assay, whole_hash, "leave-one-compound-out").folds[0]
    hold(assay)
    method = QUICK.model_copy(update={"training": QUICK.training.model_copy(update={"epochs": 2})})
    unbroken, facts = run(assay, fold, tmp_path / "a.parquet", method=method)
    out = tmp_path / "b.parquet"
    with monkeypatch.context() as patch:
        patch.setattr(finetuned, "predict", lambda *a: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            run(assay, fold, out, method=method)
    assert out.with_suffix(".checkpoint").exists() and not out.exists()
    with monkeypatch.context() as patch:  # both epochs are done
        patch.setattr("benchmark.networks.training.step.Stepper.__call__", None)
        resumed, again = run(assay, fold, out, method=method)
    assert np.array_equal(probabilities(resumed), probabilities(unbroken)) and again["losses"] == facts["losses"]
    left = sorted(p.name for p in tmp_path.iterdir() if p.is_file())
    assert left == ["a.json", "a.parquet", "b.json", "b.parquet"]


def test_training_stops_by_compounds_of_its_own_that_it_is_not_trained_on(make_tiny, tmp_path, hold, monkeypatch):
    """Whole compounds, never the fold's test wells; and what they look like teaches nothing but when to stop."""
    assay, _, whole_hash = make_tiny(labels=2, compounds=4)
    fold = make_split(assay, whole_hash, "leave-one-compound-out").folds[0]
    crops = hold(assay)
    seen = {}

    def watch(examples, recipe, session):
        seen.update(rows=examples.rows, validation=examples.validation)
        return fine_tune(examples, recipe, session)

    monkeypatch.setattr(finetuned, "fine_tune", watch)
    training = QUICK.training.model_copy(update={"early_stopping": 1, "epochs": 2})
    _, facts = run(assay, fold, tmp_path / "a.parquet", method=QUICK.model_copy(update={"training": training}))
    compound = assay.fields["Metadata_Compound"].to_numpy()[crops.field[seen["rows"]]]
    stop_by, learn_from = set(compound[seen["validation"]]), set(compound[~seen["validation"]])
    assert stop_by and learn_from and not stop_by & learn_from
    assert fold.name not in stop_by | learn_from
    assert facts["validated_on"] == seen["validation"].sum() and len(facts["validation_losses"]) == len(facts["losses"])
    assert facts["images"] == len(facts["losses"]) * (~seen["validation"]).sum()


def test_a_label_of_one_compound_cannot_be_stopped_by(make_tiny, tmp_path, hold):
    assay, _, whole_hash = make_tiny(labels=2, compounds=2)
    fold = make_split(assay, whole_hash, "leave-one-compound-out").folds[0]
    hold(assay)
    training = QUICK.training.model_copy(update={"early_stopping": 1})
    one = assay.fields["Metadata_Compound"].isin(["cpd-01", "cpd-10"])
    keys = set(map(tuple, assay.fields.loc[one, ["Metadata_Plate", "Metadata_Well"]].to_numpy()))
    few = replace(fold, train=tuple(w for w in fold.train if w in keys))
    with pytest.raises(MorphobenchError, match="no training compound can be held out"):
        run(assay, few, tmp_path / "a.parquet", method=QUICK.model_copy(update={"training": training}))


def test_how_much_averaged_passes_differ_is_noted(make_tiny, tmp_path, hold):
    assay, _, whole_hash = make_tiny(compounds=2)
    fold = make_split(assay, whole_hash, "leave-one-compound-out").folds[0]
    hold(assay)
    training = QUICK.training.model_copy(update={"tta": True})
    table, facts = run(assay, fold, tmp_path / "a.parquet", method=QUICK.model_copy(update={"training": training}))
    assert facts["passes"] == 8 and facts["spread"] > 0 and facts["crops_in"] == "memory"
    assert np.allclose(probabilities(table).sum(axis=1), 1)
    assert "spread" not in run(assay, fold, tmp_path / "b.parquet")[1]


def bagged(bag: str, **training: object) -> FinetunedMethod:
    """A small network on bags of three crops."""
    return FinetunedMethod.model_validate({
        "kind": "cnn_finetuned", "name": "mil", "crops": {"size": 64, "grid": [1, 2], "scale_from": "plate"},
        "network": {"backbone": "mil", "instances": "test_efficientnet", "weights": "none", "pooling": "mean",
                    "bag": bag, "bag_size": 3},
        "training": {"epochs": 1, "batch": 4, "learning_rate": 1e-4, **training}})


def two_sites(make_tiny):
    assay, _, whole_hash = make_tiny(labels=2, compounds=2, sites=2)
    return assay, make_split(assay, whole_hash, "leave-one-compound-out").folds[0]


@pytest.mark.parametrize(("bag", "rows", "train"), [("field", 4, 12), ("well", 2, 6)])
def test_a_fold_predicts_each_bag_of_its_test_wells(make_tiny, tmp_path, hold, bag, rows, train):
    assay, fold = two_sites(make_tiny)
    crops = hold(assay)
    table, facts = run(assay, fold, tmp_path / "a.parquet", method=bagged(bag))
    assert set(table["unit"]) == {bag} and len(table) == rows and "crop" not in table
    assert ("Metadata_Site" in table) == (bag == "field")
    assert facts["train"] == train and facts["images"] == train * (2 if bag == "field" else 3)
    assert len(np.unique(probabilities(table), axis=0)) == rows
    assert len(reduce_to(table, "treatment")) == 1 and len(reduce_to(table, "well")) == 2
    assert (reduce_to(table, "field") is None) == (bag == "well")
    # The pixels of a test well change its own prediction alone.
    last = assay.fields.index[assay.fields["Metadata_Compound"] == fold.name][-2:]
    crops.pixels[np.isin(crops.field, last)] = 3
    other, again = run(assay, fold, tmp_path / "b.parquet", method=bagged(bag))
    assert again["losses"] == facts["losses"]
    same = (probabilities(table) == probabilities(other)).all(axis=1)
    assert same.tolist() == [True] * (rows // 2) + [False] * (rows // 2)


def test_labels_of_test_wells_teach_bags_nothing(make_tiny, tmp_path, hold):
    assay, fold = two_sites(make_tiny)
    hold(assay)
    held = assay.fields["Metadata_Compound"] == fold.name
    lie = assay.fields.assign(Metadata_Label=assay.fields["Metadata_Label"].where(~held, "label-1"))
    both = [run(a, fold, tmp_path / f"{i}.parquet", method=bagged("well"))[0]
            for i, a in enumerate((assay, replace(assay, fields=lie)))]
    assert np.array_equal(*map(probabilities, both))


@pytest.mark.parametrize("bag", ["field", "well"])
def test_a_well_without_crops_is_predicted_among_bags_too(make_tiny, tmp_path, hold, bag):
    assay, fold = two_sites(make_tiny)
    test = assay.fields.index[assay.fields["Metadata_Compound"] == fold.name]
    hold(assay, empty=(*test[:2], int(test[2])))
    table, facts = run(assay, fold, tmp_path / "a.parquet", method=bagged(bag))
    assert facts["without_crops"] == 1 and len(table) == 2 and set(table["unit"]) == {bag}
    flat = table[table["Metadata_Plate"] == assay.fields.loc[test[0], "Metadata_Plate"]]
    assert flat[["p_label-0", "p_label-1"]].to_numpy() == pytest.approx(np.array([[1 / 3, 2 / 3]]))


def test_bags_stop_early_by_whole_training_compounds(make_tiny, tmp_path, hold, monkeypatch):
    assay, _, whole_hash = make_tiny(labels=2, compounds=4)
    fold = make_split(assay, whole_hash, "leave-one-compound-out").folds[0]
    hold(assay)
    _, facts = run(assay, fold, tmp_path / "a.parquet", method=bagged("well", early_stopping=1, epochs=2))
    assert facts["validated_on"] % 2 == 0 and 0 < facts["validated_on"] < facts["train"] == 14
    assert facts["images"] == len(facts["losses"]) * 2 * (facts["train"] - facts["validated_on"])
