"""Gaussian processes on given kernels, for tables of some thousand molecules.

One kernel with the likeliest of a few noises, or a sum of kernels with the likeliest weights.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from math import exp, log, pi

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve, lapack
from scipy.optimize import minimize

from molhpft.core.determinism import one_thread

Array = NDArray[np.float64]

NOISES = (1.0, 0.3, 0.1, 0.03, 0.01, 0.003)
"""Variances of the noise to choose from, in units of the scale of the kernel."""

_PRIOR_STD = 2.0  # of the logarithm of a weight, around equal weights
_WEIGHTS = (-10.0, 3.0)  # the least and the greatest logarithm
_NOISE = (log(1e-3), log(10.0))
_MANY = 4_000  # molecules whose kernel is worth several threads
_STEPS = 25  # of the search; later ones move the likelihood by less than predictions notice


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


def few_threads(molecules: int) -> AbstractContextManager[None]:
    """One thread, where there are so few molecules that more would wait for one another."""
    return one_thread() if molecules < _MANY else nullcontext()


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
    with few_threads(len(y)):
        candidates = [_with_noise(kernel, y - mean, mean, noise) for noise in NOISES]
    return max(candidates, key=lambda process: process.log_likelihood)


def _with_noise(kernel: Array, residual: Array, mean: float, noise: float) -> GaussianProcess:
    m = len(residual)
    weights, half_log_determinant, _ = _solved(kernel.copy(), residual, noise)
    scale = float(residual @ weights) / m
    log_determinant = 2 * half_log_determinant
    log_likelihood = -(m * (log(2 * pi * scale) + 1) + log_determinant) / 2
    return GaussianProcess(mean, weights, scale, noise, log_likelihood)


@dataclass(frozen=True)
class Mixture:
    """A sum of p kernels, and how much of what is measured it leaves unexplained.

    Attributes:
        weights: (p,), of the kernels.
        noise: variance of the noise, in the unit of the weights.
    """

    weights: tuple[float, ...]
    noise: float


def likeliest_mixture(kernels: Sequence[Array], targets: Array) -> Mixture:
    """The weights and noise under which standardised targets are most likely.

    The covariance of a target's numbers is `sum_p w_p K_p + noise`, the same for all targets. The
    log marginal likelihoods (Rasmussen and Williams 2006, equation 2.30) of all targets are added,
    with a prior that keeps log weights of few molecules near that of 1 / p, and climbed by L-BFGS
    along their derivatives (equation 5.9).

    Args:
        kernels: p similarities among n molecules, (n, n) each, positive semi-definite and 1 or so
            on the diagonal.
        targets: (n, t), of mean 0 and variance 1 each; NaN where unmeasured.
    """
    p = len(kernels)
    centre, measured = -log(p), list[tuple[Array, Array]]()
    for y in targets.T:
        rows = np.flatnonzero(~np.isnan(y))
        if len(np.unique(y[rows])) > 1:
            parts = np.stack([kernel[np.ix_(rows, rows)] for kernel in kernels])
            measured.append((parts, y[rows]))

    def cost(logs: Array) -> tuple[float, Array]:
        away = (logs[:p] - centre) / _PRIOR_STD
        total = float(away @ away) / 2
        slope = np.append(away / _PRIOR_STD, 0.0)
        weights, noise = np.exp(logs[:p]), exp(logs[p])
        for parts, y in measured:
            value, by_weights, by_noise = _negative_log_likelihood(parts, y, weights, noise)
            total += value
            slope += np.append(by_weights * weights, by_noise * noise)
        return total, slope

    start = np.append(np.full(p, centre), log(0.2))
    bounds = [_WEIGHTS] * p + [_NOISE]
    with few_threads(len(targets)):
        optimum = minimize(
            cost, start, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": _STEPS}
        )
    *weights, noise = np.exp(optimum.x).tolist()
    return Mixture(tuple(weights), noise)


def _negative_log_likelihood(
    kernels: Array, y: Array, weights: Array, noise: float
) -> tuple[float, Array, float]:
    """The value without its constant, and its derivatives by weights (p,) and noise.

    Args:
        kernels: (p, n, n).
        y: (n,).
        weights: (p,).
        noise: positive.
    """
    alpha, half_log_determinant, factor = _solved(np.tensordot(weights, kernels, 1), y, noise)
    value = float(y @ alpha) / 2 + half_log_determinant
    inverse, _ = lapack.dpotri(factor, lower=1, overwrite_c=0)
    # of the symmetric difference between inverse and what labels say, only one half is filled
    slope = inverse - np.outer(alpha, alpha)
    diagonal = np.diag(slope)
    lower = 2 * np.tril(slope) - np.diag(diagonal)
    by_weights: Array = np.tensordot(kernels, lower, 2) / 2
    return value, by_weights, float(diagonal.sum()) / 2


def conditioned(kernel: Array, y: Array, noise: float) -> tuple[Array, float]:
    """Weights (n,) of the similarities to what was seen and the mean, which together predict.

    Args:
        kernel: similarities (n, n), positive semi-definite; the noise is written into it.
        y: numbers (n,).
        noise: variance of the noise, in the unit of the kernel.
    """
    mean = float(y.mean())
    weights, _, _ = _solved(kernel, y - mean, noise)
    return weights, mean


def _solved(kernel: Array, y: Array, noise: float) -> tuple[Array, float, Array]:
    """`(K + noise)^-1 y`, half the logarithm of the determinant, and the lower Cholesky factor.

    Noise and factor are written into the kernel (n, n).
    """
    kernel[np.diag_indices(len(y))] += noise
    factor, _ = cho_factor(kernel, lower=True, overwrite_a=True, check_finite=False)
    weights: Array = cho_solve((factor, True), y, check_finite=False)
    return weights, float(np.log(np.diag(factor)).sum()), factor
