"""Ranges in annotations: read, put in words, and checked."""

from dataclasses import dataclass
from typing import Annotated

import pytest
from annotated_types import Interval

from molhpft.core.annotations import check_ranges, contains, in_words, ranges_of

WORDS = {
    "at least 1": Interval(ge=1),
    "above 0": Interval(gt=0),
    "at most 5": Interval(le=5),
    "below 5": Interval(lt=5),
    "in [0, 1)": Interval(ge=0, lt=1),
    "in (0, 1]": Interval(gt=0, le=1),
}


@dataclass
class Sizes:
    width: Annotated[int, Interval(ge=1)]
    fractions: tuple[Annotated[float, Interval(lt=5)], ...]
    decay: Annotated[float, Interval(gt=0, le=1)] | None
    name: str


@pytest.mark.parametrize(("words", "interval"), WORDS.items(), ids=WORDS)
def test_a_range_is_put_in_words(words, interval):
    assert in_words(interval) == words


@pytest.mark.parametrize(
    ("words", "within"),
    [
        ("at least 1", (1, 5, 9)),
        ("above 0", (0.5, 1, 5, 9)),
        ("at most 5", (-1, 0, 0.5, 1, 5)),
        ("below 5", (-1, 0, 0.5, 1)),
        ("in [0, 1)", (0, 0.5)),
        ("in (0, 1]", (0.5, 1)),
    ],
)
def test_a_range_contains_its_closed_ends_and_nothing_beyond(words, within):
    numbers = (-1, 0, 0.5, 1, 5, 9, float("inf"), float("-inf"), float("nan"))
    assert tuple(x for x in numbers if contains(WORDS[words], x)) == within


def test_ranges_are_read_beside_none_and_in_tuples():
    assert ranges_of(Sizes) == {
        "width": Interval(ge=1),
        "fractions": Interval(lt=5),
        "decay": Interval(gt=0, le=1),
    }


def test_the_first_field_outside_its_range_is_refused():
    ranges = {"width": Interval(ge=1), "decay": Interval(gt=0, le=1)}
    check_ranges(Sizes(1, (), None, ""), ranges)
    with pytest.raises(ValueError, match=r"^width should be at least 1, got 0$"):
        check_ranges(Sizes(0, (), 2.0, ""), ranges)
    with pytest.raises(ValueError, match=r"^decay should be in \(0, 1\], got 2\.0$"):
        check_ranges(Sizes(1, (), 2.0, ""), ranges)
