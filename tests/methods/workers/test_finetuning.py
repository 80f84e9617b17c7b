"""What folds of a fine-tuned network share, through the stage that runs them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from benchmark.base.errors import LeakError
from benchmark.base.tasks import run_serially
from benchmark.cellprofiler.settings import CellProfilerSettings
from benchmark.folds.fold import Fold
from benchmark.folds.make import make_split
from benchmark.images.settings import IlluminationSettings
from benchmark.methods.kinds.finetuned import FinetunedMethod
from benchmark.methods.plans import finetuning
from benchmark.methods.workers import finetuned
from benchmark.methods.workers.finetuned import FinetunedFold, run_finetuned_fold, run_trunk
from benchmark.methods.workers.runs import RunFolder
from benchmark.networks.feed import activations as activations_module
from benchmark.networks.settings import NetworkSettings
from benchmark.networks.training import step
from benchmark.quality.fields import Sound
from benchmark.quality.settings import QualitySettings
from benchmark.workflow.context import StudyContext
from benchmark.workflow.fields import Fields
from benchmark.workflow.reporting import _audit_shared
from benchmark.workflow.run import run_method
from benchmark.workflow.session import Session, StageLog


def method(**training: object) -> FinetunedMethod:
    return FinetunedMethod.model_validate({
        "kind": "cnn_finetuned", "name": "cnn", "crops": {"size": 32, "intensity": "bit_depth"},
        "training": {"epochs": 1, "batch": 4, **training}})


def task_of(context: StudyContext, how: FinetunedMethod, path: Path, fold: Fold, out: Path) -> FinetunedFold:
    """The task of a fold, whose predictions go to ``out``."""
    return replace(how.plan(context, ()).task(RunFolder(path, {}), fold, 1), out=out)


@pytest.fixture
def opened(make_tiny, tmp_path, monkeypatch) -> StudyContext:
    torch.set_num_threads(1)
    assay, hashes, assay_hash = make_tiny(labels=2, compounds=2, plates=1, controls=0)
    study = SimpleNamespace(illumination=IlluminationSettings(method="none"), quality=QualitySettings(), seeds=(1,),
                            name="s", methods=(), cellprofiler=CellProfilerSettings())
    sound = Sound(assay, hashes, assay_hash)
    # two jobs: one thread each, beside another test process
    session = Session(study, tmp_path / "runs", 2, "cpu", run_serially, StageLog(tmp_path / "runs"))
    return StudyContext(session, Fields(sound, sound, pd.DataFrame(), pd.DataFrame()), {},
                        make_split(assay, assay_hash, "leave-one-compound-out"))


def predictions(done) -> pd.DataFrame:
    return pd.concat([pd.read_parquet(p) for p in sorted(done.folder.path.glob("*.parquet"))], ignore_index=True)


def test_folds_that_share_trainings_run_once_and_say_what_they_cost(opened, monkeypatch):
    done = run_method(opened, method(folds="shared"))
    shared = done.record["shared"]
    crops = len(predictions(done))  # of four compounds with equally many
    # Two trunks on two compounds each; then each fold the third compound and as much again.
    assert shared["trunks"] == 2 and shared["images"] == 2 * crops // 2 + 4 * crops // 2
    assert shared["image_share"] == pytest.approx(shared["images"] / (4 * 3 * crops / 4), abs=1e-3)
    assert done.record["method"]["training"]["folds"] == "shared" and "share" in done.record["summary"]
    assert not list(done.folder.path.glob("*.trunk")) and not list(done.folder.path.glob("*.checkpoint"))
    for name in ("run_finetuned_fold", "run_trunk"):
        monkeypatch.setattr(finetuned, name, None)
    assert run_method(opened, method(folds="shared")).record == done.record


def test_a_report_refuses_folds_that_shared_other_trainings(opened):
    done = run_method(opened, method(folds="shared"))
    _audit_shared(opened, [done])
    other = replace(done, record={**done.record, "inputs": {**done.record["inputs"], "trunks": "0"}})
    with pytest.raises(LeakError, match="shared other trainings"):
        _audit_shared(opened, [other])


def test_a_fold_whose_trunk_is_gone_trains_it_again_to_the_same(opened):
    done = run_method(opened, method(folds="shared"))
    fold = opened.split.folds[2]
    path = done.folder.fold_path(fold, 1)
    before = pd.read_parquet(path)
    path.unlink()
    task = task_of(opened, method(folds="shared"), done.folder.path, fold, path)
    run_finetuned_fold(task)
    pd.testing.assert_frame_equal(pd.read_parquet(path), before)
    assert task.trunk is not None and task.trunk.path.exists()
    finetuning.remove_trunks([task])
    assert not task.trunk.path.exists()


def test_test_wells_teach_a_trunk_nothing(opened):
    """Labels of a held-out compound changed: what its fold predicts stays to the bit, from trunk to end."""
    fold = opened.split.folds[0]
    how, out = method(folds="shared"), opened.folder / "one.parquet"
    found = []
    labels = sorted(opened.assay.treated["Metadata_Label"].unique())
    for change in (False, True):
        assay = opened.assay
        if change:
            table = assay.fields.copy()
            held = table["Metadata_Compound"] == fold.name
            table.loc[held, "Metadata_Label"] = [labels[(labels.index(v) + 1) % 2] for v in table.loc[held,
                                                                                                     "Metadata_Label"]]
            assay = replace(assay, fields=table)
        task = replace(task_of(opened, how, opened.folder / f"r{change}", fold, out), assay=assay)
        run_finetuned_fold(task)
        found.append(pd.read_parquet(out).filter(like="p_").to_numpy())
    assert np.array_equal(*found)


def test_a_trunk_that_saw_more_than_the_fold_may_is_refused(opened):
    fold = opened.split.folds[0]
    task = task_of(opened, method(folds="shared"), opened.folder, fold, opened.folder / "x.parquet")
    assert task.trunk is not None
    trunk = replace(task.trunk.trunk, train=(*task.trunk.trunk.train, fold.test[0]))
    with pytest.raises(LeakError, match="may not be trained on"):
        run_trunk(replace(task, trunk=replace(task.trunk, trunk=trunk)))


def test_a_head_is_trained_on_activations_that_all_folds_share(opened, monkeypatch):
    head = method(learn="head", learning_rate=1e-4, optimizer="sgd")
    fold, out = opened.split.folds[0], opened.folder / "alone.parquet"
    stored = task_of(opened, head, opened.folder, fold, out).activations
    assert stored is not None and stored[0].exists()
    done = run_method(opened, head)
    facts = next(iter(done.folder.path.glob("seed*.json"))).read_text()
    assert "activations in memory" in facts
    monkeypatch.setattr(finetuning, "sharable", lambda *args: False)
    each = task_of(opened, head, done.folder.path, fold, out)
    assert each.activations is None
    run_finetuned_fold(each)
    alone, shared = (pd.read_parquet(p).filter(like="p_").to_numpy() for p in (out, done.folder.fold_path(fold, 1)))
    assert np.allclose(alone, shared, atol=1e-3)


def activations(context: StudyContext, how: FinetunedMethod) -> tuple[Path, str] | None:
    return task_of(context, how, context.folder, context.split.folds[0], context.folder / "x.parquet").activations


def test_what_cannot_be_cut_is_trained_fold_by_fold(opened, monkeypatch):
    monkeypatch.setattr(activations_module, "store_activations", lambda *args: "cannot be cut")
    assert activations(opened, method(learn="head")) is None


def test_what_is_faster_is_asked_once_and_holds_for_all_folds(opened, monkeypatch):
    asked = []
    monkeypatch.setattr(step, "faster_in_bfloat16", lambda *a: asked.append(a) or True)
    auto = method(bfloat16="auto")
    done = run_method(opened, auto)
    assert len(asked) == 1 and done.record["method"]["training"]["bfloat16"] == "auto"
    notes = [p.read_text() for p in done.folder.path.glob("seed*.json")]
    assert len(notes) == 4 and all('"bfloat16": true' in n for n in notes)
    task = task_of(opened, auto, opened.folder, opened.split.folds[0], opened.folder / "x.parquet")
    assert task.method.training.bfloat16 is True and len(asked) == 1


def test_random_layers_are_not_shared_since_each_seed_has_its_own(opened):
    how = method(learn="head")
    random = how.model_copy(update={"network": how.network.model_copy(update={"weights": "none"})})
    assert activations(opened, random) is None


def test_bags_share_no_activations_and_are_tried_as_they_are(opened, monkeypatch):
    asked = []
    monkeypatch.setattr(step, "faster_in_bfloat16", lambda net, shape, batch: bool(asked.append((batch, *shape))))
    tiny = {"backbone": "mil", "instances": "test_efficientnet", "weights": "none"}
    how = method(learn="frozen", bfloat16="auto").model_copy(update={"network": NetworkSettings(
        **tiny, bag="well", bag_size=2)})
    assert activations(opened, how) is None and asked == [(4, 2, 3, 32, 32)]
    table = predictions(run_method(opened, how))
    assert set(table["unit"]) == {"well"} and len(table) == 4
