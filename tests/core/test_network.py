import pytest
import torch
from torch import nn
from torch_geometric.data import Data

from molhpft.core.network import Batch, Chain, Stage
from tests.toy import NAN, toy_network

NAN_ROW = torch.tensor([[1.0, NAN]])


@pytest.fixture
def batch(rng):
    return Batch(torch.randn(10, 6, generator=rng), torch.zeros(10, dtype=torch.long))


@pytest.mark.parametrize("at", ["layer0", "layer1"])
def test_moving_the_cut_leaves_the_function_unchanged(at, batch):
    network = toy_network().eval()
    assert torch.equal(network.cut(at)(batch), network(batch))


def test_moving_the_cut_moves_the_stages_from_there_on_into_the_head():
    network = toy_network().cut("layer1")
    assert network.backbone.names == ["layer0"]
    assert network.head.names == ["layer1", "linear"]


def test_a_cut_network_shares_its_weights_with_the_whole_one():
    network = toy_network()
    assert network.cut("layer1").head.stages["linear"] is network.head.stages["linear"]


def test_a_cut_at_an_unknown_stage_names_the_stages_that_exist():
    with pytest.raises(ValueError, match=r"^no stage named 'conv'; this chain has: layer0, layer1"):
        toy_network().cut("conv")


def test_an_empty_chain_is_the_identity(batch):
    assert Chain({})(batch.inputs, batch) is batch.inputs


def test_the_width_of_a_chain_is_that_of_its_last_stage():
    assert toy_network(outputs=5).head.width == 5


def test_an_empty_chain_has_no_width():
    with pytest.raises(ValueError, match="no width"):
        Chain({}).width  # noqa: B018 - reading it is the test


def test_a_chain_hides_no_module_that_is_no_stage(batch):
    with pytest.raises(TypeError, match=r"^stage 'mlp' of a chain .* is a Linear; wrap .* Plain"):
        Chain({"mlp": nn.Linear(6, 6)})
    network = toy_network()
    network.backbone.stages["layer1"] = nn.Linear(8, 8)
    with pytest.raises(TypeError, match=r"^stage 'layer1' of a chain .* is a Linear"):
        network.cut("layer1")


def test_stages_whose_names_are_one_in_the_state_dict_are_refused():
    stage = toy_network().head.stages["linear"]
    with pytest.raises(ValueError, match=r"got: layer1\.0, layer1_0"):
        Chain({"layer1.0": stage, "layer1_0": stage})


def test_logits_are_the_head_of_the_features(batch):
    network = toy_network().eval()
    assert torch.equal(network(batch), network.head(network.features(batch), batch))


def test_a_stage_without_a_forward_says_so(batch):
    with pytest.raises(NotImplementedError, match=r"^Stage has no forward"):
        Stage()(batch.inputs, batch)


def test_a_batch_in_float64_leaves_the_one_it_came_from(batch):
    graphs = Data(x=torch.ones(2, 3), edge_index=torch.tensor([[0, 1], [1, 0]]))
    for single, real in (
        (batch, lambda b: b.inputs),
        (Batch(graphs, NAN_ROW), lambda b: b.inputs.x),
    ):
        double = single.double()
        assert real(double).dtype == torch.float64
        assert real(single).dtype == torch.float32
        assert torch.equal(real(double).float(), real(single))
    assert double.targets.dtype == torch.float64
    assert double.inputs.edge_index.dtype == batch.double().targets.dtype == torch.long


def test_a_batch_moves_inputs_and_targets(batch):
    moved = batch.to("meta")
    assert moved.inputs.device.type == moved.targets.device.type == "meta"
