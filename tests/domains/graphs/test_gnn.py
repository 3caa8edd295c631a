from copy import deepcopy
from functools import partial

import pytest
import torch
from torch_geometric.nn import global_mean_pool
from torch_geometric.nn.models import GAT, GCN, GIN, PNA, EdgeCNN, GraphSAGE

from molhpft.core.network import Network, linear_head
from molhpft.domains.graphs.backbones import gnn_backbone
from tests.domains.graphs.rings import EDGES, NODES, batch

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


@pytest.mark.parametrize("jump", [None, "last", "cat", "max", "lstm"])
def test_every_stage_emits_the_width_it_says(jump):
    graphs, chain = batch(4, 3), gnn_backbone(gnn(jk=jump, out_channels=5)).eval()
    h = graphs.inputs
    for name, stage in chain.named_stages().items():
        h = stage(h, graphs)
        assert h.shape == (2 if name == "pool" else 7, stage.width)


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


def test_graphs_without_node_features_are_an_error_that_says_so():
    graphs = batch(4, 5)
    del graphs.inputs.x
    with pytest.raises(ValueError, match="GCNConv reads x, which these graphs lack"):
        gnn_backbone(gnn())(graphs.inputs, graphs)


def test_layers_that_share_weights_are_not_taken_apart():
    with pytest.raises(ValueError, match="should share no weights, they share those of PReLU"):
        gnn_backbone(gnn(act="prelu"))


def test_a_network_that_does_not_know_its_inputs_yet_is_refused():
    with pytest.raises(ValueError, match=r"GCN should have .* convs\.0\.lin\.weight has none yet"):
        gnn_backbone(GCN(-1, WIDTH, 2))
