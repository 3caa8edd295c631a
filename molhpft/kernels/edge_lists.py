"""The edges of a graph as a convolution on the CPU reads them: into each node, and out of each."""

from typing import Any

import numpy as np
from torch import Tensor

from molhpft.kernels.cpu_loops import ONE, Floats, Ints, loop
from molhpft.kernels.reference import CSRGraph, EdgeLists


def edge_lists(graph: CSRGraph, group: Tensor, nodes: Tensor) -> tuple[EdgeLists, EdgeLists]:
    """Edges into some nodes from groups of nodes, and the same edges out of each group.

    An edge of kind 0 comes from the node itself, with the weight 1 / degree. The kinds of the
    others are one more than in the graph, their weights the norms there.

    Args:
        graph: on the CPU.
        group: of each node, int64 (n,), ascending from 0 by the first node of each.
        nodes: whose edges are listed, int64.

    Returns:
        of edges into each of `nodes` the group that each comes from, and of edges out of each group
        the place in `nodes` of the one that each goes to.
    """
    arrays = (*graph.arrays, group.numpy(), nodes.numpy())
    lists = _edge_lists(*arrays)
    return lists[:4], lists[4:]


@loop
def _edge_lists(
    pointer: Ints,
    source: Ints,
    kind: Ints,
    norm: Floats,
    degree: Floats,
    group: Ints,
    nodes: Ints,
) -> tuple[Any, ...]:
    groups = group.max() + 1 if len(group) else 0
    into = np.zeros(len(nodes) + 1, np.int64)
    for o in range(len(nodes)):
        into[o + 1] = into[o] + 1 + pointer[nodes[o] + 1] - pointer[nodes[o]]
    count = into[-1]
    sources, kinds = np.empty(count, np.int64), np.empty(count, np.int64)
    weights = np.empty(count, np.float32)
    out_of = np.zeros(groups + 1, np.int64)
    for o in range(len(nodes)):
        i, e = nodes[o], into[o]
        sources[e], kinds[e], weights[e] = group[i], 0, ONE / degree[i]
        for k in range(pointer[i], pointer[i + 1]):
            e += 1
            sources[e], kinds[e], weights[e] = group[source[k]], kind[k] + 1, norm[k]
    for e in range(count):
        out_of[sources[e] + 1] += 1
    for p in range(groups):
        out_of[p + 1] += out_of[p]
    free = out_of[:-1].copy()  # the place of the next edge out of each group
    targets, out_kinds = np.empty(count, np.int64), np.empty(count, np.int64)
    out_weights = np.empty(count, np.float32)
    for o in range(len(nodes)):
        for e in range(into[o], into[o + 1]):
            place = free[sources[e]]
            free[sources[e]] += 1
            targets[place], out_kinds[place], out_weights[place] = o, kinds[e], weights[e]
    return into, sources, kinds, weights, out_of, targets, out_kinds, out_weights
