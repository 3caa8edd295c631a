"""A Gaussian process against the textbook's dense formulas."""

import numpy as np
import pytest
from scipy.stats import multivariate_normal

from molhpft.tuning.gaussian_process import NOISES, gaussian_process


@pytest.fixture
def drawn():
    """A kernel among 25 points and with 6 more, and noisy numbers of the 25."""
    rng = np.random.default_rng(0)
    x = rng.uniform(0, 5, 31)
    kernel = np.exp(-np.square(x[:, None] - x[None]) / 2)
    return kernel[:25, :25], kernel[25:, :25], 7 + 3 * np.sin(x[:25]) + 0.1 * rng.normal(size=25)


def density(kernel, y, scale, noise):
    covariance = scale * (kernel + noise * np.eye(len(y)))
    return multivariate_normal(np.full(len(y), y.mean()), covariance).logpdf(y)


def test_predictions_are_conditional_means(drawn):
    kernel, asked, y = drawn
    process = gaussian_process(kernel, y)
    inverse = np.linalg.inv(kernel + process.noise * np.eye(25))
    expected = y.mean() + asked @ inverse @ (y - y.mean())
    assert process.predict(asked) == pytest.approx(expected)


def test_the_likelihood_is_that_of_a_normal_distribution(drawn):
    kernel, _, y = drawn
    process = gaussian_process(kernel, y)
    expected = density(kernel, y, process.scale, process.noise)
    assert process.log_likelihood == pytest.approx(expected)


def test_no_other_noise_of_the_grid_and_no_other_scale_is_likelier(drawn):
    kernel, _, y = drawn
    best = gaussian_process(kernel, y)
    for noise in NOISES:
        for factor in (0.5, 0.9, 1.0, 1.1, 2.0):
            likelihood = density(kernel, y, factor * best.scale, noise)
            assert likelihood <= best.log_likelihood + 1e-9


def test_more_noise_is_found_where_there_is_more(drawn):
    kernel, _, y = drawn
    noisy = y + np.random.default_rng(1).normal(size=25)
    assert gaussian_process(kernel, noisy).noise > gaussian_process(kernel, y).noise
