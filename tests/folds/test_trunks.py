"""Trainings that folds share never see what one of these folds holds out."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_folds import paper_assay

from benchmark.base.errors import LeakError, MorphobenchError
from benchmark.base.tables import COMPOUND, LABEL
from benchmark.folds.fold import rows_of
from benchmark.folds.make import make_split
from benchmark.folds.trunks import TRUNKS, Trunk, audit_trunks, make_trunks, trunk_of


@settings(max_examples=12, deadline=None)
@given(labels=st.integers(2, 3), compounds=st.integers(2, 5), plates=st.integers(1, 2), sites=st.integers(1, 2),
       controls=st.integers(0, 1), concentrations=st.integers(1, 2))
def test_no_trunk_sees_a_compound_that_a_fold_of_it_holds_out(tmp_path_factory, **kinds):
    assay = paper_assay(tmp_path_factory.getbasetemp(), **kinds)
    split = make_split(assay, "hash", "leave-one-compound-out")
    trunks = make_trunks(split, assay)
    assert sorted(f for t in trunks for f in t.folds) == sorted(f.name for f in split.folds)
    assert len(trunks) == min(TRUNKS, len(split.folds) // 2)
    for trunk in trunks:
        seen = assay.treated[rows_of(assay.treated, trunk.train)]
        assert not set(seen[COMPOUND]) & set(trunk.folds)  # folds are named by what they hold out
        assert set(seen[COMPOUND]) == set(assay.treated[COMPOUND]) - set(trunk.folds)
        if kinds["compounds"] <= len(trunks):  # one compound of a label at most is missing
            assert set(seen[LABEL]) == set(assay.treated[LABEL])
    assert make_trunks(split, assay) == trunks
    assert split.folds[0].name in trunk_of(trunks, split.folds[0].name).folds


@pytest.fixture
def paper(tmp_path):
    assay = paper_assay(tmp_path, labels=3, compounds=3, plates=1)
    split = make_split(assay, "hash", "leave-one-compound-out")
    return assay, split, make_trunks(split, assay)


def test_the_audit_finds_a_trunk_that_saw_what_its_fold_tests(paper):
    assay, split, trunks = paper
    fold = next(f for f in split.folds if f.name in trunks[0].folds)
    leaky = (replace(trunks[0], train=(*trunks[0].train, fold.test[0])), *trunks[1:])
    with pytest.raises(LeakError, match="may not train on"):
        audit_trunks(leaky, split, assay)


def test_the_audit_looks_at_compounds_and_not_only_at_what_folds_say(paper):
    """A fold whose own training part is wrong does not make a trunk right."""
    assay, split, trunks = paper
    fold = next(f for f in split.folds if f.name in trunks[0].folds)
    wrong = replace(split, folds=tuple(replace(f, train=(*f.train, fold.test[0])) if f.name in trunks[0].folds else f
                                       for f in split.folds))
    leaky = (replace(trunks[0], train=(*trunks[0].train, fold.test[0])), *trunks[1:])
    with pytest.raises(LeakError, match=f"the compound '{fold.name}'"):
        audit_trunks(leaky, wrong, assay)


def test_the_audit_wants_each_fold_once(paper):
    assay, split, trunks = paper
    for dealt in (trunks[1:], (*trunks, trunks[0])):
        with pytest.raises(LeakError, match="each fold once"):
            audit_trunks(dealt, split, assay)


def test_a_trunk_with_one_label_is_refused(paper):
    assay, split, trunks = paper
    label = assay.treated[LABEL].iloc[0]
    some = assay.treated[(assay.treated[LABEL] == label) & ~assay.treated[COMPOUND].isin(trunks[0].folds)]
    lone = Trunk(trunks[0].name, trunks[0].folds, tuple(some[["Metadata_Plate", "Metadata_Well"]].drop_duplicates()
                                                        .itertuples(index=False, name=None)))
    with pytest.raises(MorphobenchError, match="fewer than two labels"):
        audit_trunks((lone, *trunks[1:]), split, assay)


def test_two_folds_share_nothing(tmp_path):
    assay = paper_assay(tmp_path, labels=1, compounds=2)
    split = make_split(assay, "hash", "leave-one-compound-out")
    with pytest.raises(MorphobenchError, match="2 folds"):
        make_trunks(split, assay)
