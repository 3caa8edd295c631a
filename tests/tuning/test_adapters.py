"""Adapters against LoRA as it is usually written: frozen maps with a trained branch beside each."""

from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from molhpft.core.network import Chain, Network, Plain, side_tuned
from molhpft.tuning.adapters import Adapter, adapted, check_adapters
from molhpft.tuning.fit import fit
from molhpft.tuning.phase import OF_BACKBONE, Phase
from tests.runs import network_of, task_of
from tests.toy import same_weights, seeded, toy_network, toy_task

FT = Phase(trains="all", epochs=3, lr=0.05, batch_size=10, batch_norm="frozen", adapter_rank=2)
MAPS = ("layer0", "layer1")


class Beside(nn.Module):
    """`W_0 x + b + s B A x`, with everything but `A`, `B` and perhaps `s` frozen."""

    def __init__(self, linear, rank, scaling, rng):
        super().__init__()
        self.linear = linear.requires_grad_(False)
        self.a = nn.Parameter(torch.randn(rank, linear.in_features, generator=rng))
        self.a.data /= linear.in_features**0.5
        self.b = nn.Parameter(torch.zeros(linear.out_features, rank))
        self.s = nn.Parameter(torch.tensor(scaling or 1.0), requires_grad=scaling is not None)

    def forward(self, x):
        return self.linear(x) + self.s * F.linear(F.linear(x, self.a), self.b)

    def merged(self):
        return self.linear.weight + self.s * self.b @ self.a


def by_hand(phase, *, seed=0):
    """A network with branches, trained by autograd and torch's optimizer."""
    network, rng = toy_network(dropout=0.3).train(), seeded(seed)
    branches = {}
    for name in MAPS:
        module = network.backbone.stages[name].module
        module[1].requires_grad_(False).eval()
        branches[name] = Beside(module[0], phase.adapter_rank, phase.adapter_scaling, rng)
        module[0] = branches[name]
    kind = {"adam": torch.optim.Adam, "sgd": torch.optim.SGD}[phase.optimizer]
    more = {"momentum": phase.momentum} if phase.optimizer == "sgd" else {}
    trained = [p for p in network.parameters() if p.requires_grad]
    optimizer = kind(trained, lr=phase.lr, weight_decay=phase.weight_decay, **more)
    task, rng = toy_task(), seeded(seed)
    rows = task.rows("train")
    for _ in range(phase.epochs):
        dropout = int(torch.randint(2**62, (), generator=rng))
        order = rows[torch.randperm(len(rows), generator=rng)]
        for step, some in enumerate(order.tensor_split(len(rows) // phase.batch_size)):
            torch.manual_seed(dropout + step)
            batch = task.examples.take(some)
            optimizer.zero_grad()
            F.cross_entropy(network(batch), batch.targets).backward()
            optimizer.step()
    return network, branches


def tuned(phase, network=None):
    network = network or toy_network(dropout=0.3)
    fit(network, phase, toy_task(), rng=seeded())
    return network


@pytest.mark.parametrize(
    "setting",
    [
        {},
        {"adapter_scaling": 0.01},
        {"optimizer": "sgd", "lr": 0.2},
        {"optimizer": "sgd", "lr": 0.2, "adapter_scaling": 0.5},
        {"weight_decay": 0.1},
        {"adapter_rank": 1},
    ],
    ids=str,
)
def test_a_phase_is_training_a_branch_beside_each_frozen_map(setting):
    phase = replace(FT, **setting)
    network, (theirs, branches) = tuned(phase), by_hand(phase)
    for name in MAPS:
        weight = network.backbone.stages[name].module[0].weight
        torch.testing.assert_close(weight, branches[name].merged(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(
        network.head.state_dict(), theirs.head.state_dict(), rtol=1e-4, atol=1e-5
    )


def test_all_but_maps_and_the_head_stays_as_it_is():
    network, start = tuned(FT), toy_network(dropout=0.3)
    before = start.backbone.state_dict()
    moved = {k for k, v in network.backbone.state_dict().items() if not torch.equal(v, before[k])}
    assert moved == {f"stages.{name}.module.0.weight" for name in MAPS}
    assert not same_weights(network.head, start.head)


def adapter_of(shape, *, scaling):
    weight = nn.Parameter(torch.randn(shape, generator=seeded(1)))
    adapter = Adapter(weight, rank=2, scaling=scaling, rng=seeded(2))
    with torch.no_grad():
        adapter.up.normal_(generator=seeded(3))
        adapter.merge()
    return weight, adapter


def test_an_adapter_of_a_convolution_is_one_to_few_channels_with_another_behind_it():
    weight, adapter = adapter_of((5, 3, 3, 3), scaling=0.5)
    x = torch.randn(2, 3, 6, 6, generator=seeded(4))
    few = F.conv2d(x, adapter.down.view(2, 3, 3, 3), padding=1)
    expected = F.conv2d(x, adapter.start, padding=1) + 0.5 * F.conv2d(
        few, adapter.up[:, :, None, None]
    )
    torch.testing.assert_close(F.conv2d(x, weight, padding=1), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("shape", [(5, 7), (5, 3, 3, 3)])
@pytest.mark.parametrize("scaling", [None, 0.3])
def test_gradients_are_those_of_autograd(shape, scaling):
    weight, adapter = adapter_of(shape, scaling=scaling)
    gradient = torch.randn(shape, generator=seeded(5))
    change = (scaling or 1.0) * adapter.up @ adapter.down
    if adapter.scaling is not None:
        change = adapter.scaling * adapter.up @ adapter.down
    parameters = list(adapter.parameters.values())
    expected = torch.autograd.grad((gradient * change.view(shape)).sum(), parameters)
    weight.grad = gradient
    with torch.no_grad():
        adapter.take_gradient()
    assert weight.grad is None
    for parameter, g in zip(parameters, expected, strict=True):
        torch.testing.assert_close(parameter.grad, g)


def test_stages_that_are_not_trained_and_weights_that_the_caller_froze_have_no_adapter():
    start = toy_network(dropout=0.3)
    for network in (tuned(replace(FT, stages=("layer1",))), frozen_below()):
        assert same_weights(network.backbone.stages["layer0"], start.backbone.stages["layer0"])
        weights = [n.backbone.stages["layer1"].module[0].weight for n in (network, start)]
        assert not torch.equal(*weights)


def frozen_below():
    network = toy_network(dropout=0.3)
    network.backbone.stages["layer0"].module[0].weight.requires_grad_(False)
    return tuned(FT, network)


def test_a_stage_that_waits_for_its_turn_begins_to_change_then():
    phase = replace(FT, unfreeze_every=2)
    network, start = tuned(replace(phase, epochs=2)), toy_network(dropout=0.3)
    assert same_weights(network.backbone.stages["layer0"], start.backbone.stages["layer0"])
    lowest = tuned(phase).backbone.stages["layer0"]
    assert not same_weights(lowest, start.backbone.stages["layer0"])


def test_an_anchor_is_on_the_weights_that_the_network_has():
    def distance(anchor):
        network, start = tuned(replace(FT, anchor=anchor)), toy_network()
        return sum(
            (p - q).square().sum().item()
            for p, q in zip(network.backbone.parameters(), start.backbone.parameters(), strict=True)
        )

    assert distance(1.0) < 0.5 * distance(0.0)


def test_a_side_network_has_adapters_and_its_frozen_base_has_none():
    network = toy_network(dropout=0.3)
    network = tuned(FT, Network(side_tuned(network.backbone), network.head))
    blend, start = network.backbone.stages["blend"], toy_network(dropout=0.3).backbone
    assert same_weights(blend.base, start)
    assert not same_weights(blend.side, start)


@pytest.mark.parametrize("rank", [0, 2])
def test_parameters_require_gradients_as_before_even_after_an_error(rank):
    network = toy_network()
    network.backbone.stages["layer0"].requires_grad_(False)
    before = [p.requires_grad for p in network.parameters()]

    def failing():
        with adapted(network, replace(FT, adapter_rank=rank), rng=seeded()):
            assert [p.requires_grad for p in network.parameters()] != before
            raise KeyError

    with pytest.raises(KeyError):
        failing()
    assert [p.requires_grad for p in network.parameters()] == before


def test_there_must_be_something_to_put_adapters_on():
    table = Plain(nn.Embedding(3, 4), width=4)
    norm = Plain(nn.BatchNorm1d(4), width=4)
    backbone = Chain({"table": table, "norm": norm})
    network = Network(backbone, toy_network().head)
    for check in (
        lambda: check_adapters(backbone, FT),
        adapted(network, FT, rng=seeded()).__enter__,
    ):
        with pytest.raises(ValueError, match=r"the stages that are trained \(table, norm\) have"):
            check()
    check_adapters(backbone, replace(FT, adapter_rank=0))


OF_A_BACKBONE = {
    "backbone_lr": 0.5,
    "layer_decay": 0.5,
    "stages": ("conv0",),
    "unfreeze_every": 1,
    "anchor": 5.0,
    "stage_anchor": 5.0,
    "feature_anchor": 5.0,
    "spectral_shrinkage": 5.0,
    "node_transport": 5.0,
    "running_statistics": 0.5,
    "adapter_scaling": 0.5,
    "batch_norm": "frozen",
}


def test_of_a_backbone_with_adapters_of_rank_0_no_setting_changes_a_bit(small):
    config = small()
    task, start = task_of(config), network_of(config)

    def trained(**settings):
        network = deepcopy(start)
        phase = Phase(trains="all", epochs=2, lr=0.05, adapter_rank=0, **settings)
        fit(network, phase, task, rng=seeded())
        return network

    plain = trained()
    assert not same_weights(plain.head, start.head)
    assert sorted(OF_A_BACKBONE) == sorted({*OF_BACKBONE} - {"adapter_rank"})
    changing = [k for k, v in OF_A_BACKBONE.items() if not same_weights(trained(**{k: v}), plain)]
    assert changing == []
