"""A Gaussian process against the textbook's dense formulas."""

import numpy as np
import pytest
from scipy.stats import multivariate_normal

from molhpft.tuning.gaussian_process import (
    NOISES,
    conditioned,
    gaussian_process,
    likeliest_mixture,
)


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


@pytest.fixture
def several():
    """Three kernels among 20 points, and two targets, of which one is measured on 12 of them."""
    rng = np.random.default_rng(3)
    x = rng.normal(size=(3, 20, 2))
    kernels = [np.exp(-np.square(p[:, None] - p[None]).sum(-1) / 2) for p in x]
    y = rng.normal(size=(20, 2))
    y[12:, 1] = np.nan
    return kernels, (y - np.nanmean(y, 0)) / np.nanstd(y, 0)


def cost(kernels, targets, weights, noise):
    """What `likeliest_mixture` makes least, by scipy and from the definition."""
    total = np.square(np.log(np.array(weights) * len(kernels)) / 2).sum() / 2
    for y in targets.T:
        rows = ~np.isnan(y)
        covariance = sum(w * k for w, k in zip(weights, kernels, strict=True)) + noise * np.eye(20)
        total -= multivariate_normal(np.zeros(rows.sum()), covariance[np.ix_(rows, rows)]).logpdf(
            y[rows]
        )
    return total


def test_no_weights_near_the_likeliest_are_likelier(several):
    kernels, targets = several
    found = likeliest_mixture(kernels, targets)
    least = cost(kernels, targets, found.weights, found.noise)
    for k in range(4):
        for factor in (0.9, 1.1):
            weights, noise = list(found.weights), found.noise
            if k < 3:
                weights[k] *= factor
            else:
                noise *= factor
            assert cost(kernels, targets, weights, noise) >= least - 1e-6


def test_a_target_that_does_not_vary_says_nothing_of_weights(several):
    kernels, targets = several
    constant = np.column_stack([targets, np.full(20, np.nan), np.zeros(20)])
    assert likeliest_mixture(kernels, constant) == likeliest_mixture(kernels, targets)


def test_conditioned_predicts_the_mean_given_what_was_seen(drawn):
    kernel, asked, y = drawn
    weights, mean = conditioned(kernel.copy(), y, 0.3)
    inverse = np.linalg.inv(kernel + 0.3 * np.eye(25))
    assert mean + asked @ weights == pytest.approx(y.mean() + asked @ inverse @ (y - y.mean()))
