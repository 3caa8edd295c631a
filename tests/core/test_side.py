import torch

from molhpft.core.network import Network, side_tuned
from molhpft.tuning.fit import fit
from molhpft.tuning.phase import Phase
from tests.toy import toy_network, toy_task


def blended():
    network = toy_network()
    return Network(side_tuned(network.backbone), network.head)


def test_at_first_the_features_are_those_of_the_backbone():
    task = toy_task()
    batch = task.examples.take(task.rows("train"))
    plain, side = toy_network().eval(), blended().eval()
    torch.testing.assert_close(side.features(batch), plain.features(batch))


def test_at_first_half_of_the_features_is_the_bases_and_half_the_sides():
    network, task = blended().eval(), toy_task()
    batch, blend = task.examples.take(task.rows("train")), network.backbone.stages["blend"]
    with torch.no_grad():
        for parameter in blend.side.parameters():
            parameter.mul_(3.0)
        base, side = (chain(batch.inputs, batch) for chain in (blend.base, blend.side))
        assert not torch.allclose(base, side)
        torch.testing.assert_close(network.features(batch), (base + side) / 2)


def test_the_share_of_the_base_grows_with_its_logit():
    network, task = blended().eval(), toy_task()
    batch, blend = task.examples.take(task.rows("train")), network.backbone.stages["blend"]
    with torch.no_grad():
        for parameter in blend.side.parameters():
            parameter.mul_(3.0)
        for logit, chain in ((30.0, blend.base), (-30.0, blend.side)):
            blend.logit.fill_(logit)
            torch.testing.assert_close(network.features(batch), chain(batch.inputs, batch))


def test_finetuning_moves_the_side_and_never_the_base():
    network, start = blended(), blended()
    phase = Phase(trains="all", epochs=3, lr=0.05, optimizer="adamw", weight_decay=0.1, anchor=0.1)
    fit(network, phase, toy_task(), rng=torch.Generator().manual_seed(0))
    before = start.state_dict()
    moved = {k for k, v in network.state_dict().items() if not torch.equal(v, before[k])}
    assert moved
    assert not any(".base." in name for name in moved)
    assert {name for name in before if ".side." in name} <= moved
    assert "backbone.stages.blend.logit" in moved


def test_the_base_evaluates_while_the_side_trains():
    network = blended().train()
    blend = network.backbone.stages["blend"]
    assert not any(part.training for part in blend.base.modules())
    assert all(part.training for part in blend.side.modules())


def test_no_parameter_of_the_base_can_be_found():
    names = [name for name, _ in blended().named_parameters()]
    assert not any(".base." in name for name in names)
    assert any(".side." in name for name in names)
