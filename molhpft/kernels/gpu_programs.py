"""The GPU kernels as triton programs.

A program serves a tile: `ROWS` rows of the result by `COLUMNS` of its columns. Where it sums over
rows or edges, each part of them fills a table of its own and the caller adds those up, so that no
result depends on the timing of programs. Inputs may be of lower precision; sums are float32.

Dropout is `reference.dropout_mask`: `low` and `high` are the halves of the seed, as the signed
numbers of the same 32 bits, and `threshold` is that of the draws.
"""

import triton
import triton.language as tl

ROWS = tl.constexpr(32)
COLUMNS = tl.constexpr(64)
KINDS = tl.constexpr(64)  # rows of a table that one program sums up
PART = tl.constexpr(256)  # rows or edges that one program sums over, `ROWS` at a time

# numbers that differ from batch to batch: a program compiled for one of them serves all
_CHANGING = ["n"]
_CHANGING_EPILOGUE = [*_CHANGING, "low", "high", "threshold"]


@triton.jit
def rows_at(
    table: tl.tensor, i: tl.tensor, c: tl.tensor, d: tl.tensor, inside: tl.tensor
) -> tl.tensor:
    """Columns `c` of the rows `i` of a table (n, d), float32; 0 outside."""
    cells = table + i[:, None].to(tl.int64) * d + c[None, :]
    return tl.load(cells, mask=inside, other=0.0).to(tl.float32)


@triton.jit
def line_at(line: tl.tensor, c: tl.tensor, d: tl.tensor) -> tl.tensor:
    """Columns `c` of a vector (d,) as a row, float32; 0 outside."""
    return tl.load(line + c, mask=c < d, other=0.0).to(tl.float32)[None, :]


@triton.jit
def edges_of(pointer: tl.tensor, i: tl.tensor, n: tl.tensor) -> tl.tensor:
    """First edge into each of the nodes `i`, how many there are, and the last edge of all."""
    begin = tl.load(pointer + i, mask=i < n, other=0)
    count = tl.load(pointer + i + 1, mask=i < n, other=0) - begin
    return begin, count, tl.load(pointer + n) - 1


@triton.jit
def edge_at(
    norm: tl.tensor, begin: tl.tensor, count: tl.tensor, last: tl.tensor, step: tl.tensor
) -> tl.tensor:
    """Each node's edge number `step`, whether it has as many, and the edge's weight or 0.

    A node without it gets another node's: Triton 3.6 and 3.7 cannot compile masked loads of edges.
    """
    k = tl.minimum(begin + step, last)
    is_edge = step < count
    return k, is_edge, tl.where(is_edge, tl.load(norm + k), 0.0)


@triton.jit(do_not_specialize=_CHANGING)
def convolve(
    x: tl.tensor,
    bond: tl.tensor,
    root: tl.tensor,
    pointer: tl.tensor,
    source: tl.tensor,
    kind: tl.tensor,
    norm: tl.tensor,
    degree: tl.tensor,
    out: tl.tensor,
    n: tl.tensor,
    d: tl.constexpr,
) -> None:
    """`out_i = relu(x_i + root) / deg_i + sum_j norm_ij relu(x_j + bond[kind_ij])`."""
    i = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    c = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    inside = (i < n)[:, None] & (c < d)[None, :]
    value = rows_at(x, i, c, d, inside) + line_at(root, c, d)
    weight = 1 / tl.load(degree + i, mask=i < n, other=1.0)
    total = tl.where(value < 0, 0.0, value) * weight[:, None]
    begin, count, last = edges_of(pointer, i, n)
    for step in range(0, tl.max(count, 0).to(tl.int32)):
        k, is_edge, weight = edge_at(norm, begin, count, last, step)
        j = tl.load(source + k)
        b = tl.load(kind + k)
        heard = is_edge[:, None] & (c < d)[None, :]
        value = rows_at(x, j, c, d, heard) + rows_at(bond, b, c, d, heard)
        total += tl.where(value < 0, 0.0, value) * weight[:, None]
    tl.store(out + i[:, None].to(tl.int64) * d + c[None, :], total, mask=inside)


@triton.jit(do_not_specialize=_CHANGING)
def convolve_backward(
    g: tl.tensor,
    x: tl.tensor,
    bond: tl.tensor,
    root: tl.tensor,
    pointer: tl.tensor,
    source: tl.tensor,
    kind: tl.tensor,
    norm: tl.tensor,
    degree: tl.tensor,
    gx: tl.tensor,
    groot: tl.tensor,
    n: tl.tensor,
    d: tl.constexpr,
) -> None:
    """Gradients in `x` and, for each tile of rows, in `root`: `groot` is (tiles, d)."""
    i = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    c = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    inside = (i < n)[:, None] & (c < d)[None, :]
    own = rows_at(x, i, c, d, inside)
    weight = 1 / tl.load(degree + i, mask=i < n, other=1.0)
    passed = rows_at(g, i, c, d, inside) * weight[:, None]
    total = tl.where(own + line_at(root, c, d) <= 0, 0.0, passed)
    tl.store(groot + tl.program_id(0).to(tl.int64) * d + c, tl.sum(total, 0), mask=c < d)
    # what atom i sent went to the very atoms it heard from, with the same weights
    begin, count, last = edges_of(pointer, i, n)
    for step in range(0, tl.max(count, 0).to(tl.int32)):
        k, is_edge, weight = edge_at(norm, begin, count, last, step)
        j = tl.load(source + k)
        b = tl.load(kind + k)
        heard = is_edge[:, None] & (c < d)[None, :]
        passed = rows_at(g, j, c, d, heard) * weight[:, None]
        total += tl.where(own + rows_at(bond, b, c, d, heard) <= 0, 0.0, passed)
    tl.store(gx + i[:, None].to(tl.int64) * d + c[None, :], total, mask=inside)


@triton.jit(do_not_specialize=_CHANGING)
def bond_sums(
    g: tl.tensor,
    x: tl.tensor,
    bond: tl.tensor,
    source: tl.tensor,
    target: tl.tensor,
    kind: tl.tensor,
    norm: tl.tensor,
    gbond: tl.tensor,
    n: tl.tensor,
    kinds: tl.constexpr,
    d: tl.constexpr,
) -> None:
    """Gradient of `convolve` in `bond` for each part of the edges: `gbond` is (parts, kinds, d).

    `n` is the number of edges.
    """
    c = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    row = tl.program_id(2) * KINDS + tl.arange(0, KINDS)
    total = tl.zeros((KINDS, COLUMNS), dtype=tl.float32)
    first = tl.program_id(0) * PART
    for step in range(first, tl.minimum(first + PART, n), ROWS):
        k = step + tl.arange(0, ROWS)
        j = tl.load(source + k, mask=k < n, other=0)
        i = tl.load(target + k, mask=k < n, other=0)
        b = tl.load(kind + k, mask=k < n, other=0)
        weight = tl.load(norm + k, mask=k < n, other=0.0)
        inside = (k < n)[:, None] & (c < d)[None, :]
        value = rows_at(x, j, c, d, inside) + rows_at(bond, b, c, d, inside)
        passed = rows_at(g, i, c, d, inside) * weight[:, None]
        # a product with a matrix of 0 and 1 adds each edge to the row of its kind, without atomics
        is_row = (row[:, None] == b[None, :]).to(tl.float32)
        passed = tl.where(value <= 0, 0.0, passed)
        total = tl.dot(is_row, passed, total, input_precision="ieee")
    cells = gbond + (tl.program_id(0).to(tl.int64) * kinds + row)[:, None] * d + c[None, :]
    tl.store(cells, total, mask=(row < kinds)[:, None] & (c < d)[None, :])


@triton.jit(do_not_specialize=_CHANGING)
def propagate(
    x: tl.tensor,
    pointer: tl.tensor,
    source: tl.tensor,
    norm: tl.tensor,
    degree: tl.tensor,
    out: tl.tensor,
    n: tl.tensor,
    d: tl.constexpr,
) -> None:
    """`out_i = x_i / deg_i + sum_j norm_ij x_j`."""
    i = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    c = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    inside = (i < n)[:, None] & (c < d)[None, :]
    weight = 1 / tl.load(degree + i, mask=i < n, other=1.0)
    total = rows_at(x, i, c, d, inside) * weight[:, None]
    begin, count, last = edges_of(pointer, i, n)
    for step in range(0, tl.max(count, 0).to(tl.int32)):
        k, is_edge, weight = edge_at(norm, begin, count, last, step)
        j = tl.load(source + k)
        heard = is_edge[:, None] & (c < d)[None, :]
        total += rows_at(x, j, c, d, heard) * weight[:, None]
    tl.store(out + i[:, None].to(tl.int64) * d + c[None, :], total, mask=inside)


@triton.jit(do_not_specialize=_CHANGING)
def table_sums(
    g: tl.tensor,
    rows: tl.tensor,
    gtable: tl.tensor,
    n: tl.tensor,
    columns: tl.constexpr,
    length: tl.constexpr,
    d: tl.constexpr,
) -> None:
    """Gradient of the table for each part of the `rows` (n, columns): (parts, length, d)."""
    c = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    row = tl.program_id(2) * KINDS + tl.arange(0, KINDS)
    total = tl.zeros((KINDS, COLUMNS), dtype=tl.float32)
    first = tl.program_id(0) * PART
    for step in range(first, tl.minimum(first + PART, n), ROWS):
        i = step + tl.arange(0, ROWS)
        is_row = tl.zeros((KINDS, ROWS), dtype=tl.float32)
        for k in range(0, columns):
            number = tl.load(rows + i.to(tl.int64) * columns + k, mask=i < n, other=-1)
            is_row += (row[:, None] == number[None, :]).to(tl.float32)
        passed = rows_at(g, i, c, d, (i < n)[:, None] & (c < d)[None, :])
        total = tl.dot(is_row, passed, total, input_precision="ieee")
    cells = gtable + (tl.program_id(0).to(tl.int64) * length + row)[:, None] * d + c[None, :]
    tl.store(cells, total, mask=(row < length)[:, None] & (c < d)[None, :])


@triton.jit
def _hashed(h: tl.tensor) -> tl.tensor:
    h = (h ^ (h >> 16)) * 0x85EBCA6B
    h = (h ^ (h >> 13)) * 0xC2B2AE35
    return h ^ (h >> 16)


@triton.jit
def _stays(
    i: tl.tensor, c: tl.tensor, low: tl.tensor, high: tl.tensor, threshold: tl.tensor
) -> tl.tensor:
    row = _hashed(i.to(tl.uint32) ^ low.to(tl.uint32)) ^ high.to(tl.uint32)
    draws = _hashed(row[:, None] + (c.to(tl.uint32) * 0x9E3779B9)[None, :]) >> 8
    return draws.to(tl.int32) >= threshold


@triton.jit(do_not_specialize=_CHANGING)
def moments(
    a: tl.tensor, mean: tl.tensor, squares: tl.tensor, n: tl.tensor, d: tl.constexpr
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


@triton.jit(do_not_specialize=_CHANGING_EPILOGUE)
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
        value = tl.where(_stays(i, c, low, high, threshold), value, 0.0)
    tl.store(out + i[:, None].to(tl.int64) * d + c[None, :], value, mask=inside)


@triton.jit(do_not_specialize=_CHANGING_EPILOGUE)
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
            passed = tl.where(_stays(i, c, low, high, threshold), passed, 0.0)
        total += passed
        weighted += passed * (own - line_at(mean, c, d))
    cells = tl.program_id(0).to(tl.int64) * d + c
    tl.store(plain + cells, tl.sum(total, 0), mask=c < d)
    tl.store(centred + cells, tl.sum(weighted, 0), mask=c < d)


@triton.jit(do_not_specialize=_CHANGING_EPILOGUE)
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
        passed = tl.where(_stays(i, c, low, high, threshold), passed, 0.0)
    total = own * line_at(slope, c, d) + line_at(offset, c, d) + passed * line
    tl.store(ga + i[:, None].to(tl.int64) * d + c[None, :], total, mask=inside)
