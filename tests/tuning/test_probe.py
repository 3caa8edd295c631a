"""Cached probing against live probing."""

from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from torch import nn

from molhpft.core.network import Chain, Network, Stage
from molhpft.core.objectives import Multiclass, Multilabel
from molhpft.tuning.fit import fit
from molhpft.tuning.phase import Phase
from molhpft.tuning.probe import on_features, probe
from tests.toy import same_weights, toy_network, toy_task

HEAD = Phase(trains="head", epochs=1, lr=0.05, batch_size=8)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("objective", [Multiclass(), Multilabel()], ids=str)
def test_cached_probing_equals_live_probing(objective, smoothing):
    task, phase = toy_task(objective), replace(HEAD, epochs=7, smoothing=smoothing)
    live, cached = toy_network(dropout=0.5), toy_network(dropout=0.5)
    fit(live, phase, task, rng=seeded())
    probe(
        *on_features(cached, task)[:1], phase, on_features(cached, task)[1], taus=[7], rng=seeded()
    )
    for name, value in live.state_dict().items():
        torch.testing.assert_close(cached.state_dict()[name], value)


def test_one_trajectory_gives_the_head_of_every_tau():
    task = toy_task()
    trajectory = probe(toy_network(), HEAD, task, taus=[0, 2, 5], rng=seeded())
    assert sorted(trajectory.heads) == [0, 2, 5]
    for tau, head in trajectory.heads.items():
        alone = toy_network()
        fit(alone, replace(HEAD, epochs=tau), task, rng=seeded())
        assert all(torch.equal(v, alone.head.state_dict()[k]) for k, v in head.items())


def test_the_order_of_taus_does_not_matter():
    heads = [
        probe(toy_network(), HEAD, toy_task(), taus=taus, rng=seeded()).heads
        for taus in ([4, 1], [1, 4])
    ]
    assert all(torch.equal(heads[0][4][k], heads[1][4][k]) for k in heads[0][4])


@pytest.mark.parametrize(
    "setting", [{"schedule": "cosine"}, {"keep": "best"}, {"patience": 2}], ids=str
)
def test_settings_under_which_tau_would_depend_on_the_largest_are_refused(setting):
    with pytest.raises(ValueError, match="a probe that serves several tau needs"):
        probe(toy_network(), replace(HEAD, **setting), toy_task(), taus=[1], rng=seeded())


def test_features_of_every_split_keep_their_rows():
    network, task = toy_network(dropout=0.5), toy_task()
    head, cached = on_features(network, task)
    for split in task.splits:
        rows = task.examples.take(task.rows(split))
        stored = cached.examples.take(cached.rows(split))
        torch.testing.assert_close(stored.inputs, network.eval().features(rows).detach())
        assert torch.equal(stored.targets, rows.targets)
        torch.testing.assert_close(head(stored), network(rows))


def test_the_head_is_shared_with_the_network():
    network, task = toy_network(), toy_task()
    head, cached = on_features(network, task)
    before = deepcopy(network)
    probe(head, HEAD, cached, taus=[3], rng=seeded())
    assert not same_weights(network.head, before.head)
    assert same_weights(network.backbone, before.backbone)


class AddFirstInput(Stage):
    """A head stage that reads the batch it came from."""

    def __init__(self, width):
        super().__init__()
        self.width = width
        self.linear = nn.Linear(width, width)

    def forward(self, h, batch):
        return self.linear(h) + batch.inputs[:, :1]


def test_a_head_that_reads_the_batch_is_probed_live():
    network, task = toy_network(), toy_task()
    network = Network(
        network.backbone, Chain({"reads": AddFirstInput(8), **network.head.named_stages()})
    )
    live, same_task = on_features(network, task)
    assert live is network
    assert same_task is task
    before = deepcopy(network)
    trajectory = probe(live, HEAD, same_task, taus=[2], rng=seeded())
    assert trajectory.rows[-1]["loss"] < trajectory.rows[0]["loss"]
    assert same_weights(network.backbone, before.backbone)
