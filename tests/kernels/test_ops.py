"""Fused operations equal plain ones, whatever autograd asks of them; products and row sums."""

import gc
import weakref

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.autograd import forward_ad
from torch.func import jacrev, jvp, vjp, vmap
from torch.nn import functional as F

from molhpft.kernels import ops, reference
from molhpft.kernels.ops import (
    convolve,
    embed,
    inner_product,
    linear,
    normalise,
    product,
    propagate,
    row_sums_of,
)
from tests.kernels.graphs import (
    KINDS,
    RING,
    STAR,
    draw_leaves,
    gradients,
    seeds,
    some_graphs,
    widths,
)

LENGTH = 7  # of a table
sizes = st.integers(1, 40)


def draw_rows(n, columns, seed=0):
    return torch.randint(0, LENGTH, (n, columns), generator=torch.Generator().manual_seed(seed))


def assert_same(fused, plain, leaves):
    """Two functions of the same leaves have the same value and gradients, up to float32."""
    ours, theirs = fused(*leaves), plain(*leaves)
    assert type(ours.grad_fn).__name__ == "_FusedBackward"
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
    for a, b in zip(gradients(ours, leaves), gradients(theirs, leaves), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


@given(graph=some_graphs, width=widths, seed=seeds)
@settings(max_examples=40, deadline=None)
def test_a_fused_convolution_and_its_gradients_equal_the_plain_ones(graph, width, seed):
    assert_same(
        lambda *leaves: convolve(*leaves, graph),
        lambda *leaves: reference.convolve(*leaves, graph),
        draw_leaves((len(graph.degree), width), (KINDS, width), (width,), seed=seed),
    )


@given(graph=some_graphs, width=widths, seed=seeds)
@settings(max_examples=30, deadline=None)
def test_fused_propagation_and_its_gradient_equal_the_plain_ones(graph, width, seed):
    assert_same(
        lambda x: propagate(x, graph),
        lambda x: reference.propagate(x, graph),
        draw_leaves((len(graph.degree), width), seed=seed),
    )


@given(
    rows=st.lists(st.tuples(st.integers(0, 4), st.integers(5, 6)), max_size=300),
    width=widths,
    seed=seeds,
)
@settings(max_examples=30, deadline=None)
def test_a_fused_embedding_and_its_gradient_equal_the_plain_ones(rows, width, seed):
    rows = torch.tensor(rows, dtype=torch.long).reshape(-1, 2)
    assert_same(
        lambda table: embed(rows, table),
        lambda table: reference.embed(rows, table),
        draw_leaves((LENGTH, width), seed=seed),
    )


@given(rows=st.integers(0, 40), inner=sizes, outer=sizes)
@settings(max_examples=30, deadline=None)
def test_a_linear_layer_and_its_gradients_equal_pytorchs(rows, inner, outer):
    assert_same(linear, F.linear, draw_leaves((rows, inner), (outer, inner), (outer,)))


def test_results_do_not_depend_on_the_memory_layout_of_rows_or_gradient():
    x, bond, root = draw_leaves((600, 8), (KINDS, 8), (8,))
    turned = x.detach().T.contiguous().T.requires_grad_()
    ours, theirs = (convolve(h, bond, root, RING) for h in (x, turned))
    assert torch.equal(ours, theirs)
    assert torch.equal(gradients(ours, [x])[0], gradients(theirs, [turned])[0])
    # the gradient of a sum is one number repeated without memory
    repeated = torch.autograd.grad(convolve(x, bond, root, RING).sum(), x)
    plain = torch.autograd.grad(reference.convolve(x, bond, root, RING).sum(), x)
    torch.testing.assert_close(repeated, plain)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_not_finite_reaches_the_neighbours_and_no_other_atom(bad):
    x, bond, root = (leaf.detach() for leaf in draw_leaves((600, 8), (KINDS, 8), (8,)))
    x[5] = bad
    out = convolve(x, bond, root, RING)
    assert (~out.isfinite()).any(1).nonzero().flatten().tolist() == [4, 5, 6]
    assert not out[4:7].isfinite().any()


OPERATIONS = {
    "linear": (linear, [(5, 4), (3, 4), (3,)]),
    "convolve": (lambda *a: convolve(*a, STAR), [(61, 4), (KINDS, 4), (4,)]),
    "propagate": (lambda x: propagate(x, STAR), [(61, 4)]),
    "embed": (lambda table: embed(torch.tensor([[0, 2], [1, 3], [0, 3]]), table), [(4, 3)]),
    "normalise": (
        lambda a: normalise(a, nn.BatchNorm1d(4), relu=True, dropout=0.0, training=True),
        [(7, 4)],
    ),
}
operations = pytest.mark.parametrize(("operation", "shapes"), OPERATIONS.values(), ids=OPERATIONS)


@pytest.fixture
def plain(monkeypatch):
    """Calls a function with the reference."""

    def call(function, *arguments):
        with monkeypatch.context() as patch:
            patch.setenv("MOLHPFT_KERNELS", "reference")
            return function(*arguments)

    return call


@operations
def test_batches_of_gradients_are_those_of_the_reference(operation, shapes, plain):
    leaves = draw_leaves(*shapes)
    out, theirs = operation(*leaves), plain(operation, *leaves)
    assert type(out.grad_fn).__name__ == "_FusedBackward"
    assert type(theirs.grad_fn).__name__ != "_FusedBackward"
    unit = torch.eye(out.numel())[:9].view(-1, *out.shape)
    ours = torch.autograd.grad(out, leaves, unit, is_grads_batched=True)
    theirs = torch.autograd.grad(theirs, leaves, unit, is_grads_batched=True)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


@operations
def test_gradients_of_gradients_are_those_of_the_reference(operation, shapes, plain):
    def penalty(function):
        leaves = draw_leaves(*shapes)
        out = function(*leaves).square().sum()
        first = torch.autograd.grad(out, leaves, create_graph=True)
        return torch.autograd.grad(sum(g.square().sum() for g in first), leaves)

    torch.testing.assert_close(penalty(operation), plain(penalty, operation), rtol=1e-3, atol=1e-3)


@operations
def test_forward_derivatives_are_those_of_the_reference(operation, shapes, plain):
    leaves = [leaf.detach() for leaf in draw_leaves(*shapes)]
    tangents = [leaf.detach() for leaf in draw_leaves(*shapes, seed=1)]
    ours = jvp(operation, tuple(leaves), tuple(tangents))
    theirs = plain(jvp, operation, tuple(leaves), tuple(tangents))
    torch.testing.assert_close(ours, theirs)
    with forward_ad.dual_level():
        duals = [forward_ad.make_dual(*pair) for pair in zip(leaves, tangents, strict=True)]
        moved = forward_ad.unpack_dual(operation(*duals)).tangent
    torch.testing.assert_close(moved, theirs[1])


@operations
def test_reverse_derivatives_by_torch_func_are_those_of_the_reference(operation, shapes, plain):
    leaves = [leaf.detach() for leaf in draw_leaves(*shapes)]
    (ours, pull), (theirs, plain_pull) = vjp(operation, *leaves), plain(vjp, operation, *leaves)
    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(pull(ours), plain_pull(theirs), rtol=1e-4, atol=1e-4)


def test_a_jacobian_by_vmap_is_that_of_the_reference(plain):
    x, bond, root = (leaf.detach() for leaf in draw_leaves((61, 2), (KINDS, 2), (2,)))

    def of_x(x):
        return convolve(x, bond, root, STAR)

    torch.testing.assert_close(jacrev(of_x)(x), plain(jacrev(of_x), x))
    torch.testing.assert_close(vmap(of_x)(torch.stack([x, 2 * x]))[1], of_x(2 * x))


def test_only_the_gradients_that_are_wanted_are_computed():
    x, bond, root = draw_leaves((600, 4), (KINDS, 4), (4,))
    out = convolve(x, bond.detach(), root, RING)
    expected = torch.autograd.grad(convolve(x, bond, root, RING).sum(), [x, root])
    torch.testing.assert_close(torch.autograd.grad(out.sum(), [x, root]), expected)
    h, weight, bias = draw_leaves((5, 4), (3, 4), (3,))
    out = linear(h.detach(), weight, bias.detach())
    (ours,) = torch.autograd.grad(out.sum(), [weight])
    torch.testing.assert_close(ours, h.detach().sum(0).expand(3, 4))


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
    result = product(a, b, offset if biased else None)
    assert result.dtype == dtype
    assert_product(result, a, b.T, offset, error=error)
    assert_product(inner_product(a, c), a.T, c, torch.zeros(outer), error=error)


def assert_product(result, left, right, offset, *, error):
    """Off by roundings of the numbers summed up, which may be far larger than their sum."""
    left, right, offset = (tensor.double() for tensor in (left, right, offset))
    size = left.abs() @ right.abs() + offset.abs()
    assert ((result.double() - left @ right - offset).abs() <= error * size + 1e-30).all()


def test_onednn_sees_few_lengths_however_many_there_are(monkeypatch):
    seen = set()

    def noting(a, b, bias=None):
        seen.add((len(a), len(b), a.shape[1]))
        return F.linear(a, b, bias)

    monkeypatch.setattr(ops, "_product", noting)
    monkeypatch.setattr(ops, "_onednn", lambda: noting)  # as where there is AVX-512
    for n in range(300, 365):
        a, b = torch.ones(n, 4), torch.ones(5, 4)
        assert product(a, b).shape == (n, 5)
        assert inner_product(a, a).eq(n).all()
    assert len(seen) <= 2 * 3


def test_products_that_onednn_has_no_part_in_are_of_the_very_length(monkeypatch):
    seen, plain = set(), ops._product

    def noting(a, b, bias=None):
        seen.add(max(len(a), a.shape[1]))
        return plain(a, b, bias)

    monkeypatch.setattr(ops, "_product", noting)
    monkeypatch.setattr(ops, "_onednn", lambda: None)  # as where there is no AVX-512
    a, b = torch.ones(301, 4), torch.ones(5, 4)
    assert product(a, b).shape == (301, 5)
    assert inner_product(a, a).eq(301).all()
    assert seen == {301}


def test_a_number_that_is_not_finite_stays_in_its_row():
    a, b = torch.ones(41, 4), torch.ones(5, 4)
    a[40, 0] = torch.nan
    assert product(a, b).isnan().any(1).nonzero().flatten().tolist() == [40]
    assert inner_product(a, a).isnan().all(1).tolist() == [True, False, False, False]


def test_large_products_are_as_exact_as_float32_can_be():
    h, weight, bias = draw_leaves((2000, 300), (300, 300), (300,))
    exact = F.linear(h.double(), weight.double(), bias.double())
    assert (linear(h, weight, bias) - exact).abs().max() < 1e-4


@pytest.mark.parametrize("rows", [torch.float32, torch.bfloat16])
def test_autocast_gives_its_dtype_and_the_gradients_of_rounded_factors(rows):
    h, weight, bias = draw_leaves((50, 30), (20, 30), (20,))
    leaves = h.detach().to(rows).requires_grad_(), weight, bias
    with torch.autocast("cpu", torch.bfloat16):
        out = linear(*leaves)
        assert out.dtype == F.linear(*leaves).dtype == torch.bfloat16
    exact = F.linear(*(leaf.bfloat16().double() for leaf in leaves))
    torch.testing.assert_close(out.double(), exact, rtol=2**-8, atol=1e-5)
    pairs = zip(gradients(out, leaves), gradients(exact, leaves), leaves, strict=True)
    for ours, theirs, leaf in pairs:
        assert ours.dtype == leaf.dtype
        torch.testing.assert_close(ours.double(), theirs.double(), rtol=2e-2, atol=5e-2)


@pytest.fixture
def lengths(monkeypatch):
    """Lengths of the first factors of the products that are computed."""
    seen = []
    for name, plain in (("product", F.linear), ("inner_product", lambda a, b: a.T @ b)):

        def noting(a, *others, plain=plain):
            seen.append(len(a))
            return plain(a, *others)

        monkeypatch.setattr(ops, name, noting)
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
    assert row_sums_of(h) is not None
    ours = linear(h, weight, bias, for_weights=True)
    theirs = F.linear(table[rows].sum(1), weight, bias)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
    for a, b in zip(gradients(ours, leaves), gradients(theirs, leaves), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-3)


def test_sums_have_their_own_gradient_where_it_does_not_skip_them():
    table, weight, bias = draw_leaves((LENGTH, 5), (6, 5), (6,))
    h = embed(draw_rows(99, 3), table)
    copy = h.detach().requires_grad_()
    ours = gradients(linear(h, weight, bias), [h, weight])
    theirs = gradients(F.linear(copy, weight, bias), [copy, weight])
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_derivatives_of_derivatives_skip_the_sums_too():
    leaves = table, weight, bias = draw_leaves((LENGTH, 5), (6, 5), (6,))
    rows = draw_rows(99, 3)

    def squared_gradient(logits):
        (gradient,) = torch.autograd.grad(logits.square().sum(), table, create_graph=True)
        return gradient.square().sum()

    ours = squared_gradient(linear(embed(rows, table), weight, bias, for_weights=True))
    theirs = squared_gradient(F.linear(table[rows].sum(1), weight, bias))
    for a, b in zip(gradients(ours, leaves), gradients(theirs, leaves), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-3)


def test_autocast_rounds_a_layer_of_sums_no_more_than_any_layer():
    leaves = table, weight, bias = draw_leaves((LENGTH, 32), (16, 32), (16,))
    rows = draw_rows(400, 3)
    h = embed(rows, table)
    exact = F.linear(table.double()[rows].sum(1), weight.double(), bias.double())
    with torch.autocast("cpu", torch.bfloat16):
        ours, plain = linear(h, weight, bias, for_weights=True), linear(h.clone(), weight, bias)
    assert ours.dtype == plain.dtype == torch.bfloat16
    assert (ours - exact).norm() <= (plain - exact).norm()
    for a, b in zip(gradients(ours, leaves), gradients(exact, leaves), strict=True):
        assert a.dtype == torch.float32
        assert (a - b).norm() < 1e-2 * b.norm()


def test_products_are_as_short_as_the_table_where_the_sums_may_be_skipped(lengths):
    table, weight, bias = draw_leaves((LENGTH, 5), (6, 5), (6,))
    h = embed(draw_rows(99, 3), table)
    gradients(linear(h, weight, bias, for_weights=True), [table, weight])
    assert lengths == [LENGTH] * 3
    with torch.no_grad():
        linear(h, weight, bias)
    assert lengths == [LENGTH] * 4
    few = embed(draw_rows(2 * LENGTH, 3), table)
    linear(few, weight, bias, for_weights=True)
    assert lengths[4:] == [2 * LENGTH]


@pytest.mark.parametrize("changed", ["sums", "table"])
def test_a_change_in_place_is_noticed(changed):
    table, weight, bias = (leaf.detach() for leaf in draw_leaves((LENGTH, 5), (6, 5), (6,)))
    h = embed(draw_rows(99, 3), table)
    (h if changed == "sums" else table).mul_(2)
    assert row_sums_of(h) is None
    result = linear(h, weight, bias, for_weights=True)
    torch.testing.assert_close(result, F.linear(h, weight, bias))


def test_what_is_computed_from_sums_is_no_sum():
    h = embed(draw_rows(99, 3), draw_leaves((LENGTH, 5))[0])
    for other in (h + 1, h[:50], h.detach(), h.T, h.clone()):
        assert row_sums_of(other) is None


def test_what_is_remembered_of_sums_goes_with_them():
    table = torch.ones(LENGTH, 5)
    h = embed(draw_rows(99, 3), table)
    entry = weakref.ref(row_sums_of(h))
    assert entry().table is table
    del h
    gc.collect()
    assert entry() is None


def test_sums_of_inference_mode_are_not_remembered_as_their_changes_are_not_counted():
    with torch.inference_mode():
        h = embed(draw_rows(99, 3), torch.ones(LENGTH, 5))
        assert row_sums_of(h) is None
        assert linear(h, torch.ones(2, 5), torch.zeros(2)).eq(15).all()


def test_columns_of_a_wider_matrix_are_multiplied_as_dense_ones(monkeypatch):
    seen = []
    plain = ops._product
    monkeypatch.setattr(ops, "_product", lambda a, b, bias=None: seen.append((a, b)) or plain(a, b))
    a, b = torch.randn(64, 6), torch.randn(64, 10)
    torch.testing.assert_close(inner_product(a[:, :3], b[:, 5:]), a[:, :3].T @ b[:, 5:])
    assert all(x.T.is_contiguous() for pair in seen for x in pair)
