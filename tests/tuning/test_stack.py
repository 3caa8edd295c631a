"""Stacked heads against their modules, and their slopes against autograd."""

from copy import deepcopy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from molhpft.core.network import Batch, Chain, Plain, cosine_head, linear_head, mlp_head
from molhpft.tuning.stacked import Stack, is_stackable


def chain(*modules, width=3):
    return Chain({"all": Plain(nn.Sequential(*modules), width=width)})


def deep_head():
    return chain(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 2), nn.ReLU(), nn.Linear(2, 3))


HEADS = {
    "linear": lambda: linear_head(4, 3),
    "mlp": lambda: mlp_head(4, 3, hidden=5),
    "deep": deep_head,
}


@pytest.mark.parametrize("build", HEADS.values(), ids=HEADS)
def test_linear_maps_with_relus_between_can_be_stacked(build):
    assert is_stackable(build())


@pytest.mark.parametrize(
    "head",
    [
        Chain({}),
        cosine_head(4, 3),
        chain(nn.Linear(4, 3, bias=False)),
        chain(nn.Linear(4, 3), nn.ReLU()),
        chain(nn.Linear(4, 4), nn.Linear(4, 3)),
        chain(nn.Linear(4, 4), nn.GELU(), nn.Linear(4, 3)),
        chain(nn.Linear(4, 4), nn.ReLU(), nn.Dropout(0.5), nn.Linear(4, 3)),
        chain(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 3)),
        chain(nn.Conv2d(4, 3, 1)),
    ],
    ids=str,
)
def test_other_heads_cannot(head):
    assert not is_stackable(head)


@settings(max_examples=50, deadline=None)
@given(
    kind=st.sampled_from(list(HEADS)),
    groups=st.integers(1, 3),
    each=st.integers(1, 3),
    n=st.integers(1, 4),
)
def test_logits_and_slopes_are_those_of_each_head_alone(kind, groups, each, n):
    torch.manual_seed(groups * 100 + each * 10 + n)
    heads = [HEADS[kind]().double() for _ in range(groups * each)]
    z = torch.randn(groups, n, 4, dtype=torch.double)
    slope = torch.randn(groups, each, 3, n, dtype=torch.double)
    stack = Stack(heads[0], [head.state_dict() for head in heads], groups=groups)
    logits = stack.forward(z)
    stack.backward(slope)
    assert logits.shape == (groups, each, 3, n)
    for number, (head, slopes) in enumerate(zip(heads, stack.heads(stack.gradient), strict=True)):
        group, place = divmod(number, each)
        alone = head(z[group], Batch(None, torch.empty(0)))
        torch.testing.assert_close(logits[group, place].T, alone)
        alone.backward(slope[group, place].T)
        for name, parameter in head.named_parameters():
            torch.testing.assert_close(slopes[name], parameter.grad)


@pytest.mark.parametrize("build", HEADS.values(), ids=HEADS)
def test_heads_come_out_as_they_went_in_and_share_nothing(build):
    torch.manual_seed(0)
    weights = [build().state_dict() for _ in range(4)]
    stack = Stack(build(), deepcopy(weights), groups=2)
    out = stack.heads(stack.flat)
    stack.flat.zero_()
    for before, after in zip(weights, out, strict=True):
        assert before.keys() == after.keys()
        assert all(torch.equal(before[key], after[key]) for key in before)


def test_a_number_a_head_reaches_all_its_weights():
    stack = Stack(deep_head(), [deep_head().state_dict()] * 3, groups=1)
    spread = stack.spread([1.0, 2.0, 3.0])
    assert spread.shape == stack.flat.shape
    for number, head in enumerate(stack.heads(spread), start=1):
        assert all((value == number).all() for value in head.values())


def test_weights_of_another_architecture_are_refused():
    with pytest.raises(ValueError, match=r"one architecture; expected weights .* \(3, 4\)"):
        Stack(linear_head(4, 3), [linear_head(4, 2).state_dict()], groups=1)
