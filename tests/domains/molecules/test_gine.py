"""GINE against torch_geometric's, and what its chain must hold."""

import pytest
import torch
from torch import nn

from molhpft.core.network import Batch, Network, linear_head
from molhpft.domains.molecules.gine import GINEConvolution, gine
from molhpft.domains.molecules.graphs import pack

SMILES = ["C", "[Na+].[Cl-]", "F/C=C/Cl", "C[C@H](N)C(=O)O", "FS(F)(F)(F)(F)F", "nonsense"]
GRAPHS = pack(SMILES).take(torch.arange(len(SMILES)))
BATCH = Batch(GRAPHS, torch.zeros(len(SMILES), 1))
WIDTH = 6


@pytest.mark.parametrize("kernels", ["auto", "reference"])
@pytest.mark.parametrize("norm", ["batch", "layer", "none"])
def test_a_convolution_is_that_of_pyg_in_training_gradients_included(norm, kernels, monkeypatch):
    from torch_geometric.nn import GINEConv

    monkeypatch.setenv("MOLHPFT_KERNELS", kernels)
    torch.manual_seed(0)
    ours = GINEConvolution(WIDTH, norm).train()
    nn.init.constant_(ours.eps, 0.3)
    mlp = nn.Sequential(ours.hidden, ours.norm, nn.ReLU(), ours.out)
    theirs = GINEConv(mlp, train_eps=True)
    nn.init.constant_(theirs.eps, 0.3)
    h = torch.randn(len(GRAPHS.graph), WIDTH, requires_grad=True)
    edges = torch.stack([GRAPHS.source, GRAPHS.target])
    weights = [h, *mlp.parameters(), *ours.bond.parameters()]

    def outcome(out, eps):
        return out, *torch.autograd.grad(out.square().sum(), [*weights, eps])

    expected = outcome(theirs(h, edges, ours.bond(GRAPHS.bonds[:, :3])), theirs.eps)
    got = outcome(ours(h, GRAPHS), ours.eps)
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)


def test_every_cut_leaves_the_function_unchanged_bit_for_bit():
    torch.manual_seed(0)
    chain = gine(layers=3, width=WIDTH, virtual_node=True, pool="sum")
    network = Network(chain, linear_head(WIDTH, 2)).eval()
    for stage in network.backbone.names:
        assert torch.equal(network.cut(stage)(BATCH), network(BATCH)), stage


def test_convolutions_sum_over_neighbours_and_do_not_average():
    torch.manual_seed(0)
    store = pack(["FSF", "FS(F)(F)(F)(F)F"])  # both are sulfur that hears fluorine alone
    layer = GINEConvolution(WIDTH, "none")
    nn.init.zeros_(layer.hidden.bias)
    heard = []
    for i in range(2):
        graphs = store.take(torch.tensor([i]))
        sulfur = graphs.atoms[:, 0] == 15
        h = torch.where(sulfur[:, None], 0.0, torch.full((WIDTH,), 0.5))
        with torch.no_grad():
            layer.hidden.weight.copy_(torch.eye(WIDTH).repeat(2, 1))
            layer.out.weight.copy_(torch.eye(WIDTH).repeat(1, 2))
            layer.out.bias.zero_()
        heard.append(layer(h, graphs)[sulfur])
    torch.testing.assert_close(3 * heard[0], heard[1])
