"""Study files: what is wrong is named by its key, with what is allowed there."""

from __future__ import annotations

import pytest
import yaml

from benchmark.base.errors import FaultsError, MorphobenchError
from benchmark.workflow.study import load_study, shipped_studies, study_path

GOOD = {
    "name": "mine",
    "assay": {"kind": "demo", "seed": 3},
    "methods": [{"name": "count", "kind": "cell_count"},
                {"name": "cnn", "kind": "cnn_finetuned", "training": {"epochs": 2}}],
}


def write(tmp_path, change) -> str:
    raw = yaml.safe_load(yaml.safe_dump(GOOD))
    change(raw)
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump(raw))
    return str(path)


def test_shipped_studies_are_sound():
    assert {"demo", "bbbc021-fields"} <= set(shipped_studies())
    for name in shipped_studies():
        assert load_study(name).name == name


def test_a_good_study_is_read(tmp_path):
    study = load_study(write(tmp_path, lambda raw: None))
    assert study.methods[1].training.epochs == 2
    assert study.split == "leave-one-compound-out"


def set_in(*keys, value):
    def change(raw):
        for key in keys[:-1]:
            raw = raw[key]
        raw[keys[-1]] = value
    return change


@pytest.mark.parametrize(("change", "words"), [
    (set_in("split", value="random"), ["split", "'random'", "leave-one-compound-out"]),
    (set_in("assay", "kind", value="magic"), ["assay.kind", "'magic'", "demo", "table"]),
    (set_in("assay", "sede", value=1), ["assay.sede", "no such key", "Did you mean seed"]),
    (set_in("methods", 1, "kind", value="svm"), ["methods.1", "svm", "cnn_frozen"]),
    (set_in("methods", 1, "training", "epoch", value=3), ["methods.1.training.epoch", "Did you mean epochs"]),
    (set_in("methods", 1, "training", "epochs", value=0), ["methods.1.training.epochs", "1"]),
    (set_in("methods", 1, "crops", value={"intensity": "x"}), ["crops.intensity", "standard", "kensert2019"]),
    (set_in("methods", 1, "crops", value={"intensity": "plate"}), ["methods.1.crops", "scale_from: plate"]),
    (set_in("illumination", value={"method": "prospective"}), ["illumination.method", "retrospective"]),
    (set_in("methods", 0, "name", value="Über/method"), ["methods.0.name"]),
    (set_in("methods", 0, "name", value="cnn"), ["two methods", "cnn"]),
    (set_in("methods", 0, "name", value="crops"), ["cannot have the name 'crops'"]),
    (set_in("methods", value=[]), ["methods"]),
    (set_in("name", value="../up"), ["name"]),
    (set_in("ensembles", value=["cnn"]), ["ensembles", "one seed"]),
    (set_in("ensembles", value=["nn"]), ["ensembles", "'nn' is no method", "count, cnn"]),
    (set_in("ensembles", value=["cnn", "cnn"]), ["ensembles", "twice"]),
    (lambda raw: (raw["methods"][1].update(labels="permuted"), raw.update(ensembles=["cnn"], seeds=[1, 2])),
     ["ensembles", "cnn are permuted"]),
])
def test_what_is_wrong_is_named(tmp_path, change, words):
    with pytest.raises(FaultsError) as caught:
        load_study(write(tmp_path, change))
    for word in words:
        assert word in str(caught.value), (word, str(caught.value))


def test_all_faults_come_at_once(tmp_path):
    def change(raw):
        raw["split"] = "x"
        raw["sedes"] = [1]
        del raw["assay"]

    with pytest.raises(FaultsError) as caught:
        load_study(write(tmp_path, change))
    assert len(caught.value.faults) == 3


def test_keys_are_named_as_they_are_written(tmp_path):
    """A block with the name of a kind (profile, table) is no kind, and what only follows from a fault is no fault."""
    def change(raw):
        raw["methods"] = [{"name": "p", "kind": "profile", "profile": {"unit": "wel", "foo": 1}}]
        raw["assay"] = {"kind": "profile_table", "profiles": "p.csv", "columns": {
            **{k: k for k in ("plate", "compound", "concentration", "label")}, "well": {"colum": "x"}}}

    with pytest.raises(FaultsError) as caught:
        load_study(write(tmp_path, change))
    assert sorted(f.where.partition(", ")[2] for f in caught.value.faults) == [
        "assay.columns.well.colum", "methods.0.profile.foo", "methods.0.profile.unit"]


def test_unknown_names_and_broken_files_are_clear(tmp_path):
    with pytest.raises(MorphobenchError, match="Did you mean demo"):
        study_path("dmo")
    with pytest.raises(MorphobenchError, match="no such study file"):
        study_path(str(tmp_path / "absent.yaml"))
    (tmp_path / "broken.yaml").write_text("name: [1,\n")
    with pytest.raises(MorphobenchError, match=r"broken.yaml, line \d"):
        load_study(str(tmp_path / "broken.yaml"))
    (tmp_path / "list.yaml").write_text("- 1\n")
    with pytest.raises(MorphobenchError, match="not a study"):
        load_study(str(tmp_path / "list.yaml"))
    (tmp_path / "evil.yaml").write_text("name: !!python/object/apply:os.system ['true']\n")
    with pytest.raises(MorphobenchError, match="not valid YAML"):
        load_study(str(tmp_path / "evil.yaml"))


def test_settings_of_whole_fields_keep_their_own_pipeline(tmp_path):
    """A block that changes a setting of the whole-field pipeline must not fall back on the pipeline of cells."""
    changed = {"settings": {"ImageMath[1]": {"Multiply the result by": 16}}}
    study = load_study(write(tmp_path, lambda raw: raw.update(whole_field=changed)))
    assert study.whole_field.pipeline == "pipelines/whole_field.cppipe" != study.cellprofiler.pipeline
    with pytest.raises(FaultsError, match="cp_measure measures objects alone"):
        load_study(write(tmp_path, lambda raw: raw.update(whole_field={"backend": "cp_measure"})))


def test_the_nearest_treatment_needs_folds_that_leave_compounds_out(tmp_path):
    def change(raw):
        raw["split"] = "leave-one-cell-line-out"
        raw["methods"].append({"name": "nsc", "kind": "profile", "decision": "nearest"})

    with pytest.raises(FaultsError, match="nsc: the nearest treatment"):
        load_study(write(tmp_path, change))
