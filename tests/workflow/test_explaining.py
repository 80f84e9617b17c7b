"""A study's network is explained once, on test crops of one fold, and only if it is the network that was scored."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import tifffile
import yaml
from conftest import draw, field_rows
from drawn_study import prepared, run_arm, with_study

from benchmark.base.errors import FaultsError, LeakError, MorphobenchError
from benchmark.base.files import read_json, write_json
from benchmark.explain.record import RECORD
from benchmark.methods.context import FinishedRun
from benchmark.methods.workers.finetuned import FinetunedFold
from benchmark.workflow import explaining
from benchmark.workflow.context import StudyContext
from benchmark.workflow.explaining import as_it_ran, explain, explained_fold, explained_or_why_not, refuse_trained_on
from benchmark.workflow.reporting import _key, make_report
from benchmark.workflow.study import load_study

METHOD = {"name": "cnn", "kind": "cnn_finetuned", "title": "Net <b>", "crops": {"size": 48, "intensity": "bit_depth"},
          "network": {"backbone": "test_efficientnet", "weights": "none"}, "training": {"epochs": 1, "batch": 4}}
EXPLAIN = {"method": "cnn", "fold": "cpd-11", "right": 1, "wrong": 1, "filters": 1, "filter_size": 32,
           "saliency": {"steps": 2, "most_steps": 2, "window": 24, "stride": 24}, "maximise": {"steps": 2}}


def write_study(folder: Path, **more: object) -> str:
    """A study of 2 labels x 2 compounds on two plates, with one small network."""
    rng = np.random.default_rng(0)
    rows = []
    for i, row in enumerate(field_rows(labels=2, compounds=2, plates=2).to_dict("records")):
        tifffile.imwrite(folder / f"f{i}.tif", draw(row, rng, 48), photometric="minisblack")
        rows.append({"plate": row["Metadata_Plate"], "well": row["Metadata_Well"], "dose": 1.0, "image": f"f{i}.tif",
                     "compound": row["Metadata_Compound"], "moa": row["Metadata_Label"]})
    pd.DataFrame(rows).to_csv(folder / "fields.csv", index=False)
    columns = {"plate": "plate", "well": "well", "compound": "compound", "concentration": "dose", "label": "moa"}
    channels = {name: {"file": "{image}", "plane": i} for i, name in enumerate(("DNA", "Tubulin", "Actin"))}
    study = {"name": "s", "methods": [METHOD], "illumination": {"method": "none"}, "quality": {"flagged": "off"},
             "assay": {"kind": "table", "csv": "fields.csv", "columns": columns, "channels": channels}}
    (folder / "study.yaml").write_text(yaml.safe_dump(study | more))
    return str(folder / "study.yaml")


def opened_study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, **more: object) -> StudyContext:
    monkeypatch.chdir(tmp_path)
    return prepared(write_study(tmp_path, **more))


def page_of(opened: StudyContext, finished: list[FinishedRun], tmp_path: Path, explained=None) -> tuple[str, bool]:
    made = make_report(opened, finished, reports=tmp_path / "reports", explained=explained)
    return made.page.read_text(), made.fresh


def test_a_fold_is_explained_once_and_shown(tmp_path, monkeypatch):
    opened = opened_study(tmp_path, monkeypatch, explain=EXPLAIN)
    finished = run_arm(opened, "cnn")
    found = explain(opened, finished)
    facts = found.explanation.facts
    assert (facts["method"], facts["fold"], facts["exactly"], facts["largest_difference"]) == ("cnn", "cpd-11", True, 0)
    assert facts["test_crops"] == facts["same_label"] == 2
    assert found.explanation.titles and all("cpd-11" in title for title in found.explanation.titles)
    assert set(found.explanation.maps) == {"grad_cam", "integrated_gradients", "occlusion"}
    assert "it uses Silu" in found.explanation.refused["guided_backpropagation"]
    assert [p.name for p in found.folder.parent.iterdir()] == [found.folder.name]  # no checkpoint is left
    page, fresh = page_of(opened, finished, tmp_path, found)
    assert fresh and '<h2 id="why">Seeing why</h2>' in page and "Net &lt;b&gt;" in page and "Net <b>" not in page
    assert "<b>cpd-11</b>" in page and "drawn at random" in page and "Not available for this network" in page
    assert 'id="sanity"' in page and "No masks of these fields were saved" in page

    # a second call trains nothing and draws nothing
    monkeypatch.setattr(explaining, "train_fold", None)
    again = explain(opened, run_arm(opened, "cnn"))
    assert again.folder == found.folder and not page_of(opened, finished, tmp_path, again)[1]
    # the page depends on what is explained
    key = _key(opened, finished, None, [], {"losses": []}, found)
    record = read_json(found.folder / RECORD)
    write_json(found.folder / RECORD, record | {"titles": ["changed" for _ in record["titles"]]})
    assert _key(opened, finished, None, [], {"losses": []}, found) != key
    assert _key(opened, finished, None, [], {"losses": []}, None) != key
    without = with_study(opened, explain=None)
    assert explain(without, finished) is None
    page, fresh = page_of(without, finished, tmp_path)
    assert fresh and "Seeing why" not in page


def test_a_network_that_is_not_the_scored_one_is_not_explained(tmp_path, monkeypatch):
    opened = opened_study(tmp_path, monkeypatch, explain=EXPLAIN)
    finished = run_arm(opened, "cnn")
    path = finished[0].folder.fold_path(explained_fold(opened.study, opened.split), 1)
    table = pd.read_parquet(path)
    first, second = (c for c in table if c.startswith("p_"))
    table.assign(**{first: table[first] - 1e-12, second: table[second] + 1e-12}).to_parquet(path)
    with pytest.raises(MorphobenchError, match="other predictions than the same fold trained again"):
        explain(opened, finished)
    table.iloc[:1].to_parquet(path)
    with pytest.raises(MorphobenchError, match="predictions of other crops"):
        explain(opened, finished)
    found, why = explained_or_why_not(opened, finished)  # hours of other work are not lost to it
    assert found is None and "goes without" in why and path.name in why
    assert not list((opened.folder / "explained").glob("*/*"))


def test_regions_come_from_masks_that_are_there(tmp_path, monkeypatch):
    few = EXPLAIN | {"sanity": False, "filters": 0, "ways": ["grad_cam"]}
    opened = opened_study(tmp_path, monkeypatch, explain=few)
    finished = run_arm(opened, "cnn")
    plain = explain(opened, finished)
    nuclei, cells = np.zeros((48, 48), np.uint16), np.ones((48, 48), np.uint16)
    nuclei[:, :12] = 1
    tifffile.imwrite(tmp_path / "Nuclei.tif", nuclei)
    tifffile.imwrite(tmp_path / "Cells.tif", cells)
    measured = SimpleNamespace(mask_path=lambda key, name: tmp_path / f"{name}.tif", record={"shards_digest": "d"})
    opened = replace(opened, measured={"cellprofiler": measured})
    monkeypatch.setattr(explaining, "object_roles_of", lambda _: SimpleNamespace(nuclei="Nuclei", cells="Cells"))
    found = explain(opened, finished)
    assert found.folder != plain.folder and not plain.explanation.shares
    assert np.allclose(found.explanation.areas, [0, 0.75, 0.25, 0]) and set(found.explanation.shares) == {"grad_cam"}


def test_no_crop_that_was_trained_on_is_explained():
    with pytest.raises(LeakError, match="trained on"):
        refuse_trained_on(SimpleNamespace(train=np.array([1, 2, 3])), np.array([0, 3]))


def test_a_fold_is_trained_as_it_ran(tmp_path):
    method = load_study(write_study(tmp_path)).methods[0]
    task = FinetunedFold(Path("c"), "", None, method, SimpleNamespace(name="f"), 1, None, "cpu", 4, Path("o"))
    again = as_it_ran(task, {"device": "cpu", "bfloat16": True, "threads": 2})
    assert (again.threads, again.device, again.method.training.bfloat16) == (2, "cpu", True)
    with pytest.raises(MorphobenchError, match="was trained on a GPU"):
        as_it_ran(task, {"device": "NVIDIA X"})


def test_a_fold_that_there_is_not_is_named(tmp_path, monkeypatch):
    opened = opened_study(tmp_path, monkeypatch, explain={"method": "cnn"})
    assert explained_fold(opened.study, opened.split) == opened.split.folds[0]
    with pytest.raises(MorphobenchError, match=r"explain.fold: there is no fold 'x'.*cpd-11"):
        explained_fold(opened.study.model_copy(
            update={"explain": opened.study.explain.model_copy(update={"fold": "x"})}), opened.split)


@pytest.mark.parametrize(("explain", "method", "words"), [
    ({"method": "cnm"}, {}, "'cnm' is no method of kind cnn_finetuned; there are cnn"),
    ({"method": "cnn"}, {"kind": "cnn_frozen", "training": None}, "the study has none"),
    ({"method": "cnn"}, {"labels": "permuted"}, "permuted labels"),
    ({"method": "cnn"}, {"training": {"epochs": 4, "snapshots": 2}}, "several networks"),
    ({"method": "cnn", "right": 0, "wrong": 0}, {}, "no crop to explain"),
    ({"method": "cnn", "ways": ["grad_cam"]}, {"network": {"backbone": "mcnn"}}, "need not suit mcnn"),
    ({"method": "cnn", "colour": "red"}, {}, "explain.colour"),
])
def test_what_cannot_be_explained_is_refused_before_anything_runs(tmp_path, explain, method, words):
    changed = {k: v for k, v in (METHOD | method).items() if v is not None}
    with pytest.raises(FaultsError, match=words):
        load_study(write_study(tmp_path, explain=explain, methods=[changed]))
