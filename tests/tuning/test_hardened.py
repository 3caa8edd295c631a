"""Hardened probes against UDP as one would write it: a step along the gradient of the entropy."""

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.distributions import Bernoulli, Categorical

from molhpft.core.network import Batch, Chain, Plain
from molhpft.core.objectives import Multiclass, Multilabel, Squared
from molhpft.tuning.fit import fit
from molhpft.tuning.frozen_features import on_features
from molhpft.tuning.hardened import hardened, less_certain
from molhpft.tuning.phase import Phase
from molhpft.tuning.probe import probe, probe_many
from tests.toy import (
    NAN,
    reading_network,
    same_weights,
    seeded,
    toy_network,
    toy_task,
    without_labels,
)

HEAD = Phase(trains="head", epochs=3, lr=0.05, batch_size=10, perturbation=0.5)


def entropy_of(objective, logits):
    """Of each example, by torch's distributions."""
    if isinstance(objective, Multilabel):
        return Bernoulli(logits=logits).entropy().sum(1)
    return Categorical(logits=logits).entropy()


def by_hand(network, phase, task):
    """A probe on perturbed features in plain torch."""
    network.backbone.eval()
    optimizer, rng = torch.optim.Adam(network.head.parameters(), lr=phase.lr), seeded()
    rows = task.rows("train")
    for _ in range(phase.epochs):
        torch.randint(2**62, (), generator=rng)
        order = rows[torch.randperm(len(rows), generator=rng)]
        for some in order.tensor_split(len(rows) // phase.batch_size):
            batch = task.examples.take(some)
            z = network.features(batch).detach().requires_grad_()
            entropy = entropy_of(task.objective, network.head(z, batch)).sum()
            (g,) = torch.autograd.grad(entropy, z)
            moved = (z + phase.perturbation * g / g.norm(dim=1, keepdim=True)).detach()
            optimizer.zero_grad()
            task.objective.loss(network.head(moved, batch), batch.targets).backward()
            optimizer.step()
    return network


@pytest.mark.parametrize("objective", [Multiclass(), Multilabel()], ids=str)
@pytest.mark.parametrize("size", [0.1, 2.0])
def test_a_hardened_probe_is_uncertainty_driven_perturbation_of_the_features(objective, size):
    phase, task, network = replace(HEAD, perturbation=size), toy_task(objective), toy_network()
    theirs = by_hand(toy_network(), phase, task)
    fit(network, phase, task, rng=seeded())
    torch.testing.assert_close(network.state_dict(), theirs.state_dict(), rtol=1e-4, atol=1e-5)


def a_head(width=8, outputs=3):
    torch.manual_seed(0)
    linear, norm = nn.Linear(width, outputs), nn.BatchNorm1d(width)
    return Chain(
        {
            "norm": Plain(nn.Sequential(norm, nn.Dropout(0.5)), width=width),
            "linear": Plain(linear, width=outputs),
        }
    )


@pytest.mark.parametrize("size", [0.1, 0.7])
def test_each_row_moves_by_the_size_and_becomes_less_certain(size):
    head, z, objective = a_head().eval(), torch.randn(20, 8), Multiclass()
    batch = Batch(z, torch.arange(20) % 3)
    moved = less_certain(head, z, batch, objective, size=size)
    torch.testing.assert_close((moved - z).norm(dim=1), torch.full((20,), size))
    if size == 0.1:
        before, after = (entropy_of(objective, head(x, batch)) for x in (z, moved))
        assert (after > before).all()


def test_the_head_is_left_as_it_is_and_drops_nothing_meanwhile():
    head, z = a_head().train(), torch.randn(20, 8)
    batch, before = Batch(z, torch.arange(20) % 3), a_head().train()
    state = torch.get_rng_state()
    moved = less_certain(head, z, batch, Multiclass(), size=0.5)
    assert torch.equal(state, torch.get_rng_state())
    assert same_weights(head, before)
    assert all(module.training for module in head.modules())
    assert torch.equal(moved, less_certain(head.eval(), z, batch, Multiclass(), size=0.5))


def test_what_is_not_measured_moves_nothing():
    head, z = a_head().eval(), torch.randn(4, 8)
    y = torch.tensor([[1.0, 0.0, NAN], [1.0, 0.0, NAN], [NAN, NAN, NAN], [1.0, 1.0, 1.0]])
    moved = less_certain(head, z, Batch(z, y), Multilabel(), size=0.5)
    broken = a_head().eval()
    broken.stages["linear"].module.bias.data[2] = 3.0
    again = less_certain(broken, z, Batch(z, y), Multilabel(), size=0.5)
    assert torch.equal(moved[:3], again[:3])
    assert torch.equal(moved[2], z[2])
    assert not torch.equal(moved[3], again[3])


def test_every_position_of_a_map_moves_by_the_size():
    torch.manual_seed(0)
    head = Chain({"conv": Plain(nn.Conv2d(4, 3, 1), width=3)})
    z, y = torch.randn(2, 4, 5, 5), torch.zeros(2, 5, 5, dtype=torch.long)
    moved = less_certain(head, z, Batch(z, y), Multiclass(), size=0.5)
    torch.testing.assert_close((moved - z).norm(dim=1), torch.full((2, 5, 5), 0.5))


@pytest.mark.parametrize("objective", [Multiclass(), Multilabel()], ids=str)
def test_probing_on_cached_features_is_probing_live(objective):
    network, task = toy_network(), without_labels(toy_task(objective), 0.2)
    head, features = on_features(network, task)
    cached = probe(head, HEAD, features, taus=[1, 3], rng=seeded())
    for tau in (1, 3):
        live = toy_network()
        fit(live, replace(HEAD, epochs=tau), task, rng=seeded())
        torch.testing.assert_close(cached.heads[tau], live.head.state_dict(), rtol=1e-4, atol=1e-5)


def test_phases_of_several_sizes_are_probed_side_by_side():
    network, task = on_features(toy_network(), toy_task())
    phases = [replace(HEAD, perturbation=size) for size in (0.0, 0.5, 0.0)]
    (plain,), (moved,), (again,) = probe_many([network], phases, task, taus=[3], rngs=[seeded()])
    alone = probe(network, phases[1], task, taus=[3], rng=seeded())
    keys = [*plain.heads[3]]
    assert all(torch.equal(moved.heads[3][k], alone.heads[3][k]) for k in keys)
    assert all(torch.equal(plain.heads[3][k], again.heads[3][k]) for k in keys)
    assert not torch.equal(plain.heads[3][keys[0]], moved.heads[3][keys[0]])


def test_heads_that_read_the_batch_can_be_hardened():
    network, start = reading_network(), reading_network()
    fit(network, HEAD, toy_task(), rng=seeded())
    assert same_weights(network.backbone, start.backbone)
    assert not same_weights(network.head, start.head)


def test_a_regression_is_refused():
    with pytest.raises(ValueError, match="predicts no probabilities, which a perturbation would"):
        fit(toy_network(), HEAD, toy_task(Squared()), rng=seeded())


def test_a_head_reads_what_it_is_given_again_even_after_an_error():
    network, batch = toy_network(), toy_task().examples.take(torch.arange(5))
    logits = network(batch)

    def failing():
        with hardened(network.head, Multiclass(), size=0.5):
            assert not torch.equal(network(batch), logits)
            raise KeyError

    with pytest.raises(KeyError):
        failing()
    assert torch.equal(network(batch), logits)
