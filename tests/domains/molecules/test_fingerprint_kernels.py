"""Kernels of molecules: their definitions, computed by brute force."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.sparse import csr_matrix

from molhpft.domains.molecules.fingerprint_kernels import (
    gaussian_kernel,
    minmax_kernel,
)


def brute_force(a, b):
    """sum(min) / sum(max), 0 for nothing against nothing."""
    least = np.minimum(a[:, None], b[None]).sum(-1)
    most = np.maximum(a[:, None], b[None]).sum(-1)
    return np.divide(least, most, out=np.zeros_like(least), where=most > 0)


@settings(deadline=None, max_examples=30)
@given(arrays(np.float64, (7, 5), elements=st.integers(0, 9)))
def test_minmax_is_the_sum_of_minima_over_that_of_maxima(counts):
    sparse = csr_matrix(counts)
    expected = brute_force(counts[:4], counts)
    assert np.array_equal(minmax_kernel(sparse[:4], sparse), expected)
    assert np.array_equal(minmax_kernel(sparse[:4].astype(np.uint8), sparse.tocsc()), expected)


@pytest.mark.parametrize(("m", "n"), [(0, 3), (3, 0)])
def test_there_may_be_no_molecule_on_either_side(m, n):
    assert minmax_kernel(csr_matrix((m, 5)), csr_matrix((n, 5))).shape == (m, n)


def test_large_counts_are_added_up_exactly():
    counts = csr_matrix(np.array([[255, 255, 3], [254, 255, 0]], dtype=np.uint8))
    assert minmax_kernel(counts, counts)[0, 1] == 509 / 513


def test_gaussian_is_the_exponential_of_the_mean_squared_distance():
    a, b = (np.random.default_rng(k).normal(size=(6 - k, 4)) for k in range(2))
    distances = np.square(a[:, None] - b[None]).sum(-1)
    assert gaussian_kernel(a, b) == pytest.approx(np.exp(-distances / 8))
