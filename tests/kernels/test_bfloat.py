"""Rows of bfloat16: what fused operations give for the float32 of the same numbers, rounded."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from molhpft.core.network import Batch
from molhpft.domains.molecules.gcn import ogb_gcn, pretrain_gnns_gcn
from molhpft.domains.molecules.graphs import pack
from molhpft.kernels import cpu, ops
from molhpft.kernels.cpu_loops import narrowed, widened
from molhpft.kernels.reference import Finish
from tests.kernels.random_graphs import (
    EMPTY,
    KINDS,
    LONE,
    RING,
    STAR,
    draw_leaves,
    gradients,
    some_graphs,
)
from tests.kernels.test_normalisation import batch_norm

HALF = torch.empty(0, dtype=torch.uint16).numpy()
ALL = torch.arange(2**16).to(torch.uint16).view(torch.bfloat16)
# half a unit in the last place, for numbers that were rounded once
ROUNDED = {"rtol": 2**-8, "atol": 1e-5}
STORE = pack(["C", "[Na+].[Cl-]", "c1ccc2ccccc2c1", "FS(F)(F)(F)(F)F", "CC(=O)[O-].[NH4+]", "C#N"])


@given(st.floats(width=32))
@settings(max_examples=300, deadline=None)
def test_narrowing_is_pytorchs_rounding(number):
    bits = narrowed(np.float32(number), HALF)
    expected = torch.tensor(number, dtype=torch.float32).bfloat16()
    if number != number:
        assert np.isnan(widened(np.uint16(bits)))
    else:
        assert bits == expected.view(torch.int16).item() & 0xFFFF


def test_float32_is_left_as_it_is():
    value = np.float32(1 / 3)
    assert widened(value) == value
    assert narrowed(value, np.empty(0, np.float32)) == value


def test_every_bfloat16_goes_through_a_loop_unchanged():
    rows, one, zero = ALL.reshape(256, 256), torch.ones(256), torch.zeros(256)
    # infinite numbers times a factor stay, and the sign of zero is no matter
    out = cpu.activate(rows, one, zero, Finish(relu=False))
    torch.testing.assert_close(out, rows, rtol=0, atol=0, equal_nan=True)


def both(operation, rows, weights):
    """Result and gradients for bfloat16 rows, and for float32 rows of the same numbers."""
    half = rows.detach().bfloat16().requires_grad_()
    single = half.detach().float().requires_grad_()
    results = []
    for leaf in (half, single):
        out = operation(leaf, *weights)
        assert type(out.grad_fn).__name__ == "_FusedBackward"
        assert out.dtype == leaf.dtype
        g = torch.randn(out.shape, generator=torch.Generator().manual_seed(7)).bfloat16()
        results.append((out, *torch.autograd.grad(out, [leaf, *weights], g.to(out.dtype))))
    return results


def assert_rounded(half, single):
    """Rows are those of float32 rounded; gradients of weights are sums kept in float32."""
    for ours, theirs in zip(half[:2], single[:2], strict=True):
        torch.testing.assert_close(ours.float(), theirs, **ROUNDED)
    for ours, theirs in zip(half[2:], single[2:], strict=True):
        assert ours.dtype == torch.float32
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


@given(edges=some_graphs, width=st.sampled_from([1, 3, 16, 37]), seed=st.integers(0, 999))
@settings(max_examples=30, deadline=None)
def test_a_convolution_of_bfloat16_is_that_of_float32_rounded(edges, width, seed):
    x, *weights = draw_leaves((len(edges.degree), width), (KINDS, width), (width,), seed=seed)
    assert_rounded(*both(lambda *a: ops.convolve(*a, edges), x, weights))


@pytest.mark.parametrize("edges", [STAR, EMPTY, LONE, RING], ids=["star", "empty", "lone", "ring"])
def test_propagation_of_bfloat16_is_that_of_float32_rounded(edges):
    (x,) = draw_leaves((len(edges.degree), 37))
    assert_rounded(*both(lambda x: ops.propagate(x, edges), x, []))


@given(
    rows=st.sampled_from([2, 5, 300, 700]),
    relu=st.booleans(),
    dropout=st.sampled_from([0.0, 0.5]),
    seed=st.integers(0, 999),
)
@settings(max_examples=30, deadline=None)
def test_batch_norm_of_bfloat16_is_that_of_float32_rounded(rows, relu, dropout, seed):
    a, weight, bias = draw_leaves((rows, 32), (32,), (32,), seed=seed)
    norms = []

    def normalised(a, weight, bias):
        norms.append(batch_norm(32))
        norms[-1].register_parameter("weight", None)
        norms[-1].weight, norms[-1].bias = weight, bias
        torch.manual_seed(3)
        return ops.normalise(a, norms[-1], relu=relu, dropout=dropout, training=True)

    weights = [torch.nn.Parameter(weight.detach()), torch.nn.Parameter(bias.detach())]
    assert_rounded(*both(normalised, a, weights))
    for name in ("running_mean", "running_var"):
        ours, theirs = (getattr(norm, name) for norm in norms)
        assert ours.dtype == torch.float32
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("rows", [torch.float32, torch.bfloat16])
def test_a_linear_layer_under_autocast_gives_the_gradients_of_its_rounded_factors(rows):
    h, weight, bias = draw_leaves((50, 30), (20, 30), (20,))
    h = h.detach().to(rows).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        out = ops.linear(h, weight, bias)
    leaves = h, weight, bias
    exact = torch.nn.functional.linear(*(leaf.bfloat16().double() for leaf in leaves))
    torch.testing.assert_close(out.double(), exact, **ROUNDED)
    found = gradients(out, leaves)
    for ours, theirs, leaf in zip(found, gradients(exact, leaves), leaves, strict=True):
        assert ours.dtype == leaf.dtype
        torch.testing.assert_close(ours.double(), theirs.double(), rtol=2e-2, atol=5e-2)


def test_further_derivatives_of_bfloat16_are_those_of_the_reference():
    x, bond, root = draw_leaves((61, 4), (KINDS, 4), (4,))
    half = x.detach().bfloat16().requires_grad_()
    out = ops.convolve(half, bond, root, STAR)
    unit = torch.eye(out.numel())[:5].view(-1, *out.shape).bfloat16()
    for k, ours in enumerate(torch.autograd.grad(out, half, unit, True, is_grads_batched=True)[0]):
        (theirs,) = torch.autograd.grad(out, half, unit[k], retain_graph=True)
        torch.testing.assert_close(ours, theirs)
    (first,) = torch.autograd.grad(out.float().square().sum(), root, create_graph=True)
    assert torch.autograd.grad(first.square().sum(), half)[0].isfinite().all()


ENCODERS = {
    "ogb": lambda: ogb_gcn(layers=3, width=32, dropout=0.0),
    "ogb, virtual node": lambda: ogb_gcn(layers=3, width=32, dropout=0.0, virtual_node=True),
    "pretrain-gnns": lambda: pretrain_gnns_gcn(layers=3, width=32, dropout=0.0),
}


@pytest.mark.parametrize("build", ENCODERS.values(), ids=ENCODERS)
def test_an_encoder_under_autocast_is_about_as_exact_as_pytorchs_autocast(build, monkeypatch):
    torch.manual_seed(0)
    chain = build()
    batch = Batch(STORE.take(torch.arange(60) % len(STORE)), torch.zeros(60, 1))
    target = torch.randn(60, 32)

    def numbers(*, rounded):
        with torch.autocast("cpu", torch.bfloat16, enabled=rounded):
            z = chain(batch.inputs, batch)
        assert z.dtype == torch.float32
        # the bias before a batch norm has no gradient but rounding
        weights = [p for name, p in chain.named_parameters() if "linear.bias" not in name]
        return *torch.autograd.grad((z * target).sum(), weights), z.detach()

    exact, ours = numbers(rounded=False), numbers(rounded=True)
    monkeypatch.setenv("MOLHPFT_KERNELS", "reference")
    theirs = numbers(rounded=True)
    errors = [
        torch.cat([(a - b).flatten() for a, b in zip(exact, found, strict=True)]).norm()
        for found in (ours, theirs)
    ]
    assert errors[0] < 4 * errors[1]
    assert (exact[-1] - ours[-1]).norm() < 0.05 * exact[-1].norm()
