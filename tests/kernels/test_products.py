"""Linear layers: PyTorch's numbers in float32, the precision of autocast under autocast."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from molhpft.kernels import products
from molhpft.kernels.ops import linear
from molhpft.kernels.products import inner_product, product
from tests.kernels.random_graphs import assert_same, draw_leaves, gradients

sizes = st.integers(1, 40)


@given(rows=st.integers(0, 40), inner=sizes, outer=sizes)
@settings(max_examples=30, deadline=None)
def test_a_linear_layer_and_its_gradients_equal_pytorchs(rows, inner, outer):
    assert_same(linear, F.linear, draw_leaves((rows, inner), (outer, inner), (outer,)))


@pytest.mark.parametrize("shape", [(7, 5), (1, 1), (0, 5)])
def test_a_product_reads_transposed_factors(shape):
    a, b = (leaf.detach() for leaf in draw_leaves(shape, shape, seed=2))
    torch.testing.assert_close(product(a.T, b.T), a.T @ b)


@given(
    n=st.integers(0, 140),
    inner=sizes,
    outer=sizes,
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
    biased=st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_products_of_any_length_are_those_of_double_precision(n, inner, outer, dtype, biased):
    tensors = draw_leaves((n, inner), (outer, inner), (outer,), (n, outer))
    a, b, bias, c = (tensor.detach().to(dtype) for tensor in tensors)
    error = 2**-7 if dtype == torch.bfloat16 else 1e-5
    offset = bias if biased else torch.zeros_like(bias)
    assert product(a, b, offset if biased else None).dtype == dtype
    assert_product(product(a, b, offset if biased else None), a, b.T, offset, error=error)
    assert_product(inner_product(a, c), a.T, c, torch.zeros(outer), error=error)


def assert_product(found, left, right, offset, *, error):
    """Off by roundings of the numbers summed up, which may be far larger than their sum."""
    left, right, offset = (tensor.double() for tensor in (left, right, offset))
    size = left.abs() @ right.abs() + offset.abs()
    assert ((found.double() - left @ right - offset).abs() <= error * size + 1e-30).all()


def test_onednn_sees_few_lengths_however_many_there_are(monkeypatch):
    seen = set()

    def noting(a, b, bias=None):
        seen.add((len(a), len(b), a.shape[1]))
        return F.linear(a, b, bias)

    monkeypatch.setattr(products, "_product", noting)
    for n in range(300, 365):
        a, b = torch.ones(n, 4), torch.ones(5, 4)
        assert product(a, b).shape == (n, 5)
        assert inner_product(a, a).eq(n).all()
    assert len(seen) <= 2 * 3


def test_a_number_that_is_not_finite_stays_in_its_row():
    a, b = torch.ones(41, 4), torch.ones(5, 4)
    a[40, 0] = torch.nan
    assert product(a, b).isnan().any(1).nonzero().flatten().tolist() == [40]
    assert inner_product(a, a).isnan().all(1).tolist() == [True, False, False, False]


def test_large_products_are_as_exact_as_float32_can_be():
    h, weight, bias = draw_leaves((2000, 300), (300, 300), (300,))
    exact = F.linear(h.double(), weight.double(), bias.double())
    error = (linear(h, weight, bias) - exact).abs().max()
    assert error < 1e-4


def test_only_the_gradients_that_are_wanted_are_computed():
    h, weight, bias = draw_leaves((5, 4), (3, 4), (3,))
    out = linear(h.detach(), weight, bias.detach())
    (ours,) = torch.autograd.grad(out.sum(), [weight])
    torch.testing.assert_close(ours, h.detach().sum(0).expand(3, 4))


def test_autocast_gives_its_own_dtype_and_float32_for_gradients_of_weights():
    leaves = draw_leaves((50, 30), (20, 30), (20,))
    exact = F.linear(*leaves)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = linear(*leaves)
        assert rounded.dtype == F.linear(*leaves).dtype == torch.bfloat16
    assert 1e-4 < (rounded - exact).norm() / exact.norm() < 1e-2
    pairs = zip(gradients(rounded, leaves), gradients(exact, leaves), strict=True)
    for ours, theirs in pairs:
        assert ours.dtype == torch.float32
        assert (ours - theirs).norm() / theirs.norm() < 1e-2
