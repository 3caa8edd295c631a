"""Loops over the edges of a graph and over rows of a table; see `compiled.py`."""

from typing import Any

import numpy as np
from numba import prange

from molhpft.kernels.bfloat import narrowed, widened
from molhpft.kernels.compiled import ONE, ZERO, Floats, Ints, Rows, in_parts, loop


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
