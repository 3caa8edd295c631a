"""Which rows are tied, and that features and gradients stay when they are multiplied once."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from molhpft.core.network import Batch
from molhpft.domains.molecules.gcn import ogb_gcn
from molhpft.domains.molecules.graphs import pack
from molhpft.domains.molecules.pretrain_gnns import pretrain_gnns_gcn
from molhpft.kernels import ops
from molhpft.kernels.colour_refinement import groups_of_nodes
from molhpft.kernels.ops import convolve, embed, linear, normalise
from molhpft.kernels.tied_rows import TiedRows, tied_rows_of
from tests.kernels.graphs import (
    KINDS,
    STAR,
    batch_norm,
    draw_leaves,
    gradients,
    graph_of,
    some_graphs,
)

LENGTH = 3  # of the table: many nodes have the same row
SMILES = ["CC(C)(C)c1ccccc1", "CC(C)(C)c1ccc(O)cc1", "CCCCCC", "c1ccccc1-c1ccccc1", "CCN(CC)CC"]
STORE = pack(SMILES * 3)
ENCODERS = {
    "gcn": lambda: ogb_gcn(layers=4, width=8, dropout=0.0),
    "gcn, all layers": lambda: ogb_gcn(
        layers=4, width=8, dropout=0.0, jumping_knowledge=True, pool="mean+sum", projection=6
    ),
    "gcn, dropout": lambda: ogb_gcn(layers=3, width=8, dropout=0.5),
    "gcn, virtual node": lambda: ogb_gcn(layers=3, width=8, dropout=0.0, virtual_node=True),
    "pretrain-gnns": lambda: pretrain_gnns_gcn(layers=3, width=8, dropout=0.0),
}


def encoded(chain):
    """Features of all molecules, with the same dropout each time."""
    batch = Batch(STORE.take(torch.arange(len(STORE))), torch.zeros(len(STORE), 1))
    torch.manual_seed(3)  # of dropout
    return chain(batch.inputs, batch)


def node_rows(graph, seed):
    """One of a few rows of a table for each node."""
    draw = torch.Generator().manual_seed(seed)
    return torch.randint(0, LENGTH, (len(graph.degree), 1), generator=draw)


def convolved(graph, rows, *, times, width=6, seed=0):
    """What layers of an encoder on a graph give, and their weights."""
    shapes = (LENGTH, width), (width, width), (width,), (KINDS, width), (width,)
    table, weight, bias, bond, root = draw_leaves(*shapes, seed=seed)
    # in eval mode: in training, rows that are all but equal would be divided by next to nothing
    norm, h = batch_norm(width, trained=False), embed(rows, table)
    for _ in range(times):
        x = linear(h, weight, bias, for_weights=True)
        h = normalise(convolve(x, bond, root, graph), norm, relu=True, dropout=0.0, training=True)
    return h, (table, weight, bias, bond, root, norm.weight, norm.bias)


@pytest.fixture
def multiplied(monkeypatch):
    """Rows of each product that has a bias: a layer's own, not those of its gradients."""
    seen, plain = [], ops.product

    def noting(a, b, bias=None):
        if bias is not None:
            seen.append(len(a))
        return plain(a, b, bias)

    monkeypatch.setattr(ops, "product", noting)
    return seen


@given(
    nodes=st.lists(st.tuples(st.integers(0, 1), st.integers(-1, 0)), max_size=40),
    edges=st.lists(st.tuples(st.integers(0, 39), st.integers(0, 1), st.integers(0, 1))),
)
@settings(max_examples=200, deadline=None)
def test_groups_are_those_of_comparing_every_node_with_every_other(nodes, edges):
    edges = sorted((edge for edge in edges if edge[0] < len(nodes)), key=lambda edge: edge[0])
    into = torch.tensor([target for target, *_ in edges], dtype=torch.long)
    pointer = torch.searchsorted(into, torch.arange(len(nodes) + 1))
    columns = torch.tensor([row for _, *row in edges], dtype=torch.long).reshape(-1, 2)
    about = torch.tensor(nodes, dtype=torch.long).reshape(-1, 2)
    before = columns.clone()
    group, first = groups_of_nodes(about, pointer, columns)
    assert torch.equal(columns, before)
    names = [
        (node, tuple(sorted(tuple(row) for target, *row in edges if target == i)))
        for i, node in enumerate(nodes)
    ]
    firsts = [names.index(name) for name in dict.fromkeys(names)]
    assert first.tolist() == firsts
    assert [firsts[number] for number in group] == [names.index(name) for name in names]


@given(graph=some_graphs, seed=st.integers(0, 99), times=st.integers(1, 3))
@settings(max_examples=40, deadline=None)
def test_nodes_are_tied_where_their_features_are_equal(graph, seed, times):
    rows, weights = node_rows(graph, seed), draw_leaves(*[(6, 6)] * times, dtype=torch.float64)
    tied, h = TiedRows(rows), draw_leaves((LENGTH, 6), dtype=torch.float64)[0][rows[:, 0]]
    bond = draw_leaves((KINDS, 6), seed=1, dtype=torch.float64)[0]
    for weight in weights:
        # the reference in double precision, and what tells nodes apart left in: no ReLU
        x, degree = (h @ weight).tanh(), graph.degree.double()[:, None]
        heard = (x[graph.source] + bond[graph.kind]).sin() * graph.norm.double()[:, None]
        h = (x / degree).index_add(0, graph.target, heard)
        tied = TiedRows(tied, graph)
    equal = (h[:, None] - h[None]).abs().sum(-1) < 1e-9
    assert torch.equal(equal, tied.group[:, None] == tied.group[None])


def test_what_decides_is_all_that_a_convolution_reads():
    path = graph_of(5, [(0, 1), (1, 2), (2, 3), (3, 4)], [0] * 4)
    start = TiedRows(torch.zeros(5, 1, dtype=torch.long))

    def groups(**changed):
        return TiedRows(start, replace(path, **changed)).group.tolist()

    # the second hears of an end, whose degree tells it from the middle one
    assert groups() == [0, 1, 2, 1, 0]
    assert groups(degree=torch.tensor([2.0, 3, 3, 3, 5])) == [0, 1, 2, 1, 3]
    assert groups(kind=torch.tensor([1, 0, 0, 0, 0, 0, 0, 0])) == [0, 1, 2, 1, 3]
    assert groups(norm=torch.cat([torch.tensor([9.0]), path.norm[1:]])) == [0, 1, 2, 1, 3]


@given(graph=some_graphs, seed=st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_multiplying_equal_rows_once_leaves_features_and_gradients(graph, seed):
    rows = node_rows(graph, seed)
    with pytest.MonkeyPatch.context() as all_rows:
        all_rows.setattr(ops, "tied_rows_of", lambda h: None)
        h, leaves = convolved(graph, rows, times=3)
        plain = [h, *gradients(h, leaves)]
    h, leaves = convolved(graph, rows, times=3)
    for a, b in zip([h, *gradients(h, leaves)], plain, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("build", ENCODERS.values(), ids=ENCODERS)
@pytest.mark.parametrize("training", [True, False])
def test_an_encoder_trains_and_evaluates_as_by_the_reference(build, training, monkeypatch):
    torch.manual_seed(0)
    chain = build().train(training)
    weights = [weight for weight in chain.parameters() if weight.requires_grad]
    state = {key: value.clone() for key, value in chain.state_dict().items()}
    z = encoded(chain)
    ours = [z, *gradients(z, weights)]
    with torch.no_grad():
        ours.append(encoded(chain))
    chain.load_state_dict(state)
    monkeypatch.setenv("MOLHPFT_KERNELS", "reference")
    z = encoded(chain)
    plain = [z, *gradients(z, weights)]
    with torch.no_grad():
        plain.append(encoded(chain))
    for a, b in zip(ours, plain, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)


def test_an_encoder_without_dropout_multiplies_few_rows(multiplied):
    torch.manual_seed(0)
    atoms = int(STORE.atom_offsets[-1])
    # three of each molecule, and atoms that mirror each other
    for name in ("gcn", "gcn, all layers"):
        encoded(ENCODERS[name]().train())
        assert len(multiplied) >= 2
        assert max(multiplied) <= atoms / 3, name
        multiplied.clear()
    chain = ENCODERS["gcn"]().eval()
    encoded(chain)  # whose features somebody may differentiate in
    assert multiplied == [atoms] * 4
    with torch.no_grad():
        encoded(chain)
    assert max(multiplied[4:]) <= atoms / 3


def test_rows_that_dropout_made_different_are_not_tied(multiplied):
    encoded(ENCODERS["gcn, dropout"]().train())
    assert multiplied[1:] == [int(STORE.atom_offsets[-1])] * 2


def test_rows_that_changed_or_were_computed_by_others_are_not_tied():
    rows = torch.zeros(20, 1, dtype=torch.long)
    h = embed(rows, torch.ones(LENGTH, 5))
    assert tied_rows_of(h).first.tolist() == [0]
    for other in (h + 1, h[:7], h.clone(), h.detach(), torch.cat([h, h])):
        assert tied_rows_of(other) is None
    h[3] = 5
    assert tied_rows_of(h) is None
    weight, bias = torch.eye(5), torch.zeros(5)
    result = linear(h, weight, bias, for_weights=True)
    assert torch.equal(result, h)
    assert tied_rows_of(result) is None
    no_graph = graph_of(20, [], [])
    assert tied_rows_of(convolve(h, torch.ones(KINDS, 5), torch.zeros(5), no_graph)) is None
    with torch.inference_mode():
        assert tied_rows_of(embed(rows, torch.ones(LENGTH, 5))) is None


def test_training_may_ask_what_inference_mode_has_asked_before():
    chain = ENCODERS["gcn"]().train()
    batch = Batch(STORE.take(torch.arange(len(STORE))), torch.zeros(len(STORE), 1))
    stages = chain.named_stages()
    h = stages["conv0"](stages["embed"](batch.inputs, batch), batch)
    with torch.inference_mode():
        inferred = stages["conv1"](h, batch)
        assert tied_rows_of(inferred) is None
    stages["conv1"](h, batch).sum().backward()
    assert stages["conv0"].convolution.linear.weight.grad.isfinite().all()


def test_rows_below_the_tied_ones_are_multiplied_too():
    chain = ENCODERS["gcn, all layers"]().train()
    batch = Batch(STORE.take(torch.arange(3)), torch.zeros(3, 1))
    h = batch.inputs
    for name in ("embed", "conv0"):
        h = chain.named_stages()[name](h, batch)
    atoms = len(batch.inputs.atoms)
    assert len(tied_rows_of(h)) == atoms < len(h)
    weight, bias = draw_leaves((4, 8), (4,))
    torch.testing.assert_close(linear(h, weight, bias, for_weights=True), h @ weight.T + bias)


def test_a_gradient_in_rows_is_that_of_each_where_somebody_wants_it():
    rows = node_rows(STAR, 0)
    table, weight, bias = draw_leaves((LENGTH, 5), (4, 5), (4,))
    h = embed(rows, table)
    x = convolve(h, *draw_leaves((KINDS, 5), (5,)), STAR)
    assert len(tied_rows_of(x).first) < len(x)
    (ours,) = gradients(linear(x, weight, bias), [x])
    g = torch.randn(len(x), 4, generator=torch.Generator().manual_seed(7))
    torch.testing.assert_close(ours, g @ weight)


def test_sums_of_bfloat16_gradients_lose_nothing_small():
    """In bfloat16, 1 and 256 times 2^-9 would stay 1."""
    table, weight, bias = draw_leaves((LENGTH, 1), (1, 1), (1,))
    h = embed(torch.zeros(257, 1, dtype=torch.long), table)
    h = convolve(h, *draw_leaves((KINDS, 1), (1,)), graph_of(257, [], []))
    assert tied_rows_of(h).first.tolist() == [0]
    g = torch.full((257, 1), 2.0**-9, dtype=torch.bfloat16)
    g[0] = 1
    with torch.autocast("cpu", torch.bfloat16):
        result = linear(h, weight, bias, for_weights=True)
    assert result.dtype == torch.bfloat16
    assert torch.autograd.grad(result, bias, g)[0].item() == 1.5


def test_derivatives_of_derivatives_are_those_of_all_rows():
    def squared_gradient(layer):
        table, weight, bias = leaves = draw_leaves((LENGTH, 5), (6, 5), (6,))
        h = embed(node_rows(STAR, 1), table)
        h = convolve(h, *draw_leaves((KINDS, 5), (5,)), STAR)
        result = layer(h, weight, bias).square().sum()
        (gradient,) = torch.autograd.grad(result, table, create_graph=True)
        return gradients(gradient.square().sum(), leaves)

    ours = squared_gradient(lambda *parts: linear(*parts, for_weights=True))
    plain = squared_gradient(nn.functional.linear)
    for a, b in zip(ours, plain, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-2)
