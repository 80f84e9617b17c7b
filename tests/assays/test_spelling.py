"""What counts as one name, and what is no name at all."""

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from benchmark.assays.spelling import difference, name_key, spellings, visible, well_key
from benchmark.assays.words import is_missing


@pytest.mark.parametrize(("one", "other", "why"), [
    ("cpd-0", "cpd-0\u200b", "characters that do not show"), ("P1", "\ufeffP1", "characters that do not show"),
    ("taxol", "ta\u00adxol", "characters that do not show"), ("taxol", "taxol\ufe0f", "characters that do not show"),
    ("drug 1", "drug\u00a01", "two forms of one character"), ("café", "cafe\u0301", "two forms of one character"),
    ("5'-AMP", "5’-AMP", "two forms of one character"), ("µ-1", "μ-1", "two forms of one character"),
    ("P１", "P1", "two forms of one character"), ("Taxol", "taxol", "capitals"),
    ("5290", "5290.0", "how a number is written"), ("5290", "5290.00", "how a number is written"),
    ("5290", "5.29E+3", "how a number is written"), ("123000000000", "1.23e+11", "how a number is written"),
    ("0012", "12", "how a number is written"), ("P01", "P1", "how a number is written"),
    ("cpd-5290", "cpd-5290.0", "how a number is written"), ("0.50", "0.5", "how a number is written"),
    ("a-b", "a b", "blanks, hyphens or underscores"), ("a_b", "a−b", "blanks, hyphens or underscores"),
    ("A|B", "B|A", "the order of parts"), ("kinase, HDAC", "HDAC,kinase", "the order of parts"),
    ("taxol + SAHA", "saha+taxol", "capitals and the order of parts"),
])
def test_one_name_in_two_spellings(one, other, why):
    assert spellings([one, other]) == [sorted([one, other])] and why in difference([one, other])


@pytest.mark.parametrize(("one", "other"), [
    ("AB-1", "AB1"), ("DMSO_0.1", "DMSO_0.01"), ("1.1", "1.11"), ("5290", "52900"), ("10", "100"), ("1/2", "2/1"),
    ("P1", "P10"), ("A|B", "A|C"), ("123456789012345678901", "123456789012345678902"), ("1E5", "100000"),
    ("0.1", "0.01"), ("-5", "5"), ("α-1", "a-1"), ("v1.01", "v1.1"),
])
def test_two_names(one, other):
    assert spellings([one, other]) == []


def test_wells_are_padded_or_not():
    assert len({well_key(w) for w in ("A1", "A01", "a01", "A-01", "A001")}) == 1
    assert len({well_key(w) for w in ("A1", "A10", "B1", "AA1", "A11")}) == 5


@pytest.mark.parametrize("text", ["", " ", "\u200b", "NA", "n/a", "NaN", "None", "NULL", "<NA>", "#N/A", "-", "–", ".",
                                  "#REF!", "nan\u00a0"])
def test_words_for_a_missing_value(text):
    assert is_missing(text)


@pytest.mark.parametrize("text", ["Nan-1", "unknown", "0", "none of these", "nancodazole", "A"])
def test_words_that_may_be_names(text):
    assert not is_missing(text)


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=20))
@example("1e+9999")
@example("0" * 4000)
def test_any_text_has_a_key_which_what_does_not_show_leaves_alone(text):
    assert name_key(text) == name_key(text + "\u200b") == name_key(" " + text)
    assert visible(visible(text)) == visible(text)
