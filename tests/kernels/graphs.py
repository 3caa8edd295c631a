"""Symmetric graphs of every awkward shape, random leaves, and batch norms that were trained."""

import torch
from hypothesis import strategies as st
from torch import nn

from molhpft.kernels.reference import CSRGraph

KINDS = 4


def graph_of(nodes, bonds, kinds):
    """Edges in both directions of `bonds` (pairs of different nodes), each with its kind."""
    ends = torch.tensor(bonds, dtype=torch.long).reshape(-1, 2)
    source = torch.cat([ends[:, 0], ends[:, 1]])
    target, order = torch.cat([ends[:, 1], ends[:, 0]]).sort(stable=True)
    source, kind = source[order], torch.tensor(kinds, dtype=torch.long).repeat(2)[order]
    degree = torch.bincount(target, minlength=nodes).float() + 1
    pointer = torch.searchsorted(target, torch.arange(nodes + 1))
    norm = (degree[source] * degree[target]).rsqrt()
    return CSRGraph(pointer, source, target, kind, norm, degree)


STAR = graph_of(61, [(0, i) for i in range(1, 61)], [i % KINDS for i in range(60)])
EMPTY = graph_of(0, [], [])
LONE = graph_of(1, [], [])
RING = graph_of(600, [(i, (i + 1) % 600) for i in range(600)], [0] * 600)  # several parts of rows


@st.composite
def graphs(draw):
    nodes = draw(st.integers(0, 9))
    numbers = st.integers(0, max(nodes - 1, 0))
    pair = st.tuples(numbers, numbers).filter(lambda ends: ends[0] != ends[1])
    bonds = draw(st.lists(pair, max_size=14)) if nodes > 1 else []
    kinds = draw(st.lists(st.integers(0, KINDS - 1), min_size=len(bonds), max_size=len(bonds)))
    return graph_of(nodes, bonds, kinds)


seeds = st.integers(0, 999)
widths = st.sampled_from([1, 3, 16, 37])
some_graphs = graphs() | st.sampled_from([STAR, EMPTY, LONE, RING])


def draw_leaves(*shapes, seed=0, dtype=torch.float32):
    rng = torch.Generator().manual_seed(seed)
    return [
        torch.randn(shape, generator=rng, dtype=torch.float64).to(dtype).requires_grad_()
        for shape in shapes
    ]


def gradients(result, leaves, seed=7):
    """Gradients of a random linear function of the result."""
    g = torch.randn(result.shape, generator=torch.Generator().manual_seed(seed)).to(result)
    return torch.autograd.grad(result, leaves, g)


def assert_same(fused, plain, leaves):
    """Two functions of the same leaves have the same value and gradients, up to float32."""
    ours, theirs = fused(*leaves), plain(*leaves)
    assert type(ours.grad_fn).__name__ == "_FusedBackward"
    torch.testing.assert_close(ours, theirs)
    for a, b in zip(gradients(ours, leaves), gradients(theirs, leaves), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def batch_norm(width, *, trained=True, **options):
    norm = nn.BatchNorm1d(width, **options)
    with torch.no_grad():
        for tensor in (norm.weight, norm.bias, norm.running_mean):
            tensor.normal_(generator=torch.Generator().manual_seed(1))
        norm.running_var.uniform_(0.5, 2, generator=torch.Generator().manual_seed(2))
    return norm.train(trained)
