"""Kernels that compare molecules: MinMax on counts of substructures, Gaussian on numbers.

A kernel machine or a Gaussian process reads a molecule through its similarities alone. MinMax is
Tanimoto's similarity for counts (Ralaivola et al. 2005, Neural Networks 18:1093): positive definite
and 1 for two molecules with the same counts.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

Array = NDArray[np.float64]

_LEAST = 1e-12  # least divisor: rows without counts would divide by 0


def minmax_kernel(a: csr_matrix, b: csr_matrix) -> Array:
    """Similarities sum(min) / sum(max) of every row of `a` to every row of `b`, (m, n).

    Two rows without any count have 0: nothing is known of either.

    Args:
        a: whole numbers from 0, (m, columns).
        b: the same of others, (n, columns).
    """
    # where it is first used: numba takes a good part of a second to import
    from molhpft.kernels.minmax import sums_of_minima

    kernel = sums_of_minima(a, b)
    sums_a, sums_b = (np.asarray(counts.sum(1), dtype=np.float64).ravel() for counts in (a, b))
    for least, own in zip(kernel, sums_a, strict=True):
        least /= np.maximum(own + sums_b - least, _LEAST)
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
