"""GPU kernels against plain PyTorch: on a GPU where there is one, else interpreted on the CPU."""

from dataclasses import fields, replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("triton", exc_type=ImportError)

from molhpft.kernels import dispatch, gpu, ops, reference
from molhpft.kernels.reference import Edges, Finish
from tests.kernels.random_graphs import (
    EMPTY,
    KINDS,
    RING,
    STAR,
    draw_leaves,
    edges_of,
    gradients,
    graphs,
)
from tests.kernels.test_normalisation import batch_norm

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"

# 65 atoms in three tiles of rows, 320 edges in two parts
LATTICE = edges_of(65, [(i, (i + step) % 65) for step in (1, 7) for i in range(65)], [0, 3] * 65)
some_graphs = graphs() | st.sampled_from([STAR, EMPTY, LATTICE])
widths = st.sampled_from([1, 7, 65])
seeds = st.integers(0, 999)
few = settings(max_examples=12, deadline=None)


def on_device(edges):
    return Edges(**{f.name: getattr(edges, f.name).to(DEVICE) for f in fields(edges)})


def draw(*shapes, seed=0, dtype=torch.float32):
    leaves = draw_leaves(*shapes, seed=seed)
    return [leaf.detach().to(DEVICE, dtype).requires_grad_() for leaf in leaves]


@pytest.fixture
def chosen(monkeypatch):
    """Operations take these kernels, as they do on a GPU anyway."""
    monkeypatch.setattr(dispatch, "_cpu", lambda: gpu)


def assert_convolution_is_the_plain_one(edges, width, seed=0):
    edges = on_device(edges)
    x, bond, root = leaves = draw((len(edges.degree), width), (KINDS, width), (width,), seed=seed)
    plain, g = reference.convolve(*leaves, edges), torch.randn_like(x)
    torch.testing.assert_close(gpu.convolve(*leaves, edges), plain)
    ours = gpu.convolve_backward(g, x, bond, root, edges)
    theirs = torch.autograd.grad(plain, leaves, g)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


@given(edges=some_graphs, width=widths, seed=seeds)
@few
def test_a_convolution_and_its_gradients_equal_the_plain_ones(edges, width, seed):
    assert_convolution_is_the_plain_one(edges, width, seed)


@pytest.mark.parametrize(("edges", "width"), [(STAR, 300), (RING, 3), (LATTICE, 128)])
def test_wide_rows_and_many_atoms_are_served_too(edges, width):
    assert_convolution_is_the_plain_one(edges, width)


def test_more_kinds_of_bonds_than_one_program_sums_up_are_summed_up_too():
    kinds = 2 * gpu.KINDS.value + 3
    edges = replace(LATTICE, kind=torch.arange(len(LATTICE.kind)) % kinds)
    x, bond, root = leaves = draw((65, 5), (kinds, 5), (5,))
    g = torch.randn_like(x)
    ours = gpu.convolve_backward(g, x, bond, root, on_device(edges))[1]
    # kinds differ between the directions of an edge here, so only the sums by edge are the same
    theirs = torch.autograd.grad(reference.convolve(*leaves, on_device(edges)), bond, g)[0]
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


@given(edges=some_graphs, width=widths, seed=seeds)
@few
def test_propagation_and_its_gradient_equal_the_plain_ones(edges, width, seed):
    edges = on_device(edges)
    (x,) = draw((len(edges.degree), width), seed=seed)
    plain, g = reference.propagate(x, edges), torch.randn_like(x)
    torch.testing.assert_close(gpu.propagate(x, edges), plain)
    torch.testing.assert_close(gpu.propagate(g, edges), torch.autograd.grad(plain, x, g)[0])


@given(
    rows=st.lists(st.tuples(st.integers(0, 4), st.integers(5, 69)), max_size=40),
    repeats=st.sampled_from([1, 8]),
    width=widths,
)
@few
def test_the_gradient_of_an_embedding_equals_the_plain_one(rows, repeats, width):
    rows = torch.tensor(rows, dtype=torch.long, device=DEVICE).reshape(-1, 2).repeat(repeats, 1)
    (table,) = draw((70, width))
    plain = reference.embed(rows, table)
    g = torch.randn_like(plain)
    expected = torch.autograd.grad(plain, table, g)[0]
    torch.testing.assert_close(gpu.embed_backward(g, rows, 70), expected, rtol=1e-4, atol=1e-5)


@given(rows=st.sampled_from([1, 2, 33, 300, 600]), width=widths, far=st.sampled_from([0.0, 1000.0]))
@few
def test_moments_are_those_of_columns_far_from_zero_too(rows, width, far):
    a = draw((rows, width))[0].detach() + far
    mean, variance = gpu.moments(a)
    torch.testing.assert_close(mean.double(), a.double().mean(0), rtol=1e-6, atol=1e-6)
    expected = a.double().var(0, correction=0)
    torch.testing.assert_close(variance.double(), expected, rtol=1e-4, atol=1e-6)


finishes = st.builds(
    Finish,
    relu=st.booleans(),
    dropout=st.sampled_from([0.0, 0.3, 0.5, 1.0]),
    seed=st.integers(0, 2**63 - 1) | st.sampled_from([0, 1, 2**31, 2**32 - 1, 2**63 - 1]),
)


@given(finish=finishes, rows=st.sampled_from([0, 1, 33, 300]), width=widths)
@settings(max_examples=20, deadline=None)
def test_values_and_gradients_behind_batch_norm_equal_the_plain_ones(finish, rows, width):
    g, a = (t.detach() for t in draw((rows, width), (rows, width)))
    factor, shift, mean, slope, offset = (t.detach() for t in draw(*[(width,)] * 5))
    value = factor * a + shift
    kept = reference.keep_mask(rows, width, finish, device=DEVICE)
    alive = kept & (value > 0) if finish.relu else kept
    passed = torch.where(alive, g, 0.0)
    torch.testing.assert_close(
        gpu.activate(a, factor, shift, finish), torch.where(alive, value, 0.0)
    )
    sums = gpu.activate_sums(g, a, factor, shift, finish, mean)
    expected = passed.sum(0), (passed * (a - mean)).sum(0)
    torch.testing.assert_close(sums, expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(
        gpu.activate_backward(g, a, factor, shift, finish, slope, offset),
        factor * passed + slope * a + offset,
        rtol=1e-4,
        atol=1e-5,
    )


def test_rows_of_lower_precision_are_rounded_and_nothing_else_is():
    edges, finish = on_device(STAR), Finish(relu=True, dropout=0.5, seed=3)
    x, g = (t.detach() for t in draw((61, 7), (61, 7), dtype=torch.bfloat16))
    bond, root, mean = (t.detach() for t in draw((KINDS, 7), (7,), (7,), seed=1))
    x32, g32 = x.float(), g.float()
    pairs = [
        (gpu.convolve(x, bond, root, edges), gpu.convolve(x32, bond, root, edges)),
        (gpu.propagate(x, edges), gpu.propagate(x32, edges)),
        (gpu.activate(x, root, mean, finish), gpu.activate(x32, root, mean, finish)),
        *zip(
            gpu.convolve_backward(g, x, bond, root, edges),
            gpu.convolve_backward(g32, x32, bond, root, edges),
            strict=True,
        ),
        *zip(
            gpu.activate_sums(g, x, root, mean, finish, mean),
            gpu.activate_sums(g32, x32, root, mean, finish, mean),
            strict=True,
        ),
    ]
    for low, high in pairs:
        # the interpreter cuts digits off, a GPU rounds
        digits = 2.0**-7 if low.dtype == torch.bfloat16 else 0
        torch.testing.assert_close(low.float(), high, rtol=digits, atol=0)
    assert [low.dtype for low, _ in pairs[:4]] == [torch.bfloat16] * 4
    assert {low.dtype for low, _ in pairs[4:]} == {torch.float32}


def step(edges, rows):
    """Value and gradients of every operation that has a kernel."""
    torch.manual_seed(0)
    x, bond, root, table = leaves = draw((61, 9), (KINDS, 9), (9,), (7, 9))
    h = ops.embed(rows, table) + ops.propagate(x, edges)
    h = ops.convolve(h, bond, root, edges)
    h = ops.normalise(h, batch_norm(9).to(DEVICE), relu=True, dropout=0.5, training=True)
    assert type(h.grad_fn).__name__ == "_FusedBackward"
    return h.detach(), *gradients(h, leaves)


def test_operations_give_the_same_numbers_every_time_and_those_of_the_cpu(monkeypatch):
    edges, rows = on_device(STAR), (torch.arange(61, device=DEVICE) % 7)[:, None]
    others = step(edges, rows) if DEVICE == "cpu" else None
    monkeypatch.setattr(dispatch, "_cpu", lambda: gpu)
    first, again = step(edges, rows), step(edges, rows)
    assert all(torch.equal(one, other) for one, other in zip(first, again, strict=True))
    if others:
        for one, other in zip(first, others, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)


def test_results_do_not_depend_on_the_memory_layout(chosen):
    edges = on_device(STAR)
    x, bond, root = draw((61, 8), (KINDS, 8), (8,))
    turned = x.detach().T.contiguous().T.requires_grad_()
    ours, theirs = (ops.convolve(h, bond, root, edges) for h in (x, turned))
    assert torch.equal(ours, theirs)
    same = (torch.autograd.grad(out.sum(), h)[0] for out, h in ((ours, x), (theirs, turned)))
    assert torch.equal(*same)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_not_finite_reaches_the_neighbours_and_no_other_atom(bad):
    x, bond, root = (leaf.detach() for leaf in draw((65, 3), (KINDS, 3), (3,)))
    x[20] = bad
    out = gpu.convolve(x, bond, root, on_device(LATTICE))
    assert (~out.isfinite()).any(1).nonzero().flatten().tolist() == [13, 19, 20, 21, 27]
