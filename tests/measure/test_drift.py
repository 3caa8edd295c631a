from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from torch import nn

from molhpft.core.evaluate import take
from molhpft.core.network import Chain, Network, Plain, linear_head
from molhpft.measure.features import batch_norm_drift, shift
from molhpft.tuning.fit import fit
from molhpft.tuning.phase import Phase
from tests.toy import toy_network, toy_task


def seeded():
    return torch.Generator().manual_seed(3)


@pytest.fixture
def task():
    return toy_task()


def features(network, task):
    return take(network, task.batches("train", size=8)).features


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_drift_is_what_finetuning_at_learning_rate_zero_does(task, dropout):
    network = toy_network(dropout=dropout)
    drift = batch_norm_drift(network, task, epochs=3, rng=seeded(), size=8)
    tuned = deepcopy(network)
    # a rate so small that float32 weights do not change: a phase refuses 0
    phase = Phase(trains="all", epochs=3, lr=1e-30, batch_size=8, optimizer="sgd")
    fit(tuned, phase, task, rng=seeded())
    assert drift == shift(features(network, task), features(tuned, task))
    assert drift.distance > 0.1


def test_a_network_without_batch_norm_does_not_drift(task):
    layer = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Dropout(0.5))
    network = Network(Chain({"layer": Plain(layer, width=8)}), linear_head(8, 3))
    assert batch_norm_drift(network, task, epochs=2, rng=seeded()).distance == 0


def test_nothing_drifts_in_no_epochs(task):
    assert batch_norm_drift(toy_network(), task, epochs=0, rng=seeded()).distance == 0


def test_statistics_that_have_arrived_drift_no_more(task):
    # one batch an epoch and no dropout: every epoch pulls to the same statistics
    network = toy_network()
    network.train()
    batch = next(task.batches("train", size=1024))
    for _ in range(300):
        network(batch)
    assert batch_norm_drift(network, task, epochs=2, rng=seeded()).distance < 1e-5


def test_inputs_farther_from_the_statistics_drift_farther(task):
    rows = replace(task.examples, inputs=3 * task.examples.inputs + 2)
    near, far = (
        batch_norm_drift(toy_network(), t, epochs=1, rng=seeded())
        for t in (task, replace(task, examples=rows))
    )
    assert far.distance > near.distance


def test_the_generator_decides_all(task):
    a, b, other = (
        batch_norm_drift(toy_network(dropout=0.5), task, epochs=1, rng=rng, size=8)
        for rng in (seeded(), seeded(), torch.Generator().manual_seed(4))
    )
    assert a == b
    assert a != other


def test_epochs_cannot_be_negative(task):
    with pytest.raises(ValueError, match=r"^epochs is at least 0, got -1"):
        batch_norm_drift(toy_network(), task, epochs=-1, rng=seeded())


def test_batches_are_by_default_as_long_as_those_of_a_phase():
    task = toy_task(n=3 * 129)
    drift = batch_norm_drift(toy_network(), task, epochs=1, rng=seeded())
    tuned = toy_network()
    phase = Phase(trains="all", epochs=1, lr=1e-30, optimizer="sgd")
    fit(tuned, phase, task, rng=seeded())
    expected = shift(features(toy_network(), task), features(tuned, task))
    assert drift.distance == pytest.approx(expected.distance, rel=1e-5)
