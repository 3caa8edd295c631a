"""Times and groups of a table are read as a person reads them, or refused."""

from datetime import datetime, timezone
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from molhpft.domains.molecules.group_columns import group_labels, row_times, time_of
from molhpft.domains.molecules.table_files import Sheet

moments = st.datetimes(min_value=datetime(1800, 1, 1)).map(lambda t: t.replace(microsecond=0))


def sheet(*cells):
    lines = tuple(range(2, len(cells) + 2))
    return Sheet(Path("mine.csv"), {"when": cells}, lines, {}, frozenset(), "line")


@given(moments, st.sampled_from(["{:%Y-%m-%d %H:%M:%S}", "{:%Y/%m/%dT%H:%M:%SZ}", "{}"]))
def test_a_moment_is_read_back_however_it_is_written(moment, form):
    text = form.format(moment) if moment.year > 999 else str(moment)
    assert time_of(text) == moment.replace(tzinfo=timezone.utc).timestamp()


@given(moments)
def test_a_date_is_its_midnight_and_a_month_its_first_day(moment):
    day = datetime(moment.year, moment.month, moment.day, tzinfo=timezone.utc)
    assert time_of(f"{day:%Y-%m-%d}") == day.timestamp()
    assert time_of(f"{day:%Y-%m}") == day.replace(day=1).timestamp()


@given(st.floats(-1e9, 1e9))
def test_a_number_is_itself(number):
    assert time_of(repr(number)) == number


@pytest.mark.parametrize("cell", ["", "NaN", "May", "31.03.2021", "2021-02-30", "03/04/2021", "1e"])
def test_what_begins_with_no_year_is_no_time(cell):
    assert time_of(cell) is None


def test_a_zone_counts():
    assert time_of("2021-03-31T01:00+01:00") == time_of("2021-03-31 00:00Z")
    assert time_of("2021-03-31 00:00:00.5-0130") == time_of("2021-03-31T01:30") + 0.5


def test_only_rows_that_count_need_a_time_or_a_group():
    assert row_times(sheet("2020", "?", "2021"), "when", [0, 2]) == (2020, 0, 2021)
    assert group_labels(sheet("a", "", "b"), "when", [0, 2]) == ("a", "", "b")
    with pytest.raises(ValueError, match="line 3 has '\\?'"):
        row_times(sheet("2020", "?", "2021"), "when", [0, 1])
    with pytest.raises(ValueError, match="should have its group in column 'when'; line 3 has ''"):
        group_labels(sheet("a", "", "b"), "when", [1])


def test_numbers_beside_dates_are_refused():
    with pytest.raises(ValueError, match="numbers or dates, not both; line 3 has '2021-03-31'"):
        row_times(sheet("2020", "2021-03-31"), "when", [0, 1])


def test_a_whole_number_is_one_group_as_spreadsheets_write_it_and_names_stay_names():
    assert group_labels(sheet("3", "3.0", "3.00"), "when", []) == ("3", "3", "3")
    assert group_labels(sheet("-1", "-1.0"), "when", []) == ("-1", "-1")
    assert group_labels(sheet("0", "0.0", "-0", "-0.0"), "when", []) == ("0", "0", "0", "0")
    names = ("1E5", "100000", "1.1", "1.10", "007", "7", "1e999999999999999999999", "10.0.0")
    assert group_labels(sheet(*names), "when", []) == names
    assert group_labels(sheet("-1.10", "--1.0"), "when", []) == ("-1.10", "--1.0")
