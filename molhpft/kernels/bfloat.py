"""bfloat16 in compiled loops, for NumPy and numba have no such type.

It is the upper half of a float32, so its bits come as uint16: `widened` where they are read and
`narrowed` where they are written, both of which leave float32 as it is. A loop is thus written
once for both, computes and sums in float32, and moves half the bytes where rows are bfloat16.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import types
from numba.extending import overload

from molhpft.kernels.compiled import Rows, loop

_HALF, _LAST = np.uint32(16), np.uint32(1)
_BELOW_MIDDLE = np.uint32(0x7FFF)
_NAN = np.uint16(0x7FC0)


def widened(value: np.float32 | np.uint16) -> np.float32:
    """The number that an entry of `Rows` stands for."""
    return value if isinstance(value, np.float32) else _from_bits(value)


def narrowed(value: np.float32, rows: Rows) -> Any:
    """A number as an entry of `rows`: the nearest, and of two that are as near the even one."""
    return value if rows.dtype == np.float32 else _to_bits(value)


@loop
def _from_bits(value: np.uint16) -> np.float32:
    # numba widens every sum and shift to 64 bits
    return np.uint32(np.uint32(value) << _HALF).view(np.float32)


@loop
def _to_bits(value: np.float32) -> np.uint16:
    bits = np.float32(value).view(np.uint32)
    odd = np.uint32(bits >> _HALF) & _LAST
    up = np.uint16(np.uint32(bits + _BELOW_MIDDLE + odd) >> _HALF)
    # the sum could carry a NaN over into zero
    return up if value == value else _NAN


# the type chooses the body when a loop is compiled: one that branched on it would be no faster
@overload(widened, strict=False)
def _widened(value: Any) -> Callable[..., Any]:
    if isinstance(value, types.Float):
        return lambda value: value
    return lambda value: _from_bits(value)


@overload(narrowed, strict=False)
def _narrowed(value: Any, rows: Any) -> Callable[..., Any]:
    if isinstance(rows.dtype, types.Float):
        return lambda value, rows: value
    return lambda value, rows: _to_bits(value)
