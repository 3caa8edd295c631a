"""Transport along edges, against a linear program and against Sinkhorn on matrices."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.optimize import linprog

from molhpft.core.network import Network, linear_head
from molhpft.domains.molecules.gcn import ogb_gcn
from molhpft.domains.molecules.graphs import pack
from molhpft.domains.molecules.pyg import to_pyg
from molhpft.tuning import transport
from molhpft.tuning.transport import (
    half_cosine_distance,
    masked_transport,
    routes_of,
    transport_plan,
    transported_stage,
)
from tests.toy import toy_network

SMILES = ("CCO", "c1ccccc1N", "C", "CC(=O)OC1CCCC1", "[Na+].[Cl-]")


def graphs():
    return pack(SMILES).take(torch.arange(len(SMILES)))


def features(seed, width=6):
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(len(graphs().graph), width, generator=rng, dtype=torch.float64)


def matrices(batch, h, start):
    """Cost and mask of each graph alone, dense: a row for each node as it was."""
    edges = set(zip(batch.source.tolist(), batch.target.tolist(), strict=True))
    for first, last in zip(batch.offsets[:-1].tolist(), batch.offsets[1:].tolist(), strict=True):
        nodes = range(first, last)
        cosine = torch.nn.functional.cosine_similarity(
            start[first:last, None], h[None, first:last], dim=2
        )
        mask = np.array([[i == j or (i, j) in edges for j in nodes] for i in nodes])
        yield ((1 - cosine) / 2).numpy(), mask


def linear_program(cost, mask):
    """The cheapest plan among the entries of the mask, both marginals uniform."""
    n, entries = len(cost), np.argwhere(mask)
    rows = np.zeros((2 * n, len(entries)))
    for column, (i, j) in enumerate(entries):
        rows[i, column] = rows[n + j, column] = 1
    return linprog(cost[mask], A_eq=rows, b_eq=np.full(2 * n, 1 / n)).fun


def sinkhorn(cost, mask, *, epsilon, iterations):
    """Cuturi's iterations on the masked kernel; the cost of the plan."""
    kernel = np.where(mask, np.exp(-cost / epsilon), 0)
    right = np.ones(len(cost))
    for _ in range(iterations):
        left = 1 / len(cost) / (kernel @ right)
        right = 1 / len(cost) / (kernel.T @ left)
    return (left[:, None] * kernel * right * cost).sum()


def costs_of(plan, cost, routes, batch):
    """Cost of each graph's plan."""
    return torch.zeros(len(batch)).double().index_add(0, batch.graph[routes.source], plan * cost)


def planned(h, start):
    batch = graphs()
    routes = routes_of(batch)
    cost = half_cosine_distance(h[routes.target], start[routes.source])
    return costs_of(transport_plan(cost, routes), cost, routes, batch), batch


def test_with_little_entropy_the_plan_is_that_of_a_linear_program(monkeypatch):
    monkeypatch.setattr(transport, "EPSILON", 0.003)
    monkeypatch.setattr(transport, "ITERATIONS", 5000)
    h, start = features(0), features(1)
    found, batch = planned(h, start)
    expected = [linear_program(*pair) for pair in matrices(batch, h, start)]
    assert found.tolist() == pytest.approx(expected, abs=1e-3)


def test_the_plan_is_that_of_sinkhorn_on_matrices():
    h, start = features(0), features(1)
    found, batch = planned(h, start)
    expected = [sinkhorn(*pair, epsilon=0.1, iterations=50) for pair in matrices(batch, h, start)]
    assert found.tolist() == pytest.approx(expected, rel=1e-5)
    assert masked_transport(h, start, routes_of(batch)).item() == pytest.approx(
        np.mean(expected), rel=1e-5
    )


def test_every_node_gives_and_gets_its_mass():
    h, start, routes = features(0), features(1), routes_of(graphs())
    plan = transport_plan(half_cosine_distance(h[routes.target], start[routes.source]), routes)
    for ends, rtol in ((routes.source, 0.02), (routes.target, 1e-5)):
        sums = torch.zeros_like(routes.mass).index_add(0, ends, plan.float())
        torch.testing.assert_close(sums, routes.mass, rtol=rtol, atol=0)


def test_a_graph_of_one_node_moves_along_itself_alone():
    one = pack(("C",)).take(torch.tensor([0]))
    h, start = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])
    assert masked_transport(h, start, routes_of(one)).item() == pytest.approx(0.5)


def test_what_a_neighbour_was_costs_nothing_and_what_a_stranger_was_does():
    chain = pack(("CCCC",)).take(torch.tensor([0]))
    start = torch.eye(4)
    there = masked_transport(start[[1, 0, 3, 2]], start, routes_of(chain))
    elsewhere = masked_transport(start[[3, 1, 2, 0]], start, routes_of(chain))
    assert there < 0.01
    assert elsewhere > 0.2


def test_the_gradient_is_that_of_the_cost_at_the_plan():
    h, start, routes = features(0).requires_grad_(), features(1), routes_of(graphs())
    (gradient,) = torch.autograd.grad(masked_transport(h, start, routes), h)
    cost = half_cosine_distance(h[routes.target], start[routes.source])
    total = (transport_plan(cost.detach(), routes) * cost).sum() / len(SMILES)
    (expected,) = torch.autograd.grad(total, h)
    torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-7)
    # a small step against it lowers the cost
    lower = masked_transport((h - 0.1 * gradient).detach(), start, routes)
    assert lower < masked_transport(h, start, routes)


def test_rows_of_zeros_have_a_finite_gradient():
    h = features(0)
    h[3] = 0
    h.requires_grad_()
    (gradient,) = torch.autograd.grad(masked_transport(h, features(1), routes_of(graphs())), h)
    assert gradient.isfinite().all()
    assert (gradient[3] == 0).all()


def test_routes_of_a_pyg_batch_are_those_of_our_own():
    ours, theirs = routes_of(graphs()), routes_of(to_pyg(graphs()))
    assert torch.equal(ours.mass, theirs.mass)
    pairs = (set(zip(r.source.tolist(), r.target.tolist(), strict=True)) for r in (ours, theirs))
    assert next(pairs) == next(pairs)


def test_a_loop_of_its_own_is_no_second_route():
    looped = SimpleNamespace(
        edge_index=torch.tensor([[0, 1, 0], [1, 0, 0]]),
        batch=torch.zeros(2, dtype=torch.long),
        ptr=torch.tensor([0, 2]),
    )
    routes = routes_of(looped)
    assert sorted(zip(routes.source.tolist(), routes.target.tolist(), strict=True)) == [
        (0, 0),
        (0, 1),
        (1, 0),
        (1, 1),
    ]


@pytest.mark.parametrize("options", [{}, {"virtual_node": True}, {"jumping_knowledge": True}])
def test_the_last_stage_of_nodes_is_compared(options):
    backbone = ogb_gcn(layers=2, width=4, **options)
    assert transported_stage(backbone) == "conv1"
    cut = Network(backbone, linear_head(backbone.width, 1)).cut("conv1")
    assert transported_stage(cut.backbone) == "conv0"


def test_what_has_no_nodes_is_refused():
    with pytest.raises(ValueError, match=r"no stage of the backbone gives nodes \(it has: layer0,"):
        transported_stage(toy_network().backbone)
    with pytest.raises(ValueError, match=r"edges of graphs, and a batch of this task holds Tensor"):
        routes_of(torch.ones(2, 3))
