"""Loops behind batch norm, ReLU and dropout in one; see `compiled.py`."""

from typing import Any

import numpy as np
from numba import prange

from molhpft.kernels.bfloat import narrowed, widened
from molhpft.kernels.compiled import ZERO, Floats, Ints, Rows, in_parts, loop

_U16, _U13, _U8 = np.uint32(16), np.uint32(13), np.uint32(8)
_FIRST, _SECOND, _STEP = np.uint32(0x85EBCA6B), np.uint32(0xC2B2AE35), np.uint32(0x9E3779B9)


@loop
def _mixed(h: np.uint32) -> np.uint32:
    # numba widens every product and sum to 64 bits
    h = np.uint32((h ^ (h >> _U16)) * _FIRST)
    h = np.uint32((h ^ (h >> _U13)) * _SECOND)
    return np.uint32(h ^ (h >> _U16))


@loop
def _row_key(i: int, rule: Ints) -> np.uint32:
    return np.uint32(_mixed(np.uint32(i ^ rule[1])) ^ rule[2])


@loop
def _kept(key: np.uint32, c: int, threshold: np.uint32) -> bool | np.bool_:
    return threshold == 0 or _mixed(np.uint32(key + c * _STEP)) >> _U8 >= threshold


@loop
def moments(part: int, begin: int, end: int, a: Rows, mean: Floats, squares: Floats) -> None:
    """Adds the mean of these rows to `mean` (parts, d), squared distances to `squares` alike."""
    for i in range(begin, end):
        for c in range(a.shape[1]):
            mean[part, c] += widened(a[i, c])
    for c in range(a.shape[1]):
        mean[part, c] /= np.float32(end - begin)
    for i in range(begin, end):
        for c in range(a.shape[1]):
            distance = widened(a[i, c]) - mean[part, c]
            squares[part, c] += distance * distance


@loop
def activate(
    part: int,
    begin: int,
    end: int,
    a: Rows,
    factor: Floats,
    shift: Floats,
    rule: Ints,
    out: Rows,
) -> None:
    """`factor a + shift`, or 0 where a ReLU or dropout has it so.

    `rule` is: whether there is a ReLU, low and high half of the seed, threshold of the draws.
    """
    relu, threshold = rule[0] != 0, np.uint32(rule[3])
    for i in range(begin, end):
        key = _row_key(i, rule)
        for c in range(a.shape[1]):
            value = widened(a[i, c]) * factor[c] + shift[c]
            value = ZERO if relu and value < ZERO else value
            value = value if _kept(key, c, threshold) else ZERO
            out[i, c] = narrowed(value, out)


@loop
def activate_sums(
    part: int,
    begin: int,
    end: int,
    g: Rows,
    a: Rows,
    factor: Floats,
    shift: Floats,
    rule: Ints,
    mean: Floats,
    plain: Floats,
    centred: Floats,
) -> None:
    """Adds `g'` to `plain` (parts, d) and `g' (a - mean)` to `centred` (parts, d).

    `g'` is `g`, or 0 where `activate` gave 0.
    """
    relu, threshold = rule[0] != 0, np.uint32(rule[3])
    for i in range(begin, end):
        key = _row_key(i, rule)
        for c in range(a.shape[1]):
            entry = widened(a[i, c])
            dead = relu and entry * factor[c] + shift[c] <= ZERO
            value = ZERO if dead or not _kept(key, c, threshold) else widened(g[i, c])
            plain[part, c] += value
            centred[part, c] += value * (entry - mean[c])


@loop
def activate_backward(
    part: int,
    begin: int,
    end: int,
    g: Rows,
    a: Rows,
    factor: Floats,
    shift: Floats,
    rule: Ints,
    slope: Floats,
    offset: Floats,
    ga: Rows,
) -> None:
    """`ga = factor g' + slope a + offset`, with `g'` as in `activate_sums`."""
    relu, threshold = rule[0] != 0, np.uint32(rule[3])
    for i in range(begin, end):
        key = _row_key(i, rule)
        for c in range(a.shape[1]):
            entry = widened(a[i, c])
            dead = relu and entry * factor[c] + shift[c] <= ZERO
            value = ZERO if dead or not _kept(key, c, threshold) else widened(g[i, c])
            # in this order there is one way to fuse
            ga[i, c] = narrowed(entry * slope[c] + offset[c] + value * factor[c], ga)


@in_parts
def moments_in_parts(parts: int, n: int, *arrays: Any) -> None:
    """`moments` of `n` rows."""
    for part in prange(parts):
        moments(part, part * n // parts, (part + 1) * n // parts, *arrays)


@in_parts
def activate_in_parts(parts: int, n: int, *arrays: Any) -> None:
    """`activate` of `n` rows."""
    for part in prange(parts):
        activate(part, part * n // parts, (part + 1) * n // parts, *arrays)


@in_parts
def activate_sums_in_parts(parts: int, n: int, *arrays: Any) -> None:
    """`activate_sums` of `n` rows."""
    for part in prange(parts):
        activate_sums(part, part * n // parts, (part + 1) * n // parts, *arrays)


@in_parts
def activate_backward_in_parts(parts: int, n: int, *arrays: Any) -> None:
    """`activate_backward` of `n` rows."""
    for part in prange(parts):
        activate_backward(part, part * n // parts, (part + 1) * n // parts, *arrays)
