"""What the page says of folds that shared trainings."""

from __future__ import annotations

from dataclasses import replace

import pytest
from fake_runs import predictions, wells

from benchmark.evaluation.comparison import Run, compare
from benchmark.report.sharing import sharing_notes

METHOD = {"name": "cnn", "kind": "cnn_finetuned", "labels": "true", "training": {"epochs": 5}}


@pytest.fixture
def runs():
    layout = wells()
    both = []
    for name, wrong, extra in (("cnn", range(6), {}), ("cnn_shared", range(2), {"folds": "shared"})):
        record = {"assay_hash": "a", "split_hash": "s",
                  "method": {**METHOD, "name": name, "title": name, "training": METHOD["training"] | extra}}
        if extra:
            record["shared"] = {"trunks": 4, "image_share": 0.26, "images": 1, "seconds": 1.0}
        both.append(Run(name, name.upper(), record, predictions(layout, name, wrong, "field")))
    return both


def test_the_gap_to_exact_folds_is_told_with_its_uncertainty(runs):
    (note,) = sharing_notes(runs, compare(runs))
    assert "CNN_SHARED: its folds start from 4 shared trainings" in note and "26.0\u00a0% of the crops" in note
    assert "exact folds (CNN): 53 rather than 49 of 55 treatments right; 106 rather than 98 of 110 wells" in note
    assert "the difference is 7.3 points" in note and "McNemar" in note
    backwards = sharing_notes(runs[::-1], compare(runs[::-1]))  # the pair stands the other way round
    assert backwards == (note,)


def test_a_gap_that_was_not_measured_is_not_told(runs):
    other = replace(runs[0], record={**runs[0].record, "method": {**METHOD, "training": {"epochs": 6}}})
    (note,) = sharing_notes([other, runs[1]], compare([other, runs[1]]))
    assert "was not measured here" in note and "rather than" not in note
    assert sharing_notes([other], compare([other])) == ()
