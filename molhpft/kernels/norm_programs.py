"""GPU programs behind batch norm, ReLU and dropout in one; tiles as in `graph_programs.py`.

Their dropout is `reference.keep_mask`: `low` and `high` are the halves of the seed, as the signed
numbers of the same 32 bits, and `threshold` is that of the draws.
"""

import triton
import triton.language as tl

from molhpft.kernels.graph_programs import COLUMNS, PART, ROWS, line_at, rows_at

# numbers that differ from batch to batch: a program compiled for one of them serves all
_CHANGING = ["n", "low", "high", "threshold"]


@triton.jit
def _mixed(h: tl.tensor) -> tl.tensor:
    h = (h ^ (h >> 16)) * 0x85EBCA6B
    h = (h ^ (h >> 13)) * 0xC2B2AE35
    return h ^ (h >> 16)


@triton.jit
def _kept(
    i: tl.tensor, c: tl.tensor, low: tl.tensor, high: tl.tensor, threshold: tl.tensor
) -> tl.tensor:
    row = _mixed(i.to(tl.uint32) ^ low.to(tl.uint32)) ^ high.to(tl.uint32)
    draws = _mixed(row[:, None] + (c.to(tl.uint32) * 0x9E3779B9)[None, :]) >> 8
    return draws.to(tl.int32) >= threshold


@triton.jit(do_not_specialize=["n"])
def moments(
    a: tl.tensor,
    mean: tl.tensor,
    squares: tl.tensor,
    n: tl.tensor,
    d: tl.constexpr,
) -> None:
    """Mean of each part of the rows and squared distances from it, (parts, d) each."""
    c = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    first = tl.program_id(0) * PART
    last = tl.minimum(first + PART, n)
    total = tl.zeros((ROWS, COLUMNS), dtype=tl.float32)
    for step in range(first, last, ROWS):
        i = step + tl.arange(0, ROWS)
        total += rows_at(a, i, c, d, (i < n)[:, None] & (c < d)[None, :])
    middle = tl.sum(total, 0) / (last - first)
    total = tl.zeros((ROWS, COLUMNS), dtype=tl.float32)
    for step in range(first, last, ROWS):
        i = step + tl.arange(0, ROWS)
        inside = (i < n)[:, None] & (c < d)[None, :]
        distance = tl.where(inside, rows_at(a, i, c, d, inside) - middle[None, :], 0.0)
        total += distance * distance
    cells = tl.program_id(0).to(tl.int64) * d + c
    tl.store(mean + cells, middle, mask=c < d)
    tl.store(squares + cells, tl.sum(total, 0), mask=c < d)


@triton.jit(do_not_specialize=_CHANGING)
def activate(
    a: tl.tensor,
    factor: tl.tensor,
    shift: tl.tensor,
    out: tl.tensor,
    n: tl.tensor,
    low: tl.tensor,
    high: tl.tensor,
    threshold: tl.tensor,
    d: tl.constexpr,
    relu: tl.constexpr,
    drops: tl.constexpr,
) -> None:
    """`factor a + shift`, or 0 where a ReLU or dropout has it so."""
    i = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    c = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    inside = (i < n)[:, None] & (c < d)[None, :]
    value = rows_at(a, i, c, d, inside) * line_at(factor, c, d) + line_at(shift, c, d)
    if relu:
        value = tl.where(value < 0, 0.0, value)
    if drops:
        value = tl.where(_kept(i, c, low, high, threshold), value, 0.0)
    tl.store(out + i[:, None].to(tl.int64) * d + c[None, :], value, mask=inside)


@triton.jit(do_not_specialize=_CHANGING)
def activate_sums(
    g: tl.tensor,
    a: tl.tensor,
    factor: tl.tensor,
    shift: tl.tensor,
    mean: tl.tensor,
    plain: tl.tensor,
    centred: tl.tensor,
    n: tl.tensor,
    low: tl.tensor,
    high: tl.tensor,
    threshold: tl.tensor,
    d: tl.constexpr,
    relu: tl.constexpr,
    drops: tl.constexpr,
) -> None:
    """Sums of `g'` and of `g' (a - mean)` over each part of the rows, (parts, d) each.

    `g'` is `g`, or 0 where `activate` gave 0.
    """
    c = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    total = tl.zeros((ROWS, COLUMNS), dtype=tl.float32)
    weighted = tl.zeros((ROWS, COLUMNS), dtype=tl.float32)
    first = tl.program_id(0) * PART
    for step in range(first, tl.minimum(first + PART, n), ROWS):
        i = step + tl.arange(0, ROWS)
        inside = (i < n)[:, None] & (c < d)[None, :]
        own, passed = rows_at(a, i, c, d, inside), rows_at(g, i, c, d, inside)
        if relu:
            value = own * line_at(factor, c, d) + line_at(shift, c, d)
            passed = tl.where(value <= 0, 0.0, passed)
        if drops:
            passed = tl.where(_kept(i, c, low, high, threshold), passed, 0.0)
        total += passed
        weighted += passed * (own - line_at(mean, c, d))
    cells = tl.program_id(0).to(tl.int64) * d + c
    tl.store(plain + cells, tl.sum(total, 0), mask=c < d)
    tl.store(centred + cells, tl.sum(weighted, 0), mask=c < d)


@triton.jit(do_not_specialize=_CHANGING)
def activate_backward(
    g: tl.tensor,
    a: tl.tensor,
    factor: tl.tensor,
    shift: tl.tensor,
    slope: tl.tensor,
    offset: tl.tensor,
    ga: tl.tensor,
    n: tl.tensor,
    low: tl.tensor,
    high: tl.tensor,
    threshold: tl.tensor,
    d: tl.constexpr,
    relu: tl.constexpr,
    drops: tl.constexpr,
) -> None:
    """`ga = factor g' + slope a + offset`, with `g'` as in `activate_sums`."""
    i = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    c = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    inside = (i < n)[:, None] & (c < d)[None, :]
    own, passed = rows_at(a, i, c, d, inside), rows_at(g, i, c, d, inside)
    line = line_at(factor, c, d)
    if relu:
        passed = tl.where(own * line + line_at(shift, c, d) <= 0, 0.0, passed)
    if drops:
        passed = tl.where(_kept(i, c, low, high, threshold), passed, 0.0)
    total = own * line_at(slope, c, d) + line_at(offset, c, d) + passed * line
    tl.store(ga + i[:, None].to(tl.int64) * d + c[None, :], total, mask=inside)
