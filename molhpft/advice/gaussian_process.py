"""A Gaussian process on a given kernel, for tables of some thousand molecules."""

from dataclasses import dataclass
from math import log, pi

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve

Array = NDArray[np.float64]

NOISES = (1.0, 0.3, 0.1, 0.03, 0.01, 0.003)
"""Variances of the noise to choose from, in units of the scale of the kernel."""


@dataclass(frozen=True, eq=False)
class GaussianProcess:
    """What a Gaussian process knows after it has seen m numbers.

    Attributes:
        mean: of the numbers; predicted far from everything that was seen.
        weights: (m,), of the similarities to what was seen.
        scale: variance of the process where the kernel is 1.
        noise: variance of the noise, in units of `scale`.
        log_likelihood: log marginal likelihood of the numbers.
    """

    mean: float
    weights: Array
    scale: float
    noise: float
    log_likelihood: float

    def predict(self, kernel: Array) -> Array:
        """Expected numbers (n,) from similarities to what was seen, (n, m)."""
        predicted: Array = self.mean + kernel @ self.weights
        return predicted


def gaussian_process(kernel: Array, y: Array) -> GaussianProcess:
    """Condition a process with covariance `scale * (kernel + noise)` on numbers.

    Noise and scale are those of the largest marginal likelihood (Rasmussen and Williams 2006,
    equation 2.30): noise from `NOISES`, for each of which the best scale is `r' (K + noise)^-1 r /
    m`, with the residuals r around the mean.

    Args:
        kernel: similarities, positive semi-definite (m, m).
        y: numbers (m,), not all equal.
    """
    mean = float(y.mean())
    candidates = (_with_noise(kernel, y - mean, mean, noise) for noise in NOISES)
    return max(candidates, key=lambda process: process.log_likelihood)


def _with_noise(kernel: Array, residual: Array, mean: float, noise: float) -> GaussianProcess:
    m = len(residual)
    noisy = kernel.copy()
    noisy[np.diag_indices(m)] += noise
    factor = cho_factor(noisy, lower=True, overwrite_a=True, check_finite=False)
    weights: Array = cho_solve(factor, residual, check_finite=False)
    scale = float(residual @ weights) / m
    log_determinant = 2 * float(np.log(np.diag(factor[0])).sum())
    log_likelihood = -(m * (log(2 * pi * scale) + 1) + log_determinant) / 2
    return GaussianProcess(mean, weights, scale, noise, log_likelihood)
