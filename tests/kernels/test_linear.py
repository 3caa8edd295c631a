"""Linear layers of sums of table rows: the numbers of any linear layer, by shorter products."""

import gc
import weakref

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from molhpft.kernels import products as linear_module
from molhpft.kernels.ops import embed, linear
from molhpft.kernels.products import Summands, note_summands, summands_of
from tests.kernels.random_graphs import draw_leaves, gradients

LENGTH = 7


def draw_rows(n, columns, seed):
    return torch.randint(0, LENGTH, (n, columns), generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def lengths(monkeypatch):
    """Lengths of the first factors of products that are taken."""
    seen = []

    def noting(a, *others):
        seen.append(len(a))
        return F.linear(a, *others)

    def noting_inner(a, b):
        seen.append(len(a))
        return a.T @ b

    monkeypatch.setattr(linear_module, "product", noting)
    monkeypatch.setattr(linear_module, "inner_product", noting_inner)
    return seen


@given(
    n=st.sampled_from([0, 1, 27, 28, 300]),
    columns=st.integers(1, 4),
    width=st.sampled_from([1, 5, 32]),
    seed=st.integers(0, 99),
)
@settings(max_examples=30, deadline=None)
def test_a_layer_of_sums_and_all_its_gradients_equal_those_of_any_layer(n, columns, width, seed):
    leaves = table, weight, bias = draw_leaves((LENGTH, width), (6, width), (6,), seed=seed)
    rows = draw_rows(n, columns, seed)
    h = embed(rows, table)
    assert summands_of(h) is not None
    ours, theirs = linear(h, weight, bias, around=True), F.linear(table[rows].sum(1), weight, bias)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
    for a, b in zip(gradients(ours, leaves), gradients(theirs, leaves), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-3)


def test_what_was_summed_gets_its_own_gradient_where_none_goes_around():
    table, weight, bias = draw_leaves((LENGTH, 5), (6, 5), (6,))
    h = embed(draw_rows(99, 3, 0), table)
    found = gradients(linear(h, weight, bias), [h, weight])
    copy = h.detach().requires_grad_()
    for ours, theirs in zip(
        found, gradients(F.linear(copy, weight, bias), [copy, weight]), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_derivatives_of_derivatives_go_around_too():
    leaves = table, weight, bias = draw_leaves((LENGTH, 5), (6, 5), (6,))
    rows = draw_rows(99, 3, 0)

    def squared_gradient(logits):
        (slope,) = torch.autograd.grad(logits.square().sum(), table, create_graph=True)
        return slope.square().sum()

    ours = squared_gradient(linear(embed(rows, table), weight, bias, around=True))
    theirs = squared_gradient(F.linear(table[rows].sum(1), weight, bias))
    for a, b in zip(gradients(ours, leaves), gradients(theirs, leaves), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-3)


def test_autocast_gives_its_dtype_and_no_more_error_than_for_any_layer():
    leaves = table, weight, bias = draw_leaves((LENGTH, 32), (16, 32), (16,))
    rows = draw_rows(400, 3, 0)
    h = embed(rows, table)
    exact = F.linear(table.double()[rows].sum(1), weight.double(), bias.double())
    with torch.autocast("cpu", torch.bfloat16):
        ours, plain = linear(h, weight, bias, around=True), linear(h.clone(), weight, bias)
    assert ours.dtype == plain.dtype == torch.bfloat16
    assert (ours - exact).norm() <= (plain - exact).norm()
    pairs = zip(gradients(ours, leaves), gradients(exact, leaves), strict=True)
    for found, expected in pairs:
        assert found.dtype == torch.float32
        assert (found - expected).norm() < 1e-2 * expected.norm()


def test_all_products_around_the_sums_are_as_short_as_the_table(lengths):
    table, weight, bias = draw_leaves((LENGTH, 5), (6, 5), (6,))
    h = embed(draw_rows(99, 3, 0), table)
    gradients(linear(h, weight, bias, around=True), [table, weight])
    assert lengths == [LENGTH] * 3


def test_without_gradients_there_is_nothing_to_go_around(lengths):
    table, weight, bias = draw_leaves((LENGTH, 5), (6, 5), (6,))
    with torch.no_grad():
        linear(embed(draw_rows(99, 3, 0), table), weight, bias)
    assert lengths == [LENGTH]


def test_few_sums_are_multiplied_as_they_are(lengths):
    table, weight, bias = draw_leaves((LENGTH, 5), (6, 5), (6,))
    linear(embed(draw_rows(2 * LENGTH, 3, 0), table), weight, bias, around=True)
    assert lengths == [2 * LENGTH]


@pytest.mark.parametrize("changed", ["sums", "table"])
def test_a_change_in_place_is_noticed(changed):
    table, weight, bias = (leaf.detach() for leaf in draw_leaves((LENGTH, 5), (6, 5), (6,)))
    h = embed(draw_rows(99, 3, 0), table)
    (h if changed == "sums" else table).mul_(2)
    assert summands_of(h) is None
    found = linear(h, weight, bias, around=True)
    torch.testing.assert_close(found, F.linear(h, weight, bias))


def test_what_is_computed_from_sums_is_no_sum():
    h = embed(draw_rows(99, 3, 0), draw_leaves((LENGTH, 5))[0])
    for other in (h + 1, h[:50], h.detach(), h.T, h.clone()):
        assert summands_of(other) is None


def test_a_note_goes_with_its_tensor():
    summands = Summands(draw_rows(99, 3, 0), torch.ones(LENGTH, 5))
    h = torch.full((99, 5), 3.0)
    note_summands(h, summands)
    kept = weakref.ref(summands)
    del summands
    assert kept() is summands_of(h)
    del h
    gc.collect()
    assert kept() is None


def test_sums_of_inference_mode_are_not_noted_as_their_changes_are_not_counted():
    with torch.inference_mode():
        h = embed(draw_rows(99, 3, 0), torch.ones(LENGTH, 5))
        assert summands_of(h) is None
        assert linear(h, torch.ones(2, 5), torch.zeros(2)).eq(15).all()
