"""Lists of edges into nodes and out of groups of nodes, against counting every edge."""

from collections import Counter

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from molhpft.kernels.edge_lists import edge_lists
from tests.kernels.graphs import seeds, some_graphs


def listed(lists):
    """Every edge of some lists as (node, other end, kind, weight), with how often it is there."""
    pointer, others, kinds, weights = (array.tolist() for array in lists)
    assert [pointer[0], pointer[-1]] == [0, len(others)]
    return Counter(
        (node, others[k], kinds[k], weights[k])
        for node in range(len(pointer) - 1)
        for k in range(pointer[node], pointer[node + 1])
    )


@given(graph=some_graphs, seed=seeds, data=st.data())
@settings(max_examples=60, deadline=None)
def test_both_lists_have_every_edge_of_the_graph_and_one_of_each_node_to_itself(graph, seed, data):
    n = len(graph.degree)
    draw = torch.Generator().manual_seed(seed)
    _, group = torch.randint(0, 4, (n,), generator=draw).unique(return_inverse=True)
    nodes = torch.tensor(data.draw(st.lists(st.integers(0, n - 1), unique=True)) if n else [])
    nodes = nodes.long()
    into, out_of = edge_lists(graph, group, nodes)
    own = [(o, int(group[i]), 0, float(1 / graph.degree[i])) for o, i in enumerate(nodes.tolist())]
    place = {i: o for o, i in enumerate(nodes.tolist())}
    heard = [
        (place[target], int(group[source]), kind + 1, norm)
        for source, target, kind, norm in zip(
            *(column.tolist() for column in (graph.source, graph.target, graph.kind, graph.norm)),
            strict=True,
        )
        if target in place
    ]
    assert listed(into) == Counter([*own, *heard])
    turned = Counter({(p, o, kind, w): count for (o, p, kind, w), count in listed(into).items()})
    assert listed(out_of) == turned
    assert len(into[0]) == len(nodes) + 1
    assert len(out_of[0]) == len(group.unique()) + 1
