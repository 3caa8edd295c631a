"""Fused messages along directed edges equal the plain ones, gradients of gradients included."""

import pytest
import torch
from hypothesis import given, settings

from molhpft.kernels import directed, reference
from molhpft.kernels.reference import BondGraph, reverse_edges
from tests.kernels.graphs import KINDS, RING, STAR, draw_leaves, seeds, some_graphs, widths
from tests.kernels.test_ops import assert_same

batches = settings(max_examples=40, deadline=None)


def bonds_of(graph):
    """The edges of a CSR graph, which may join two nodes several times, with their reverses."""
    reverse = reverse_edges(graph.source, graph.target, len(graph.degree))
    return BondGraph(graph.pointer, graph.source, graph.target, graph.kind, reverse)


@given(graph=some_graphs)
@batches
def test_every_edge_is_the_reverse_of_its_reverse(graph):
    reverse = bonds_of(graph).reverse
    assert torch.equal(reverse[reverse], torch.arange(len(reverse)))
    assert torch.equal(graph.source[reverse], graph.target)
    assert torch.equal(graph.target[reverse], graph.source)


@pytest.mark.parametrize("name", ["messages", "arrivals"])
@given(graph=some_graphs, width=widths, seed=seeds)
@batches
def test_fused_sums_over_edges_and_their_gradients_equal_the_plain_ones(name, graph, width, seed):
    bonds = bonds_of(graph)
    assert_same(
        lambda a: getattr(directed, name)(a, bonds),
        lambda a: getattr(reference, name)(a, bonds),
        draw_leaves((len(bonds.source), width), seed=seed),
    )


@given(graph=some_graphs, width=widths, seed=seeds)
@batches
def test_fused_states_of_bonds_and_their_gradients_equal_the_plain_ones(graph, width, seed):
    bonds = bonds_of(graph)
    assert_same(
        lambda p, q: directed.bond_states(p, q, bonds),
        lambda p, q: reference.bond_states(p, q, bonds),
        draw_leaves((len(graph.degree), width), (KINDS, width), seed=seed),
    )


def test_a_message_leaves_out_what_comes_back():
    bonds = bonds_of(STAR)
    a = torch.arange(1.0, len(bonds.source) + 1)[:, None]
    heard = reference.messages(a, bonds)
    to_the_middle = bonds.target == 0
    # a leaf has no other neighbour to hear from
    assert torch.equal(heard[to_the_middle], torch.zeros(60, 1))
    whole = a[to_the_middle].sum()
    came = a[bonds.reverse[~to_the_middle]]
    assert torch.equal(heard[~to_the_middle], whole - came)


@pytest.mark.slow
@pytest.mark.parametrize("threads", [1, 3])
def test_results_do_not_depend_on_the_number_of_threads(threads):
    bonds = bonds_of(RING)
    p, q, a = draw_leaves((600, 5), (KINDS, 5), (1200, 5))
    before = torch.get_num_threads()
    alone = [step(p, q, a, bonds) for step in STEPS]
    torch.set_num_threads(threads)
    try:
        together = [step(p, q, a, bonds) for step in STEPS]
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(x, y) for x, y in zip(alone, together, strict=True))


def gradient(result, leaf):
    return torch.autograd.grad(result.square().sum(), leaf)[0]


STEPS = (
    lambda p, q, a, bonds: gradient(directed.bond_states(p, q, bonds), p),
    lambda p, q, a, bonds: gradient(directed.bond_states(p, q, bonds), q),
    lambda p, q, a, bonds: gradient(directed.messages(a, bonds), a),
    lambda p, q, a, bonds: gradient(directed.arrivals(a, bonds), a),
)


def test_double_precision_is_computed_plainly():
    bonds = bonds_of(STAR)
    (a,) = draw_leaves((len(bonds.source), 3), dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda a: directed.messages(a, bonds), a)
    assert torch.autograd.gradcheck(lambda a: directed.arrivals(a, bonds), a)
