"""A batch of graphs cut from packed graphs in one pass over their memory, on the CPU."""

import torch
from torch import Tensor


def cut(
    rows: Tensor,
    *,
    nodes: Tensor,
    edges: Tensor,
    ends: Tensor,
    node_offsets: Tensor,
    edge_offsets: Tensor,
) -> tuple[Tensor, ...]:
    """The graphs `rows` (k,) as one graph of n nodes and 2 m directed edges.

    All tensors are on the CPU, without gaps, and what they say is not checked again.

    Args:
        rows: int64, from 0 and below the number of packed graphs.
        nodes: uint8 (N, a), features; graph after graph.
        edges: uint8 (M, b), features; each undirected edge once.
        ends: int16 (M, 2), node numbers within the graph.
        node_offsets: int64, first node of each graph, then N.
        edge_offsets: int64, first edge of each graph, then M.

    Returns:
        nodes (n, a); source and target (2 m,), sorted by target, stably: edges to second ends, then
        edges to first ends; their features (2 m, b); first edge of each node, then 2 m; graph of
        each node (n,); first node of each graph, then n.
    """
    # where it is first used: numba takes a good part of a second to import
    from molhpft.kernels import cut_loops

    packed = (nodes, edges, ends, node_offsets, edge_offsets)
    arrays = cut_loops.cut(rows.numpy(), *(tensor.numpy() for tensor in packed))
    return tuple(map(torch.from_numpy, arrays))
