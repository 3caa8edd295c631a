"""Venn-Abers probabilities are those of isotonic regression with the new molecule among others."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.isotonic import isotonic_regression

from molhpft.measure.uncertainty import fit_venn_abers, from_tensors, log_loss
from molhpft.measure.venn_abers import merged, venn_abers
from tests.toy import NAN

cases = st.lists(st.tuples(st.integers(-4, 4), st.booleans()), min_size=1, max_size=25)


def refitted(scores, labels, new, label):
    """Isotonic regression on all scores and the new one with this label."""
    scores, labels = np.append(scores, new), np.append(labels, float(label))
    _, place, counts = np.unique(scores, return_inverse=True, return_counts=True)
    means = np.bincount(place, weights=labels) / counts
    return isotonic_regression(means, sample_weight=counts.astype(float))[place[-1]]


@settings(max_examples=200, deadline=None)
@given(cases, st.integers(-10, 10))
def test_both_probabilities_are_those_of_a_refit_with_either_label(case, doubled):
    scores, labels = (np.array(column, dtype=float) for column in zip(*case, strict=True))
    knots, lower, upper = venn_abers(scores, labels)
    new = doubled / 2  # on a score, between two, beyond all
    p0, p1 = lower[[(knots <= new).sum()]], upper[[(knots < new).sum()]]
    assert p0[0] == pytest.approx(refitted(scores, labels, new, 0), abs=1e-12)
    assert p1[0] == pytest.approx(refitted(scores, labels, new, 1), abs=1e-12)
    assert p0[0] <= p1[0] + 1e-12
    assert p0[0] - 1e-12 <= merged(p0, p1)[0] <= p1[0] + 1e-12


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 999), n=st.integers(4, 60))
def test_probabilities_rise_with_logits_and_survive_storage(seed, n):
    rng = torch.Generator().manual_seed(seed)
    a = torch.randn(n, 3, generator=rng).round(decimals=1)
    y = (torch.rand(n, 3, generator=rng) < a.sigmoid()).float()
    y[:2, :2] = torch.tensor([[0.0, 1.0], [1.0, 0.0]])
    y[3, 0], y[:, 2] = NAN, 1.0  # the last task lacks a class
    fitted = fit_venn_abers(a, y)
    new = torch.linspace(-5, 5, 101)[:, None].expand(-1, 3)
    p = fitted.probabilities(new)
    assert ((p > 0) & (p < 1)).all()
    assert (p.diff(dim=0) >= 0).all()
    assert p[:, 2].equal(new[:, 2].double().sigmoid().float())
    again = from_tensors("venn_abers", fitted.to_tensors())
    assert again.probabilities(new).equal(p)


def test_of_many_molecules_probabilities_are_right():
    rng = torch.Generator().manual_seed(0)
    a = torch.randn(20_000, 1, generator=rng)
    truth = (a**3).sigmoid()
    y = (torch.rand(truth.shape, generator=rng) < truth).float()
    p = fit_venn_abers(a, y).probabilities(a)
    assert (p - truth).abs().mean() < 0.02


def test_log_loss_is_minus_the_log_of_what_the_label_was_given():
    p = torch.tensor([[0.25, 1.0], [0.5, 0.125]], dtype=torch.float64)
    y = torch.tensor([[1.0, 0.0], [NAN, 0.0]])
    found = log_loss(p, y)
    expected = -np.log([0.25, 1e-9, 0.875])
    np.testing.assert_allclose(found, expected, rtol=1e-6)
