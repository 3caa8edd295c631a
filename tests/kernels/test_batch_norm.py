"""Batch norm, ReLU and dropout in one: equal to PyTorch's modules, running statistics included."""

from copy import deepcopy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from molhpft.kernels.ops import normalise
from tests.kernels.graphs import batch_norm, draw_leaves, gradients, seeds

ROWS = torch.ones(9, 3)


def both(a, norm, *, relu, dropout):
    """Fused and plain result with the same seed, and the two norms after it."""
    norms = norm, deepcopy(norm)
    torch.manual_seed(3)
    fused = normalise(a, norms[0], relu=relu, dropout=dropout, training=True)
    torch.manual_seed(3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MOLHPFT_KERNELS", "reference")
        plain = normalise(a, norms[1], relu=relu, dropout=dropout, training=True)
    return (fused, plain), norms


@given(
    rows=st.sampled_from([2, 5, 300, 700]),
    width=st.sampled_from([1, 7, 32]),
    trained=st.booleans(),
    relu=st.booleans(),
    dropout=st.sampled_from([0.0, 0.1, 0.5, 1.0]),
    seed=seeds,
)
@settings(max_examples=60, deadline=None)
def test_fused_values_gradients_and_statistics_equal_the_plain_ones(
    rows, width, trained, relu, dropout, seed
):
    (a,) = draw_leaves((rows, width), seed=seed)
    (fused, plain), norms = both(a, batch_norm(width, trained=trained), relu=relu, dropout=dropout)
    # two rows that are nearly the same are magnified up to 1 / sqrt(eps) times
    torch.testing.assert_close(fused, plain, rtol=1e-4, atol=1e-3)
    leaves = [[a, norm.weight, norm.bias] for norm in norms]
    for ours, theirs in zip(gradients(fused, leaves[0]), gradients(plain, leaves[1]), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(norms[0].state_dict(), norms[1].state_dict())


def test_without_dropout_it_is_batch_norm_and_relu_of_pytorch():
    (a,), norm = draw_leaves((40, 6)), batch_norm(6)
    expected = F.relu(deepcopy(norm)(a))
    torch.testing.assert_close(normalise(a, norm, relu=True, dropout=0.9, training=False), expected)


def test_a_frozen_norm_keeps_its_statistics_while_dropout_goes_on():
    (a,), norm = draw_leaves((40, 6)), batch_norm(6, trained=False)
    before = deepcopy(norm.state_dict())
    h = normalise(a, norm, relu=False, dropout=0.5, training=True)
    torch.testing.assert_close(norm.state_dict(), before, rtol=0, atol=0)
    assert 0 < (h == 0).float().mean() < 1


def test_statistics_are_those_of_rows_far_from_zero():
    a = 1000 + draw_leaves((500, 4))[0].detach()
    norms = batch_norm(4), nn.BatchNorm1d(4).double()
    norms[1].load_state_dict(norms[0].state_dict())
    normalise(a, norms[0], relu=True, dropout=0.0, training=True)
    norms[1](a.double())
    variances = [norm.running_var.double() for norm in norms]
    torch.testing.assert_close(*variances, rtol=1e-4, atol=0)


@pytest.mark.parametrize("options", [{"momentum": None}, {"momentum": 0.3}])
def test_running_statistics_move_as_the_momentum_says(options):
    norms = batch_norm(4, **options), batch_norm(4, **options)
    for seed in range(3):
        (a,) = draw_leaves((9, 4), seed=seed)
        normalise(a, norms[0], relu=True, dropout=0.0, training=True)
        norms[1](a)
    torch.testing.assert_close(norms[0].state_dict(), norms[1].state_dict())


@pytest.mark.parametrize(
    "norm",
    [
        nn.BatchNorm1d(4, affine=False),
        nn.BatchNorm1d(4, track_running_stats=False),
        nn.LayerNorm(4),
    ],
    ids=str,
)
def test_another_norm_is_called_as_it_is(norm):
    (a,) = draw_leaves((9, 4))
    assert torch.equal(normalise(a, norm, relu=True, dropout=0.0, training=True), F.relu(norm(a)))


@pytest.mark.parametrize("norm", [nn.LayerNorm(6), nn.Identity()], ids=str)
@pytest.mark.parametrize("relu", [True, False])
def test_what_follows_another_norm_equals_the_reference(norm, relu, monkeypatch):
    def result_and_gradient():
        torch.manual_seed(0)
        (a,) = draw_leaves((300, 6))
        h = normalise(a, norm, relu=relu, dropout=0.4, training=True)
        return h, torch.autograd.grad(h.square().sum(), a)[0]

    fused = result_and_gradient()
    monkeypatch.setenv("MOLHPFT_KERNELS", "reference")
    torch.testing.assert_close(fused, result_and_gradient())


def test_a_single_row_evaluates_and_is_refused_in_training_as_pytorch_refuses_it():
    norm = batch_norm(3, trained=False)
    for a in (ROWS[:0], ROWS[:1]):
        h = normalise(a, norm, relu=False, dropout=0.5, training=False)
        torch.testing.assert_close(h, norm(a))
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        normalise(ROWS[:1], batch_norm(3), relu=True, dropout=0.0, training=True)


@pytest.mark.parametrize("trained", [True, False])
def test_a_nan_stays_a_nan(trained):
    a = ROWS.clone()
    a[4, 1] = float("nan")
    h = normalise(a, batch_norm(3, trained=trained), relu=True, dropout=0.0, training=True)
    assert h[4, 1].isnan()
    assert not h[:, [0, 2]].isnan().any()


@pytest.mark.parametrize("dropout", [-0.1, 1.1, float("nan")])
def test_a_dropout_that_is_no_probability_is_refused(dropout):
    with pytest.raises(ValueError, match="probability from 0 to 1, got"):
        normalise(ROWS, batch_norm(3), relu=True, dropout=dropout, training=True)
