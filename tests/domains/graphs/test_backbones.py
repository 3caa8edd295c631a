"""Networks on PyG graphs as chains, against the networks' own forward pass."""

from copy import deepcopy
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch_geometric.data import Batch as Graphs
from torch_geometric.data import Data
from torch_geometric.nn import GCNConv, MessagePassing, SAGEConv, Sequential, global_mean_pool
from torch_geometric.nn.models import GAT, GCN, GIN, PNA, AttentiveFP, EdgeCNN, GraphSAGE

from molhpft.core.network import Batch, Chain, Network, linear_head
from molhpft.domains.graphs.backbones import GraphModule, Pool, gnn_backbone, pyg_backbone
from tests.domains.graphs.rings import EDGES, NODES, batch

sizes = st.lists(st.integers(0, 5), min_size=1, max_size=6)


batches = settings(max_examples=25, deadline=None)


class Messages(MessagePassing):
    """A user's own network: edge features weigh what neighbours send."""

    def __init__(self, width=4):
        super().__init__(aggr="sum")
        self.node = nn.Linear(NODES, width)
        self.edge = nn.Linear(EDGES, width)

    def forward(self, x, edge_index, edge_attr, batch):
        assert len(batch) == len(x)
        return self.propagate(edge_index, x=self.node(x), e=self.edge(edge_attr))

    def message(self, x_j, e):
        return x_j * e


def outputs(chain, batch):
    with torch.no_grad():
        return chain.eval()(batch.inputs, batch)


def own(module, batch, *names):
    with torch.no_grad():
        return module.eval()(*(batch.inputs[name] for name in names))


@pytest.mark.parametrize("pool", ["mean", "sum", "max"])
@batches
@given(sizes)
def test_a_users_network_is_a_backbone_in_three_lines(pool, sizes):
    module, graphs = Messages(), batch(*sizes)
    z = outputs(pyg_backbone(module, width=4, pool=pool), graphs)
    nodes = own(module, graphs, "x", "edge_index", "edge_attr", "batch").split(sizes)
    pooled = [
        getattr(part, {"max": "amax"}.get(pool, pool))(0) if len(part) else 0 for part in nodes
    ]
    expected = torch.stack([torch.zeros(4) + row for row in pooled])
    torch.testing.assert_close(z, expected)


def test_stages_are_encoder_and_pool_and_the_head_reads_their_width():
    backbone = pyg_backbone(Messages(), width=4)
    network = Network(backbone, linear_head(backbone.width, 3))
    assert backbone.names == ["encoder", "pool"]
    assert pyg_backbone(Messages(), width=4, pool=None).names == ["encoder"]
    assert network(batch(3, 4)).shape == (2, 3)


@batches
@given(sizes)
def test_a_batch_equals_its_graphs_one_by_one(sizes):
    chain, graphs = pyg_backbone(Messages(), width=4), batch(*sizes)
    alone = [Graphs.from_data_list([one]) for one in graphs.inputs.to_data_list()]
    rows = [outputs(chain, Batch(one, graphs.targets[:1])) for one in alone]
    torch.testing.assert_close(outputs(chain, graphs), torch.cat(rows))


@pytest.mark.parametrize(
    ("module", "names"),
    [
        (
            AttentiveFP(NODES, 8, 5, edge_dim=EDGES, num_layers=2, num_timesteps=2),
            ("x", "edge_index", "edge_attr", "batch"),
        ),
        (
            Sequential("x, edge_index", [(GCNConv(NODES, 5), "x, edge_index -> x")]),
            ("x", "edge_index"),
        ),
        (GCNConv(NODES, 5), ("x", "edge_index", "edge_weight")),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "reads",
)
def test_a_network_of_pyg_is_called_as_its_signature_says(module, names):
    graphs = batch(4, 3, 5)
    pool = None if isinstance(module, AttentiveFP) else "sum"
    expected = own(module, graphs, *names)
    if pool:
        expected = torch.stack([part.sum(0) for part in expected.split([4, 3, 5])])
    torch.testing.assert_close(outputs(pyg_backbone(module, width=5, pool=pool), graphs), expected)


class Whole(nn.Module):
    def forward(self, data, batch_size):
        assert data.num_graphs == batch_size
        return data.x


class Odd(nn.Module):
    def forward(self, *inputs):
        nodes, edges = inputs
        assert edges.shape[0] == 2
        return nodes


def test_a_network_may_take_the_whole_batch_or_be_told_what_it_reads():
    graphs = batch(3, 2)
    for backbone in (
        pyg_backbone(Whole(), width=NODES),
        pyg_backbone(Odd(), width=NODES, reads=("x", "edge_index")),
    ):
        expected = Pool(NODES, "mean")(graphs.inputs.x, graphs)
        assert torch.equal(backbone(graphs.inputs, graphs), expected)


def test_a_parameter_with_a_default_is_no_method_of_the_batch():
    # SAGEConv takes size=None, and a batch has a method of that name
    module, graphs = SAGEConv(NODES, 4), batch(4, 3)
    nodes = outputs(Chain({"encoder": GraphModule(module, width=4)}), graphs)
    assert torch.equal(nodes, own(module, graphs, "x", "edge_index"))


def test_further_stages_read_the_running_tensor_as_x():
    first, second, graphs = GCNConv(NODES, 4), GCNConv(4, 2), batch(4, 3)
    stages = {"a": GraphModule(first, width=4), "b": GraphModule(second, width=2)}
    edges = (graphs.inputs.edge_index, graphs.inputs.edge_weight)
    expected = second(first(graphs.inputs.x, *edges), *edges)
    assert torch.equal(outputs(Chain(stages), graphs), expected)
    assert graphs.inputs.x.shape[1] == NODES


def test_what_graphs_lack_is_named_with_who_reads_it():
    graphs = Graphs.from_data_list([Data(edge_index=torch.tensor([[0], [1]]), num_nodes=2)])
    message = "Messages reads x, which these graphs lack; they have: batch, edge_index, "
    with pytest.raises(ValueError, match=message):
        outputs(pyg_backbone(Messages(), width=4), Batch(graphs, torch.zeros(1, 1)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 5}, r"should return \(7, 5\), a row for each of the nodes, got \(7, 4\)"),
        ({"width": 4, "pool": None}, r"should return \(2, 4\), a row for each of the graphs"),
    ],
)
def test_features_of_another_shape_than_was_said_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        outputs(pyg_backbone(Messages(), **options), batch(4, 3))


@pytest.mark.parametrize(
    ("module", "options", "message"),
    [
        (Odd(), {}, "forward of Odd should name its arguments, .* list them as reads"),
        (GCNConv(-1, 4), {}, "weights of known size, lin.weight has none yet"),
        (Messages(), {"pool": "median"}, "pool should be mean, sum, max, got 'median'"),
    ],
)
def test_a_module_that_cannot_be_a_backbone_is_refused_when_it_is_made(module, options, message):
    with pytest.raises(ValueError, match=message):
        pyg_backbone(module, width=4, **options)


WIDTH, LAYERS = 8, 3


MODELS = {
    "gcn": GCN,
    "sage": GraphSAGE,
    "gin": GIN,
    "gat": GAT,
    "gat with edges": partial(GAT, edge_dim=EDGES, heads=2),
    "gatv2": partial(GAT, v2=True),
    "pna": partial(
        PNA,
        aggregators=["mean", "max"],
        scalers=["identity"],
        deg=torch.tensor([1, 4, 9]),
        edge_dim=EDGES,
    ),
    "edge cnn": EdgeCNN,
}


SETTINGS = [
    {},
    {"norm": "batch_norm", "dropout": 0.4},
    {"norm": "graph_norm", "act_first": True},
    {"norm": "layer_norm", "jk": "last", "out_channels": 5},
    {"norm": "batch_norm", "jk": "cat", "dropout": 0.4},
    {"jk": "max", "act": None},
    {"jk": "lstm", "act": "tanh", "out_channels": 5},
    {"out_channels": 5, "act": torch.sin},
]


def gnn(model="gcn", *, layers=LAYERS, **options):
    torch.manual_seed(1)
    return MODELS[model](NODES, WIDTH, layers, **options)


def own_forward(network, graphs, *, edges=True):
    options = {"batch": graphs.batch, "batch_size": graphs.num_graphs}
    if edges:
        options |= {"edge_attr": graphs.edge_attr, "edge_weight": graphs.edge_weight}
    nodes = network(graphs.x, graphs.edge_index, **options)
    return global_mean_pool(nodes, graphs.batch, graphs.num_graphs)


def compute(function, *, seed=0):
    with torch.no_grad():
        torch.manual_seed(seed)
        return function()


@pytest.mark.parametrize("training", [False, True], ids=["evaluating", "training"])
@pytest.mark.parametrize("options", SETTINGS, ids=" ".join)
@pytest.mark.parametrize("model", MODELS)
def test_the_stages_compute_what_the_network_computes_bit_for_bit(model, options, training):
    network, graphs = gnn(model, **options).train(training), batch(4, 0, 1, 6, 0)
    chain = gnn_backbone(deepcopy(network)).train(training)
    edges = model != "gatv2"  # made without edge_dim, it refuses to get edge features
    expected = compute(lambda: own_forward(network, graphs.inputs, edges=edges))
    assert torch.equal(compute(lambda: chain(graphs.inputs, graphs)), expected)
    assert chain.width == expected.shape[1]


@pytest.mark.parametrize("jump", [None, "cat"])
def test_moving_the_cut_leaves_the_function_unchanged(jump):
    graphs, backbone = batch(4, 3, 2), gnn_backbone(gnn("gin", jk=jump, norm="batch_norm"))
    network = Network(backbone, linear_head(backbone.width, 3)).eval()
    for name in backbone.names:
        assert torch.equal(network.cut(at=name)(graphs), network(graphs))


def test_stages_are_named_after_the_layers():
    assert gnn_backbone(gnn()).names == ["conv0", "conv1", "conv2", "pool"]
    assert gnn_backbone(gnn(jk="cat")).names == ["conv0", "conv1", "conv2", "jump", "pool"]
    assert gnn_backbone(gnn(layers=1, jk="last")).names == ["conv0", "jump", "pool"]


def test_the_weights_are_those_of_the_network():
    network = gnn("gat", norm="batch_norm", jk="lstm")
    ours = {id(weight) for weight in gnn_backbone(network).parameters()}
    assert ours == {id(weight) for weight in network.parameters()}


@pytest.mark.parametrize(
    ("model", "name"), [("gcn", "edge_weight"), ("gat with edges", "edge_attr")]
)
def test_edges_are_read_where_the_network_reads_them(model, name):
    chain, graphs = gnn_backbone(gnn(model)).eval(), batch(4, 5)
    before = chain(graphs.inputs, graphs)
    graphs.inputs[name] = graphs.inputs[name] + 1
    assert not torch.allclose(chain(graphs.inputs, graphs), before)


def test_a_network_made_without_edge_features_leaves_them_alone():
    network, graphs = gnn("gatv2").eval(), batch(4, 5)
    with pytest.raises(AssertionError):
        own_forward(network, graphs.inputs)
    assert gnn_backbone(network)(graphs.inputs, graphs).shape == (2, WIDTH)


def test_graphs_without_edge_features_and_weights_are_read_too():
    graphs = batch(4, 5)
    del graphs.inputs.edge_attr, graphs.inputs.edge_weight
    network = gnn("gcn").eval()
    expected = own_forward(network, graphs.inputs, edges=False)
    assert torch.equal(gnn_backbone(network)(graphs.inputs, graphs), expected)


def test_layers_that_share_weights_are_not_taken_apart():
    with pytest.raises(ValueError, match="should share no weights, they share those of PReLU"):
        gnn_backbone(gnn(act="prelu"))


def test_a_network_that_does_not_know_its_inputs_yet_is_refused():
    with pytest.raises(ValueError, match=r"GCN should have .* convs\.0\.lin\.weight has none yet"):
        gnn_backbone(GCN(-1, WIDTH, 2))
