"""Graphs cut by the compiled loop against graphs cut by Python's own lists."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from molhpft.kernels.cpu import cut
from molhpft.kernels.dispatch import is_compiled_on

NODE_COLUMNS, EDGE_COLUMNS = 3, 2


@st.composite
def packed_graphs(draw):
    """Packed graphs, their edges with ends in any order, some without nodes; and rows of them."""
    sizes = draw(st.lists(st.integers(0, 6), min_size=1, max_size=5))
    ends = [
        draw(st.lists(st.permutations(range(n)).map(lambda order: order[:2]), max_size=9))
        if n > 1
        else []
        for n in sizes
    ]
    rows = draw(st.lists(st.integers(0, len(sizes) - 1), max_size=7))
    return sizes, ends, rows


def _packed(sizes, ends):
    """The arguments of `cut`, with features that are all different."""
    n, m = sum(sizes), sum(map(len, ends))
    return {
        "nodes": torch.arange(n * NODE_COLUMNS, dtype=torch.uint8).reshape(n, NODE_COLUMNS),
        "edges": torch.arange(m * EDGE_COLUMNS, dtype=torch.uint8).reshape(m, EDGE_COLUMNS),
        "ends": torch.tensor([e for one in ends for e in one], dtype=torch.int16).reshape(m, 2),
        "node_offsets": torch.tensor([0, *sizes]).cumsum(0),
        "edge_offsets": torch.tensor([0, *map(len, ends)]).cumsum(0),
    }


def _plain(sizes, ends, rows):
    """What `cut` should give: nodes, source, target, edges, pointer, graph, offsets."""
    packed = _packed(sizes, ends)
    nodes, there, back, graph, offsets = [], [], [], [], [0]
    for k, row in enumerate(rows):
        first, begin = len(nodes), int(packed["node_offsets"][row])
        nodes += packed["nodes"][begin : begin + sizes[row]].tolist()
        for e, (i, j) in enumerate(ends[row], start=int(packed["edge_offsets"][row])):
            feature = packed["edges"][e].tolist()
            there.append((first + j, first + i, feature))
            back.append((first + i, first + j, feature))
        graph += [k] * sizes[row]
        offsets.append(len(nodes))
    edges = sorted(there + back, key=lambda edge: edge[0])  # stable
    pointer = [sum(edge[0] < i for edge in edges) for i in range(len(nodes) + 1)]
    target, source, features = ([edge[c] for edge in edges] for c in range(3))
    return nodes, source, target, features, pointer, graph, offsets


@settings(max_examples=150, deadline=None)
@given(packed_graphs())
def test_the_loop_cuts_what_lists_cut(drawn):
    sizes, ends, rows = drawn
    found = cut(torch.tensor(rows, dtype=torch.int64), **_packed(sizes, ends))
    assert [tensor.tolist() for tensor in found] == list(_plain(sizes, ends, rows))


def test_shapes_and_dtypes_hold_for_no_graphs_at_all():
    found = cut(torch.tensor([], dtype=torch.int64), **_packed([2], [[(0, 1)]]))
    shapes = [(0, NODE_COLUMNS), (0,), (0,), (0, EDGE_COLUMNS), (1,), (0,), (1,)]
    assert [tuple(tensor.shape) for tensor in found] == shapes
    bytes_, wide = torch.uint8, torch.int64
    assert [t.dtype for t in found] == [bytes_, wide, wide, bytes_, wide, wide, wide]


def test_a_batch_shares_no_memory_with_the_packed_graphs():
    packed = _packed([2, 3], [[(0, 1)], [(0, 2), (1, 2)]])
    for tensor in cut(torch.tensor([1, 0]), **packed):
        tensor.zero_()
    assert packed["nodes"].sum()
    assert packed["edges"].sum()


def test_loops_are_compiled_for_the_cpu_unless_the_reference_is_asked_for(monkeypatch):
    monkeypatch.delenv("MOLHPFT_KERNELS", raising=False)
    assert is_compiled_on(torch.device("cpu"))
    assert not is_compiled_on(torch.device("cuda"))
    monkeypatch.setenv("MOLHPFT_KERNELS", "reference")
    assert not is_compiled_on(torch.device("cpu"))
    monkeypatch.setenv("MOLHPFT_KERNELS", "numba")
    with pytest.raises(ValueError, match="should be auto or reference"):
        is_compiled_on(torch.device("cpu"))
