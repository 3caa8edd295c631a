"""Chains, cuts and batches; heads; side-tuning."""

import pytest
import torch
from torch import nn
from torch_geometric.data import Data

from molhpft.core.beside import ending_beside
from molhpft.core.network import (
    Batch,
    Chain,
    Network,
    Plain,
    Stage,
    cosine_head,
    linear_head,
    mlp_head,
    side_tuned,
)
from molhpft.core.standardise import ending_standardised
from molhpft.domains.molecules.examples import Molecules
from molhpft.domains.molecules.graphs import pack
from molhpft.domains.molecules.pyg import on_molecules
from molhpft.tuning.fit import fit
from molhpft.tuning.phase import Phase
from tests.shapes import unchecked
from tests.toy import NAN, toy_network, toy_task


@pytest.fixture
def batch(rng):
    return Batch(torch.randn(10, 6, generator=rng), torch.zeros(10, dtype=torch.long))


@pytest.mark.parametrize("at", ["layer0", "layer1"])
def test_moving_the_cut_leaves_the_function_unchanged(at, batch):
    network = toy_network().eval()
    assert torch.equal(network.cut(at)(batch), network(batch))


def test_moving_the_cut_moves_the_stages_from_there_on_into_the_head_and_copies_none():
    whole = toy_network()
    network = whole.cut("layer1")
    assert (network.backbone.names, network.head.names) == (["layer0"], ["layer1", "linear"])
    assert network.head.stages["linear"] is whole.head.stages["linear"]


def test_a_cut_at_an_unknown_stage_names_the_stages_that_exist():
    with pytest.raises(ValueError, match=r"^no stage named 'conv'; this chain has: layer0, layer1"):
        toy_network().cut("conv")


def test_an_empty_chain_is_the_identity_and_has_no_width(batch):
    assert Chain({})(batch.inputs, batch) is batch.inputs
    with pytest.raises(ValueError, match="no width"):
        Chain({}).width  # noqa: B018 - reading it is the test


def test_a_chain_hides_no_module_that_is_no_stage():
    with unchecked(), pytest.raises(TypeError, match=r"^stage 'mlp' .* is a Linear; wrap .* Plain"):
        Chain({"mlp": nn.Linear(6, 6)})
    network = toy_network()
    network.backbone.stages["layer1"] = nn.Linear(8, 8)
    with pytest.raises(TypeError, match=r"^stage 'layer1' of a chain .* is a Linear"):
        network.cut("layer1")


def test_a_stage_answers_to_its_second_name_below_and_above_a_cut():
    stages = {name: Plain(nn.Identity(), width=4) for name in ("a", "b", "c")}
    chain = Chain(stages, also={"b": "second", "c": "third"})
    assert [chain.stage_name(name) for name in ("b", "second", "third")] == ["b", "b", "c"]
    lower, upper = chain.split("second")
    assert (lower.names, upper.split("third")[1].names) == (["a"], ["c"])
    with pytest.raises(ValueError, match=r"^no stage named 'x'; .* a, b \(second\), c \(third\)$"):
        chain.split("x")


@pytest.mark.parametrize(
    "rebuilt",
    [
        ending_standardised,
        lambda chain: ending_beside(chain, {"properties": 2}),
        on_molecules,
        lambda chain: Network(chain, linear_head(4, 1)).cut("a").head,
    ],
    ids=["standardised", "beside", "on_molecules", "cut"],
)
def test_a_stage_answers_to_its_second_name_in_every_chain_that_is_made_of_its_own(rebuilt):
    stages = {name: Plain(nn.Identity(), width=4) for name in ("a", "b")}
    assert rebuilt(Chain(stages, also={"b": "second"})).stage_name("second") == "b"


def test_chains_with_stages_of_one_name_are_not_joined():
    backbone = Chain({"linear": Plain(nn.Linear(4, 4), width=4)})
    with pytest.raises(ValueError, match=r"differ in name, and both have: linear$"):
        Network(backbone, linear_head(4, 1)).cut("linear")


def test_stages_whose_names_are_one_in_the_state_dict_are_refused():
    stage = toy_network().head.stages["linear"]
    with pytest.raises(ValueError, match=r"got: layer1\.0, layer1_0"):
        Chain({"layer1.0": stage, "layer1_0": stage})


def test_a_stage_without_a_forward_says_so(batch):
    with pytest.raises(NotImplementedError, match=r"^Stage has no forward"):
        Stage()(batch.inputs, batch)


def test_a_batch_in_float64_leaves_the_one_it_came_from(batch):
    graphs = Data(x=torch.ones(2, 3), edge_index=torch.tensor([[0, 1], [1, 0]]))
    for single, real in (
        (batch, lambda b: b.inputs),
        (Batch(graphs, torch.tensor([[1.0, NAN]])), lambda b: b.inputs.x),
    ):
        double = single.double()
        assert real(double).dtype == torch.float64
        assert real(single).dtype == torch.float32
        assert torch.equal(real(double).float(), real(single))
    assert double.targets.dtype == torch.float64
    assert double.inputs.edge_index.dtype == batch.double().targets.dtype == torch.long


def test_molecules_hold_no_real_numbers_and_stay_as_they_are_in_float64():
    batch = Molecules(pack(("CCO", "C")), torch.rand(2, 1), ("CCO", "C")).take(torch.arange(2))
    double = batch.double()
    assert torch.equal(double.targets, batch.targets.double())
    assert double.inputs is batch.inputs


def test_a_batch_moves_inputs_and_targets(batch):
    moved = batch.to("meta")
    assert moved.inputs.device.type == moved.targets.device.type == "meta"


HEADS = {
    linear_head: (["linear"], [3]),
    mlp_head: (["hidden", "linear"], [256, 3]),
    cosine_head: (["cosine"], [3]),
}


@pytest.mark.parametrize(
    ("head", "stages"), HEADS.items(), ids=lambda x: getattr(x, "__name__", "")
)
def test_stages_of_a_head_have_the_names_that_files_have_for_them(head, stages):
    chain = head(4, 3)
    assert (chain.names, [stage.width for stage in chain]) == stages
    assert chain.width == 3


def test_a_linear_head_is_affine(rng):
    head, z = linear_head(4, 3), torch.randn(2, 4, generator=rng)
    batch = Batch(z, torch.zeros(2))
    zero = head(torch.zeros(1, 4), batch)
    torch.testing.assert_close(head(3 * z, batch) - zero, 3 * (head(z, batch) - zero))


def test_the_hidden_units_of_an_mlp_head_are_rectified(rng):
    head, z = mlp_head(4, 3, hidden=7), torch.randn(50, 4, generator=rng)
    hidden = head.named_stages()["hidden"](z, Batch(z, torch.zeros(50)))
    assert hidden.shape == (50, 7)
    assert hidden.min() == 0


def test_a_cosine_head_sees_directions_only_and_gives_at_most_its_scale(rng):
    head, z = cosine_head(4, 3, scale=7.0), torch.randn(5, 4, generator=rng)
    batch = Batch(z, torch.zeros(5))
    torch.testing.assert_close(head(z, batch), head(3 * z, batch))
    assert head(z, batch).abs().max() <= 7.0
    along = head.stages["cosine"].module.weight.detach()
    torch.testing.assert_close(head(along, batch).diagonal(), torch.full((3,), 7.0))


def test_class_vectors_of_a_cosine_head_start_at_about_unit_length_and_its_scale_at_ten():
    torch.manual_seed(0)
    cosine = cosine_head(400, 30).stages["cosine"].module
    torch.testing.assert_close(cosine.weight.norm(dim=1), torch.ones(30), rtol=0.2, atol=0)
    assert cosine.log_scale.exp().item() == pytest.approx(10.0)
    assert cosine.log_scale.requires_grad


def blended():
    network = toy_network()
    return Network(side_tuned(network.backbone), network.head)


def test_a_blend_begins_as_the_backbone_and_mixes_base_and_side_by_its_weight(batch):
    network = blended().eval()
    torch.testing.assert_close(network.features(batch), toy_network().eval().features(batch))
    blend = network.backbone.stages["blend"]
    with torch.no_grad():
        for parameter in blend.side.parameters():
            parameter.mul_(3.0)
        base, side = (chain(batch.inputs, batch) for chain in (blend.base, blend.side))
        assert not torch.allclose(base, side)
        for logit, expected in ((0.0, (base + side) / 2), (30.0, base), (-30.0, side)):
            blend.logit.fill_(logit)
            torch.testing.assert_close(network.features(batch), expected)


def test_finetuning_moves_the_side_and_never_the_base():
    network, start = blended(), blended()
    assert not any(".base." in name for name, _ in network.named_parameters())
    phase = Phase(trains="all", epochs=3, lr=0.05, optimizer="adamw", weight_decay=0.1, anchor=0.1)
    fit(network, phase, toy_task(), rng=torch.Generator().manual_seed(0))
    before = start.state_dict()
    moved = {k for k, v in network.state_dict().items() if not torch.equal(v, before[k])}
    assert not any(".base." in name for name in moved)
    assert {name for name in before if ".side." in name} <= moved
    assert "backbone.stages.blend.logit" in moved


def test_the_base_evaluates_while_the_side_trains():
    blend = blended().train().backbone.stages["blend"]
    assert not any(part.training for part in blend.base.modules())
    assert all(part.training for part in blend.side.modules())
