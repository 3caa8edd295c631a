import torch

from molhpft.core.network import Network
from molhpft.core.side import side_tuned
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
