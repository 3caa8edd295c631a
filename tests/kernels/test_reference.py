"""Plain operations: gradients, which entries dropout drops, and graphs collated from lists."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from molhpft.kernels import ops, reference
from molhpft.kernels.reference import Epilogue, apply_epilogue, draw_epilogue
from tests.kernels.graphs import EMPTY, KINDS, STAR, batch_norm, draw_leaves, seeds, some_graphs

dropout_seeds = st.integers(0, 2**63 - 1)


@pytest.mark.parametrize("graph", [STAR, EMPTY], ids=["high degree", "no atoms"])
def test_a_convolution_has_the_gradients_of_finite_differences(graph):
    leaves = draw_leaves((len(graph.degree), 2), (KINDS, 2), (2,), dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda *a: reference.convolve(*a, graph), leaves)


@given(graph=some_graphs, seed=seeds)
@settings(max_examples=30, deadline=None)
def test_propagation_is_the_product_with_a_symmetric_matrix(graph, seed):
    (x,) = draw_leaves((len(graph.degree), 5), seed=seed)
    matrix = torch.diag(1 / graph.degree)
    matrix.index_put_((graph.target, graph.source), graph.norm, accumulate=True)
    torch.testing.assert_close(matrix, matrix.T)
    for propagate in (ops.propagate, reference.propagate):
        torch.testing.assert_close(propagate(x, graph), matrix @ x)


@pytest.mark.parametrize("of_batch", [True, False])
def test_batch_norm_has_the_gradients_of_finite_differences(of_batch):
    norm, epilogue = batch_norm(3, trained=of_batch).double(), Epilogue(True, 0.3, seed=5)
    leaves = draw_leaves((6, 3), dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda a: reference.normalise(a, norm, epilogue), leaves)


def mask_of(n, d, *, dropout=0.5, seed=0):
    epilogue = Epilogue(relu=False, dropout=dropout, seed=seed)
    return reference.dropout_mask(n, d, epilogue, device="cpu").double()


@given(dropout=st.floats(0.01, 0.99), seed=dropout_seeds)
@settings(max_examples=25, deadline=None)
def test_entries_are_dropped_as_often_as_they_should_be(dropout, seed):
    n, d = 400, 250
    std = (dropout * (1 - dropout) / (n * d)) ** 0.5
    assert abs(mask_of(n, d, dropout=dropout, seed=seed).mean() - (1 - dropout)) < 6 * std


@given(seed=dropout_seeds)
@settings(max_examples=10, deadline=None)
def test_every_row_and_every_column_drops_as_often(seed):
    mask = mask_of(512, 512, seed=seed)
    for means in (mask.mean(0), mask.mean(1)):
        assert (means - 0.5).abs().max() < 6 * (0.25 / 512) ** 0.5
        # neither more nor less uneven than independent draws
        assert means.var() == pytest.approx(0.25 / 512, rel=0.35)


@pytest.mark.parametrize("shift", [(0, 1), (1, 0), (1, 1), (2, -1), (0, 16), (64, 0)])
@given(seed=dropout_seeds)
@settings(max_examples=5, deadline=None)
def test_neighbouring_entries_are_independent(shift, seed):
    mask = mask_of(600, 600, seed=seed) - 0.5
    correlation = (mask * mask.roll(shift, dims=(0, 1))).mean() / 0.25
    assert correlation.abs() < 6 / 600


@given(seed=dropout_seeds, bit=st.integers(0, 62))
@settings(max_examples=20, deadline=None)
def test_seeds_that_differ_in_one_bit_drop_independent_entries(seed, bit):
    first, second = (mask_of(300, 300, seed=s) - 0.5 for s in (seed, seed ^ (1 << bit)))
    assert ((first * second).mean() / 0.25).abs() < 6 / 300


def test_a_row_drops_alike_whatever_rows_follow():
    assert torch.equal(mask_of(5, 8), mask_of(50, 8)[:5])


def test_entries_that_stay_are_scaled_so_that_the_mean_stays():
    h = apply_epilogue(torch.ones(300, 300), Epilogue(relu=False, dropout=0.2, seed=1))
    assert h.unique().tolist() == [0, 1.25]
    assert h.mean().item() == pytest.approx(1, abs=0.02)
    assert not apply_epilogue(h, Epilogue(relu=True, dropout=1.0, seed=1)).any()


def test_seeds_are_drawn_from_the_global_generator_and_only_for_dropout():
    torch.manual_seed(0)
    first, second = (draw_epilogue(relu=True, dropout=0.5) for _ in range(2))
    state = torch.get_rng_state()
    assert draw_epilogue(relu=True, dropout=0.0) == Epilogue(relu=True)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(0)
    assert draw_epilogue(relu=True, dropout=0.5) == first
    assert first.seed != second.seed


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


def packed(sizes, ends):
    """The arguments of `collate`, with features that are all different."""
    n, m = sum(sizes), sum(map(len, ends))
    return {
        "nodes": torch.arange(n * 3, dtype=torch.uint8).reshape(n, 3),
        "edges": torch.arange(m * 2, dtype=torch.uint8).reshape(m, 2),
        "ends": torch.tensor([e for one in ends for e in one], dtype=torch.int16).reshape(m, 2),
        "node_offsets": torch.tensor([0, *sizes]).cumsum(0),
        "edge_offsets": torch.tensor([0, *map(len, ends)]).cumsum(0),
    }


def collated_lists(sizes, ends, rows):
    """What `collate` should give, by Python's own lists."""
    tensors = packed(sizes, ends)
    nodes, there, back, graph, offsets = [], [], [], [], [0]
    for k, row in enumerate(rows):
        first, begin = len(nodes), int(tensors["node_offsets"][row])
        nodes += tensors["nodes"][begin : begin + sizes[row]].tolist()
        for e, (i, j) in enumerate(ends[row], start=int(tensors["edge_offsets"][row])):
            feature = tensors["edges"][e].tolist()
            there.append((first + j, first + i, feature))
            back.append((first + i, first + j, feature))
        graph += [k] * sizes[row]
        offsets.append(len(nodes))
    edges = sorted(there + back, key=lambda edge: edge[0])  # stable
    pointer = [sum(edge[0] < i for edge in edges) for i in range(len(nodes) + 1)]
    target, source, features = ([edge[c] for edge in edges] for c in range(3))
    return [nodes, source, target, features, pointer, graph, offsets]


@pytest.fixture(params=["auto", "reference"])
def collate(request, monkeypatch):
    monkeypatch.setenv("MOLHPFT_KERNELS", request.param)
    return ops.collate


@given(drawn=packed_graphs())
@settings(max_examples=100, deadline=None)
@pytest.mark.parametrize("setting", ["auto", "reference"])
def test_graphs_are_collated_as_lists_are(setting, drawn):
    sizes, ends, rows = drawn
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MOLHPFT_KERNELS", setting)
        batch = ops.collate(torch.tensor(rows, dtype=torch.int64), **packed(sizes, ends))
    assert [tensor.tolist() for tensor in batch] == collated_lists(sizes, ends, rows)


def test_shapes_and_dtypes_hold_for_no_graphs_at_all(collate):
    batch = collate(torch.tensor([], dtype=torch.int64), **packed([2], [[(0, 1)]]))
    assert [tuple(t.shape) for t in batch] == [(0, 3), (0,), (0,), (0, 2), (1,), (0,), (1,)]
    narrow, wide = torch.uint8, torch.int64
    assert [t.dtype for t in batch] == [narrow, wide, wide, narrow, wide, wide, wide]


def test_a_batch_shares_no_memory_with_the_packed_graphs(collate):
    tensors = packed([2, 3], [[(0, 1)], [(0, 2), (1, 2)]])
    for tensor in collate(torch.tensor([1, 0]), **tensors):
        tensor.zero_()
    assert tensors["nodes"].sum()
    assert tensors["edges"].sum()
