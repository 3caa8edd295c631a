"""Transferability scores against dense implementations of their equations, and at their limits."""

from math import log, pi

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from scipy.stats import multivariate_normal
from sklearn.covariance import ledoit_wolf
from sklearn.linear_model import LinearRegression, Ridge
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor

from molhpft.core.objectives import ClassContrast, Multiclass, Multilabel, ScoredByLoss, Squared
from molhpft.measure.transferability import (
    LabelColumn,
    h_score,
    label_columns,
    leep,
    leep_of_outputs,
    linear_predictions,
    logme,
    neighbour_predictions,
    principal_axes,
    transrate,
)
from tests.toy import NAN


def features(n=60, d=7, *, seed=0):
    rng = torch.Generator().manual_seed(seed)
    scales = torch.logspace(-1, 1, d)
    return 0.3 + scales * torch.randn(n, d, generator=rng)


def classes(n=60, k=3, *, seed=1):
    return torch.randint(k, (n,), generator=torch.Generator().manual_seed(seed))


def numbers(z, *, noise=0.5):
    rng = torch.Generator().manual_seed(2)
    return z.double().sum(1) + noise * torch.randn(len(z), generator=rng).double()


def rotation(d):
    rng = torch.Generator().manual_seed(3)
    return torch.linalg.qr(torch.randn(d, d, generator=rng, dtype=torch.float64)).Q


def on_axes(score):
    """A score of axes as one of features."""
    return lambda z, y: score(principal_axes(z), y)


# columns of labels


def test_a_missing_label_is_in_no_column():
    targets = torch.tensor([[1.0, NAN], [NAN, NAN], [0.0, 1.0]])
    first, second = label_columns(Multilabel(), targets)
    assert (first.rows.tolist(), first.labels.tolist()) == ([0, 2], [1, 0])
    assert (second.rows.tolist(), second.labels.tolist()) == ([2], [1])
    assert (first.is_varied, second.is_varied) == (True, False)
    assert not first.labels.is_floating_point()


def test_ignored_units_and_wrapped_objectives_are_columns_too():
    (column,) = label_columns(ScoredByLoss(Multiclass()), torch.tensor([2, -100, 0]))
    assert (column.rows.tolist(), column.labels.tolist()) == ([0, 2], [2, 0])
    (column,) = label_columns(Squared(), torch.tensor([[0.5], [NAN]]))
    assert (column.rows.tolist(), column.labels.tolist()) == ([0], [0.5])


@pytest.mark.parametrize(
    ("objective", "targets"),
    [(ClassContrast(), torch.zeros(3).long()), (Multiclass(), torch.zeros(3, 2, 2).long())],
)
def test_targets_without_scores_are_refused(objective, targets):
    with pytest.raises(ValueError, match="of whole examples"):
        label_columns(objective, targets)


# LogME


def dense_evidence(z, y):
    """The largest density of labels N(0, 1 / b + z z^T / a), by a search over a and b."""
    z, y = z.double().numpy(), y.double().numpy()

    def negative(logs):
        a, b = np.exp(logs)
        covariance = np.eye(len(y)) / b + z @ z.T / a
        return -multivariate_normal.logpdf(y, cov=covariance)

    starts = [(k, j) for k in (-4.0, 0.0, 4.0) for j in (-2.0, 2.0)]
    found = [minimize(negative, at, method="Nelder-Mead", tol=1e-8) for at in starts]
    return -min(one.fun for one in found) / len(y)


def equation_of_the_paper(z, y, a, b):
    n, d = z.shape
    matrix = a * np.eye(d) + b * z.T @ z
    m = b * np.linalg.solve(matrix, z.T @ y)
    return (
        n / 2 * log(b)
        + d / 2 * log(a)
        - n / 2 * log(2 * pi)
        - b / 2 * np.square(z @ m - y).sum()
        - a / 2 * m @ m
        - np.linalg.slogdet(matrix)[1] / 2
    ) / n


@pytest.mark.parametrize("shape", [(40, 5), (12, 20)], ids=str)
def test_logme_is_the_largest_evidence_over_both_precisions(shape):
    z = features(*shape)
    y = numbers(z)
    assert logme(z, y) == pytest.approx(dense_evidence(z, y), abs=1e-5)


def test_no_precisions_give_more_evidence_by_the_equation_of_the_paper():
    z = features()
    y = numbers(z)
    grid = np.logspace(-5, 5, 61)
    values = [
        equation_of_the_paper(z.double().numpy(), y.numpy(), a, b) for a in grid for b in grid
    ]
    assert max(values) == pytest.approx(logme(z, y), abs=1e-2)
    assert max(values) <= logme(z, y)


def test_logme_of_classes_is_the_mean_over_them():
    z, y = features(), classes()
    each = [logme(z, (y == k).double()) for k in range(3)]
    assert logme(z, y) == pytest.approx(np.mean(each))


def test_logme_of_features_that_say_nothing_is_that_of_noise():
    y = numbers(features())
    # with no weights, labels are N(0, 1 / b) whose best b is 1 / mean y^2
    expected = -(log(2 * pi * y.square().mean().item()) + 1) / 2
    assert logme(torch.zeros(60, 3), y) == pytest.approx(expected, abs=1e-6)


# H-score


def dense_h_score(z, y):
    z, y = z.double().numpy(), y.numpy()
    covariance, shrinkage = ledoit_wolf(z)
    means = np.stack([z[y == label].mean(0) for label in y])
    return (1 - shrinkage) * np.trace(np.linalg.solve(covariance, np.cov(means.T, bias=True)))


@pytest.mark.parametrize("shape", [(60, 7), (20, 40)], ids=str)
def test_the_h_score_is_the_trace_of_its_equation(shape):
    z = features(*shape)
    y = classes(len(z))
    assert h_score(principal_axes(z), y) == pytest.approx(dense_h_score(z, y), rel=1e-6)


def test_the_h_score_of_two_classes_tends_to_the_r_squared_of_a_regression():
    z = torch.randn(20_000, 3, generator=torch.Generator().manual_seed(0)) * torch.tensor([1, 2, 4])
    y = (z.sum(1) > 0).long()
    expected = LinearRegression().fit(z.numpy(), y.numpy()).score(z.numpy(), y.numpy())
    assert h_score(principal_axes(z), y) == pytest.approx(expected, rel=2e-3)


def test_with_more_features_than_examples_the_h_score_still_tells_noise_from_signal():
    y = classes(40, 2)
    noise = features(40, 100)
    signal = noise.clone()
    signal[:, 99] += 40 * y
    assert h_score(principal_axes(noise), y) < 0.6 < h_score(principal_axes(signal), y)


# TransRate


def dense_rate(z):
    n, d = z.shape
    return np.linalg.slogdet(np.eye(d) + z.T @ z / (n * 1e-4))[1] / 2


@pytest.mark.parametrize("shape", [(60, 7), (20, 40)], ids=str)
def test_transrate_is_the_difference_of_coding_rates(shape):
    z = features(*shape)
    y = classes(len(z))
    x = z.double().numpy() - z.double().numpy().mean(0)
    x /= np.sqrt(np.square(x).sum(1).mean())
    of_classes = sum((y == k).double().mean().item() * dense_rate(x[y == k]) for k in range(3))
    found = transrate(principal_axes(z), y)
    assert found == pytest.approx(dense_rate(x) - of_classes, rel=1e-6)


def test_one_class_has_no_transrate():
    z = features()
    assert transrate(principal_axes(z), torch.zeros(60).long()) == pytest.approx(0, abs=1e-9)


# what all scores of features share


@pytest.mark.parametrize("score", [logme, on_axes(h_score), on_axes(transrate)])
def test_neither_a_rotation_nor_a_unit_of_features_matters(score):
    z, y = features().double(), classes()
    expected = pytest.approx(score(z, y), rel=1e-5)
    assert score(z @ rotation(7), y) == expected
    assert score(100 * z, y) == expected


@pytest.mark.parametrize("score", [logme, on_axes(h_score), on_axes(transrate)])
def test_names_of_classes_and_the_order_of_examples_do_not_matter(score):
    z, y = features(), classes()
    order = torch.randperm(60, generator=torch.Generator().manual_seed(4))
    assert score(z[order], 5 - 2 * y[order]) == pytest.approx(score(z, y), rel=1e-6)


@pytest.mark.parametrize("score", [logme, on_axes(h_score), on_axes(transrate)])
def test_features_that_part_classes_score_higher(score):
    z, y = features(), classes()
    parted = z.clone()
    parted[:, :3] = 0.1 * z[:, :3] + torch.eye(3)[y]
    assert score(parted, y) > score(z, y)


@pytest.mark.parametrize("score", [logme, on_axes(h_score), on_axes(transrate)])
def test_constant_features_have_finite_scores(score):
    assert np.isfinite(score(torch.ones(60, 4), classes()))


# LEEP


def test_leep_is_the_likelihood_of_its_equation():
    rng = torch.Generator().manual_seed(5)
    p, y = torch.randn(30, 4, generator=rng).softmax(1).double(), classes(30)
    total = 0.0
    for i in range(30):
        likelihood = 0.0
        for k in range(4):
            joint = sum(p[j, k].item() for j in range(30) if y[j] == y[i]) / 30
            likelihood += joint / (p[:, k].sum().item() / 30) * p[i, k].item()
        total += log(likelihood)
    assert leep(p, y) == pytest.approx(total / 30)


def test_leep_is_0_for_a_source_that_knows_the_labels_and_entropy_for_one_that_does_not():
    y = classes()
    assert leep(torch.eye(5)[y], y) == pytest.approx(0)
    shares = torch.bincount(y).double() / 60
    expected = (shares * shares.log()).sum().item()
    assert leep(torch.full((60, 5), 0.2), y) == pytest.approx(expected)


def test_of_independent_outputs_the_one_that_tells_most_counts():
    y = classes(k=2)
    p = torch.stack([torch.full((60,), 0.5), 0.1 + 0.8 * y], 1)
    assert leep_of_outputs(p, y) == leep(torch.stack([1 - p[:, 1], p[:, 1]], 1), y)


# probes


@pytest.mark.parametrize("of_classes", [True, False])
def test_neighbours_are_those_of_scikit_learn(of_classes):
    z, asked = features(), features(9, seed=6)
    y = classes() if of_classes else numbers(z)
    rows = torch.arange(0, 60, 2)
    kind = KNeighborsClassifier if of_classes else KNeighborsRegressor
    model = kind(10).fit(z[rows].numpy(), y[rows].numpy())
    expected = (model.predict_proba if of_classes else model.predict)(asked.numpy())
    column = LabelColumn(rows, y[rows])
    found = neighbour_predictions(z, [column], asked, classes=3 * of_classes)
    assert found.numpy() == pytest.approx(expected.reshape(9, -1))


def test_fewer_labels_than_neighbours_are_all_neighbours():
    z, rows = features(), torch.tensor([3, 5])
    columns = [
        LabelColumn(rows, torch.tensor([1.0, 4.0]).double()),
        LabelColumn(rows[:0], torch.zeros(0).double()),
    ]
    assert neighbour_predictions(z, columns, z[:1]).tolist() == [[2.5, 0.0]]


def test_the_linear_probe_is_a_ridge_regression_with_the_penalty_of_most_evidence():
    z, asked = features(), features(9, seed=6)
    y = numbers(z, noise=5)
    found = linear_predictions(principal_axes(z), y, asked)
    x, centred = (z.double() - z.double().mean(0)).numpy(), (y - y.mean()).numpy()
    grid = np.logspace(-1, 3, 801)

    def most(penalty):
        covariance = np.eye(60) + x @ x.T / penalty
        squares = centred @ np.linalg.solve(covariance, centred)
        return -60 * np.log(squares) - np.linalg.slogdet(covariance)[1]

    best = max(grid, key=most)
    expected = Ridge(alpha=best).fit(z.double().numpy(), y.numpy()).predict(asked.double().numpy())
    assert found[:, 0].numpy() == pytest.approx(expected, abs=5e-3)


def test_a_probe_of_labels_that_are_all_alike_predicts_them():
    z = features()
    y = torch.full((60,), 2.0).double()
    assert linear_predictions(principal_axes(z), y, z[:2]).tolist() == [[2.0], [2.0]]
