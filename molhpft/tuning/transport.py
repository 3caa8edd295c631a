"""Optimal transport along the edges of graphs: how far the nodes of each moved, up to neighbours.

GTOT (Zhang et al., IJCAI 2022) compares the nodes of a graph as one network sees them with those as
another does by the masked Wasserstein distance

    min_P  sum_ij P_ij C_ij,   P 1 = P^T 1 = 1/N,   P >= 0,   P_ij = 0 where A_ij = 0

of `C_ij = (1 - cos(h_i, h'_j)) / 2`: mass moves along edges, or stays (`A` has ones on its
diagonal, so that there always is a plan). As there, an entropy of weight `EPSILON` is added and the
plan found by Sinkhorn's iterations, here over the list of edges, of all graphs at once.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from molhpft.core.annotations import Float, Int
from molhpft.core.network import Chain

EPSILON = 0.1  # as in the authors' code, which stops after at most 100 iterations
ITERATIONS = 50


@dataclass(frozen=True, eq=False)
class Routes:
    """Where mass may go in the graphs of a batch: from every node to its neighbours and itself.

    Attributes:
        source: int64 (R,), the node that mass leaves.
        target: int64 (R,), the one it comes to.
        mass: float (N,), of each node: those of a graph share 1.
    """

    source: Int[Tensor, " routes"]
    target: Int[Tensor, " routes"]
    mass: Float[Tensor, " nodes"]


def routes_of(inputs: Any) -> Routes:
    """The routes in a batch of graphs, packed molecules or a batch of torch_geometric.

    Raises:
        ValueError: the inputs are no graphs.
    """
    if hasattr(inputs, "edge_index"):
        (source, target), graph, counts = inputs.edge_index, inputs.batch, inputs.ptr.diff()
    elif hasattr(inputs, "source"):
        source, target, graph, counts = inputs.source, inputs.target, inputs.graph, inputs.counts
    else:
        raise ValueError(
            f"transport goes along the edges of graphs, and a batch of this task holds "
            f"{type(inputs).__name__}; leave node_transport out"
        )
    others, itself = source != target, torch.arange(len(graph), device=graph.device)
    return Routes(
        torch.cat([source[others], itself]),
        torch.cat([target[others], itself]),
        1 / counts[graph].float(),
    )


def half_cosine_distance(
    h: Float[Tensor, "n d"], start: Float[Tensor, "n d"]
) -> Float[Tensor, " n"]:
    """`(1 - cos) / 2` of rows, 0 to 1; rows of zeros have no direction, and a half."""
    lengths = h.norm(dim=1) * start.norm(dim=1)
    # twice: what is not taken must be finite too, as its gradient is multiplied by 0
    cosine = (h * start).sum(1) / torch.where(lengths > 0, lengths, 1)
    return (1 - torch.where(lengths > 0, cosine, 0)) / 2


@torch.no_grad()
def transport_plan(cost: Float[Tensor, " routes"], routes: Routes) -> Float[Tensor, " routes"]:
    """Mass on each route, by Sinkhorn's iterations in the logarithms: `exp((u + v - C) / EPSILON)`.

    The marginals of targets are exact after each iteration.

    Args:
        cost: of each route.
        routes: of all graphs.
    """
    kernel, log_mass = -cost / EPSILON, routes.mass.to(cost).log()
    v = torch.zeros_like(log_mass)
    for _ in range(ITERATIONS):
        u = log_mass - _log_sums(kernel + v[routes.target], routes.source, like=v)
        v = log_mass - _log_sums(kernel + u[routes.source], routes.target, like=v)
    return (kernel + u[routes.source] + v[routes.target]).exp()


def masked_transport(
    h: Float[Tensor, "nodes d"], start: Float[Tensor, "nodes d"], routes: Routes
) -> Float[Tensor, ""]:
    """Cost of the plan from nodes as they were to nodes as they are, mean over graphs.

    The plan is taken as a constant: the gradient of an optimal value in its costs is the optimal
    plan (Danskin's theorem).

    Args:
        h: features of nodes, that are trained.
        start: features of the same nodes as the phase began.
        routes: of the batch.
    """
    cost = half_cosine_distance(h[routes.target].float(), start[routes.source].float())
    plan = transport_plan(cost.detach(), routes)
    return (plan * cost).sum() / routes.mass.sum()


def transported_stage(backbone: Chain) -> str:
    """Name of the stage whose nodes are compared: the last one that gives nodes.

    Raises:
        ValueError: there is none.
    """
    names = [name for name, stage in backbone.named_stages().items() if stage.gives_nodes]
    if not names:
        raise ValueError(
            "node_transport compares the nodes of graphs, and no stage of the backbone gives nodes "
            f"(it has: {', '.join(backbone.names) or 'none'}); leave node_transport out"
        )
    return names[-1]


def _log_sums(values: Tensor, group: Tensor, *, like: Tensor) -> Tensor:
    """Logarithm of the sum of exponentials of the values in each group."""
    highest = torch.full_like(like, -torch.inf).scatter_reduce(0, group, values, "amax")
    sums = torch.zeros_like(like).index_add(0, group, (values - highest[group]).exp())
    return highest + sums.log()
