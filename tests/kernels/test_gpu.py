"""GPU kernels against plain PyTorch: on a GPU where there is one, else interpreted on the CPU."""

import os
import subprocess
import sys
from dataclasses import fields, replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("triton", exc_type=ImportError)

from molhpft.kernels import dispatch, gpu, ops, reference
from molhpft.kernels.reference import CSRGraph, Epilogue
from tests.kernels.graphs import (
    EMPTY,
    KINDS,
    RING,
    STAR,
    batch_norm,
    draw_leaves,
    gradients,
    graph_of,
    graphs,
    seeds,
)
from tests.marks import slow

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"

# 65 atoms in three tiles of rows, 320 edges in two parts
LATTICE = graph_of(65, [(i, (i + step) % 65) for step in (1, 7) for i in range(65)], [0, 3] * 65)
some_graphs = graphs() | st.sampled_from([STAR, EMPTY, LATTICE])
widths = st.sampled_from([1, 7, 65])
few = settings(max_examples=8, deadline=None)  # each is interpreted


def on_device(graph):
    return CSRGraph(**{f.name: getattr(graph, f.name).to(DEVICE) for f in fields(graph)})


def draw(*shapes, seed=0, dtype=torch.float32):
    leaves = draw_leaves(*shapes, seed=seed)
    return [leaf.detach().to(DEVICE, dtype).requires_grad_() for leaf in leaves]


@pytest.fixture
def on_gpu(monkeypatch):
    """Operations use these kernels, as they do on a GPU anyway."""
    monkeypatch.setattr(dispatch, "_cpu", lambda: gpu)


def assert_convolution_is_the_plain_one(graph, width, seed=0):
    graph = on_device(graph)
    x, bond, root = leaves = draw((len(graph.degree), width), (KINDS, width), (width,), seed=seed)
    plain, g = reference.convolve(*leaves, graph), torch.randn_like(x)
    torch.testing.assert_close(gpu.convolve(*leaves, graph), plain)
    ours = gpu.convolve_backward(g, x, bond, root, graph)
    theirs = torch.autograd.grad(plain, leaves, g)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@given(graph=some_graphs, width=widths, seed=seeds)
@few
def test_a_convolution_and_its_gradients_equal_the_plain_ones(graph, width, seed):
    assert_convolution_is_the_plain_one(graph, width, seed)


@pytest.mark.parametrize(
    ("graph", "width"),
    [slow(STAR, 300), (RING, 3), (LATTICE, 128)],
)
def test_wide_rows_and_many_atoms_are_served_too(graph, width):
    assert_convolution_is_the_plain_one(graph, width)


def test_more_kinds_of_bonds_than_one_program_sums_up_are_summed_up_too():
    kinds = 2 * gpu.KINDS.value + 3
    graph = replace(LATTICE, kind=torch.arange(len(LATTICE.kind)) % kinds)
    x, bond, root = leaves = draw((65, 5), (kinds, 5), (5,))
    g = torch.randn_like(x)
    ours = gpu.convolve_backward(g, x, bond, root, on_device(graph))[1]
    # kinds differ between the directions of an edge here, so only the sums by edge are the same
    theirs = torch.autograd.grad(reference.convolve(*leaves, on_device(graph)), bond, g)[0]
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


@given(graph=some_graphs, width=widths, seed=seeds)
@few
def test_propagation_and_its_gradient_equal_the_plain_ones(graph, width, seed):
    graph = on_device(graph)
    (x,) = draw((len(graph.degree), width), seed=seed)
    plain, g = reference.propagate(x, graph), torch.randn_like(x)
    torch.testing.assert_close(gpu.propagate(x, graph), plain)
    torch.testing.assert_close(gpu.propagate(g, graph), torch.autograd.grad(plain, x, g)[0])


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


epilogues = st.builds(
    Epilogue,
    relu=st.booleans(),
    dropout=st.sampled_from([0.0, 0.3, 0.5, 1.0]),
    seed=st.integers(0, 2**63 - 1) | st.sampled_from([0, 1, 2**31, 2**32 - 1, 2**63 - 1]),
)


@pytest.mark.slow
@given(epilogue=epilogues, rows=st.sampled_from([0, 1, 33, 300]), width=widths)
@settings(max_examples=20, deadline=None)
def test_values_and_gradients_behind_batch_norm_equal_the_plain_ones(epilogue, rows, width):
    g, a = (t.detach() for t in draw((rows, width), (rows, width)))
    factor, shift, mean, slope, offset = (t.detach() for t in draw(*[(width,)] * 5))
    value = factor * a + shift
    stays = reference.dropout_mask(rows, width, epilogue, device=DEVICE)
    alive = stays & (value > 0) if epilogue.relu else stays
    passed = torch.where(alive, g, 0.0)
    torch.testing.assert_close(
        gpu.activate(a, factor, shift, epilogue), torch.where(alive, value, 0.0)
    )
    sums = gpu.activate_sums(g, a, factor, shift, epilogue, mean)
    expected = passed.sum(0), (passed * (a - mean)).sum(0)
    torch.testing.assert_close(sums, expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(
        gpu.activate_backward(g, a, factor, shift, epilogue, slope, offset),
        factor * passed + slope * a + offset,
        rtol=1e-4,
        atol=1e-5,
    )


@pytest.mark.slow
def test_rows_of_lower_precision_are_rounded_and_nothing_else_is():
    graph, epilogue = on_device(STAR), Epilogue(relu=True, dropout=0.5, seed=3)
    x, g = (t.detach() for t in draw((61, 7), (61, 7), dtype=torch.bfloat16))
    bond, root, mean = (t.detach() for t in draw((KINDS, 7), (7,), (7,), seed=1))
    x32, g32 = x.float(), g.float()
    pairs = [
        (gpu.convolve(x, bond, root, graph), gpu.convolve(x32, bond, root, graph)),
        (gpu.propagate(x, graph), gpu.propagate(x32, graph)),
        (gpu.activate(x, root, mean, epilogue), gpu.activate(x32, root, mean, epilogue)),
        *zip(
            gpu.convolve_backward(g, x, bond, root, graph),
            gpu.convolve_backward(g32, x32, bond, root, graph),
            strict=True,
        ),
        *zip(
            gpu.activate_sums(g, x, root, mean, epilogue, mean),
            gpu.activate_sums(g32, x32, root, mean, epilogue, mean),
            strict=True,
        ),
    ]
    for low, high in pairs:
        # the interpreter cuts digits off, a GPU rounds
        digits = 2.0**-7 if low.dtype == torch.bfloat16 else 0
        torch.testing.assert_close(low.float(), high, rtol=digits, atol=0)
    assert [low.dtype for low, _ in pairs[:4]] == [torch.bfloat16] * 4
    assert {low.dtype for low, _ in pairs[4:]} == {torch.float32}


def step(graph, rows):
    """Value and gradients of every operation that has a kernel."""
    torch.manual_seed(0)
    x, bond, root, table = leaves = draw((61, 9), (KINDS, 9), (9,), (7, 9))
    h = ops.embed(rows, table) + ops.propagate(x, graph)
    h = ops.convolve(h, bond, root, graph)
    h = ops.normalise(h, batch_norm(9).to(DEVICE), relu=True, dropout=0.5, training=True)
    assert type(h.grad_fn).__name__ == "_FusedBackward"
    return h.detach(), *gradients(h, leaves)


@pytest.mark.slow
def test_operations_give_the_same_numbers_every_time_and_those_of_the_cpu(monkeypatch):
    graph, rows = on_device(STAR), (torch.arange(61, device=DEVICE) % 7)[:, None]
    others = step(graph, rows) if DEVICE == "cpu" else None
    monkeypatch.setattr(dispatch, "_cpu", lambda: gpu)
    first, again = step(graph, rows), step(graph, rows)
    assert all(torch.equal(one, other) for one, other in zip(first, again, strict=True))
    if others:
        for one, other in zip(first, others, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_results_do_not_depend_on_the_memory_layout(on_gpu):
    graph = on_device(STAR)
    x, bond, root = draw((61, 8), (KINDS, 8), (8,))
    turned = x.detach().T.contiguous().T.requires_grad_()
    ours, theirs = (ops.convolve(h, bond, root, graph) for h in (x, turned))
    assert torch.equal(ours, theirs)
    same = (torch.autograd.grad(out.sum(), h)[0] for out, h in ((ours, x), (theirs, turned)))
    assert torch.equal(*same)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_not_finite_reaches_the_neighbours_and_no_other_atom(bad):
    x, bond, root = (leaf.detach() for leaf in draw((65, 3), (KINDS, 3), (3,)))
    x[20] = bad
    out = gpu.convolve(x, bond, root, on_device(LATTICE))
    assert (~out.isfinite()).any(1).nonzero().flatten().tolist() == [13, 19, 20, 21, 27]


def test_the_first_layer_of_an_encoder_learns_under_autocast(on_gpu):
    table, weight, bias = leaves = draw((6, 16), (8, 16), (8,))
    rows = torch.arange(90, device=DEVICE).view(30, 3) % 6
    expected = torch.autograd.grad(
        torch.nn.functional.linear(reference.embed(rows, table), weight, bias).square().sum(),
        leaves,
    )
    with torch.autocast(DEVICE, torch.bfloat16):
        out = ops.linear(ops.embed(rows, table), weight, bias, for_weights=True)
    assert out.dtype == torch.bfloat16
    for found, plain in zip(
        torch.autograd.grad(out.float().square().sum(), leaves), expected, strict=True
    ):
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, plain, rtol=0.03, atol=0.03 * float(plain.abs().max()))


# a fresh process: this one may have imported triton as an interpreter
COMPILE = """
import torch
from triton.backends.compiler import GPUTarget
from triton.runtime import driver

class Target:
    '''Stands for the driver of a GPU; compiling asks it for the generation and no more.'''

    def get_current_target(self):
        return GPUTarget("cuda", 90, 32)

    def get_current_device(self):
        return 0

    def get_current_stream(self, device):
        return 0

driver.set_active(Target())

from molhpft.kernels import gpu
from molhpft.kernels.reference import Epilogue
from tests.kernels.graphs import STAR, draw_leaves

machine_code = []

def compiled(program, grid, *arguments):
    options = {"enable_fp_fusion": False}
    machine_code.append(program.warmup(*arguments, grid=grid, **options).asm["cubin"])

gpu._launch = compiled
bond, root, table = (leaf.detach() for leaf in draw_leaves((60, 300), (300,), (61, 300)))
for dtype, relu, dropout in ((torch.float32, True, 0.5), (torch.bfloat16, False, 0.0)):
    x, epilogue = table.to(dtype), Epilogue(relu=relu, dropout=dropout, seed=2**63 - 1)
    gpu.convolve(x, bond, root, STAR)
    gpu.convolve_backward(x, x, bond, root, STAR)
    gpu.propagate(x, STAR)
    gpu.embed_backward(x, torch.zeros(61, 9, dtype=torch.long), 174)
    gpu.moments(x)
    gpu.activate(x, root, root, epilogue)
    gpu.activate_sums(x, x, root, root, epilogue, root)
    gpu.activate_backward(x, x, root, root, epilogue, root, root)
print(len([code for code in machine_code if code.startswith(b"\\x7fELF")]))
"""


@pytest.mark.slow
def test_every_program_compiles_for_a_gpu(tmp_path):
    environment = {**os.environ, "TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", COMPILE],
        env=environment,
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["18"]
