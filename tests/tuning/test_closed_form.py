"""Losses and slopes written down against those of the objectives by autograd."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from molhpft.core.objectives import ClassContrast, Multiclass, Multilabel, Squared
from molhpft.tuning.stacked import has_closed_form, labels
from tests.toy import NAN

OBJECTIVES = [Multilabel(), Multiclass(), Multiclass(ignore=1), Squared()]


def some_targets(objective, n, share, rng):
    if isinstance(objective, Multiclass):
        y = torch.randint(3, (n,), generator=rng)
        return torch.where(torch.rand(n, generator=rng) < share, objective.ignore, y)
    y = torch.randn(n, 3, generator=rng).double()
    y = y if isinstance(objective, Squared) else (y > 0).double()
    return y.masked_fill(torch.rand(n, 3, generator=rng) < share, NAN)


@settings(max_examples=100, deadline=None)
@given(
    objective=st.sampled_from(OBJECTIVES),
    n=st.integers(1, 6),
    share=st.sampled_from([0.0, 0.5, 1.0]),
    smoothing=st.lists(st.sampled_from([0.0, 0.1, 0.7]), min_size=1, max_size=3),
    seed=st.integers(0, 9),
)
def test_loss_and_slope_are_those_of_the_objective(objective, n, share, smoothing, seed):
    smoothing = [0.0] if isinstance(objective, Squared) else smoothing
    rng = torch.Generator().manual_seed(seed)
    targets = some_targets(objective, n, share, rng)
    logits = 3 * torch.randn(len(smoothing), n, 3, generator=rng).double()
    taught = labels(objective, targets, outputs=3, smoothing=smoothing)
    shares = taught.measured / taught.measured.sum().clamp(min=1)
    for row, a, s in zip(taught.which, logits, smoothing, strict=True):
        y = taught.y[row]
        a.requires_grad_()
        loss = objective.smoothed(s).loss(a, targets)
        (slope,) = torch.autograd.grad(loss, a)
        entries = taught.losses(a.detach().T, y) * shares
        torch.testing.assert_close(entries.sum().float(), loss.detach().float())
        found = (taught.predictions(a.detach().T) - y) * shares
        torch.testing.assert_close(found.T.float(), slope.float())


def test_each_row_has_its_own_labels_whatever_is_missing_around_it():
    targets = torch.tensor([[1.0, NAN], [NAN, NAN], [0.0, 1.0]])
    taught = labels(Multilabel(), targets, outputs=2, smoothing=[0.0, 0.5, 0.0])
    assert taught.which == (0, 1, 0)
    assert len(taught.y) == 2
    assert taught.measured.T.tolist() == [[1, 0], [0, 0], [1, 1]]
    assert taught.y[0].T.tolist() == [[1, 0], [0, 0], [0, 1]]
    assert taught.y[1].T.tolist() == [[0.75, 0], [0, 0], [0.25, 0.75]]


@pytest.mark.parametrize(
    ("objective", "shape", "known"),
    [
        (Multilabel(), (4, 3), True),
        (Squared(), (4, 3), True),
        (Multiclass(), (4,), True),
        (Multiclass(), (4, 5, 5), False),
        (ClassContrast(), (4,), False),
    ],
)
def test_only_objectives_and_targets_that_are_known_have_a_closed_form(objective, shape, known):
    assert has_closed_form(objective, torch.zeros(shape)) is known


def test_numbers_cannot_be_smoothed():
    with pytest.raises(ValueError, match="no labels to smooth"):
        labels(Squared(), torch.zeros(2, 1), outputs=1, smoothing=[0.1])
