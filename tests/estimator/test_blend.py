"""Which members answer together."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from molhpft.estimator.blend import blend_weights, fit_line


def error(y):
    return lambda a: -float((a - y).square().mean())


@given(seed=st.integers(0, 1000), members=st.integers(1, 5))
def test_weights_are_shares_and_the_blend_is_no_worse_than_any_member(seed, members):
    rng = torch.Generator().manual_seed(seed)
    y = torch.randn(20, 2, generator=rng)
    logits = [y + torch.randn(20, 2, generator=rng) for _ in range(members)]
    weights = blend_weights(logits, error(y))
    assert sum(weights) == pytest.approx(1)
    assert min(weights) >= 0
    blended = sum(w * one for w, one in zip(weights, logits, strict=True))
    assert error(y)(blended) >= max(map(error(y), logits)) - 1e-6


def test_members_that_err_to_both_sides_are_weighed_by_their_errors():
    y = torch.zeros(4, 1)
    weights = blend_weights([y + 3, y - 1], error(y))
    assert weights == pytest.approx([0.25, 0.75])


def test_of_equals_one_answers_alone():
    y = torch.arange(4.0)[:, None]
    assert blend_weights([y, y, y + 1], error(y)) == [1.0, 0.0, 0.0]


def test_a_member_whose_predictions_are_not_finite_is_left_out():
    y = torch.arange(4.0)[:, None]
    assert blend_weights([y * torch.nan, y + 1], error(y)) == [0.0, 1.0]
    with pytest.raises(ValueError, match="none of them finite"):
        blend_weights([y * torch.nan], error(y))
    with pytest.raises(ValueError, match="at least one member"):
        blend_weights([], error(y))


RARE = torch.tensor([[0.1]] * 10)  # what a process says that learned labels of a tenth of 1s
BACKWARDS = torch.tensor([[1.0]] + [[0.0]] * 9)  # whose only 1 it puts below all 0s


@pytest.mark.parametrize(
    ("outputs", "targets"),
    [
        pytest.param(RARE, torch.full((10, 1), torch.nan), id="no label"),
        pytest.param(RARE, torch.zeros(10, 1), id="one class"),
        pytest.param(RARE + torch.linspace(-0.05, 0.04, 10)[:, None], BACKWARDS, id="backwards"),
    ],
)
def test_a_number_that_stands_for_a_rate_is_no_logit_even_where_labels_cannot_say_so(
    outputs, targets
):
    line = fit_line(outputs, targets, classes=True, rates=torch.tensor([0.1]))
    probabilities = line(outputs).sigmoid()
    assert (probabilities - outputs).abs().max() < 0.05
    assert line(torch.tensor([[0.5]])) > line(torch.tensor([[0.1]]))


@pytest.mark.parametrize("seed", range(3))
def test_where_labels_say_the_line_it_does_not_hang_on_the_rate(seed):
    rng = torch.Generator().manual_seed(seed)
    targets = torch.tensor([0.0, 1.0] * 20)[:, None]
    outputs = targets + torch.randn(40, 1, generator=rng) / 4
    one, other = (
        fit_line(outputs, targets, classes=True, rates=rates)
        for rates in (None, torch.tensor([0.2]))
    )
    torch.testing.assert_close(one(outputs).sigmoid(), other(outputs).sigmoid(), rtol=0, atol=1e-4)


def test_a_target_without_labels_has_a_probability_of_one_half():
    outputs = torch.stack([torch.rand(20), torch.zeros(20)], 1)
    targets = torch.stack([(torch.rand(20) < 0.5).float(), torch.full((20,), torch.nan)], 1)
    line = fit_line(outputs, targets, classes=True, rates=torch.tensor([0.5, torch.nan]))
    assert (line(outputs)[:, 1].sigmoid() == 0.5).all()
