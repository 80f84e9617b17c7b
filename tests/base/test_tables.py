"""Each key column has one type, whatever a file stored."""

import numpy as np
import pandas as pd
import pytest

from benchmark.base.tables import CONCENTRATION, FIELD_COLUMNS, FIELD_KEY, LABEL, PLATE, REPLICATE, SITE, WELL, typed


def test_each_key_column_gets_its_type_and_others_stay():
    raw = pd.DataFrame({PLATE: [12, 3], WELL: ["A01", None], SITE: ["10", "2"], REPLICATE: [1, 2],
                        CONCENTRATION: ["0.3", "x"], "Cells_a": np.float32([1, 2])})
    table = typed(raw)
    assert table[PLATE].tolist() == ["12", "3"] and table[WELL].tolist() == ["A01", ""]
    assert table[SITE].tolist() == [10, 2] and table[SITE].dtype == np.int64 == table[REPLICATE].dtype
    assert table[CONCENTRATION].tolist()[0] == 0.3 and np.isnan(table[CONCENTRATION][1])
    assert table["Cells_a"].dtype == np.float32
    assert typed(table) is table  # nothing to do


@pytest.mark.parametrize(("sites", "wanted"), [
    (["10", "2", "02", "1"], [10, 2, 2, 1]),
    (["left", "right", "left", "centre"], [2, 3, 2, 1]),
    ([1.0, 2.0, 10.0, 2.0], [1, 2, 10, 2]),
    (np.array([3, 1, 2, 10], np.uint8), [3, 1, 2, 10]),
])
def test_sites_are_whole_numbers_in_the_order_of_their_names(sites, wanted):
    table = typed(pd.DataFrame({SITE: sites}))
    assert table[SITE].dtype == np.int64 and table[SITE].tolist() == wanted


def test_text_and_numbers_of_a_file_are_one_key():
    # As a CSV gives them, and as parquet may.
    one = pd.DataFrame({PLATE: ["7"], WELL: ["1"], SITE: ["3"]})
    other = pd.DataFrame({PLATE: [7], WELL: [1], SITE: [3]})
    assert len(typed(one).merge(typed(other), on=FIELD_KEY)) == 1


def test_types_do_not_depend_on_there_being_rows():
    empty = typed(pd.DataFrame(columns=FIELD_COLUMNS))
    assert empty[SITE].dtype == np.int64 and empty[CONCENTRATION].dtype == np.float64 and empty[LABEL].tolist() == []
