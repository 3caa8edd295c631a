"""Small random graphs with float features that the tests of this folder batch and train on."""

import torch
from torch_geometric.data import Batch as Graphs
from torch_geometric.data import Data

from molhpft.core.network import Batch

NODES, EDGES = 6, 3
"""Columns of `x` and of `edge_attr`."""


def graph(nodes, *, seed=0, y=None):
    """An undirected graph of some nodes; a ring where the seed is even, else a path."""
    rng = torch.Generator().manual_seed(1000 * nodes + seed)
    begin = torch.arange(nodes if seed % 2 == 0 and nodes > 2 else max(nodes - 1, 0))
    ends = torch.stack([begin, (begin + 1) % max(nodes, 1)])
    features = torch.randn(len(begin), EDGES, generator=rng)
    weights = torch.rand(len(begin), generator=rng)
    return Data(
        x=torch.randn(nodes, NODES, generator=rng),
        edge_index=torch.cat([ends, ends.flip(0)], 1),
        edge_attr=features.repeat(2, 1),
        edge_weight=weights.repeat(2),
        y=y,
    )


def batch(*sizes):
    """Graphs of these sizes, put together by torch_geometric, without labels."""
    graphs = [graph(nodes, seed=k) for k, nodes in enumerate(sizes)]
    return Batch(Graphs.from_data_list(graphs), torch.zeros(len(sizes), 1))


def rings_and_paths(n=60):
    """Graphs labelled by whether they are rings."""
    return [graph(3 + k // 2 % 7, seed=k, y=torch.tensor([1 - k % 2])) for k in range(n)]
