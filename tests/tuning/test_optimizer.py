"""Optimizers of a phase: torch's own, with a learning rate for each stage."""

import pytest
import torch

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


def rates(network, **settings):
    return [g["base_lr"] for g in make_optimizer(network, phase(**settings)).param_groups]


def with_gradients(network):
    for p in network.parameters():
        p.grad = torch.ones_like(p)
    return network


@pytest.mark.parametrize("decay", [0.0, 0.3])
@pytest.mark.parametrize(("name", "kind"), [("adam", "Adam"), ("adamw", "AdamW"), ("sgd", "SGD")])
def test_an_optimizer_is_torchs_own_with_the_settings_of_the_phase(name, kind, decay):
    optimizer = make_optimizer(toy_network(), phase(optimizer=name, weight_decay=decay))
    assert type(optimizer) is getattr(torch.optim, kind)
    for group in optimizer.param_groups:
        assert (group["lr"], group["weight_decay"]) == (0.1, decay)
        assert group["fused"]


@pytest.mark.parametrize(
    ("settings", "groups", "backbone"),
    [
        ({}, [0.1], 0.1),
        ({"backbone_lr": 0.02}, [0.1, 0.02], 0.02),
        ({"layer_decay": 0.5}, [0.1, 0.05, 0.025], 0.05),
        ({"backbone_lr": 0.3, "layer_decay": 0.5}, [0.1, 0.15, 0.075], 0.15),
        ({"trains": "head"}, [0.1], 0.0),
    ],
    ids=str,
)
def test_every_stage_has_the_rate_of_its_distance_from_the_head(settings, groups, backbone):
    network = toy_network()
    assert rates(network, **settings) == pytest.approx(groups)
    assert backbone_rate(network, phase(**settings)) == pytest.approx(backbone)
    trained = network.head if settings.get("trains") == "head" else network
    grouped = [
        p for g in make_optimizer(network, phase(**settings)).param_groups for p in g["params"]
    ]
    assert sorted(map(id, grouped)) == sorted(map(id, trained.parameters()))


def test_a_stage_that_is_frozen_has_no_rate():
    network = toy_network()
    network.backbone.stages["layer1"].requires_grad_(False)
    assert backbone_rate(network, phase(layer_decay=0.5)) == pytest.approx(0.025)
    network.backbone.requires_grad_(False)
    assert backbone_rate(network, phase()) == 0.0


@pytest.mark.parametrize(("done", "factor"), [(0.0, 1.0), (0.25, 0.853553), (0.5, 0.5), (1.0, 0.0)])
def test_the_cosine_schedule_takes_every_rate_from_itself_to_zero(done, factor):
    optimizer = make_optimizer(toy_network(), phase(layer_decay=0.5))
    for settings, now in (({"schedule": "cosine"}, factor), ({}, 1.0)):
        set_learning_rate(optimizer, phase(**settings), done=done)
        rates_now = [group["lr"] for group in optimizer.param_groups]
        assert rates_now == pytest.approx([0.1 * now, 0.05 * now, 0.025 * now])


@pytest.mark.parametrize(("momentum", "way"), [(0.0, 2.0), (0.5, 1 + 1.5)])
def test_sgd_steps_by_its_running_sum_of_gradients(momentum, way):
    network = toy_network()
    optimizer = make_optimizer(network, phase(optimizer="sgd", momentum=momentum))
    before = [p.detach().clone() for p in network.parameters()]
    for _ in range(2):
        with_gradients(network)
        optimizer.step()
    for p, q in zip(network.parameters(), before, strict=True):
        torch.testing.assert_close(p, q - 0.1 * way)


@pytest.mark.parametrize(
    ("settings", "tensors"),
    [
        ({}, 3),
        ({"optimizer": "sgd"}, 1),
        ({"optimizer": "sgd", "momentum": 0.0}, 0),
    ],
    ids=str,
)
def test_moments_survive_a_round_trip(settings, tensors):
    network = with_gradients(toy_network())
    optimizer, other = (make_optimizer(network, phase(**settings)) for _ in range(2))
    optimizer.step()
    load_optimizer_tensors(other, optimizer_tensors(optimizer))
    before, after = optimizer_tensors(optimizer), optimizer_tensors(other)
    assert before.keys() == after.keys()
    assert len(before) == tensors * len(list(network.parameters()))
    assert all(torch.equal(before[k], after[k]) for k in before)
