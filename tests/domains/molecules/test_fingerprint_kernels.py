"""Kernels of molecules: their definitions, computed by brute force."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.sparse import csr_matrix

from molhpft.domains.molecules import fingerprint_kernels
from molhpft.domains.molecules.fingerprint_kernels import (
    gaussian_kernel,
    minmax_kernel,
    unary_counts,
)


def brute_force(a, b):
    """sum(min) / sum(max), 0 for nothing against nothing."""
    least = np.minimum(a[:, None], b[None]).sum(-1)
    most = np.maximum(a[:, None], b[None]).sum(-1)
    return np.divide(least, most, out=np.zeros_like(least), where=most > 0)


@settings(deadline=None, max_examples=30)
@given(arrays(np.float64, (7, 5), elements=st.integers(0, 9)))
def test_minmax_is_the_sum_of_minima_over_that_of_maxima(counts):
    unary = unary_counts(csr_matrix(counts))
    kernel = minmax_kernel(unary[:4], unary)
    assert kernel == pytest.approx(brute_force(counts[:4], counts))


def test_a_kernel_computed_in_stretches_is_the_same(monkeypatch):
    counts = np.random.default_rng(0).poisson(0.7, (12, 9)).astype(float)
    unary = unary_counts(csr_matrix(counts))
    monkeypatch.setattr(fingerprint_kernels, "_BLOCK", 5)
    assert minmax_kernel(unary, unary) == pytest.approx(brute_force(counts, counts))


def test_gaussian_is_the_exponential_of_the_mean_squared_distance():
    a, b = (np.random.default_rng(k).normal(size=(6 - k, 4)) for k in range(2))
    distances = np.square(a[:, None] - b[None]).sum(-1)
    assert gaussian_kernel(a, b) == pytest.approx(np.exp(-distances / 8))
