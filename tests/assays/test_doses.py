"""Doses as dispensed and as printed are the doses that were meant; what cannot be told is said."""

import numpy as np
import pandas as pd
import pytest

from benchmark.assays.doses import merge_doses
from benchmark.assays.places import Origin
from benchmark.base.tables import COMPOUND, CONCENTRATION

ORIGIN = Origin("plan.csv", {CONCENTRATION: "Dose"})


def merged(doses, how="nominal", compounds="a"):
    table = pd.DataFrame({COMPOUND: compounds, CONCENTRATION: np.asarray(doses, float)})
    after, notes = merge_doses(table, how, ORIGIN)
    return after[CONCENTRATION].tolist(), " | ".join(map(str, notes))


@pytest.mark.parametrize(("doses", "expected"), [
    ([9.98, 10.02, 10.0031, 9.99], [10.0] * 4),
    ([3.02, 3.04, 6.05, 6.05], [3.03, 3.03, 6.05, 6.05]),
    ([0.3, 0.1 + 0.2, 1], [0.3, 0.3, 1]),
    ([9.7, 10, 10.3, 0], [10, 10, 10, 0]),  # spread by 6 %, in steps of less than 5 %
])
def test_close_doses_are_one(doses, expected):
    values, said = merged(doses)
    assert values == expected and "taken for one dose" in said and "Dose" in said and "as_written" in said


@pytest.mark.parametrize("doses", [[1, 1.5, 2.25], [0.1, 0.3, 1, 3], [0, 0, 1], [1, 1.06], [np.nan, 1, -1, -1.01]])
def test_series_stay_and_nothing_is_said(doses):
    values, said = merged(doses)
    assert np.array_equal(values, doses, equal_nan=True) and said == ""


def test_doses_of_two_compounds_are_not_compared():
    assert merged([10, 10.1], compounds=["a", "b"]) == ([10, 10.1], "")


def test_a_fine_series_is_kept_and_said():
    doses = list(10 * 1.04 ** np.arange(8))
    values, said = merged(doses)
    assert values == doses and "too fine for a series" in said and "8 doses from 10 to" in said


def test_as_written_keeps_doses_and_says_so_but_not_what_printing_keeps_apart():
    values, said = merged([9.98, 10.02, 10.02000001, 1], "as_written")
    assert values == [9.98, 10.02, 10.02, 1]
    assert "3 values of Dose lie less than 5 %" in said and "intervals are too narrow" in said
    values, said = merged([0.3, 0.1 + 0.2], "as_written")
    assert values == [0.3, 0.3] and "0.3, 0.30000000000000004" in said
