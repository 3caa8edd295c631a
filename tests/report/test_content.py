"""Cells: shown as people read them, sorted as numbers, mean and interval consistent."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from molhpft.report.content import Cell, number_cell, score_cell

NUMBERS = st.floats(-2, 2)


@settings(deadline=None)
@given(NUMBERS, st.floats(0, 1), st.sampled_from(["rocauc", "neg_rmse"]))
def test_a_score_shows_its_mean_and_half_its_interval(mean, reach, metric):
    cell = score_cell({"s": mean, "s_low": mean - reach}, "s", metric)
    shown, half = map(float, cell.text.split(" ± "))
    factor = 100 if metric == "rocauc" else 1
    assert shown == pytest.approx(factor * mean, abs=0.0051)
    assert half == pytest.approx(factor * reach, abs=0.0051)
    assert cell.value == mean


def test_a_score_of_one_seed_has_no_interval():
    assert score_cell({"s": 0.5, "s_low": math.nan}, "s", "ap").text == "50.00"


@pytest.mark.parametrize("value", [None, math.nan, math.inf, "text"])
def test_what_is_no_number_is_a_dash_without_value(value):
    assert number_cell(value) == Cell("-", None)
    assert score_cell({"s": value}, "s", "ap") == Cell("-", None)
