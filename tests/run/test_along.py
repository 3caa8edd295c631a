"""What is said along a probe is what each head says by itself, however many are taken at once."""

import pytest
import torch

from molhpft.measure.features import initial_energy
from molhpft.run import trajectory as along
from molhpft.run.trajectory import at_taus, head_energies, head_rows, without_test
from molhpft.tuning.frozen_features import on_features
from molhpft.tuning.phase import Phase
from molhpft.tuning.probe import probe_many
from tests.toy import toy_network, toy_task

TAUS = (0, 1, 3, 8)


@pytest.fixture(params=["features", "live"])
def probed(request):
    network, task = toy_network(), without_test(toy_task())
    if request.param == "features":
        network, task = on_features(network, task)
    phase = Phase(trains="head", epochs=8, lr=0.05, batch_size=8)
    rng = torch.Generator().manual_seed(0)
    ((trajectory,),) = probe_many([network], [phase], task, taus=TAUS, rngs=[rng])
    return trajectory, network, task


@pytest.mark.parametrize("together", [1, 100, 2**26])
def test_looks_are_those_of_each_snapshot(probed, monkeypatch, together):
    trajectory, network, task = probed
    monkeypatch.setattr(along, "_LOGITS", together)
    found = head_rows(trajectory, network, task)
    train, valid = (trajectory.snapshots(network, task, split) for split in ("train", "valid"))
    assert tuple(found) == TAUS
    for tau, seen in found.items():
        assert seen["aie"] == pytest.approx(initial_energy(train[tau], task.objective))
        for split, snapshot in (("train", train[tau]), ("valid", valid[tau])):
            assert seen[split] == task.objective.score(snapshot.logits, snapshot.targets)
    assert head_energies(trajectory, network, task) == {tau: s["aie"] for tau, s in found.items()}


def test_only_keeps_the_heads_that_are_named(probed):
    trajectory, *_ = probed
    some = at_taus(trajectory, {3, 0, 99})
    assert tuple(some.heads) == (0, 3)
    assert some.rows == trajectory.rows


def test_a_task_without_its_test_split_has_the_other_two():
    task = toy_task()
    blind = without_test(task)
    assert list(blind.splits) == ["train", "valid"]
    assert all(torch.equal(blind.rows(split), task.rows(split)) for split in blind.splits)
