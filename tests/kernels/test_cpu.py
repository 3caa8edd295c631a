"""The CPU kernels: bfloat16 rows, several threads, and where their compiled form is stored."""

import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from molhpft.core.network import Batch
from molhpft.domains.molecules.gcn import ogb_gcn
from molhpft.domains.molecules.gine import gine
from molhpft.domains.molecules.graphs import pack
from molhpft.domains.molecules.pretrain_gnns import (
    molclr_gcn,
    molclr_gin,
    pretrain_gnns_gat,
    pretrain_gnns_gcn,
    pretrain_gnns_sage,
)
from molhpft.kernels import cpu, ops
from molhpft.kernels.cpu_loops import narrowed, widened
from molhpft.kernels.reference import Epilogue
from tests.kernels.graphs import (
    EMPTY,
    KINDS,
    LONE,
    RING,
    STAR,
    batch_norm,
    draw_leaves,
    gradients,
    seeds,
    some_graphs,
    widths,
)

HALF = torch.empty(0, dtype=torch.uint16).numpy()
# half a unit in the last place, for numbers that were rounded once
ROUNDED = {"rtol": 2**-8, "atol": 1e-5}
ROWS = torch.arange(600)[:, None] % 7


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
    rows = torch.arange(2**16).to(torch.uint16).view(torch.bfloat16).reshape(256, 256)
    # infinite numbers times a factor stay, and the sign of zero is no matter
    out = cpu.activate(rows, torch.ones(256), torch.zeros(256), Epilogue(relu=False))
    torch.testing.assert_close(out, rows, rtol=0, atol=0, equal_nan=True)


def assert_rounded(operation, rows, weights):
    """For bfloat16 rows, rows that come out are those of float32 rounded, sums are float32."""
    half = rows.detach().bfloat16().requires_grad_()
    results = []
    for leaf in (half, half.detach().float().requires_grad_()):
        out = operation(leaf, *weights)
        assert type(out.grad_fn).__name__ == "_FusedBackward"
        assert out.dtype == leaf.dtype
        g = torch.randn(out.shape, generator=torch.Generator().manual_seed(7)).bfloat16()
        results.append((out, *torch.autograd.grad(out, [leaf, *weights], g.to(out.dtype))))
    for k, (ours, theirs) in enumerate(zip(*results, strict=True)):
        assert ours.dtype == (torch.bfloat16 if k < 2 else torch.float32)
        error = ROUNDED if k < 2 else {"rtol": 1e-4, "atol": 1e-4}
        torch.testing.assert_close(ours.float(), theirs, **error)


@given(graph=some_graphs, width=widths, seed=seeds)
@settings(max_examples=30, deadline=None)
def test_a_convolution_of_bfloat16_is_that_of_float32_rounded(graph, width, seed):
    x, *weights = draw_leaves((len(graph.degree), width), (KINDS, width), (width,), seed=seed)
    assert_rounded(lambda *a: ops.convolve(*a, graph), x, weights)


@pytest.mark.parametrize("graph", [STAR, EMPTY, LONE, RING], ids=["star", "empty", "lone", "ring"])
def test_propagation_of_bfloat16_is_that_of_float32_rounded(graph):
    (x,) = draw_leaves((len(graph.degree), 37))
    assert_rounded(lambda x: ops.propagate(x, graph), x, [])


@pytest.mark.slow
@given(
    rows=st.sampled_from([2, 5, 300, 700]),
    relu=st.booleans(),
    dropout=st.sampled_from([0.0, 0.5]),
    seed=seeds,
)
@settings(max_examples=30, deadline=None)
def test_batch_norm_of_bfloat16_is_that_of_float32_rounded(rows, relu, dropout, seed):
    a, weight, bias = draw_leaves((rows, 32), (32,), (32,), seed=seed)
    norms = []

    def normalised(a, weight, bias):
        norms.append(batch_norm(32))
        norms[-1].weight, norms[-1].bias = weight, bias
        torch.manual_seed(3)
        return ops.normalise(a, norms[-1], relu=relu, dropout=dropout, training=True)

    weights = [torch.nn.Parameter(weight.detach()), torch.nn.Parameter(bias.detach())]
    assert_rounded(normalised, a, weights)
    for name in ("running_mean", "running_var"):
        ours, theirs = (getattr(norm, name) for norm in norms)
        assert ours.dtype == torch.float32
        torch.testing.assert_close(ours, theirs)


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
    "all layers": lambda: ogb_gcn(
        layers=3, width=32, dropout=0.0, jumping_knowledge=True, pool="mean+sum", residual=True
    ),
    "gine": lambda: gine(layers=3, width=32, dropout=0.0, norm="layer", pool="attention"),
    **{
        build.__name__: partial(build, layers=3, width=32, dropout=0.0)
        for build in (
            *(pretrain_gnns_gcn, pretrain_gnns_sage, pretrain_gnns_gat, molclr_gcn, molclr_gin),
        )
    },
}


@pytest.mark.parametrize("build", ENCODERS.values(), ids=ENCODERS)
def test_an_encoder_under_autocast_is_about_as_exact_as_pytorchs_autocast(build, monkeypatch):
    torch.manual_seed(0)
    chain = build()
    store = pack(["C", "[Na+].[Cl-]", "c1ccc2ccccc2c1", "FS(F)(F)(F)(F)F", "CC(=O)[O-].[NH4+]"])
    batch = Batch(store.take(torch.arange(60) % len(store)), torch.zeros(60, 1))
    target = torch.randn(60, chain.width)

    def numbers(*, rounded):
        with torch.autocast("cpu", torch.bfloat16, enabled=rounded):
            z = chain(batch.inputs, batch)
        # a projection is one more product
        half = rounded and "project" in chain.names
        assert z.dtype == (torch.bfloat16 if half else torch.float32)
        # the bias before a batch norm has no gradient but rounding
        weights = [p for name, p in chain.named_parameters() if "linear.bias" not in name]
        return *torch.autograd.grad((z * target).sum(), weights), z.detach().float()

    exact, ours = numbers(rounded=False), numbers(rounded=True)
    monkeypatch.setenv("MOLHPFT_KERNELS", "reference")
    errors = [
        torch.cat([(a - b).flatten() for a, b in zip(exact, rounded, strict=True)]).norm()
        for rounded in (ours, numbers(rounded=True))
    ]
    assert errors[0] < 4 * errors[1]
    assert (exact[-1] - ours[-1]).norm() < 0.05 * exact[-1].norm()


@pytest.fixture
def two_threads():
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(1)


def numbers(dtype=torch.float32):
    """Value and gradients of every fused operation, several parts of rows each."""
    torch.manual_seed(0)
    x, bond, root, table = draw_leaves((600, 33), (KINDS, 33), (33,), (7, 33))
    h = (ops.embed(ROWS, table) + ops.propagate(x, RING)).to(dtype)
    h = ops.convolve(h, bond, root, RING)
    h = ops.normalise(h, batch_norm(33), relu=True, dropout=0.5, training=True)
    return h.detach(), *gradients(h, [x, bond, root, table])


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_two_threads_give_the_numbers_of_one_and_of_another_time(two_threads, dtype):
    two, again = numbers(dtype), numbers(dtype)
    assert torch.get_num_threads() == 2
    torch.set_num_threads(1)
    for one, *others in zip(numbers(dtype), two, again, strict=True):
        assert all(torch.equal(one, other) for other in others)
    assert torch.get_num_threads() == 1


def test_an_empty_graph_needs_no_thread(two_threads):
    assert ops.embed(ROWS[:0], torch.ones(7, 3)).shape == (0, 3)
    assert ops.propagate(torch.ones(600, 0), RING).shape == (600, 0)


def run(code, **variables):
    """Standard output and errors of a fresh process."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **variables},
        check=True,
        capture_output=True,
        text=True,
    )
    return done.stdout, done.stderr


@pytest.mark.slow
def test_kernels_are_compiled_once_and_then_read_back_and_not_for_the_reference(tmp_path):
    code = """
import torch
from molhpft.kernels.ops import normalise
normalise(torch.ones(9, 3), torch.nn.BatchNorm1d(3), relu=True, dropout=0.5, training=True)
"""

    def compiled(**variables):
        before = set(Path(tmp_path).rglob("*.nbc"))
        run(code, NUMBA_CACHE_DIR=str(tmp_path), OMP_NUM_THREADS="1", **variables)
        return set(Path(tmp_path).rglob("*.nbc")) - before

    assert not compiled(MOLHPFT_KERNELS="reference")
    assert compiled()
    assert not compiled()


@pytest.mark.slow
def test_without_a_folder_to_store_them_kernels_run_and_a_warning_says_so():
    printed, errors = run("""
import logging, torch
from numba.core.caching import CacheImpl
CacheImpl._locator_classes = []
from molhpft.kernels import cpu, cpu_loops
from molhpft.kernels.reference import Epilogue
x = torch.ones(2, 2)
print(cpu.activate(x, x[0], x[0], Epilogue(relu=True)).sum().item())
""")
    assert printed.split() == ["8.0"]
    assert "compiled anew in every process" in errors
    assert "NUMBA_CACHE_DIR" in errors
