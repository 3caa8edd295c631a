"""Sums of the smaller of two counts, over the columns of sparse rows, for MinMax kernels."""

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from molhpft.kernels.cpu_loops import Ints, loop

Counts = NDArray[np.int32]


def sums_of_minima(a: csr_matrix, b: csr_matrix) -> NDArray[np.float64]:
    """`sum_c min(a_ic, b_jc)` of every row i of `a` and j of `b`, (m, n).

    Args:
        a: whole numbers from 0, (m, columns), whose rows add up to less than 2^31.
        b: the same of others, (n, columns).
    """
    out = np.empty((a.shape[0], b.shape[0]))
    rows, columns = a.tocsr(), b.tocsc()
    arrays = [
        array.astype(dtype)
        for some in (rows, columns)
        for array, dtype in (
            (some.indptr, np.int64),
            (some.indices, np.int32),
            (some.data, np.int32),
        )
    ]
    _sum_minima(*(*arrays, out))
    return out


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
