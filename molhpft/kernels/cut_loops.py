"""The loop that cuts a batch of graphs from packed ones; see `compiled.py`."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from molhpft.kernels.compiled import Ints, loop

Bytes = NDArray[np.uint8]
Ends = NDArray[np.int16]


@loop
def lengths(rows: Ints, node_offsets: Ints, edge_offsets: Ints) -> tuple[int, int]:
    """Nodes and undirected edges of the graphs `rows`."""
    nodes, edges = 0, 0
    for row in rows:
        nodes += node_offsets[row + 1] - node_offsets[row]
        edges += edge_offsets[row + 1] - edge_offsets[row]
    return nodes, edges


@loop
def point(ends: Ends, begin: int, end: int, pointer: Ints, first: int, last: int) -> None:
    """Fill `pointer` for the nodes `first` to `last` of a graph, whose edges are given."""
    for e in range(begin, end):
        pointer[first + ends[e, 0] + 1] += 1
        pointer[first + ends[e, 1] + 1] += 1
    for i in range(first, last):
        pointer[i + 1] += pointer[i]


@loop
def cut(
    rows: Ints,
    nodes: Bytes,
    edges: Bytes,
    ends: Ends,
    node_offsets: Ints,
    edge_offsets: Ints,
) -> tuple[Any, ...]:
    """Nodes, source, target, edges, pointer, graph and offsets of the batch, as `cutting.cut`."""
    n, m = lengths(rows, node_offsets, edge_offsets)
    out_nodes = np.empty((n, nodes.shape[1]), np.uint8)
    out_edges = np.empty((2 * m, edges.shape[1]), np.uint8)
    source, target = np.empty(2 * m, np.int64), np.empty(2 * m, np.int64)
    pointer, graph = np.zeros(n + 1, np.int64), np.empty(n, np.int64)
    offsets = np.zeros(len(rows) + 1, np.int64)
    free = np.empty(n, np.int64)  # the place of the next edge into each node
    for k in range(len(rows)):
        begin, end = node_offsets[rows[k]], node_offsets[rows[k] + 1]
        first, last = offsets[k], offsets[k] + end - begin
        offsets[k + 1], graph[first:last] = last, k
        out_nodes[first:last] = nodes[begin:end]
        begin, end = edge_offsets[rows[k]], edge_offsets[rows[k] + 1]
        point(ends, begin, end, pointer, first, last)
        free[first:last] = pointer[first:last]
        # edges to the second end before those to the first, each in the order of the store
        for side in range(1, -1, -1):
            for e in range(begin, end):
                i = first + ends[e, side]
                place = free[i]
                free[i] += 1
                source[place], target[place] = first + ends[e, 1 - side], i
                for c in range(edges.shape[1]):
                    out_edges[place, c] = edges[e, c]
    return out_nodes, source, target, out_edges, pointer, graph, offsets
