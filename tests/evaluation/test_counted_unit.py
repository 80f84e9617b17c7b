"""The unit by which methods are compared."""

import pytest

from benchmark.evaluation.units import counted_unit


@pytest.mark.parametrize(("scoring", "unit"), [("treatments", "treatment"), ("controls", "well")])
def test_wells_are_counted_only_where_controls_are_scored(scoring, unit):
    assert counted_unit(scoring) == unit
