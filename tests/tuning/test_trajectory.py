"""What the heads along a probe say, at once and one by one."""

from copy import deepcopy

import pytest
import torch

from molhpft.core.evaluate import take
from molhpft.core.network import Chain, Network, cosine_head, linear_head, mlp_head
from molhpft.core.objectives import Multiclass, Multilabel
from molhpft.measure.features import energy
from molhpft.tuning.frozen_features import on_features
from molhpft.tuning.phase import Phase
from molhpft.tuning.probe import probe
from tests.toy import same_weights, toy_network, toy_task

HEAD = Phase(trains="head", epochs=1, lr=0.05, batch_size=8)
TAUS = [0, 1, 4]


def probed(network, task):
    return probe(deepcopy(network), HEAD, task, taus=TAUS, rng=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("build", [linear_head, mlp_head, cosine_head])
@pytest.mark.parametrize("objective", [Multiclass(), Multilabel()], ids=str)
@pytest.mark.parametrize("split", ["train", "valid"])
def test_snapshots_are_those_of_each_head_in_the_network(build, objective, split):
    torch.manual_seed(0)
    network = Network(toy_network(dropout=0.5).backbone, build(8, 3))
    head, task = on_features(network, toy_task(objective))
    trajectory = probed(head, task)
    taken = trajectory.snapshots(head, task, split)
    assert list(taken) == TAUS
    for tau, snapshot in taken.items():
        head.head.load_state_dict(trajectory.heads[tau])
        alone = take(head, task.batches(split, size=7))
        torch.testing.assert_close(snapshot.logits, alone.logits)
        assert torch.equal(snapshot.features, alone.features)
        assert torch.equal(snapshot.targets, alone.targets)


def test_snapshots_of_a_live_probe_are_those_of_the_whole_network():
    network, task = toy_network(dropout=0.5), toy_task()
    trajectory, before = probed(network, task), deepcopy(network)
    taken = trajectory.snapshots(network, task, "valid")
    assert same_weights(network, before)
    network.head.load_state_dict(trajectory.heads[4])
    torch.testing.assert_close(
        taken[4].logits, take(network, task.batches("valid", size=99)).logits
    )


def test_energy_falls_along_a_probe():
    head, task = on_features(toy_network(), toy_task())
    taken = probed(head, task).snapshots(head, task, "train")
    energies = [energy(snapshot, task.objective).aie for snapshot in taken.values()]
    assert energies == sorted(energies, reverse=True)


def test_looking_at_heads_leaves_the_network_as_it_is():
    head = Network(Chain({}), linear_head(6, 3))
    before = deepcopy(head)
    probed(head, toy_task()).snapshots(head, toy_task(), "valid")
    assert same_weights(head, before)
