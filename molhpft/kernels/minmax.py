"""Sums of the smaller of two counts, over the columns of sparse rows, for MinMax kernels."""

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csc_matrix, csr_matrix

from molhpft.kernels.cpu_loops import Ints, loop

Counts = NDArray[np.int32]


def sums_of_minima(a: csr_matrix, b: csr_matrix) -> NDArray[np.float64]:
    """`sum_c min(a_ic, b_jc)` of every row i of `a` and j of `b`, (m, n).

    Args:
        a: whole numbers from 0, (m, columns), whose rows add up to less than 2^31.
        b: the same of others, (n, columns).
    """
    out = np.empty((a.shape[0], b.shape[0]))
    arrays = *_arrays(a.tocsr()), *_arrays(b.tocsc()), out
    _sum_minima(*arrays)
    return out


def _arrays(sparse: csr_matrix | csc_matrix) -> tuple[Ints, Counts, Counts]:
    """First entry of each row or column, then of each entry the other's number, and its count."""
    pointer, others, counts = sparse.indptr, sparse.indices, sparse.data
    return pointer.astype(np.int64), others.astype(np.int32), counts.astype(np.int32)


@loop
def _sum_minima(
    a_pointer: Ints,
    a_column: Counts,
    a_count: Counts,
    b_pointer: Ints,
    b_row: Counts,
    b_count: Counts,
    out: NDArray[np.float64],
) -> None:
    sums = np.empty(out.shape[1], np.int32)  # short enough for the nearest cache
    for i in range(len(out)):
        sums[:] = 0
        for k in range(a_pointer[i], a_pointer[i + 1]):
            column, own = a_column[k], a_count[k]
            for e in range(b_pointer[column], b_pointer[column + 1]):
                sums[b_row[e]] += min(own, b_count[e])
        out[i] = sums
