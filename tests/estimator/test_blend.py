"""Which members answer together."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from molhpft.estimator.blend import blend_weights


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
