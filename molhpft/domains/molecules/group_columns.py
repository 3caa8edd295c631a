"""Columns of a table that say which molecules belong together, and which are newer than others."""

import re
from collections.abc import Iterable
from datetime import datetime, timedelta, timezone

from molhpft.domains.molecules.table_files import Sheet
from molhpft.domains.molecules.target_columns import is_missing, number

_DATE = re.compile(
    r"(\d{4})[-/](\d\d?)(?:[-/](\d\d?))?"
    r"(?:[T ](\d\d):(\d\d)(?::(\d\d)(?:\.(\d+))?)?\s*(Z|[+-]\d\d:?\d\d)?)?",
    re.ASCII,
)

_WHOLE = re.compile(r"^(-?\d+)\.0+$", re.ASCII)


def group_labels(sheet: Sheet, column: str, rows: Iterable[int]) -> tuple[str, ...]:
    """The group of each row, (n,): its cell as it stands there, but that 3.0 is 3 and -0 is 0.

    Args:
        sheet: a table.
        column: of groups, such as series, papers or batches.
        rows: that have to have one.

    Raises:
        ValueError: there is no such column, or one of the rows names no group; the message says
            where.
    """
    cells = sheet.column(column, option="group_column")
    for row in rows:
        if is_missing(cells[row]):
            raise ValueError(
                f"every molecule of {sheet.path} should have its group in column {column!r}; "
                f"{sheet.unit} {sheet.lines[row]} has {cells[row]!r}"
            )
    # as spreadsheets write whole numbers; 1.10 and 1E5 may be names
    names = (_WHOLE.sub(r"\1", cell) for cell in cells)
    return tuple("0" if name == "-0" else name for name in names)


def row_times(sheet: Sheet, column: str, rows: Iterable[int]) -> tuple[float, ...]:
    """When each row was measured, (n,), 0 for rows that do not count.

    Args:
        sheet: a table.
        column: of numbers (a year, a batch number), or of dates that begin with the year.
        rows: that count.

    Raises:
        ValueError: there is no such column, a cell of the rows is no time, or cells are of two
            kinds; the message says where.
    """
    cells, times = sheet.column(column, option="time_column"), [0.0] * len(sheet.lines)
    kind: bool | None = None
    for row in rows:
        place = f"{sheet.unit} {sheet.lines[row]} has {cells[row]!r:.60}"
        time, is_date = time_of(cells[row]), number(cells[row]) is None
        if time is None:
            raise ValueError(
                f"column {column!r} of {sheet.path} should say when each molecule was measured, as "
                f"a number or a date that begins with the year (2021-03-31); {place}"
            )
        if kind not in (None, is_date):
            raise ValueError(
                f"column {column!r} of {sheet.path} should hold numbers or dates, not both; "
                f"{place}, unlike the rows above"
            )
        kind, times[row] = is_date, time
    return tuple(times)


def time_of(cell: str) -> float | None:
    """A number, or a date in seconds since 1970; None for anything else.

    Dates begin with the year; month and day follow, with or without a time of the day and a zone.
    Without a zone they are in UTC.

    >>> time_of("2014"), time_of("1970-01-02"), time_of("1970/01/01 01:00+01:00")
    (2014.0, 86400.0, 0.0)
    >>> time_of("31.03.2021") is time_of("2021-13-01") is time_of("") is None
    True
    """
    if (plain := number(cell)) is not None:
        return plain
    match = _DATE.fullmatch(cell)
    if match is None:
        return None
    year, month, day, hour, minute, second, fraction, zone = match.groups()
    try:
        moment = datetime(
            *(int(year), int(month), int(day or 1)),
            *(int(hour or 0), int(minute or 0), int(second or 0)),
            tzinfo=_zone(zone),
        )
    except ValueError:  # a thirteenth month
        return None
    return moment.timestamp() + float(f"0.{fraction or 0}")


def _zone(text: str | None) -> timezone:
    if text is None or text == "Z":
        return timezone.utc
    offset = timedelta(hours=int(text[1:3]), minutes=int(text[-2:]))
    return timezone(-offset if text[0] == "-" else offset)
