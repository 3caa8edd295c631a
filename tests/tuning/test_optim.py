import pytest
import torch

from molhpft.core.network import Network
from molhpft.tuning.optimizer import (
    backbone_rate,
    load_optimizer_tensors,
    make_optimizer,
    optimizer_tensors,
    set_learning_rate,
)
from molhpft.tuning.phase import Phase
from tests.toy import toy_network


def phase(**settings):
    return Phase(**{"trains": "all", "epochs": 1, "lr": 0.1, **settings})


def rates(network: Network, **settings):
    return [g["base_lr"] for g in make_optimizer(network, phase(**settings)).param_groups]


def test_each_stage_has_a_rate_of_its_own_head_first():
    assert rates(toy_network(), layer_decay=0.5) == pytest.approx([0.1, 0.05, 0.025])


def test_the_backbone_may_have_a_rate_of_its_own():
    assert rates(toy_network(), backbone_lr=0.01) == pytest.approx([0.1, 0.01])


@pytest.mark.parametrize("settings", [{}, {"backbone_lr": 0.01}, {"layer_decay": 0.5}])
def test_every_parameter_is_in_the_one_group_of_its_rate(settings):
    network = toy_network()
    groups = make_optimizer(network, phase(**settings)).param_groups
    assert len({g["base_lr"] for g in groups}) == len(groups)
    found = [id(p) for g in groups for p in g["params"]]
    assert sorted(found) == sorted(id(p) for p in network.parameters())


def test_a_head_phase_optimises_the_head_only():
    network = toy_network()
    groups = make_optimizer(network, phase(trains="head")).param_groups
    assert [id(p) for g in groups for p in g["params"]] == [
        id(p) for p in network.head.parameters()
    ]


@pytest.mark.parametrize(("done", "factor"), [(0.0, 1.0), (0.5, 0.5), (1.0, 0.0)])
def test_the_cosine_schedule_goes_from_one_to_zero(done, factor):
    optimizer = make_optimizer(toy_network(), phase())
    set_learning_rate(optimizer, phase(schedule="cosine"), done=done)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.1 * factor)


def test_sgd_without_momentum_steps_by_rate_times_gradient():
    network = toy_network()
    optimizer = make_optimizer(network, phase(optimizer="sgd", momentum=0.0))
    set_learning_rate(optimizer, phase(), done=0.0)
    before = [p.detach().clone() for p in network.parameters()]
    for _ in range(2):  # momentum would show in the second step
        for p in network.parameters():
            p.grad = torch.ones_like(p)
        optimizer.step()
    for p, q in zip(network.parameters(), before, strict=True):
        torch.testing.assert_close(p, q - 2 * 0.1)


def test_sgd_steps_by_its_running_sum_of_gradients():
    network = toy_network()
    optimizer = make_optimizer(network, phase(optimizer="sgd", momentum=0.5))
    set_learning_rate(optimizer, phase(), done=0.0)
    before = [p.detach().clone() for p in network.parameters()]
    for _ in range(2):
        for p in network.parameters():
            p.grad = torch.ones_like(p)
        optimizer.step()
    for p, q in zip(network.parameters(), before, strict=True):
        torch.testing.assert_close(p, q - 0.1 * (1 + 1.5))


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_state_of_sgd_survives_a_round_trip_with_and_without_momentum(momentum):
    network, settings = toy_network(), {"optimizer": "sgd", "momentum": momentum}
    optimizer = make_optimizer(network, phase(**settings))
    for p in network.parameters():
        p.grad = torch.ones_like(p)
    optimizer.step()
    other = make_optimizer(network, phase(**settings))
    load_optimizer_tensors(other, optimizer_tensors(optimizer))
    assert optimizer_tensors(other).keys() == optimizer_tensors(optimizer).keys()
    assert len(optimizer_tensors(other)) == (len(list(network.parameters())) if momentum else 0)


def test_moments_survive_a_round_trip():
    network = toy_network()
    optimizer = make_optimizer(network, phase())
    for p in network.parameters():
        p.grad = torch.ones_like(p)
    optimizer.step()
    other = make_optimizer(network, phase())
    load_optimizer_tensors(other, optimizer_tensors(optimizer))
    before, after = optimizer_tensors(optimizer), optimizer_tensors(other)
    assert before.keys() == after.keys()
    assert len(before) == 3 * len(list(network.parameters()))
    assert all(torch.equal(before[k], after[k]) for k in before)


@pytest.mark.parametrize(
    ("settings", "rate"),
    [
        ({}, 0.1),
        ({"backbone_lr": 0.02}, 0.02),
        ({"layer_decay": 0.5}, 0.05),
        ({"backbone_lr": 0.3, "layer_decay": 0.5}, 0.15),
        ({"trains": "head"}, 0.0),
    ],
    ids=str,
)
def test_the_rate_of_the_backbone_is_that_of_its_fastest_stage(settings, rate):
    assert backbone_rate(toy_network(), phase(**settings)) == pytest.approx(rate)


def test_a_stage_that_is_frozen_has_no_rate():
    network = toy_network()
    network.backbone.stages["layer1"].requires_grad_(False)
    assert backbone_rate(network, phase(layer_decay=0.5)) == pytest.approx(0.025)
    network.backbone.requires_grad_(False)
    assert backbone_rate(network, phase()) == 0.0


@pytest.mark.parametrize("decay", [0.0, 0.3])
@pytest.mark.parametrize(("name", "kind"), [("adam", "Adam"), ("adamw", "AdamW"), ("sgd", "SGD")])
def test_an_optimizer_is_torchs_own_with_the_settings_of_the_phase(name, kind, decay):
    optimizer = make_optimizer(toy_network(), phase(optimizer=name, weight_decay=decay))
    assert type(optimizer) is getattr(torch.optim, kind)
    for group in optimizer.param_groups:
        assert (group["lr"], group["weight_decay"]) == (0.1, decay)
        assert group["fused"]


def test_a_rate_of_its_own_is_kept_through_a_schedule():
    optimizer = make_optimizer(toy_network(), phase(layer_decay=0.5))
    set_learning_rate(optimizer, phase(schedule="cosine"), done=0.5)
    assert [g["lr"] for g in optimizer.param_groups] == pytest.approx([0.05, 0.025, 0.0125])
    set_learning_rate(optimizer, phase(), done=0.5)
    assert [g["lr"] for g in optimizer.param_groups] == pytest.approx([0.1, 0.05, 0.025])
