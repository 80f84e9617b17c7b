"""Where a well lies, from every way of naming wells that microscopes and vendors use; what is unclear is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmark.base.errors import MorphobenchError
from benchmark.base.wells import well_places


@given(row=st.integers(1, 48), column=st.integers(1, 72), zeros=st.integers(0, 2),
       gap=st.sampled_from(["", "-", " ", "_"]))
def test_letters_and_numbers(row, column, zeros, gap):
    letters = chr(64 + row) if row <= 26 else "A" + chr(64 + row - 26)
    for name in (f"{letters}{gap}{'0' * zeros}{column}", f"{letters.lower()}{gap}{column}", f"r{row:02d}c{column:02d}"):
        assert well_places([name]).of == {name: (row, column)}


@pytest.mark.parametrize(("name", "place"), [
    ("r02c03", (2, 3)), ("R2C3", (2, 3)), ("r02_c03", (2, 3)), ("row 2, column 3", (2, 3)), ("B-02", (2, 2)),
    ("B 2", (2, 2)), (" b02 ", (2, 2)), ("AF48", (32, 48)), ("Aa01", (1, 1)), ("Ab01", (2, 1)), ("Ba01", (5, 1)),
    ("Hd48", (32, 48)), ("A01.a1", (1, 1)), ("A01.b2", (2, 2)), ("B03.a1", (5, 9)), ("H12.d4", (32, 48)),
])
def test_each_way_of_naming_wells(name, place):
    assert well_places([name]).of == {name: place}


def test_rows_of_1536_wells_are_1_to_32_in_both_ways():
    nested = [f"{row}{sub}01" for row in "ABCDEFGH" for sub in "abcd"]
    plain = [f"{row}01" for row in [*"ABCDEFGHIJKLMNOPQRSTUVWXYZ", "AA", "AB", "AC", "AD", "AE", "AF"]]
    for names in (nested, plain):
        assert [row for row, _ in well_places(names).of.values()] == list(range(1, 33))
    assert well_places(nested).nested and not well_places(plain).nested


@pytest.mark.parametrize(("most", "of"), [(6, {1: (1, 1), 4: (2, 1)}), (60, {12: (1, 12), 13: (2, 1)}),
                                          (384, {24: (1, 24), 25: (2, 1), 384: (16, 24)}), (1536, {1536: (32, 48)})])
def test_numbers_are_places_and_what_is_assumed_is_said(most, of):
    places = well_places([str(n) for n in range(1, most + 1)])
    assert {n: places.of[str(n)] for n in of} == of and "counted along its rows" in places.assumed
    assert well_places(["A01"]).assumed == ""


@pytest.mark.parametrize(("names", "words"), [
    (["A01", "B", "B00", "BBB1", "B1x", "", "β1"], "6 of 7 wells have names that give no row and column: 'B', 'B00'"),
    (["well 1"], "'well 1'"), (["12", "A01"], "'12'"), (["0", "1"], "numbers 0 to 1"), (["1537"], "which no plate has"),
    (["A01", "Aa01"], "named in two ways"), (["AA01", "Aa01"], "named in two ways"),
    (["AA01", "BA01"], "'BA01'; the first would be row 53"), (["r00c01"], "on no plate"), (["r02c99"], "on no plate"),
    (["=A01"], "'=A01'"),
])
def test_what_cannot_be_read_or_can_be_read_twice_is_refused_in_one_message(names, words):
    with pytest.raises(MorphobenchError) as caught:
        well_places(names)
    assert words in str(caught.value)
