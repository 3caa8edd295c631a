"""Loops over the edges of a graph and over rows of a table; see `compiled.py`."""

from typing import Any

from numba import prange

from molhpft.kernels.compiled import ONE, ZERO, Floats, Ints, in_parts, loop


@loop
def convolve(
    part: int,
    begin: int,
    end: int,
    x: Floats,
    bond: Floats,
    root: Floats,
    pointer: Ints,
    source: Ints,
    kind: Ints,
    norm: Floats,
    degree: Floats,
    out: Floats,
) -> None:
    """`out_i = relu(x_i + root) / deg_i + sum_j norm_ij relu(x_j + bond[kind_ij])`."""
    for i in range(begin, end):
        weight = ONE / degree[i]
        for c in range(x.shape[1]):
            value = x[i, c] + root[c]
            out[i, c] = (ZERO if value < ZERO else value) * weight
        for k in range(pointer[i], pointer[i + 1]):
            j, b, weight = source[k], kind[k], norm[k]
            for c in range(x.shape[1]):
                value = x[j, c] + bond[b, c]
                out[i, c] += (ZERO if value < ZERO else value) * weight


@loop
def convolve_backward(
    part: int,
    begin: int,
    end: int,
    g: Floats,
    x: Floats,
    bond: Floats,
    root: Floats,
    pointer: Ints,
    source: Ints,
    kind: Ints,
    norm: Floats,
    degree: Floats,
    gx: Floats,
    gbond: Floats,
    groot: Floats,
) -> None:
    """Gradients for `g`; `gbond` (parts, kinds, d) and `groot` (parts, d) are added to."""
    for i in range(begin, end):
        weight = ONE / degree[i]
        for c in range(x.shape[1]):
            value = ZERO if x[i, c] + root[c] <= ZERO else g[i, c] * weight
            gx[i, c] = value
            groot[part, c] += value
        # what atom i sent went to the very atoms it heard from, with the same weights
        for k in range(pointer[i], pointer[i + 1]):
            j, b, weight = source[k], kind[k], norm[k]
            for c in range(x.shape[1]):
                value = ZERO if x[i, c] + bond[b, c] <= ZERO else g[j, c] * weight
                gx[i, c] += value
                gbond[part, b, c] += value


@loop
def propagate(
    part: int,
    begin: int,
    end: int,
    x: Floats,
    pointer: Ints,
    source: Ints,
    norm: Floats,
    degree: Floats,
    out: Floats,
) -> None:
    """`out_i = x_i / deg_i + sum_j norm_ij x_j`."""
    for i in range(begin, end):
        weight = ONE / degree[i]
        for c in range(x.shape[1]):
            out[i, c] = x[i, c] * weight
        for k in range(pointer[i], pointer[i + 1]):
            j, weight = source[k], norm[k]
            for c in range(x.shape[1]):
                out[i, c] += x[j, c] * weight


@loop
def embed_backward(part: int, begin: int, end: int, rows: Ints, g: Floats, gtable: Floats) -> None:
    """Gradient of the table for `g`; `gtable` (parts, rows, d) is added to."""
    for i in range(begin, end):
        for k in range(rows.shape[1]):
            row = rows[i, k]
            for c in range(g.shape[1]):
                gtable[part, row, c] += g[i, c]


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
