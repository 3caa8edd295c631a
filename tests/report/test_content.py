"""Cells and sheets: shown as people read them, sorted as numbers, mean and interval consistent."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from molhpft.report import content
from molhpft.report.text import problems_sheet, sheets
from molhpft.results.statistics import reported, summarise

NUMBERS = st.floats(-2, 2)


@settings(deadline=None)
@given(NUMBERS, st.floats(0, 1), st.sampled_from(["rocauc", "neg_rmse"]))
def test_a_score_shows_its_mean_and_half_its_interval(mean, reach, metric):
    cell = content.score({"s": mean, "s_low": mean - reach}, "s", metric)
    shown, spread = map(float, cell.text.split(" ± "))
    factor = 100 if metric == "rocauc" else 1
    assert shown == pytest.approx(factor * mean, abs=0.0051)
    assert spread == pytest.approx(factor * reach, abs=0.0051)
    assert cell.value == mean


def test_a_score_of_one_seed_has_no_interval():
    assert content.score({"s": 0.5, "s_low": math.nan}, "s", "ap").text == "50.00"


@pytest.mark.parametrize("value", [None, math.nan, math.inf, "text"])
def test_what_is_no_number_is_a_dash_without_value(value):
    assert content.number(value) == content.Cell("-", None)
    assert content.score({"s": value}, "s", "ap") == content.Cell("-", None)


def test_every_row_of_every_sheet_is_as_long_as_its_head(results):
    found = [*sheets(results.table), problems_sheet(results)]
    assert [sheet.title for sheet in found] == [
        "Methods at their best",
        f"{found[1].title.split(' ')[0]} against the others",
        "Every setting",
        "Every tau",
        "Left out",
    ]
    for sheet in found:
        assert sheet.rows
        assert {len(row) for row in sheet.rows} == {len(sheet.columns)}
        assert sheet.note


def test_sheets_show_the_summary(results):
    first = sheets(results.table)[0]
    summary = summarise(reported(results.table))
    assert [row[0].text for row in first.rows] == summary["label"].tolist()
    assert [row[1].value for row in first.rows] == summary["final_test"].tolist()
    marked = first.rows[first.marked][0].text
    assert marked != "morgan-lr"


def test_nothing_left_out_is_no_sheet(results):
    kept = type(results)(results.table, results.settings, results.runs, ())
    assert problems_sheet(kept) is None
