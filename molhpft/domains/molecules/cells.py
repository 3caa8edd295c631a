"""What the cells of a table mean as labels: numbers, the two words of a question, missing marks."""

import re
from collections.abc import Iterable

MISSING = ("", "-", "NA", "N/A", "#N/A", "<NA>", "NaN", "null", "None")
"""Marks of a missing label, in any case."""

_MISSING = frozenset(mark.lower() for mark in MISSING)
_PLAIN = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
_NUMBER = re.compile(_PLAIN, re.ASCII)
_CENSORED = re.compile(rf"(?:[<>≤≥]=?|~)\s*{_PLAIN}", re.ASCII)

_UNIT = r"(?:[pnuµm]?M|[nuµm]?g/m?[lL]|g/mol|kcal/mol|kJ/mol|°C|K|k?Da|ppm|h|min)"

_WITH_UNIT = "a number with its unit"

# what people write for numbers, whatever `float` makes of it; the last two are none
_ODD = (
    ("a percent sign", re.compile(rf"{_PLAIN}\s*%", re.ASCII)),
    ("a censored value", _CENSORED),
    ("a decimal comma or thousands separator", re.compile(r"[+-]?\d+(?:[,'\s]\d+)+(?:\.\d*)?")),
    ("a minus sign other than -", re.compile(r"[\u2212\u2010-\u2015]\s*[\d.,]+")),
    ("infinity", re.compile(r"[+-]?inf(?:inity)?", re.IGNORECASE)),
    (_WITH_UNIT, re.compile(rf"{_PLAIN}\s*{_UNIT}", re.ASCII)),
    ("a date", re.compile(r"(?:\d{4}[-/.]\d\d?[-/.]\d\d?|(?:\d\d?[-/.]){2}\d{2,4})(?:[ T].*)?")),
    ("an underscore", re.compile(r"[+-]?\d+(?:_\d+)+(?:\.\d+)?", re.ASCII)),
)
_NO_NUMBERS = ("a date", "an underscore")

# which of two words is 1; of any others the later one in the alphabet
_YES = frozenset(
    ("true", "t", "yes", "y", "active", "positive", "pos", "+", "toxic", "hit", "inhibitor")
)


def is_missing(cell: str) -> bool:
    """Whether a cell says that there is no label."""
    return cell.lower() in _MISSING


def labels_of(cells: Iterable[str]) -> dict[str, str]:
    """The label of each distinct cell of a column: its first spelling, empty where it is missing.

    Cells that differ in case alone, or are the same number, are one label. Beside `+`, the missing
    mark `-` is a label.
    """
    distinct = dict.fromkeys(cells)
    first: dict[str | float, str] = {}
    labels = {}
    for cell in distinct:
        if is_missing(cell) and not (cell == "-" and "+" in distinct):
            labels[cell] = ""
            continue
        value = number(cell)
        labels[cell] = first.setdefault(cell.lower() if value is None else value, cell)
    return labels


def number(cell: str) -> float | None:
    """A number as spreadsheets write it: sign, digits, decimal point, exponent; else None.

    Nothing else that `float` reads is one: `2024_0001` is a name, `inf` and `nan` are words.
    """
    return float(cell) if _NUMBER.fullmatch(cell) else None


def is_censored(cell: str) -> bool:
    """Whether a cell bounds a number, as `>1.5` does."""
    return _CENSORED.fullmatch(cell) is not None


def oddity(cell: str) -> str:
    """What keeps a cell from being a number, where that can be told; else empty."""
    return next((what for what, pattern in _ODD if pattern.fullmatch(cell)), "")


def is_numeric(cell: str) -> bool:
    """Whether a person would take a cell for a number, plainly written or not."""
    return number(cell) is not None or oddity(cell) not in ("", *_NO_NUMBERS)


def is_word(cell: str) -> bool:
    """Whether a cell may be the name of a class: no number, plainly written or not, and no date."""
    return number(cell) is None and not oddity(cell)


def has_unit(cell: str) -> bool:
    """Whether a cell is a number with its unit, as may be the name of a class: `3M`."""
    return oddity(cell) == _WITH_UNIT


def ordered_words(one: str, other: str) -> tuple[str, str]:
    """Two words as the labels 0 and 1: yes, true, active, positive, ... are 1.

    Of two words that are not known, the later one in the alphabet is 1, as scikit-learn has it.
    """
    first, last = sorted((one, other))
    return (last, first) if first.lower() in _YES and last.lower() not in _YES else (first, last)
