"""Folds never leak, and a leak never passes."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from conftest import CHANNELS, field_rows
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmark.assays.fieldtable import Assay, make_assay
from benchmark.base.errors import Fault, LeakError, MorphobenchError
from benchmark.base.files import digest
from benchmark.base.tables import BATCH, COMPOUND, LABEL, WELL_KEY, path_column, plane_column
from benchmark.folds.audit import audit
from benchmark.folds.fold import HELD_OUT, Fold, Unscored, rows_of
from benchmark.folds.inner import inner_folds, inner_groups
from benchmark.folds.make import load_split, make_split, save_split, study_split


def paper_assay(tmp_path, **kinds) -> Assay:
    """An assay whose files need not exist: splits never open them."""
    table = field_rows(**kinds)
    for c, channel in enumerate(CHANNELS):
        table[path_column(channel)] = [f"f{i}.tif" for i in range(len(table))]
        table[plane_column(channel)] = c
    return make_assay("paper", tmp_path, table, CHANNELS)


@settings(max_examples=12, deadline=None)
@given(labels=st.integers(2, 4), compounds=st.integers(2, 4), plates=st.integers(1, 3), sites=st.integers(1, 2),
       controls=st.integers(0, 2), concentrations=st.integers(1, 2))
def test_every_fold_is_disjoint_and_every_well_tested_once(tmp_path_factory, **kinds):
    assay = paper_assay(tmp_path_factory.getbasetemp(), **kinds)
    split = make_split(assay, "hash", "leave-one-compound-out")
    compound_of = {tuple(r[WELL_KEY]): r[COMPOUND] for _, r in assay.wells.iterrows()}
    label_of = {tuple(r[WELL_KEY]): r[LABEL] for _, r in assay.wells.iterrows()}
    tested = [w for f in split.folds for w in f.test]
    assert sorted(tested) == sorted(w for w, label in label_of.items() if label)
    for fold in split.folds:
        assert not set(fold.test) & set(fold.train)
        assert {compound_of[w] for w in fold.test} == {fold.name}
        assert fold.name not in {compound_of[w] for w in fold.train}
        assert {label_of[w] for w in fold.test} <= {label_of[w] for w in fold.train}
        assert not any(compound_of[w] == "DMSO" for w in fold.train)


def test_split_does_not_depend_on_row_order(tmp_path):
    assay = paper_assay(tmp_path)
    shuffled = assay.fields.sample(frac=1, random_state=3)
    again = make_assay("paper", tmp_path, shuffled, CHANNELS)
    a, b = (make_split(x, "hash", "leave-one-compound-out") for x in (assay, again))
    assert a.hash == b.hash


def tampered(split, **changes):
    return replace(split, folds=(replace(split.folds[0], **changes), *split.folds[1:]))


def test_audit_refuses_each_kind_of_leak(tmp_path):
    assay = paper_assay(tmp_path, compounds=3, plates=2)
    split = make_split(assay, "hash", "leave-one-compound-out")
    first, second = split.folds[:2]
    leaks = {
        "compound": tampered(split, train=(*first.train, first.test[0])),
        "not the scored wells": tampered(split, test=first.test[1:]),
        "no training well": tampered(split, train=tuple(w for w in first.train if w in split.folds[-1].test)),
        "not scored wells": tampered(split, train=(*first.train, ("P9", "Z99"))),
    }
    for message, leaky in leaks.items():
        with pytest.raises(LeakError, match=message):
            audit(leaky, assay, "hash")
    doubled = replace(split, folds=(first, replace(second, test=(*second.test, first.test[0])), *split.folds[2:]))
    with pytest.raises(LeakError, match="twice"):
        audit(doubled, assay, "hash")
    with pytest.raises(LeakError, match="other images or labels"):
        audit(split, assay, "another")


def test_audit_finds_the_same_image_under_two_names(tmp_path):
    assay = paper_assay(tmp_path)
    hashes = {p: p for p in assay.fields[path_column("DNA")]}
    split = make_split(assay, "hash", "leave-one-compound-out", hashes)
    rows = assay.fields
    other = rows[rows[COMPOUND] != rows[COMPOUND][0]].iloc[0]
    hashes[rows[path_column("DNA")][0]] = hashes[other[path_column("DNA")]]
    with pytest.raises(LeakError, match="image content"):
        audit(split, assay, "hash", hashes)


def test_saved_split_comes_back_and_edits_are_refused(tmp_path):
    assay = paper_assay(tmp_path)
    split = make_split(assay, "hash", "leave-one-compound-out")
    path = tmp_path / "splits.json"
    save_split(path, split)
    assert load_split(path, assay, "hash") == split
    raw = json.loads(path.read_text())
    moved = raw["folds"][0]["test"].pop()
    raw["folds"][0]["train"].append(moved)
    path.write_text(json.dumps(raw))
    with pytest.raises(LeakError, match="do not match the hash"):
        load_split(path, assay, "hash")
    path.write_text('{"folds": 3}')
    with pytest.raises(MorphobenchError, match="not a folds file"):
        load_split(path, assay, "hash")


@settings(max_examples=40, deadline=None)
@given(sizes=st.lists(st.integers(1, 5), min_size=3, max_size=10), labels=st.integers(2, 3), seed=st.integers(0, 99))
def test_inner_folds_keep_compounds_apart(sizes, labels, seed):
    compounds = [f"c{i}" for i, n in enumerate(sizes) for _ in range(n)]
    wanted = [f"l{int(c[1:]) % labels}" for c in compounds]
    folds = inner_folds(compounds, wanted, 4, seed)
    if not folds:  # every label has one row: nothing to hold out
        assert max(wanted.count(w) for w in wanted) == 1
        return
    groups = np.array(compounds)
    for train, test in folds:
        assert not set(groups[train]) & set(groups[test])
        assert sorted([*train, *test]) == list(range(len(groups)))
    assert sorted(i for _, test in folds for i in test) == list(range(len(groups)))  # each row tested once


def test_rows_of_matches_plate_and_well_together():
    table = pd.DataFrame({"Metadata_Plate": ["a", "a", "b"], "Metadata_Well": ["1", "2", "1"]})
    assert rows_of(table, (("a", "1"), ("b", "2"))).tolist() == [True, False, False]


def test_real_bbbc021_fields_split(data_folder, monkeypatch):
    from benchmark.assays.table import load_table
    from benchmark.workflow.study import load_study

    monkeypatch.setenv("MORPHOBENCH_DATA", str(data_folder))
    study = load_study("bbbc021-fields")
    assay = load_table(study.assay, study.name, study.base)
    split = make_split(assay, "hash", study.split)
    assert (len(split.folds), sum(len(f.test) for f in split.folds)) == (18, 165)
    assert isinstance(split.folds[0], Fold) and split.folds[0].name == "AZ-A"


def dose_assay(tmp_path, lines: bool = False) -> Assay:
    """A translocation plate: two compounds (or two cell lines), controls scored, doses between them unlabelled."""
    rows = []
    for half in range(2):
        for row in "AB" if half == 0 else "CD":
            for column in range(1, 7):
                control = {1: "negative", 6: "positive"}.get(column, "")
                rows.append({
                    "Metadata_Batch": "1", "Metadata_Plate": "P", "Metadata_Well": f"{row}{column:02d}",
                    "Metadata_Site": 1, "Metadata_Replicate": row, "Metadata_Concentration": float(column - 1),
                    "Metadata_Compound": "TNF" if lines else f"c{half}",
                    "Metadata_CellLine": f"l{half}" if lines else "",
                    "Metadata_Label": {"negative": "out", "positive": "in"}.get(control, ""),
                    "Metadata_Control": control})
    table = pd.DataFrame(rows)
    for channel in CHANNELS:
        table[path_column(channel)] = [f"{channel}{i}.tif" for i in range(len(table))]
        table[plane_column(channel)] = 0
    return make_assay("plate", tmp_path, table, CHANNELS, scoring="controls")


@pytest.mark.parametrize(("lines", "scheme"), [(False, "leave-one-compound-out"), (True, "leave-one-cell-line-out")])
def test_controls_are_scored_and_doses_only_predicted_where_held_out(tmp_path, lines, scheme):
    assay = dose_assay(tmp_path, lines)
    split = make_split(assay, "hash", scheme)
    assert [len(f.test) for f in split.folds] == [4, 4] and [len(f.train) for f in split.folds] == [4, 4]
    for fold, rows in zip(split.folds, ("AB", "CD"), strict=True):
        assert {w[0] for _, w in (*fold.test, *fold.response)} == set(rows)
        assert sorted(w for _, w in fold.response) == [f"{r}{c:02d}" for r in rows for c in range(2, 6)]
    assert "16 wells of the dose series are predicted and not scored" in " ".join(split.left_out)
    save_split(tmp_path / "s.json", split)
    assert load_split(tmp_path / "s.json", assay, "hash") == split


def test_audit_refuses_a_dose_well_in_training_or_in_another_fold(tmp_path):
    assay = dose_assay(tmp_path)
    split = make_split(assay, "hash", "leave-one-compound-out")
    first, second = split.folds
    with pytest.raises(LeakError, match="not scored wells"):
        audit(tampered(split, train=(*first.train, second.response[0])), assay, "hash")
    swapped = replace(split, folds=(replace(first, response=second.response), replace(second, response=first.response)))
    with pytest.raises(LeakError, match="compound 'c1' is in both"):
        audit(swapped, assay, "hash")
    with pytest.raises(LeakError, match="dose series of all folds"):
        audit(tampered(split, response=first.response[1:]), assay, "hash")


def test_a_scheme_needs_something_to_hold_out(tmp_path):
    with pytest.raises(MorphobenchError, match=r"needs two cell lines or more.*leave-one-compound-out"):
        make_split(dose_assay(tmp_path), "hash", "leave-one-cell-line-out")
    with pytest.raises(MorphobenchError, match="needs two compounds"):
        make_split(dose_assay(tmp_path, lines=True), "hash", "leave-one-compound-out")


def test_inner_groups_are_wells_only_where_one_compound_is_left(tmp_path):
    assay = dose_assay(tmp_path)
    both = inner_groups(assay.treated)
    one = inner_groups(assay.treated[assay.treated[COMPOUND] == "c0"])
    assert set(both) == {"c0", "c1"} and one.nunique() == 4


def test_saved_folds_tell_what_is_left_out_as_the_assay_tells_it_now(tmp_path):
    assay = paper_assay(tmp_path)
    path = tmp_path / "splits.json"
    study_split(path, assay, "hash", "leave-one-compound-out", None)
    again = study_split(path, replace(assay, left_out=(Fault("plate Z is left out"),)), "hash",
                        "leave-one-compound-out", None)
    assert "plate Z is left out" in again.left_out


BOTH = "leave-one-compound-and-batch-out"


def batch_assay(folder, compounds: list[tuple[int, list[tuple[int, int]]]], order: int | None = None) -> Assay:
    """Compounds given as (label, [(batch, concentration), ...]), one well each; a plate a batch; DMSO on each plate."""
    rows = []
    for number, (label, wells) in enumerate(compounds):
        for batch, concentration in wells:
            rows.append((f"b{batch}", f"c{number:02d}", float(concentration), f"l{label}", ""))
    rows += [(b, "DMSO", 0.0, "", "negative") for b in sorted({r[0] for r in rows})]
    table = pd.DataFrame(rows, columns=[BATCH, COMPOUND, "Metadata_Concentration", LABEL, "Metadata_Control"])
    table["Metadata_Plate"] = "P" + table[BATCH]
    table["Metadata_Well"] = [f"W{i:03d}" for i in range(len(table))]
    table["Metadata_Site"], table["Metadata_Replicate"] = 1, "1"
    for c, channel in enumerate(CHANNELS):
        table[path_column(channel)] = [f"f{i}.tif" for i in range(len(table))]
        table[plane_column(channel)] = c
    if order is not None:
        table = table.sample(frac=1, random_state=order)
    return make_assay("paper", folder, table, CHANNELS)


WELLS = st.lists(st.tuples(st.integers(0, 3), st.integers(1, 3)), min_size=1, max_size=4, unique=True)
#: For each label, its compounds: two or more, since an assay refuses a label of one compound.
LABELS = st.lists(st.lists(WELLS, min_size=2, max_size=3), min_size=1, max_size=3)


@settings(max_examples=12, deadline=None)
@given(labels=LABELS)
def test_compound_and_batches_are_apart_and_unscored_are_those_that_cannot_be_learnt(tmp_path_factory, labels):
    compounds = [(label, wells) for label, of in enumerate(labels) for wells in of]
    base = tmp_path_factory.getbasetemp()
    assay = batch_assay(base, compounds)
    # What can be learnt, from the drawn lists alone.
    learnable = {}
    for i, (label, wells) in enumerate(compounds):
        own = {b for b, _ in wells}
        others = {other for j, (other, more) in enumerate(compounds) if j != i for b, _ in more if b not in own}
        learnable[f"c{i:02d}"] = label in others and len(others) > 1
    if not any(learnable.values()):
        with pytest.raises(MorphobenchError, match=r"needs two|leaves no fold"):
            make_split(assay, "hash", BOTH)
        return
    split = make_split(assay, "hash", BOTH)
    assert {f.name for f in split.folds} == {c for c, can in learnable.items() if can}
    assert {u.name for u in split.unscored} == {c for c, can in learnable.items() if not can}
    of = {tuple(r[WELL_KEY]): r for _, r in assay.wells.iterrows()}
    for fold in split.folds:
        compounds_of, batches_of = ({part: {of[w][c] for w in getattr(fold, part)} for part in ("test", "train")}
                                    for c in (COMPOUND, BATCH))
        assert not compounds_of["test"] & compounds_of["train"] and not batches_of["test"] & batches_of["train"]
        # And nothing that may be trained on was forgotten.
        assert set(fold.train) == {w for w, r in of.items() if r[LABEL] and r[BATCH] not in batches_of["test"]}
    told = [*(w for f in split.folds for w in f.test), *(w for u in split.unscored for w in u.wells)]
    assert sorted(told) == sorted(w for w, r in of.items() if r[LABEL])
    assert sum(u.treatments for u in split.unscored) == len({(i, k) for i, (_, wells) in enumerate(compounds)
                                                             for _, k in wells if not learnable[f"c{i:02d}"]})
    assert all(str(u) in split.left_out for u in split.unscored)
    save_split(base / "both.json", split)
    assert load_split(base / "both.json", assay, "hash") == split
    assert make_split(batch_assay(base, compounds, order=5), "hash", BOTH).hash == split.hash


#: Label 0 in two batches; label 1 in two; label 2 in one only, with two compounds.
THREE = [(0, [(0, 1), (0, 2)]), (0, [(1, 1)]), (1, [(0, 1)]), (1, [(1, 1)]), (2, [(1, 1), (1, 2)]), (2, [(1, 1)])]


def test_a_label_of_one_batch_is_named_and_leaves_the_denominator(tmp_path):
    split = make_split(batch_assay(tmp_path, THREE), "hash", BOTH)
    assert [f.name for f in split.folds] == ["c00", "c01", "c02", "c03"] and len(split.tested) == 5
    assert [(u.name, u.label, u.treatments, len(u.wells)) for u in split.unscored] == [("c04", "l2", 2, 2),
                                                                                      ("c05", "l2", 1, 1)]
    assert ("c04 (l2; 2 treatments, 2 wells) is not scored: no other compound has this label outside its own batches "
            "(b1)") in split.left_out
    again = study_split(tmp_path / "s.json", batch_assay(tmp_path, THREE), "hash", BOTH, None)
    assert study_split(tmp_path / "s.json", batch_assay(tmp_path, THREE), "hash", BOTH, None) == again == split


def test_audit_finds_again_what_is_unscored(tmp_path):
    assay = batch_assay(tmp_path, THREE)
    split = make_split(assay, "hash", BOTH)
    first, left = split.folds[0], split.unscored[0]
    can = Unscored("c00", "l0", 2, first.test, left.reason)
    refused = {
        "the batch 'b0' is in both": tampered(split, train=(*first.train, *split.folds[2].test)),
        "one label": tampered(split, train=split.folds[1].test),
        "says that it can be scored": replace(split, folds=split.folds[1:], unscored=(can, *split.unscored)),
        "missing": replace(split, unscored=split.unscored[1:]),
        "twice": replace(split, unscored=(*split.unscored, split.unscored[0])),
        "what is recorded of it": replace(split, unscored=(replace(left, treatments=1), *split.unscored[1:])),
        "does not hold": replace(split, unscored=(replace(left, reason="bad luck"), *split.unscored[1:])),
        "not those of this compound": replace(split, unscored=(replace(left, name="c05"),
                                                               replace(split.unscored[1], name="c04"))),
        "scores every compound": replace(split, scheme="leave-one-compound-out"),
    }
    for message, leaky in refused.items():
        with pytest.raises(LeakError, match=message):
            audit(leaky, assay, "hash")
    assert len({split.hash, *(leaky.hash for leaky in refused.values())}) == 1 + len(refused)  # all are in the hash


def test_one_batch_is_refused_with_what_to_do(tmp_path):
    with pytest.raises(MorphobenchError, match=r"two batches or more.*'1'.*leave-one-compound-out"):
        make_split(paper_assay(tmp_path), "hash", BOTH)
    with pytest.raises(MorphobenchError, match=r"two batches or more.*leave-one-compound-out"):
        make_split(dose_assay(tmp_path), "hash", BOTH)
    confounded = batch_assay(tmp_path, [(0, [(0, 1)]), (0, [(0, 1)]), (1, [(1, 1)]), (1, [(1, 1)])])
    with pytest.raises(MorphobenchError, match="leaves no fold that could be scored"):
        make_split(confounded, "hash", BOTH)


def test_controls_are_scored_with_batches_apart_where_there_are_several(tmp_path):
    assay = dose_assay(tmp_path)
    rows = assay.fields.copy()
    rows[BATCH] = rows["Metadata_Plate"] = np.where(rows[COMPOUND] == "c0", "x", "y")
    split = make_split(make_assay("plates", tmp_path, rows, CHANNELS, scoring="controls"), "hash", BOTH)
    assert not split.unscored and [len(f.response) for f in split.folds] == [8, 8]


def test_hashes_of_the_older_schemes_are_what_they_were(tmp_path):
    """The formula of before, and one hash as it was computed then: runs on disk are found by it."""
    frozen = "8777f5d73fda9e054ad40068ddf6593626f02a203d4ca642eded9a7a2a1664b4"
    for assay, scheme in ((paper_assay(tmp_path), "leave-one-compound-out"),
                          (dose_assay(tmp_path, lines=True), "leave-one-cell-line-out")):
        split = make_split(assay, "hash", scheme)
        folds = [[f.name, f.test, f.train, f.response] for f in split.folds]
        assert split.hash == digest([scheme, "hash", folds], 64)
    assert make_split(paper_assay(tmp_path), "hash", "leave-one-compound-out").hash == frozen
    save_split(tmp_path / "old.json", make_split(paper_assay(tmp_path), "hash", "leave-one-compound-out"))
    raw = json.loads((tmp_path / "old.json").read_text())
    del raw["unscored"]  # a folds file of before
    (tmp_path / "old.json").write_text(json.dumps(raw))
    assert load_split(tmp_path / "old.json", paper_assay(tmp_path), "hash").hash == frozen


def test_every_scheme_says_what_it_holds_out():
    assert {scheme: words for scheme, (_, words) in HELD_OUT.items()} == {
        "leave-one-compound-out": "compound", BOTH: "compound", "leave-one-cell-line-out": "cell line"}


def test_real_bbbc021_profiles_leave_compound_and_batch_out(data_folder, monkeypatch):
    from benchmark.assays.bbbc.bbbc021_profiles import load_bbbc021_profiles
    from benchmark.workflow.study import load_study

    monkeypatch.setenv("MORPHOBENCH_DATA", str(data_folder))
    study = load_study("bbbc021-profiles")
    assay = load_bbbc021_profiles(study.assay, study.name, study.base)
    split = make_split(assay, "hash", BOTH)
    assert {u.label for u in split.unscored} == {"Cholesterol-lowering", "Kinase inhibitors"}
    assert 103 - sum(u.treatments for u in split.unscored) == 92
