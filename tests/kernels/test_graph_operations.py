"""Convolution, propagation, embedding: fused equals plain, plain equals finite differences."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from molhpft.kernels import ops, reference
from tests.kernels.random_graphs import (
    EMPTY,
    KINDS,
    RING,
    STAR,
    assert_same,
    draw_leaves,
    gradients,
    some_graphs,
)

seeds = st.integers(0, 999)
widths = st.sampled_from([1, 3, 16, 37])


def convolution_leaves(edges, width, seed=0, dtype=torch.float32):
    shapes = (len(edges.degree), width), (KINDS, width), (width,)
    return draw_leaves(*shapes, seed=seed, dtype=dtype)


@given(edges=some_graphs, width=widths, seed=seeds)
@settings(max_examples=40, deadline=None)
def test_a_fused_convolution_and_its_gradients_equal_the_plain_ones(edges, width, seed):
    assert_same(
        lambda *leaves: ops.convolve(*leaves, edges),
        lambda *leaves: reference.convolve(*leaves, edges),
        convolution_leaves(edges, width, seed),
    )


@given(edges=some_graphs, width=widths, seed=seeds)
@settings(max_examples=30, deadline=None)
def test_fused_propagation_and_its_gradient_equal_the_plain_ones(edges, width, seed):
    assert_same(
        lambda x: ops.propagate(x, edges),
        lambda x: reference.propagate(x, edges),
        draw_leaves((len(edges.degree), width), seed=seed),
    )


def dense(edges):
    """The matrix that propagation multiplies with."""
    matrix = torch.diag(1 / edges.degree)
    return matrix.index_put((edges.target, edges.source), edges.norm, accumulate=True)


@given(edges=some_graphs, seed=seeds)
@settings(max_examples=30, deadline=None)
def test_propagation_is_the_product_with_a_symmetric_matrix(edges, seed):
    (x,) = draw_leaves((len(edges.degree), 5), seed=seed)
    torch.testing.assert_close(dense(edges), dense(edges).T)
    torch.testing.assert_close(ops.propagate(x, edges), dense(edges) @ x)


@pytest.mark.parametrize("edges", [STAR, EMPTY], ids=["high degree", "no atoms"])
def test_the_plain_convolution_has_the_gradients_of_finite_differences(edges):
    leaves = convolution_leaves(edges, 2, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda *a: reference.convolve(*a, edges), leaves)


def test_plain_propagation_has_the_gradient_of_finite_differences():
    leaves = draw_leaves((61, 2), dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: reference.propagate(x, STAR), leaves)


@given(
    rows=st.lists(st.tuples(st.integers(0, 4), st.integers(5, 6)), max_size=300),
    width=widths,
    seed=seeds,
)
@settings(max_examples=30, deadline=None)
def test_a_fused_embedding_and_its_gradient_equal_the_plain_ones(rows, width, seed):
    rows = torch.tensor(rows, dtype=torch.long).reshape(-1, 2)
    assert_same(
        lambda table: ops.embed(rows, table),
        lambda table: reference.embed(rows, table),
        draw_leaves((7, width), seed=seed),
    )


def test_results_do_not_depend_on_the_memory_layout_of_the_features():
    x, bond, root = convolution_leaves(RING, 8)
    turned = x.detach().T.contiguous().T.requires_grad_()
    ours, theirs = (ops.convolve(h, bond, root, RING) for h in (x, turned))
    assert torch.equal(ours, theirs)
    assert torch.equal(gradients(ours, [x])[0], gradients(theirs, [turned])[0])


def test_a_gradient_that_is_one_number_repeated_is_read_as_such():
    x, bond, root = convolution_leaves(RING, 8)
    ours = torch.autograd.grad(ops.convolve(x, bond, root, RING).sum(), x)
    theirs = torch.autograd.grad(reference.convolve(x, bond, root, RING).sum(), x)
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_not_finite_reaches_the_neighbours_and_no_other_atom(bad):
    x, bond, root = convolution_leaves(RING, 8)
    with torch.no_grad():
        x[5] = bad
        out = ops.convolve(x, bond, root, RING)
    assert (~out.isfinite()).any(1).nonzero().flatten().tolist() == [4, 5, 6]
    assert not out[4:7].isfinite().any()
