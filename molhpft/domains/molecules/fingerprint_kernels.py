"""Kernels that compare molecules: MinMax on counts of substructures, Gaussian on numbers.

A kernel machine or a Gaussian process reads a molecule through its similarities alone. MinMax is
Tanimoto's similarity for counts (Ralaivola et al. 2005, Neural Networks 18:1093): positive definite
and 1 for two molecules with the same counts.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, hstack

Array = NDArray[np.float64]

_BLOCK = 1_024  # rows of a MinMax kernel that are computed at a time
_LEAST = 1e-12  # least divisor: rows without counts would divide by 0


def unary_counts(counts: csr_matrix) -> csr_matrix:
    """A count c as c columns of 1: the product of two rows is then the sum of their minima.

    Args:
        counts: whole numbers from 0, (n, columns).

    Returns:
        float32 (n, more columns).
    """
    columns = counts.tocsc()
    parts = [csr_matrix((counts.shape[0], 0), dtype=np.float32)]
    for threshold in range(1, int(columns.max() if columns.nnz else 0) + 1):
        above = columns >= threshold
        parts.append(above[:, above.getnnz(0) > 0].astype(np.float32))
    return hstack(parts, format="csr")


def minmax_kernel(a: csr_matrix, b: csr_matrix) -> Array:
    """Similarities sum(min) / sum(max) of every row of `a` to every row of `b`, (m, n).

    Two rows without any count have 0: nothing is known of either.

    Args:
        a: of `unary_counts` (m, columns).
        b: rows of the same result, (n, columns).
    """
    kernel = np.empty((a.shape[0], b.shape[0]))
    columns, sums = b.T.tocsr(), np.asarray(b.sum(1), dtype=np.float64).ravel()
    for start in range(0, len(kernel), _BLOCK):  # the sparse product is larger than the kernel
        some = a[start : start + _BLOCK]
        least = (some @ columns).toarray()
        most = np.asarray(some.sum(1), dtype=np.float64) + sums - least
        np.divide(least, np.maximum(most, _LEAST, out=most), out=kernel[start : start + _BLOCK])
    return kernel


def gaussian_kernel(a: Array, b: Array) -> Array:
    """Similarities exp(-|a - b|^2 / (2 d)) of every row of `a` to every row of `b`, (m, n).

    Args:
        a: standardised columns, (m, d).
        b: the same of others, (n, d).
    """
    kernel: Array = a @ b.T
    kernel *= 2
    kernel -= np.square(a).sum(1)[:, None]
    kernel -= np.square(b).sum(1)
    kernel /= 2 * a.shape[1]
    return np.exp(np.minimum(kernel, 0, out=kernel), out=kernel)
