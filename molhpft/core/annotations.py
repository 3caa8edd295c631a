"""Annotations that say more than a type: shapes of tensors and ranges of numbers.

`Float[Tensor, "n d"]` is a tensor of real numbers with n rows and d columns, where a letter has one
size in a signature; `Int`, `Bool` and `Shaped` (of any dtype) alike. The tests check shapes at run
time, with jaxtyping and beartype; otherwise they cost nothing.

`Count` and its like are ranges of numeric options. Configs read them off signatures
(`config/options.py`), dataclasses check themselves.
"""

import sys
from collections.abc import Mapping
from math import isfinite
from typing import TYPE_CHECKING, Annotated, Any, get_args, get_type_hints

from annotated_types import Interval

if TYPE_CHECKING or "jaxtyping" not in sys.modules:
    from typing import Annotated as Bool
    from typing import Annotated as Float
    from typing import Annotated as Int
    from typing import Annotated as Shaped
else:
    from jaxtyping import Bool, Float, Int, Shaped

__all__ = ["Bool", "Float", "Int", "Shaped"]

Count = Annotated[int, Interval(ge=1)]
Whole = Annotated[int, Interval(ge=0)]
Seed = Annotated[int, Interval(ge=0, lt=2**63)]
Positive = Annotated[float, Interval(gt=0)]
NonNegative = Annotated[float, Interval(ge=0)]
Fraction = Annotated[float, Interval(ge=0, le=1)]
BelowOne = Annotated[float, Interval(ge=0, lt=1)]
Decay = Annotated[float, Interval(gt=0, le=1)]


def range_of(annotation: Any) -> Interval | None:
    """The range that an annotation gives its numbers, also those of a tuple or beside None."""
    if isinstance(annotation, Interval):
        return annotation
    ranges = (range_of(part) for part in get_args(annotation))
    return next((interval for interval in ranges if interval), None)


def in_words(interval: Interval) -> str:
    """A range as a sentence continues with it: "at least 1", "above 0", "in [0, 1)"."""
    low = interval.ge if interval.gt is None else interval.gt
    high = interval.le if interval.lt is None else interval.lt
    if low is not None and high is not None:
        begin, end = "[" if interval.gt is None else "(", "]" if interval.lt is None else ")"
        return f"in {begin}{low}, {high}{end}"
    if low is not None:
        return f"at least {low}" if interval.gt is None else f"above {low}"
    return f"at most {high}" if interval.lt is None else f"below {high}"


def contains(interval: Interval, value: Any) -> bool:
    """Whether a number is finite and lies in a range."""
    above = (interval.ge is None or value >= interval.ge) and (
        interval.gt is None or value > interval.gt
    )
    below = (interval.le is None or value <= interval.le) and (
        interval.lt is None or value < interval.lt
    )
    return isfinite(value) and above and below


def ranges_of(kind: type) -> dict[str, Interval]:
    """Field of a dataclass to its range, of the fields that have one."""
    hints = get_type_hints(kind, include_extras=True)
    ranges = {name: range_of(hint) for name, hint in hints.items()}
    return {name: interval for name, interval in ranges.items() if interval}


def check_ranges(values: object, ranges: Mapping[str, Interval]) -> None:
    """Refuse a dataclass with a number outside the range of its field; None is no number.

    Raises:
        ValueError: the first such field, with its range.
    """
    for name, interval in ranges.items():
        value = getattr(values, name)
        if value is not None and not contains(interval, value):
            raise ValueError(f"{name} should be {in_words(interval)}, got {value}")
