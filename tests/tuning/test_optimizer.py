"""Optimizers of a phase: torch's own, with a learning rate for each stage."""

import pytest
import torch
from torch import nn

from molhpft.core.network import Chain, Network, Plain
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
        ({"unfreeze_every": 1}, [0.1, 0.1, 0.1], 0.1),
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


def test_stages_without_weights_are_no_distance_from_the_head():
    network, plain = toy_network(), nn.Identity()
    stages = {"pool": Plain(plain, width=6), **network.backbone.named_stages()}
    pooled = Chain({**stages, "last": Plain(plain, width=8)})
    settings = {"layer_decay": 0.5, "backbone_lr": 0.3}
    assert rates(Network(pooled, network.head), **settings) == rates(network, **settings)


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
        set_learning_rate(optimizer, phase(**settings), done=done, steps=4)
        rates_now = [group["lr"] for group in optimizer.param_groups]
        assert rates_now == pytest.approx([0.1 * now, 0.05 * now, 0.025 * now])


def along(settings, *, steps):
    """The rates of the head and of the stage below it, at each step of a phase."""
    optimizer = make_optimizer(toy_network(), phase(layer_decay=0.5, **settings))
    rows = []
    for step in range(steps):
        set_learning_rate(optimizer, phase(**settings), done=step / steps, steps=steps)
        rows.append([group["lr"] for group in optimizer.param_groups[:2]])
    return rows


def warmed_up(optimizer, *, steps, warmup, cosine):
    """Torch's own linear warm-up, then its cosine, or its constant rate."""
    rising = round(warmup * steps)
    schedules = torch.optim.lr_scheduler
    later = schedules.CosineAnnealingLR(optimizer, steps - rising)
    first = schedules.LinearLR(optimizer, 1 / rising, total_iters=max(1, rising - 1))
    later = later if cosine else schedules.ConstantLR(optimizer, factor=1.0)
    return schedules.SequentialLR(optimizer, [first, later], [rising])


def one_cycle(optimizer, *, steps, warmup):
    peaks = [group["base_lr"] for group in optimizer.param_groups]
    return torch.optim.lr_scheduler.OneCycleLR(
        optimizer, peaks, total_steps=steps, pct_start=warmup, cycle_momentum=False
    )


@pytest.mark.parametrize(("steps", "warmup"), [(20, 0.1), (20, 0.5), (8, 0.25), (30, 0.9)])
@pytest.mark.parametrize("schedule", ["constant", "cosine", "one_cycle"])
def test_a_schedule_is_torchs_own_at_every_step(schedule, steps, warmup):
    optimizer = make_optimizer(toy_network(), phase(layer_decay=0.5))
    for group in optimizer.param_groups:
        group["lr"] = group["base_lr"]
    if schedule == "one_cycle":
        theirs = one_cycle(optimizer, steps=steps, warmup=warmup)
    else:
        is_cosine = schedule == "cosine"
        theirs = warmed_up(optimizer, steps=steps, warmup=warmup, cosine=is_cosine)
    expected = []
    for _ in range(steps):
        expected.append([group["lr"] for group in optimizer.param_groups[:2]])
        optimizer.step()
        if len(expected) < steps:
            theirs.step()
    ours = along({"schedule": schedule, "warmup": warmup}, steps=steps)
    torch.testing.assert_close(torch.tensor(ours), torch.tensor(expected), rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("steps", [1, 2, 3])
@pytest.mark.parametrize("schedule", ["constant", "cosine", "one_cycle"])
@pytest.mark.parametrize("warmup", [0.01, 0.5, 0.99])
def test_no_step_of_a_short_phase_is_lost_to_its_schedule(schedule, warmup, steps):
    for head, stage in along({"schedule": schedule, "warmup": warmup}, steps=steps):
        assert 0 < stage < head <= 0.1


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
