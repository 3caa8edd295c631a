"""The CPU kernels as loops that numba compiles on first use and stores for later runs.

A loop serves the rows `begin` to `end`, one of several parts of all rows. Where it sums over rows,
each part adds to a row of its own and the caller adds those up, so that no result depends on the
timing of threads. Arrays are C-contiguous.

NumPy and numba have no bfloat16. It is the upper half of a float32, so its bits come as uint16,
`widened` where they are read and `narrowed` where they are written; both leave float32 as it is. A
loop is thus written once for both, computes and sums in float32, and moves half the bytes where
rows are bfloat16.
"""

import logging
from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit, prange, types
from numba.extending import overload
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
Rows = NDArray[np.float32] | NDArray[np.uint16]
"""float32, or the bits of bfloat16."""

ZERO, ONE = np.float32(0), np.float32(1)

_log = logging.getLogger(__name__)


def _can_cache() -> bool:
    """Whether there is a folder to store compiled functions in: this one or the user's cache."""
    try:
        njit(cache=True)(_can_cache)
    except RuntimeError as error:
        _log.warning(
            "CPU kernels are compiled anew in every process (%s); set NUMBA_CACHE_DIR to a folder "
            "that can be written to",
            error,
        )
        return False
    return True


_CACHE = _can_cache()

# multiplications may be fused into sums, but sums are not reordered, so that both compiled forms of
# a loop give the same numbers; and numbers are not promised to be finite, as a NaN has to reach the
# loss, where training notices it
loop = njit(cache=_CACHE, nogil=True, fastmath={"contract", "nsz"})

# the same loop over all rows, its parts at the same time; each loop has such a twin written out
# because numba cannot store a compiled function that a function made
in_parts = njit(cache=_CACHE, nogil=True, parallel=True)


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


@loop
def convolve(
    part: int,
    begin: int,
    end: int,
    x: Rows,
    bond: Floats,
    root: Floats,
    pointer: Ints,
    source: Ints,
    kind: Ints,
    norm: Floats,
    degree: Floats,
    out: Rows,
) -> None:
    """`out_i = relu(x_i + root) / deg_i + sum_j norm_ij relu(x_j + bond[kind_ij])`."""
    row = np.empty(x.shape[1], dtype=np.float32)
    for i in range(begin, end):
        weight = ONE / degree[i]
        for c in range(x.shape[1]):
            value = widened(x[i, c]) + root[c]
            row[c] = (ZERO if value < ZERO else value) * weight
        for k in range(pointer[i], pointer[i + 1]):
            j, b, weight = source[k], kind[k], norm[k]
            for c in range(x.shape[1]):
                value = widened(x[j, c]) + bond[b, c]
                row[c] += (ZERO if value < ZERO else value) * weight
        for c in range(x.shape[1]):
            out[i, c] = narrowed(row[c], out)


@loop
def convolve_backward(
    part: int,
    begin: int,
    end: int,
    g: Rows,
    x: Rows,
    bond: Floats,
    root: Floats,
    pointer: Ints,
    source: Ints,
    kind: Ints,
    norm: Floats,
    degree: Floats,
    gx: Rows,
    gbond: Floats,
    groot: Floats,
) -> None:
    """Gradients for `g`; `gbond` (parts, kinds, d) and `groot` (parts, d) are added to."""
    row = np.empty(x.shape[1], dtype=np.float32)
    for i in range(begin, end):
        weight = ONE / degree[i]
        for c in range(x.shape[1]):
            dead = widened(x[i, c]) + root[c] <= ZERO
            value = ZERO if dead else widened(g[i, c]) * weight
            row[c] = value
            groot[part, c] += value
        # what atom i sent went to the very atoms it heard from, with the same weights
        for k in range(pointer[i], pointer[i + 1]):
            j, b, weight = source[k], kind[k], norm[k]
            for c in range(x.shape[1]):
                dead = widened(x[i, c]) + bond[b, c] <= ZERO
                value = ZERO if dead else widened(g[j, c]) * weight
                row[c] += value
                gbond[part, b, c] += value
        for c in range(x.shape[1]):
            gx[i, c] = narrowed(row[c], gx)


@loop
def propagate(
    part: int,
    begin: int,
    end: int,
    x: Rows,
    pointer: Ints,
    source: Ints,
    norm: Floats,
    degree: Floats,
    out: Rows,
) -> None:
    """`out_i = x_i / deg_i + sum_j norm_ij x_j`."""
    row = np.empty(x.shape[1], dtype=np.float32)
    for i in range(begin, end):
        weight = ONE / degree[i]
        for c in range(x.shape[1]):
            row[c] = widened(x[i, c]) * weight
        for k in range(pointer[i], pointer[i + 1]):
            j, weight = source[k], norm[k]
            for c in range(x.shape[1]):
                row[c] += widened(x[j, c]) * weight
        for c in range(x.shape[1]):
            out[i, c] = narrowed(row[c], out)


@loop
def embed_backward(part: int, begin: int, end: int, rows: Ints, g: Rows, gtable: Floats) -> None:
    """Gradient of the table for `g`; `gtable` (parts, rows, d) is added to."""
    for i in range(begin, end):
        for k in range(rows.shape[1]):
            row = rows[i, k]
            for c in range(g.shape[1]):
                gtable[part, row, c] += widened(g[i, c])


@loop
def bond_states(
    part: int, begin: int, end: int, p: Floats, q: Floats, source: Ints, kind: Ints, out: Floats
) -> None:
    """`out_e = p[source_e] + q[kind_e]` for the edges `begin` to `end`."""
    for e in range(begin, end):
        i, b = source[e], kind[e]
        for c in range(p.shape[1]):
            out[e, c] = p[i, c] + q[b, c]


@loop
def bond_states_backward(
    part: int,
    begin: int,
    end: int,
    g: Floats,
    pointer: Ints,
    reverse: Ints,
    kind: Ints,
    gp: Floats,
    gq: Floats,
) -> None:
    """Gradients for `g`; `gq` (parts, kinds, d) is added to, `gp` holds zeros."""
    for i in range(begin, end):
        for k in range(pointer[i], pointer[i + 1]):
            # what left atom i are the reverses of what came in
            out, b = reverse[k], kind[k]
            for c in range(g.shape[1]):
                gp[i, c] += g[out, c]
                gq[part, b, c] += g[k, c]


@loop
def messages(
    part: int, begin: int, end: int, a: Floats, pointer: Ints, reverse: Ints, out: Floats
) -> None:
    """`out` of an edge from atom i: the sum of `relu(a)` over the edges into i but its reverse."""
    total = np.empty(a.shape[1], dtype=np.float32)
    for i in range(begin, end):
        total[:] = ZERO
        for k in range(pointer[i], pointer[i + 1]):
            for c in range(a.shape[1]):
                value = a[k, c]
                total[c] += ZERO if value < ZERO else value
        for k in range(pointer[i], pointer[i + 1]):
            e = reverse[k]
            for c in range(a.shape[1]):
                value = a[k, c]
                out[e, c] = total[c] - (ZERO if value < ZERO else value)


@loop
def messages_backward(
    part: int, begin: int, end: int, g: Floats, a: Floats, pointer: Ints, reverse: Ints, ga: Floats
) -> None:
    """Gradient of `messages` in `a`."""
    total = np.empty(a.shape[1], dtype=np.float32)
    for i in range(begin, end):
        total[:] = ZERO
        for k in range(pointer[i], pointer[i + 1]):
            e = reverse[k]
            for c in range(a.shape[1]):
                total[c] += g[e, c]
        for k in range(pointer[i], pointer[i + 1]):
            e = reverse[k]
            for c in range(a.shape[1]):
                ga[k, c] = ZERO if a[k, c] <= ZERO else total[c] - g[e, c]


@loop
def arrivals(part: int, begin: int, end: int, a: Floats, pointer: Ints, out: Floats) -> None:
    """`out_i`: the sum of `relu(a)` over the edges into atom i; `out` holds zeros."""
    for i in range(begin, end):
        for k in range(pointer[i], pointer[i + 1]):
            for c in range(a.shape[1]):
                value = a[k, c]
                out[i, c] += ZERO if value < ZERO else value


@loop
def arrivals_backward(
    part: int, begin: int, end: int, g: Floats, a: Floats, pointer: Ints, ga: Floats
) -> None:
    """Gradient of `arrivals` in `a`."""
    for i in range(begin, end):
        for k in range(pointer[i], pointer[i + 1]):
            for c in range(a.shape[1]):
                ga[k, c] = ZERO if a[k, c] <= ZERO else g[i, c]


@in_parts
def bond_states_in_parts(parts: int, n: int, *arrays: Any) -> None:
    """`bond_states` of `n` rows."""
    for part in prange(parts):
        bond_states(part, part * n // parts, (part + 1) * n // parts, *arrays)


@in_parts
def bond_states_backward_in_parts(parts: int, n: int, *arrays: Any) -> None:
    """`bond_states_backward` of `n` rows."""
    for part in prange(parts):
        bond_states_backward(part, part * n // parts, (part + 1) * n // parts, *arrays)


@in_parts
def messages_in_parts(parts: int, n: int, *arrays: Any) -> None:
    """`messages` of `n` rows."""
    for part in prange(parts):
        messages(part, part * n // parts, (part + 1) * n // parts, *arrays)


@in_parts
def messages_backward_in_parts(parts: int, n: int, *arrays: Any) -> None:
    """`messages_backward` of `n` rows."""
    for part in prange(parts):
        messages_backward(part, part * n // parts, (part + 1) * n // parts, *arrays)


@in_parts
def arrivals_in_parts(parts: int, n: int, *arrays: Any) -> None:
    """`arrivals` of `n` rows."""
    for part in prange(parts):
        arrivals(part, part * n // parts, (part + 1) * n // parts, *arrays)


@in_parts
def arrivals_backward_in_parts(parts: int, n: int, *arrays: Any) -> None:
    """`arrivals_backward` of `n` rows."""
    for part in prange(parts):
        arrivals_backward(part, part * n // parts, (part + 1) * n // parts, *arrays)


@in_parts
def convolve_in_parts(parts: int, n: int, *arrays: Any) -> None:
    """`convolve` of `n` rows."""
    for part in prange(parts):
        convolve(part, part * n // parts, (part + 1) * n // parts, *arrays)


@in_parts
def convolve_backward_in_parts(parts: int, n: int, *arrays: Any) -> None:
    """`convolve_backward` of `n` rows."""
    for part in prange(parts):
        convolve_backward(part, part * n // parts, (part + 1) * n // parts, *arrays)


@in_parts
def propagate_in_parts(parts: int, n: int, *arrays: Any) -> None:
    """`propagate` of `n` rows."""
    for part in prange(parts):
        propagate(part, part * n // parts, (part + 1) * n // parts, *arrays)


@in_parts
def embed_backward_in_parts(parts: int, n: int, *arrays: Any) -> None:
    """`embed_backward` of `n` rows."""
    for part in prange(parts):
        embed_backward(part, part * n // parts, (part + 1) * n // parts, *arrays)


_U16, _U13, _U8 = np.uint32(16), np.uint32(13), np.uint32(8)
_FIRST, _SECOND, _STEP = np.uint32(0x85EBCA6B), np.uint32(0xC2B2AE35), np.uint32(0x9E3779B9)


@loop
def _hashed(h: np.uint32) -> np.uint32:
    # numba widens every product and sum to 64 bits
    h = np.uint32((h ^ (h >> _U16)) * _FIRST)
    h = np.uint32((h ^ (h >> _U13)) * _SECOND)
    return np.uint32(h ^ (h >> _U16))


@loop
def _row_key(i: int, rule: Ints) -> np.uint32:
    return np.uint32(_hashed(np.uint32(i ^ rule[1])) ^ rule[2])


@loop
def _stays(key: np.uint32, c: int, threshold: np.uint32) -> bool | np.bool_:
    return threshold == 0 or _hashed(np.uint32(key + c * _STEP)) >> _U8 >= threshold


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
    part: int, begin: int, end: int, a: Rows, factor: Floats, shift: Floats, rule: Ints, out: Rows
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
            value = value if _stays(key, c, threshold) else ZERO
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
            value = ZERO if dead or not _stays(key, c, threshold) else widened(g[i, c])
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
            value = ZERO if dead or not _stays(key, c, threshold) else widened(g[i, c])
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


Bytes = NDArray[np.uint8]
Ends = NDArray[np.int16]


@loop
def _lengths(rows: Ints, node_offsets: Ints, edge_offsets: Ints) -> tuple[int, int]:
    """Nodes and undirected edges of the graphs `rows`."""
    nodes, edges = 0, 0
    for row in rows:
        nodes += node_offsets[row + 1] - node_offsets[row]
        edges += edge_offsets[row + 1] - edge_offsets[row]
    return nodes, edges


@loop
def _fill_pointer(ends: Ends, begin: int, end: int, pointer: Ints, first: int, last: int) -> None:
    """First edges into the nodes `first` to `last` of a graph, its edges being given."""
    for e in range(begin, end):
        pointer[first + ends[e, 0] + 1] += 1
        pointer[first + ends[e, 1] + 1] += 1
    for i in range(first, last):
        pointer[i + 1] += pointer[i]


@loop
def collate(
    rows: Ints, nodes: Bytes, edges: Bytes, ends: Ends, node_offsets: Ints, edge_offsets: Ints
) -> tuple[Any, ...]:
    """Nodes, source, target, edges, pointer, graph and offsets: see `reference.collate`."""
    n, m = _lengths(rows, node_offsets, edge_offsets)
    out_nodes = np.empty((n, nodes.shape[1]), np.uint8)
    out_edges = np.empty((2 * m, edges.shape[1]), np.uint8)
    source, target = np.empty(2 * m, np.int64), np.empty(2 * m, np.int64)
    pointer, graph = np.zeros(n + 1, np.int64), np.empty(n, np.int64)
    offsets = np.zeros(len(rows) + 1, np.int64)
    free = np.empty(n, np.int64)  # the place of the next edge into each node
    for k in range(len(rows)):
        begin, end = node_offsets[rows[k]], node_offsets[rows[k] + 1]
        first, last = offsets[k], offsets[k] + end - begin
        offsets[k + 1], graph[first:last] = last, k
        out_nodes[first:last] = nodes[begin:end]
        begin, end = edge_offsets[rows[k]], edge_offsets[rows[k] + 1]
        _fill_pointer(ends, begin, end, pointer, first, last)
        free[first:last] = pointer[first:last]
        # edges to the second end before those to the first, each in the order of the store
        for side in range(1, -1, -1):
            for e in range(begin, end):
                i = first + ends[e, side]
                place = free[i]
                free[i] += 1
                source[place], target[place] = first + ends[e, 1 - side], i
                for c in range(edges.shape[1]):
                    out_edges[place, c] = edges[e, c]
    return out_nodes, source, target, out_edges, pointer, graph, offsets
