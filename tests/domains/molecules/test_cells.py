"""A cell is a number where a spreadsheet would have written one, and nothing else is."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from molhpft.domains.molecules.target_columns import (
    MISSING,
    is_censored,
    is_missing,
    is_numeric,
    number,
    oddity,
    ordered_words,
)

ODD = {
    "a percent sign": ["45%", "4.5 %"],
    "a censored value": [">1.5", "< 3", "<=0.1", "≥10", "~4"],
    "a decimal comma or thousands separator": [
        "1,5",
        "-0,244",
        "1,234.5",
        "1 234",
        "1'234",
        "1,234,567",
    ],
    "a minus sign other than -": ["\u22120.5", "\u20133"],
    "infinity": ["inf", "-inf", "Infinity"],
    "a number with its unit": ["5 nM", "1.2mg/mL", "3 µM", "310 K"],
    "a date": ["2024-01-05", "5.1.2024", "01/05/24", "2024-01-05 10:00"],
    "an underscore": ["2024_1", "2024_0001", "1_000.5"],
    "": [
        "high",
        "CPD-0001",
        "50-00-0",
        "5HT2A",
        "1ABC",
        "1e",
        "0x1F",
        "+",
        ".",
        "1.2.3",
        "1 -2",
        "\u0661",
    ],
}


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_what_python_writes_for_a_number_is_read_exactly(value):
    assert number(repr(value)) == value


@pytest.mark.parametrize(
    ("cell", "value"),
    [("1", 1), ("-1", -1), ("+2.5", 2.5), (".5", 0.5), ("5.", 5), ("1e-3", 0.001), ("1.5E+2", 150)],
)
def test_numbers_of_spreadsheets_are_read(cell, value):
    assert number(cell) == value
    assert is_numeric(cell)


@pytest.mark.parametrize(
    ("what", "cells"), ODD.items(), ids=lambda x: x if isinstance(x, str) else ""
)
def test_anything_else_is_no_number_and_is_called_what_it_is(what, cells):
    for cell in cells:
        assert number(cell) is None, cell
        assert oddity(cell) == what, cell
        assert is_numeric(cell) == (what not in ("", "a date", "an underscore")), cell
        assert is_censored(cell) == (what == "a censored value"), cell


@pytest.mark.parametrize("mark", [*MISSING, *map(str.lower, MISSING), *map(str.upper, MISSING)])
def test_marks_of_missing_labels_are_known_in_any_case_and_no_others(mark):
    assert is_missing(mark)
    assert not is_missing(f"{mark}x")
    assert not is_missing("0")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("True", "False"), ("False", "True")),
        (("no", "Yes"), ("no", "Yes")),
        (("active", "inactive"), ("inactive", "active")),
        (("toxic", "harmless"), ("harmless", "toxic")),
        (("toxic", "non-toxic"), ("non-toxic", "toxic")),
        (("blue", "red"), ("blue", "red")),
    ],
)
def test_of_two_words_the_affirmative_is_one_and_else_the_later(words, expected):
    assert ordered_words(*words) == ordered_words(*reversed(words)) == expected
